"""Sinks: each row exactly once, whenever its sender dies, and no faster than hosts keep up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest

import lungfish
from lungfish.runtime.blocking.client import BlockingClient
from lungfish.runtime.client import sinks
from lungfish.runtime.client.client import Client
from lungfish.runtime.errors import (
    InvalidArguments,
    InvalidId,
    NotRegistered,
    Overloaded,
    SerializationError,
    StoreUnavailable,
    UsageError,
)
from lungfish.runtime.store.store import Append, Appended, HubMeta, partition_target
from lungfish.runtime.testing.memory_store import MemoryServer, MemoryStore
from tests.unit.hub import PARTITIONS, Hub, hub_of
from tests.virtual import virtually

app = lungfish.App("sinks")
ROWS = [(f"k{number % 7}", number) for number in range(60)]


@app.entity
class Log(lungfish.Entity):
    rows: list[int] = []

    def add(self, row: int) -> None:
        self.rows.append(row)


class Dies(Exception):
    """The sender's process."""


class SenderStore(MemoryStore):
    """A sender's store handle: counts its appends, and dies before, amid or after one of them."""

    def __init__(self, server: MemoryServer, hub: str) -> None:
        super().__init__(server, hub)
        self.appends = 0
        self.dies_at = 0
        self.when = "before"
        self.before_append: Callable[[], object] = lambda: None

    async def append(self, appends: Sequence[Append]) -> list[Appended]:
        self.appends += 1
        self.before_append()
        if self.dies_at == self.appends:
            applied = {"before": appends[:0], "half": appends[::2], "after": appends}
            await super().append(applied[self.when])
            raise Dies
        return await super().append(appends)


def sender(hub: Hub) -> tuple[Client, SenderStore]:
    store = SenderStore(hub.server, hub.name)
    return Client(lambda: store, app), store


async def write(client: Client, rows: Any = ROWS, **options: Any) -> lungfish.SinkResult:
    chosen = {"key": lambda row: row[0], "args": lambda row: row[1:], "batch_rows": 7, **options}
    return await client.sink("flights").write(Log, Log.add, rows, **chosen)


def expected(rows: Sequence[tuple[str, int]] = ROWS) -> dict[str, list[int]]:
    return {key: [n for k, n in rows if k == key] for key in dict.fromkeys(k for k, _ in rows)}


async def applied(hub: Hub) -> dict[str, list[int]]:
    async with hub.client() as client:
        found: dict[str, list[int]] = {}
        for key in [f"k{number}" for number in range(7)]:
            await client.entity(Log, key).call("add", -1)
            state = await client.entity(Log, key).state()
            assert state is not None
            found[key] = [row for row in state.rows if row != -1]
        return found


def on_a_hub(test: Callable[[Hub], Any], **options: Any) -> None:
    async def run() -> None:
        async with hub_of(app, **options) as hub:
            await hub.start_all("a")
            await test(hub)

    virtually(run)


def test_rows_are_applied_once_and_in_order() -> None:
    async def test(hub: Hub) -> None:
        async with hub.client() as client:
            assert await write(client) == lungfish.SinkResult(60, 0, 60)
            assert await client.sink("flights").position() == 60
            assert await write(client) == lungfish.SinkResult(0, 60, 60)
            more = [*ROWS, ("k3", 60), ("k4", 61)]
            assert await write(client, more) == lungfish.SinkResult(2, 60, 62)
        assert await applied(hub) == expected(more)

    on_a_hub(test)


@pytest.mark.parametrize("when", ["before", "half", "after"])
def test_senders_that_all_die_get_there_in_the_end(when: str) -> None:
    async def test(hub: Hub) -> None:
        died = 0
        while died < 100:
            client, store = sender(hub)
            store.dies_at, store.when = (1 if when == "after" else 2), when
            async with client:
                try:
                    assert (await write(client)).position == len(ROWS)
                except Dies:
                    died += 1
                    continue
                break
        assert 4 <= died < 100
        assert await applied(hub) == expected()

    on_a_hub(test)


@pytest.mark.parametrize("dies_at", range(1, 11))
@pytest.mark.parametrize("when", ["before", "half", "after"])
@pytest.mark.parametrize("again", [1, 5, 100])
def test_a_sender_dies_at_any_append_and_the_next_one_has_other_batches(
    dies_at: int, when: str, again: int
) -> None:
    async def test(hub: Hub) -> None:
        client, store = sender(hub)
        store.dies_at, store.when = dies_at, when
        async with client:
            if dies_at <= 9:
                with pytest.raises(Dies):
                    await write(client)
        async with hub.client() as client:
            await write(client, batch_rows=again)
        assert await applied(hub) == expected()

    on_a_hub(test)


@pytest.mark.parametrize("at", range(1, 10))
def test_two_senders_at_once_double_nothing(at: int) -> None:
    async def test(hub: Hub) -> None:
        client, store = sender(hub)
        async with hub.client() as other, client:
            second: list[asyncio.Task[Any]] = []

            def overtake() -> None:
                if store.appends == at:
                    second.append(asyncio.create_task(write(other, batch_rows=5)))

            store.before_append = overtake
            await write(client)
            await asyncio.gather(*second)
        assert await applied(hub) == expected()

    on_a_hub(test)


def test_one_that_is_overtaken_while_a_row_waits_for_room_leaves_it_out() -> None:
    async def test(hub: Hub) -> None:
        (fast, _), (slow, store) = sender(hub), sender(hub)
        rows = [("k0", number) for number in range(8)]
        appended, genuine = 0, store.marks

        async def marks(producer: str, partitions: Sequence[int]) -> list[int]:
            if appended:  # told that there is a gap, it asks where to go on
                await write(fast, rows[:6])
            return await genuine(producer, partitions)

        async def overtaken() -> None:
            nonlocal appended
            appended += 1
            if appended == 1:
                await write(fast, rows[:2])

        async def append(appends: Sequence[Append]) -> list[Appended]:
            await overtaken()
            return await MemoryStore.append(store, appends)

        async with fast, slow:
            store.marks, store.append = marks, append  # type: ignore[method-assign]
            told = await write(slow, rows, batch_rows=4)  # row 4 waits until rows 0 to 3 are sent
            assert told == lungfish.SinkResult(2, 6, 8)
        assert (await applied(hub))["k0"] == list(range(8))

    on_a_hub(test)


def test_one_that_was_overtaken_while_it_stood_still_doubles_nothing() -> None:
    async def test(hub: Hub) -> None:
        client, _ = sender(hub)
        async with hub.client() as other, client:
            stopped, on = asyncio.Event(), asyncio.Event()

            async def slowly() -> AsyncIterator[tuple[str, int]]:
                for number, row in enumerate(ROWS):
                    if number == 33:
                        stopped.set()
                        await on.wait()
                    yield row

            first = asyncio.create_task(write(client, slowly()))
            await stopped.wait()
            await write(other, ROWS[:40], batch_rows=3)
            on.set()
            result = await first
            assert result.accepted + result.repeated == 60
            assert result.position == 60
        assert await applied(hub) == expected()

    on_a_hub(test)


def test_a_source_that_can_be_read_from_a_position() -> None:
    async def test(hub: Hub) -> None:
        client, store = sender(hub)
        store.dies_at = 5
        async with client:
            with pytest.raises(Dies):
                await write(client)
        async with hub.client() as client:
            sink = client.sink("flights")
            first = await sink.position()
            await write(client, ROWS[first:], first=first)
            first = await sink.position()
            assert first == 60
            assert await write(client, ROWS[first:], first=first) == lungfish.SinkResult(0, 0, 60)
        assert await applied(hub) == expected()

    on_a_hub(test)


def test_positions_of_the_source_may_have_gaps_but_must_grow() -> None:
    async def test(hub: Hub) -> None:
        async with hub.client() as client:
            offsets = [(key, number * 10) for key, number in ROWS]
            result = await write(client, offsets, position=lambda row: row[1])
            assert result == lungfish.SinkResult(60, 0, 591)
            for bad in ([("k", 600), ("k", 600)], [("k", 600), ("k", 599)], [("k", -1)], [("k", 2**53)]):
                with pytest.raises(UsageError, match="position"):
                    await write(client, bad, position=lambda row: row[1])
        assert await applied(hub) == expected(offsets)

    on_a_hub(test)


def test_shards_and_names_are_apart_and_forgetting_begins_anew() -> None:
    async def test(hub: Hub) -> None:
        async with hub.client() as client:
            for name, shard in (("a", ""), ("a", "b"), ("b", "b"), ("a/b", "")):
                sink = client.sink(name, shard)
                assert await sink.position() == 0
                await sink.write(Log, "add", [1], key=lambda _: "k1")
                assert await sink.position() == 1
            await client.sink("a").forget()
            assert await client.sink("a").position() == 0
            assert await client.sink("a", "b").position() == 1
            await client.sink("a").write(Log, "add", [1], key=lambda _: "k1")
        assert (await applied(hub))["k1"] == [1] * 5

    on_a_hub(test)


def test_its_numbers_are_never_swept() -> None:
    async def test(hub: Hub) -> None:
        async with hub.client() as client:
            await write(client)
            for number in range(PARTITIONS):
                await client._open.store.sweep_producers(number, -1_000)
            assert (await write(client)).accepted == 0

    on_a_hub(test)


def test_a_full_inbox_slows_the_source_down_and_then_tells() -> None:
    async def run() -> None:
        async with hub_of(app) as hub:
            hub.server._lengths_max = {**hub.server._lengths_max, "p": 3}
            await hub.start_all("a")
            await hub.kill("a")  # nobody takes what is sent
            taken = []

            def source() -> Iterator[tuple[str, int]]:
                for row in ROWS:
                    taken.append(row)
                    yield row

            async with hub.client() as client:
                with pytest.raises(Overloaded, match="full"):
                    await write(client, source(), timeout=5.0, key=lambda _: "k1")
                assert len(taken) == 3 * 7 + 7 + 1, "what fits, a batch in memory, and the row behind it"
                assert await client.sink("flights").position() <= 21
                writing = asyncio.create_task(write(client, timeout=None, key=lambda _: "k1"))
                await asyncio.sleep(600)
                assert not writing.done()
                await hub.start("b")
                assert (await writing).position == 60
            assert (await applied(hub))["k1"] == [number for _, number in ROWS]

    virtually(run)


def test_a_store_that_is_away_for_a_while() -> None:
    async def test(hub: Hub) -> None:
        client, store = sender(hub)
        broken = [3, 4, 5]

        def fail() -> None:
            if store.appends in broken:
                raise StoreUnavailable("away")

        store.before_append = fail
        async with client:
            assert (await write(client)).accepted == 60
            broken.extend(range(store.appends, 10_000))
            with pytest.raises(StoreUnavailable):
                await write(client, [*ROWS, ("k1", 60)], timeout=3.0)
        assert await applied(hub) == expected()

    on_a_hub(test)


def test_a_store_that_has_lost_rows_is_told_and_the_next_write_sends_them_again() -> None:
    async def test(hub: Hub) -> None:
        client, store = sender(hub)

        def lose() -> None:
            if store.appends == 4:
                producers = hub.state.producers
                for number in range(PARTITIONS):
                    name = sinks.producer_name("flights", "")
                    mark, seen = producers[partition_target(number)].get(name, (0, 0))
                    producers[partition_target(number)][name] = (max(0, mark - 1), seen)

        store.before_append = lose
        async with client:
            with pytest.raises(StoreUnavailable, match="lost"):
                await write(client)
            assert (await write(client)).position == 60

    on_a_hub(test)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"key": lambda _: ""}, InvalidId),
        ({"key": lambda _: 3}, InvalidId),
        ({"args": lambda _: "text"}, InvalidArguments),
        ({"args": lambda _: (1, 2, 3)}, InvalidArguments),
        ({"args": lambda _: (object(),)}, SerializationError),
        ({"batch_rows": 0}, UsageError),
        ({"first": -1}, UsageError),
    ],
)
def test_what_cannot_be_sent_is_refused_by_its_position(
    options: dict[str, Any], error: type[Exception]
) -> None:
    async def test(hub: Hub) -> None:
        async with hub.client() as client:
            with pytest.raises(error, match=r"row 0|batch_rows|first"):
                await write(client, **options)
            assert (await write(client)).accepted == 60

    on_a_hub(test)


def test_names_that_are_none() -> None:
    async def test(hub: Hub) -> None:
        async with hub.client() as client:
            with pytest.raises(InvalidId):
                client.sink("")
            with pytest.raises(NotRegistered):
                await client.sink("x").write(Log, "nothing", [1], key=str)

    on_a_hub(test)


def test_large_rows_make_small_batches() -> None:
    async def test(hub: Hub) -> None:
        client, store = sender(hub)
        async with client:
            rows = [("k1", "x" * 400_000)] * 7
            chosen: dict[str, Any] = {"key": lambda row: row[0], "args": lambda row: row[1:]}
            assert (await client.sink("big").write("Text", "add", rows, **chosen)).accepted == 7
            assert store.appends == 4

    on_a_hub(test)


def test_rows_are_read_from_a_thread_by_the_blocking_client() -> None:
    server = MemoryServer()
    server.hub("sinks").meta = HubMeta()
    plain = Client(lambda: MemoryStore(server, "sinks"), app)
    with BlockingClient(plain) as client:
        sink = client.sink("flights")
        chosen: dict[str, Any] = {"key": lambda row: row[0], "args": lambda row: row[1:], "batch_rows": 7}
        result = sink.write(Log, Log.add, iter(ROWS), **chosen)
        assert result == lungfish.SinkResult(60, 0, 60)
        assert sink.position() == 60
        assert sink.write(Log, Log.add, iter(ROWS), **chosen).repeated == 60
        sink.forget()
        assert sink.position() == 0
