"""The rules of ``Store``, held against every implementation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager
from typing import TypeAlias

import pytest

from lungfish.runtime.errors import HubMismatch, HubNotFound, StoreUnavailable
from lungfish.runtime.ids import ORCHESTRATION, ActorId
from lungfish.runtime.messages import wire
from lungfish.runtime.messages.messages import ActivityTask
from lungfish.runtime.on_redis import queues as redis_queues
from lungfish.runtime.on_redis import store as redis_store
from lungfish.runtime.on_redis.keys import CLIENT_LENGTH_MAX, Keys
from lungfish.runtime.on_redis.link import key_slot
from lungfish.runtime.on_redis.store import RedisStore
from lungfish.runtime.store.generations import PER_MS, base_at
from lungfish.runtime.store.layout import PoolRange
from lungfish.runtime.store.queues import QueueLimits, lane_of, limits_from
from lungfish.runtime.store.store import (
    START,
    Append,
    Appended,
    Commit,
    Committed,
    Delivery,
    HubMeta,
    LeaseLost,
    OutboxEntry,
    PartitionLoad,
    Store,
    StoreBehind,
)
from lungfish.runtime.testing import memory_store
from lungfish.runtime.testing.memory_store import MemoryServer, MemoryStore
from tests.servers import ask

MakeStore: TypeAlias = Callable[[], Store]
INBOX_MAX = 5
QUEUE_MAX = 50
MAILBOX_MAX = 3
IN_PLACE = ("memory", "single")
#: What is put into this target inside of it is lost at its end, as in a failover to a late replica.
Lose: TypeAlias = Callable[[str], AbstractContextManager[None]]


@pytest.fixture(params=["memory", "memory-outbox", "single", "cluster"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def new_store(kind: str, hub_name: str, request: pytest.FixtureRequest) -> MakeStore:
    """Return a maker of handles on one hub."""
    if kind.startswith("memory"):
        server = MemoryServer(
            delivers_in_place=kind == "memory",
            inbox_length_max=INBOX_MAX,
            queue_length_max=QUEUE_MAX,
            mailbox_length_max=MAILBOX_MAX,
        )
        return lambda: MemoryStore(server, hub_name)
    if kind == "single":
        url = request.getfixturevalue("valkey").url
    else:
        url = request.getfixturevalue("valkey_cluster")[0].url
    return lambda: RedisStore(
        url,
        hub_name,
        inbox_length_max=INBOX_MAX,
        queue_length_max=QUEUE_MAX,
        mailbox_length_max=MAILBOX_MAX,
    )


@pytest.fixture
async def open_store(new_store: MakeStore) -> AsyncIterator[Callable[[], object]]:
    """Return an opener of further handles; all are closed at the end."""
    async with AsyncExitStack() as stack:

        async def opened() -> Store:
            store = new_store()
            stack.push_async_callback(store.close)
            await store.open(HubMeta(8))
            return store

        yield opened


@pytest.fixture
def port_of(kind: str, request: pytest.FixtureRequest) -> Callable[[str], int]:
    """Return who tells the port of the server that holds a key."""

    def found(key: str) -> int:
        if kind == "single":
            return int(request.getfixturevalue("valkey").port)
        servers = request.getfixturevalue("valkey_cluster")
        return int(servers[min(2, key_slot(key.encode()) // 5461)].port)

    return found


@pytest.fixture
def lose(store: Store, port_of: Callable[[str], int]) -> Lose:
    @contextmanager
    def losing(target: str) -> Iterator[None]:
        if isinstance(store, MemoryStore):
            checkpoint = store.server.checkpoint()
            yield
            store.server.rollback(checkpoint)
            return
        inbox, producers = Keys(store.hub).stream(target), Keys(store.hub).producers(target)
        for key in (inbox, producers):
            ask(port_of(key), f"COPY {key} {key}:kept")
        yield
        for key in (inbox, producers):
            ask(port_of(key), f"RENAME {key}:kept {key}")

    return losing


@pytest.fixture
async def store(open_store: Callable[[], object]) -> Store:
    return await open_store()  # type: ignore[misc,no-any-return]


async def read_all(store: Store, target: str, after: str = START) -> list[bytes]:
    reader = store.reader()
    try:
        found = await reader.read({target: after}, block_ms=0, count=1000)
    finally:
        await reader.close()
    return [entry.payload for entry in found.get(target, [])]


def put(target: str, sequence: int, *payloads: bytes, producer: str = "session-1") -> Append:
    return Append(target, producer, sequence, payloads or (f"m{sequence}".encode(),))


async def clock_moves(store: Store) -> None:
    start_ms = await store.now_ms()
    while await store.now_ms() <= start_ms + 1:
        await asyncio.sleep(0)


# --- the hub -----------------------------------------------------------------------------


class TestOpen:
    async def test_creates_with_what_is_wanted_and_returns_it_ever_after(self, new_store: MakeStore) -> None:
        store = new_store()
        assert await store.open(HubMeta(12)) == HubMeta(12)
        assert await store.open() == HubMeta(12)
        assert await store.open(HubMeta(12)) == HubMeta(12)
        await store.close()

    async def test_creates_with_defaults(self, new_store: MakeStore) -> None:
        store = new_store()
        assert await store.open() == HubMeta()
        await store.close()

    async def test_who_may_not_create_a_hub_does_not(self, new_store: MakeStore) -> None:
        store = new_store()
        with pytest.raises(HubNotFound, match="start a host first"):
            await store.open(create=False)
        assert await store.open(HubMeta(5)) == HubMeta(5)
        assert await store.open(create=False) == HubMeta(5)
        await store.close()

    @pytest.mark.parametrize(
        "wanted", [HubMeta(9), HubMeta(8, hash_name="md5"), HubMeta(8, format_version=2)]
    )
    async def test_refuses_another_shape(self, store: Store, new_store: MakeStore, wanted: HubMeta) -> None:
        other = new_store()
        with pytest.raises(HubMismatch):
            await other.open(wanted)
        await other.close()

    async def test_pools_are_added_once_behind_all_partitions(
        self, store: Store, new_store: MakeStore
    ) -> None:
        pools = (PoolRange("gpu", 8, 4), PoolRange("a-1", 12, 2))
        assert await store.add_pools({"gpu": 4, "a-1": 2}) == HubMeta(8, pools=pools)
        assert await store.add_pools({"a-1": 2}) == HubMeta(8, pools=pools)
        other = new_store()
        assert await other.open() == HubMeta(8, pools=pools)
        assert (await other.add_pools({"z": 1})).pools == (*pools, PoolRange("z", 14, 1))
        assert await store.open(HubMeta(8)) == await other.open()
        await other.close()

    async def test_a_pool_keeps_its_count_and_nothing_is_added_beside(self, store: Store) -> None:
        await store.add_pools({"gpu": 4})
        with pytest.raises(HubMismatch, match="pool 'gpu' has 4 partitions, this app wants 5"):
            await store.add_pools({"new": 1, "gpu": 5})
        assert (await store.open()).pools == (PoolRange("gpu", 8, 4),)

    async def test_who_beats_or_looks_learns_of_pools(self, store: Store, new_store: MakeStore) -> None:
        other = new_store()
        assert await other.open() == HubMeta(8)
        assert len(await other.owners()) == len(await other.loads()) == 8
        await store.add_pools({"gpu": 4})
        view = await other.heartbeat("", b"", lease_ms=1, lead=False)
        assert view.meta == HubMeta(8, pools=(PoolRange("gpu", 8, 4),))
        assert len(await other.owners()) == len(await other.loads()) == 12
        image = await other.claim(11, "host", "token")
        assert await other.commit([Commit(11, image.token, 1)]) == [Committed()]
        assert (await other.owners())[11].host == "host"
        await other.close()

    async def test_closed_store_is_unavailable(self, new_store: MakeStore) -> None:
        store = new_store()
        await store.open()
        reader = store.reader()
        await store.close()
        with pytest.raises(StoreUnavailable):
            await store.now_ms()
        with pytest.raises(StoreUnavailable):
            await reader.read({"p:0": START}, block_ms=0, count=1)


# --- append and read ---------------------------------------------------------------------


class TestAppend:
    async def test_in_order_and_once(self, store: Store) -> None:
        assert await store.append([put("p:1", 1), put("p:1", 2)]) == [Appended.OK, Appended.OK]
        assert await store.append([put("p:1", 2), put("p:1", 3)]) == [Appended.OK, Appended.OK]
        assert await read_all(store, "p:1") == [b"m1", b"m2", b"m3"]

    async def test_gap_is_refused(self, store: Store) -> None:
        assert await store.append([put("p:1", 2)]) == [Appended.GAP]
        assert await store.append([put("p:1", 1), put("p:1", 3), put("p:1", 2)]) == [
            Appended.OK,
            Appended.GAP,
            Appended.OK,
        ]
        assert await read_all(store, "p:1") == [b"m1", b"m2"]

    async def test_resync_accepts_a_gap_but_no_repeat(self, store: Store) -> None:
        jump = Append("p:1", "p:2", 7, (b"x",), resync=True)
        assert await store.append([jump, jump]) == [Appended.OK, Appended.OK]
        assert await store.append([put("p:1", 8, producer="p:2")]) == [Appended.OK]
        assert await read_all(store, "p:1") == [b"x", b"m8"]

    async def test_sequences_are_per_producer_and_target(self, store: Store) -> None:
        appends = [put("p:1", 1, producer="a"), put("p:1", 1, producer="b"), put("p:2", 1, producer="a")]
        assert await store.append(appends) == [Appended.OK] * 3
        assert await read_all(store, "p:1") == [b"m1", b"m1"]
        assert await read_all(store, "p:2") == [b"m1"]

    async def test_a_position_is_taken_only_after_the_one_it_names(self, store: Store) -> None:
        def rows(sequence: int, after: int, *payloads: bytes) -> Append:
            return Append("p:1", "s:sink", sequence, payloads, after=after)

        assert await store.append([rows(10, 5, b"a")]) == [Appended.GAP]
        assert await store.append([rows(10, 0, b"a")]) == [Appended.OK]
        assert await store.append([rows(10, 0, b"a"), rows(7, 5, b"b")]) == [Appended.OK] * 2, "repeats"
        assert await store.append([rows(12, 0, b"c"), rows(12, 11, b"c")]) == [Appended.GAP] * 2
        assert await store.append([rows(2**53 - 1, 10, b"d")]) == [Appended.OK]
        assert await read_all(store, "p:1") == [b"a", b"d"]
        assert await store.marks("s:sink", [1, 2]) == [2**53 - 1, 0]

    async def test_a_position_without_rows_fits_into_a_full_inbox(self, store: Store) -> None:
        await store.append([put("p:1", n) for n in range(1, INBOX_MAX + 1)])
        assert await store.append([Append("p:1", "s:sink", 3, (b"a",), after=0)]) == [Appended.FULL]
        assert await store.append([Append("p:1", "s:sink", 3, (), after=0)]) == [Appended.OK]
        assert await store.marks("s:sink", [1]) == [3]
        assert len(await read_all(store, "p:1")) == INBOX_MAX

    async def test_a_producer_is_forgotten_partition_by_partition(self, store: Store) -> None:
        await store.append([put(f"p:{p}", 1, producer=f"s:{p % 2}") for p in range(4)])
        await store.forget_producer("s:1", range(2))
        await store.forget_producer("s:1", range(2))
        assert await store.marks("s:1", range(4)) == [0, 0, 0, 1]
        assert await store.marks("s:0", range(4)) == [1, 0, 1, 0]

    async def test_outcomes_are_in_the_order_of_the_appends(self, store: Store) -> None:
        appends = [put(f"p:{p}", 1 if p % 2 else 2) for p in range(8)] + [put("p:1", 2), put("p:0", 1)]
        expected = [Appended.OK if p % 2 else Appended.GAP for p in range(8)] + [Appended.OK] * 2
        assert await store.append(appends) == expected

    async def test_full_inbox_stores_nothing_but_answers_repeats(self, store: Store) -> None:
        await store.append([put("p:1", n) for n in range(1, INBOX_MAX + 1)])
        assert await store.append([put("p:1", INBOX_MAX + 1)]) == [Appended.FULL]
        assert await store.append([put("p:1", INBOX_MAX)]) == [Appended.OK]
        assert len(await read_all(store, "p:1")) == INBOX_MAX
        assert await store.append([put("p:2", 1)]) == [Appended.OK]

    async def test_what_yields_is_refused_while_the_mailbox_is_full(self, store: Store) -> None:
        def yielding(sequence: int, target: str = "p:1", producer: str = "c:e") -> Append:
            return Append(target, producer, sequence, (b"x",), yields=True)

        assert await store.append([yielding(1)]) == [Appended.OK]
        await store.claim(1, "A", "t1")
        rows: dict[str, bytes | None] = {f"{n:016x}": b"row" for n in range(MAILBOX_MAX)}
        assert await store.commit([Commit(1, "t1", 1, mailbox=rows)]) == [Committed()]
        tried = [yielding(1), yielding(2), put("p:1", 1), yielding(1, "p:2"), put("p:3", 1)]
        outcomes = [Appended.OK, Appended.CROWDED, *[Appended.OK] * 3]
        assert await store.append(tried) == outcomes, "repeats, what does not yield, and other partitions"
        mark = Append("p:1", "s:sink", 7, (), after=0, yields=True)
        assert await store.append([yielding(2), mark]) == [Appended.CROWDED, Appended.OK]
        assert len(await read_all(store, "p:1")) == 2
        assert await store.commit([Commit(1, "t1", 2, mailbox={f"{1:016x}": None})]) == [Committed()]
        assert await store.append([yielding(2)]) == [Appended.OK]

    async def test_trimmed_inbox_takes_again(self, store: Store) -> None:
        await store.append([put("p:1", n) for n in range(1, INBOX_MAX + 1)])
        entries = (await store.reader().read({"p:1": START}, block_ms=0, count=100))["p:1"]
        await store.claim(1, "A", "t1")
        await store.commit([Commit(1, "t1", 1, position=entries[1].id)])
        assert await read_all(store, "p:1") == [b"m3", b"m4", b"m5"]
        assert await store.append([put("p:1", INBOX_MAX + 1)]) == [Appended.OK]

    async def test_queue_takes_an_entry_per_payload(self, store: Store) -> None:
        await store.append([put("q:work", 1, b"a", b"b", producer="p:1")])
        assert await read_all(store, "q:work") == [b"a", b"b"]

    async def test_clients_take_no_sequence(self, store: Store) -> None:
        assert await store.append([Append("c:me", "p:1", 0, (b"r1",)), Append("c:me", "p:1", 0, (b"r2",))])
        assert await read_all(store, "c:me") == [b"r1", b"r2"]

    async def test_replies_to_a_client_that_does_not_read_are_capped(self, store: Store) -> None:
        payloads = (b"r",) * (CLIENT_LENGTH_MAX + 1000)
        await store.append([Append("c:me", "p:1", 0, payloads)])
        reader = store.reader()
        kept = (await reader.read({"c:me": START}, block_ms=0, count=len(payloads)))["c:me"]
        assert CLIENT_LENGTH_MAX <= len(kept) < CLIENT_LENGTH_MAX + 500

    async def test_large_payload_and_many(self, store: Store) -> None:
        large = bytes(range(256)) * 4096
        await store.append([put("p:1", 1, large)])
        await store.append([put("q:work", 1, *(b"%d" % n for n in range(9000)), producer="p:1")])
        assert await read_all(store, "p:1") == [large]
        reader = store.reader()
        entries = (await reader.read({"q:work": START}, block_ms=0, count=10_000))["q:work"]
        assert [entry.payload for entry in entries] == [b"%d" % n for n in range(9000)]

    async def test_nothing(self, store: Store) -> None:
        assert await store.append([]) == []
        assert await store.commit([]) == []

    async def test_concurrent_callers_get_their_own_answers(self, store: Store) -> None:
        calls = [
            store.append([put(f"p:{n % 8}", 1 if n < 8 else 9, producer=f"s{n % 8}")]) for n in range(16)
        ]
        outcomes = await asyncio.gather(*calls)
        assert outcomes == [[Appended.OK]] * 8 + [[Appended.GAP]] * 8

    async def test_cancelled_caller_disturbs_nobody(self, store: Store) -> None:
        tasks = [asyncio.create_task(store.append([put("p:1", n)])) for n in range(1, 5)]
        while not tasks[0].done():
            await asyncio.sleep(0)
            tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert await store.append([put("p:1", n) for n in range(1, 5)]) == [Appended.OK] * 4
        assert await read_all(store, "p:1") == [b"m1", b"m2", b"m3", b"m4"]


class TestReader:
    async def test_reads_after_positions_up_to_count(self, store: Store) -> None:
        await store.append([put("p:1", 1), put("p:1", 2), put("p:2", 1)])
        reader = store.reader()
        first = await reader.read({"p:1": START, "p:2": START, "p:3": START}, block_ms=0, count=1)
        assert {t: [e.payload for e in found] for t, found in first.items()} == {
            "p:1": [b"m1"],
            "p:2": [b"m1"],
        }
        assert await read_all(store, "p:1", after=first["p:1"][0].id) == [b"m2"]
        assert await reader.read({"p:3": START}, block_ms=0, count=1) == {}

    async def test_ids_tell_when_their_entries_came(self, store: Store) -> None:
        # A late timer is held against them: what came before its time is seen before it.
        began_ms = await store.now_ms()
        await store.append([put("p:1", 1)])
        found = await store.reader().read({"p:1": START}, block_ms=0, count=1)
        came_ms = int(found["p:1"][0].id.partition("-")[0])
        assert began_ms <= came_ms <= await store.now_ms()

    async def test_waits_for_the_first_entry(self, store: Store) -> None:
        reader = store.reader()
        reading = asyncio.create_task(
            reader.read({f"p:{p}": START for p in range(8)}, block_ms=600_000, count=10)
        )
        await asyncio.sleep(0.02)
        assert not reading.done()
        await store.append([put("p:6", 1)])
        async with asyncio.timeout(60):
            assert list(await reading) == ["p:6"]

    async def test_sees_what_another_handle_appends(
        self, store: Store, open_store: Callable[[], object]
    ) -> None:
        other: Store = await open_store()  # type: ignore[misc]
        await other.append([put("p:1", 1)])
        assert await read_all(store, "p:1") == [b"m1"]

    async def test_returns_empty_when_nothing_comes(self, store: Store) -> None:
        assert await store.reader().read({"p:1": START}, block_ms=20, count=10) == {}

    async def test_wake_ends_a_wait(self, store: Store) -> None:
        reader = store.reader()
        reading = asyncio.create_task(reader.read({"p:1": START}, block_ms=600_000, count=10))
        async with asyncio.timeout(60):
            while not reading.done():
                await asyncio.sleep(0)
                await reader.wake()
            assert await reading == {}

    async def test_wake_before_a_wait_does_no_harm(self, store: Store) -> None:
        reader = store.reader()
        await reader.wake()
        await store.append([put("p:1", 1)])
        assert await reader.read({"p:1": START}, block_ms=600_000, count=10)

    async def test_close_ends_a_wait(self, store: Store) -> None:
        # At any stage of it, also while it connects.
        for turns in (1, 2, 3, 5, 8, 13, 21, 200):
            reader = store.reader()
            reading = asyncio.create_task(reader.read({"p:1": START}, block_ms=600_000, count=10))
            for _ in range(turns):
                await asyncio.sleep(0)
            async with asyncio.timeout(60):
                await reader.close()
                with pytest.raises(StoreUnavailable):
                    await reading

    async def test_cancelled_read_does_not_answer_the_next(self, store: Store) -> None:
        reader = store.reader()
        reading = asyncio.create_task(reader.read({"p:1": START}, block_ms=600_000, count=10))
        await asyncio.sleep(0.01)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await store.append([put("p:1", 1), put("p:2", 1)])
        async with asyncio.timeout(60):
            assert list(await reader.read({"p:2": START}, block_ms=1000, count=10)) == ["p:2"]


# --- ownership ---------------------------------------------------------------------------


class TestOwnership:
    async def test_claim_of_a_fresh_partition(self, store: Store) -> None:
        image = await store.claim(3, "A", "t1")
        assert (image.partition, image.token, image.epoch) == (3, "t1", 1)
        assert (image.commit_number, image.position) == (0, START)
        assert (image.sequences, image.mailbox, image.timers, image.activities) == ({}, {}, {}, {})
        assert image.outbox == []

    async def test_each_new_token_has_a_higher_epoch(self, store: Store) -> None:
        assert (await store.claim(3, "A", "t1")).epoch == 1
        assert (await store.claim(3, "A", "t1")).epoch == 1
        assert (await store.claim(3, "B", "t2")).epoch == 2
        owners = await store.owners()
        assert len(owners) == 8
        assert [(owner.host, owner.epoch) for owner in owners[2:5]] == [("", 0), ("B", 2), ("", 0)]

    async def test_owner_row_tells_the_commit_number(self, store: Store) -> None:
        await store.claim(3, "A", "t1")
        await store.commit([Commit(3, "t1", 1)])
        await store.commit([Commit(3, "t1", 2)])
        assert [owner.number for owner in (await store.owners())[2:5]] == [0, 2, 0]

    async def test_loads_tell_what_waits(self, store: Store) -> None:
        await store.append([put("p:3", 1), put("p:3", 2)])
        await store.claim(3, "h", "t")
        full = Delivery("p:4", 2, (b"too early, so it waits",))
        rows = {"mailbox": {"1": b"m", "2": b"m"}, "timers": {"t": (9, b"x")}, "activities": {"a": b"a"}}
        await store.commit([Commit(3, "t", 1, deliveries=[full], dead=[b"?"], **rows)])  # type: ignore[arg-type]
        loads = await store.loads()
        assert loads[3] == PartitionLoad(inbox=2, outbox=1, dead=1, mailbox=2, activities=1, timers=1)
        assert [load for number, load in enumerate(loads) if number != 3] == [PartitionLoad()] * 7

    async def test_earlier_token_cannot_commit(self, store: Store) -> None:
        await store.claim(3, "A", "t1")
        await store.claim(3, "B", "t2")
        stale = Commit(3, "t1", 1, mailbox={"r": b"x"}, deliveries=[Delivery("c:me", 0, (b"no",))])
        assert await store.commit([stale]) == [LeaseLost("B")]
        image = await store.claim(3, "B", "t2")
        assert (image.mailbox, image.commit_number) == ({}, 0)
        assert await read_all(store, "c:me") == []

    async def test_unclaimed_partition_cannot_be_written(self, store: Store) -> None:
        assert await store.commit([Commit(3, "t1", 1)]) == [LeaseLost()]
        assert await store.commit([Commit(3, "", 1)]) == [LeaseLost()]

    async def test_release(self, store: Store) -> None:
        await store.claim(3, "A", "t1")
        assert await store.release(3, "t2") is False
        assert await store.release(3, "t1") is True
        assert await store.release(3, "t1") is True, "a repeat is answered as the first time"
        assert await store.commit([Commit(3, "t1", 1)]) == [LeaseLost()]
        assert await store.commit([Commit(3, "", 1)]) == [LeaseLost()]
        assert (await store.owners())[3].host == ""
        assert (await store.claim(3, "B", "t2")).epoch == 2
        assert await store.release(3, "t1") is False

    async def test_image_is_what_was_committed(self, store: Store) -> None:
        await store.claim(3, "A", "t1")
        await store.append([put("p:3", 1)])
        entry = (await store.reader().read({"p:3": START}, block_ms=0, count=1))["p:3"][0]
        await store.commit(
            [
                Commit(
                    3,
                    "t1",
                    1,
                    position=entry.id,
                    mailbox={"r1": b"one", "r2": b"\x00\xff"},
                    timers={"x": (1_700_000_000_123, b"fire"), "y": (5, b"")},
                    activities={"a1": b"run"},
                    deliveries=[Delivery("p:5", 4, (b"gap", b"\xff")), Delivery("q:work", 9, (b"gap",))],
                )
            ]
        )
        await store.commit([Commit(3, "t1", 2, mailbox={"r1": None, "r3": b""}, timers={"y": None})])
        image = await store.claim(3, "B", "t2")
        assert (image.epoch, image.commit_number, image.position) == (2, 2, entry.id)
        assert image.mailbox == {"r2": b"\x00\xff", "r3": b""}
        assert image.timers == {"x": (1_700_000_000_123, b"fire")}
        assert image.activities == {"a1": b"run"}
        assert image.sequences == {"p:5": 4, "q:work": 9}
        assert image.outbox == [
            OutboxEntry("1-0", "p:5", 4, (b"gap", b"\xff")),
            OutboxEntry("1-1", "q:work", 9, (b"gap",)),
        ]
        assert await read_all(store, "p:3") == []

    async def test_on_a_cluster_each_claim_begins_a_generation(self, store: Store, kind: str) -> None:
        """A failover may take the claim back: what comes after it must be told from what came before."""
        first = await store.claim(3, "A", "t1")
        assert (await store.claim(3, "A", "t1")).base == first.base, "a repeat"
        if kind in IN_PLACE:
            assert first.base == 0, "all forget together, and deliveries in place must follow on"
            return
        since_ms = await store.now_ms()
        while await store.now_ms() == since_ms:
            await asyncio.sleep(0.001)
        second = await store.claim(3, "B", "t2")
        assert since_ms * PER_MS <= second.base <= await store.now_ms() * PER_MS
        assert first.base < second.base

    @pytest.mark.parametrize("kind", ["memory-outbox", "cluster"])
    async def test_a_clock_that_jumped_back_begins_no_earlier_generation(
        self, store: Store, port_of: Callable[[str], int]
    ) -> None:
        """What the owner before has sent must not have the numbers of the next one."""
        await store.claim(3, "A", "t1")
        claimed_ms = await store.now_ms() + 3_600_000
        if isinstance(store, MemoryStore):
            store.server.hub(store.hub).partition(3).claimed_ms = claimed_ms
        else:
            owner = Keys(store.hub).partition(3).owner
            ask(port_of(owner), f"HSET {owner} claimed {claimed_ms}")
        bases = [(await store.claim(3, "B", token)).base for token in ("t1", "t2", "t2", "t3")]
        assert bases == [base_at(claimed_ms + later) for later in (0, 1, 1, 2)]

    async def test_numbers_of_a_generation_are_told_apart(self, store: Store) -> None:
        base = base_at(1_800_000_000_123)
        assert await store.append([put("p:4", 1, producer="p:3")]) == [Appended.OK]
        opening = Append("p:4", "p:3", base + 1, (b"o",), resync=True)
        assert await store.append([put("p:4", base + 2, producer="p:3")]) == [Appended.GAP]
        assert (
            await store.append([opening, opening, put("p:4", base + 2, producer="p:3")]) == [Appended.OK] * 3
        )
        assert await store.append([put("p:4", 2, producer="p:3")]) == [Appended.OK], (
            "of an earlier owner: too late"
        )
        assert await store.append([put("p:4", base + 4, producer="p:3")]) == [Appended.GAP]
        assert await read_all(store, "p:4") == [b"m1", b"o", b"m%d" % (base + 2)]
        assert await store.marks("p:3", [4]) == [base + 2]
        await store.claim(3, "A", "t1")
        await store.commit([Commit(3, "t1", 1, deliveries=[Delivery("p:5", base + 9, (b"d",))])])
        image = await store.claim(3, "A", "t1")
        assert image.sequences == {"p:5": base + 9}
        assert [entry.sequence for entry in image.outbox] == [base + 9]


# --- commit ------------------------------------------------------------------------------


class TestCommit:
    async def test_numbers(self, store: Store) -> None:
        await store.claim(3, "A", "t1")
        assert await store.commit([Commit(3, "t1", 2)]) == [StoreBehind(stored=0, expected=1)]
        assert await store.commit([Commit(3, "t1", 1)]) == [Committed()]
        assert await store.commit([Commit(3, "t1", 1, mailbox={"r": b"x"})]) == [Committed()]
        assert await store.commit([Commit(3, "t1", 5, mailbox={"r": b"x"})]) == [StoreBehind(1, 4)]
        image = await store.claim(3, "A", "t1")
        assert (image.commit_number, image.mailbox) == (1, {})

    async def test_repeat_applies_nothing_twice(self, store: Store) -> None:
        await store.claim(3, "A", "t1")
        commit = Commit(
            3,
            "t1",
            1,
            histories={"o": [b"e1"]},
            deliveries=[
                Delivery("p:4", 1, (b"d",)),
                Delivery("c:me", 0, (b"r",)),
                Delivery("p:5", 2, (b"g",)),
            ],
            dead=[b"?"],
        )
        first = await store.commit([commit])
        assert await store.commit([commit]) == first
        assert (await store.instances([(3, "o")], history=True))[0].history == [b"e1"]
        image = await store.claim(3, "A", "t1")
        await deliver_outbox(store, image.outbox)
        assert await read_all(store, "p:4") == [b"d"]
        assert await read_all(store, "c:me") == [b"r"]

    async def test_repeat_after_a_later_commit(self, store: Store, kind: str) -> None:
        await store.claim(3, "A", "t1")
        commits = [Commit(3, "t1", n, deliveries=[Delivery("p:4", 10 + n, (b"%d" % n,))]) for n in (1, 2)]
        first, second = [(await store.commit([commit]))[0] for commit in commits]
        assert await store.commit([commits[0]]) == [first]
        assert await store.commit([commits[1]]) == [second]
        await store.commit([Commit(3, "t1", 3, delivered=["1-0"])])
        assert await store.commit([commits[0]]) == [Committed()], "what is delivered is not named again"

    async def test_what_the_inbox_lost_cannot_be_consumed(self, store: Store, lose: Lose) -> None:
        """A failover lost an entry that had been read: its sender appends it again, so it must not count."""
        await store.claim(3, "A", "t1")
        await store.append([put("p:3", 1)])
        kept = (await store.reader().read({"p:3": START}, block_ms=0, count=9))["p:3"][0]
        with lose("p:3"):
            await store.append([put("p:3", 2)])
            lost = (await store.reader().read({"p:3": kept.id}, block_ms=0, count=9))["p:3"][0]
        commit = Commit(3, "t1", 1, position=lost.id, mailbox={"r": b"x"})
        assert await store.commit([commit]) == [StoreBehind(stored=0, expected=0)]
        image = await store.claim(3, "A", "t1")
        assert (image.commit_number, image.position, image.mailbox) == (0, START, {})
        assert await store.append([put("p:3", 2)]) == [Appended.OK]
        again = (await store.reader().read({"p:3": kept.id}, block_ms=0, count=9))["p:3"]
        assert [(entry.payload, entry.id != lost.id) for entry in again] == [(b"m2", True)]
        commit.position = again[0].id
        assert await store.commit([commit]) == [Committed()]
        assert await store.commit([commit]) == [Committed()], "a repeat, whose entry it trimmed itself"
        assert await read_all(store, "p:3") == []

    async def test_partitions_of_one_call_are_independent(self, store: Store) -> None:
        for partition in range(4):
            await store.claim(partition, "A", f"t{partition}")
        outcomes = await store.commit(
            [
                Commit(0, "t0", 1, snapshots={("E", "k"): b"0"}),
                Commit(1, "wrong", 1, snapshots={("E", "k"): b"1"}),
                Commit(2, "t2", 7, snapshots={("E", "k"): b"2"}),
                Commit(3, "t3", 1, snapshots={("E", "k"): b"3"}),
            ]
        )
        assert outcomes == [Committed(), LeaseLost("A"), StoreBehind(0, 6), Committed()]
        assert await store.snapshots([(p, "E", "k") for p in range(4)]) == [b"0", None, None, b"3"]

    async def test_rows_are_written_and_deleted(self, store: Store) -> None:
        await store.claim(3, "A", "t1")
        await store.commit(
            [
                Commit(
                    3,
                    "t1",
                    1,
                    snapshots={("E", "a"): b"", ("E", "b"): b"b", ("Ünï", "☃"): b"\x80"},
                    instances={"o1": b"row1", "o2": b"row2"},
                    histories={"o1": [b"1", b"2"]},
                    activities={"x": b"", "y": b"y"},
                )
            ]
        )
        keys = [(3, "E", "a"), (3, "Ünï", "☃"), (3, "E", "none"), (4, "E", "a"), (3, "E", "b")]
        assert await store.snapshots(keys) == [b"", b"\x80", None, None, b"b"]
        assert await store.has_activities([(3, "x"), (3, "none"), (4, "x"), (3, "y")]) == [
            True,
            False,
            False,
            True,
        ]
        assert await store.activity_rows([(3, "y"), (3, "none"), (4, "x"), (3, "x")]) == [
            b"y",
            None,
            None,
            b"",
        ]
        await store.commit(
            [
                Commit(
                    3,
                    "t1",
                    2,
                    snapshots={("E", "b"): None, ("E", "never"): None},
                    instances={"o2": None},
                    histories={"o1": [b"3"]},
                    activities={"x": None},
                )
            ]
        )
        assert await store.snapshots([(3, "E", "a"), (3, "E", "b")]) == [b"", None]
        first, second = await store.instances([(3, "o1"), (3, "o2")], history=True)
        assert (first.row, first.history, second.row, second.history) == (
            b"row1",
            [b"1", b"2", b"3"],
            None,
            [],
        )
        assert (await store.instances([(3, "o1")], history=False))[0].history == []
        assert await store.has_activities([(3, "x")]) == [False]
        assert await store.activity_rows([(3, "x"), (3, "y")]) == [None, b"y"]
        assert await store.activity_rows([]) == []

    async def test_history_is_forgotten_before_it_is_appended(self, store: Store) -> None:
        await store.claim(3, "A", "t1")
        await store.commit([Commit(3, "t1", 1, histories={"o": [b"old"], "p": [b"old"]})])
        await store.commit([Commit(3, "t1", 2, forget_histories={"o", "p"}, histories={"o": [b"new"]})])
        found = await store.instances([(3, "o"), (3, "p")], history=True)
        assert [each.history for each in found] == [[b"new"], []]

    async def test_large_commit(self, store: Store) -> None:
        await store.claim(3, "A", "t1")
        many = 9_000
        commit = Commit(
            3,
            "t1",
            1,
            snapshots={("E", f"k{n}"): b"%d" % n for n in range(many)},
            mailbox={f"r{n}": b"x" for n in range(many)},
            timers={f"t{n}": (n, b"%d" % n) for n in range(many)},
            histories={"o": [b"%d" % n for n in range(many)]},
            deliveries=[Delivery(f"c:{n}", n + 1, (b"r",)) for n in range(1200)],
        )
        assert isinstance((await store.commit([commit]))[0], Committed)
        image = await store.claim(3, "A", "t1")
        assert len(image.mailbox) == len(image.timers) == many
        assert image.timers["t17"] == (17, b"17")
        assert len(image.sequences) == 1200
        assert (await store.snapshots([(3, "E", f"k{many - 1}")])) == [b"%d" % (many - 1)]
        assert (await store.instances([(3, "o")], history=True))[0].history[-1] == b"%d" % (many - 1)


# --- deliveries --------------------------------------------------------------------------


async def deliver_outbox(store: Store, outbox: list[OutboxEntry], partition: int = 3) -> list[Appended]:
    producer = f"p:{partition}"
    appends = [Append(entry.target, producer, entry.sequence, entry.payloads) for entry in outbox]
    return await store.append(appends)


class TestDeliveries:
    async def test_in_place_or_in_the_outbox(self, store: Store, kind: str) -> None:
        await store.claim(3, "A", "t1")
        deliveries = [
            Delivery("p:4", 1, (b"a",)),
            Delivery("q:work", 1, (b"b", b"c")),
            Delivery("c:me", 0, (b"d",)),
            Delivery("p:3", 1, (b"self",)),
        ]
        (outcome,) = await store.commit([Commit(3, "t1", 1, deliveries=deliveries)])
        assert isinstance(outcome, Committed)
        assert len(outcome.outbox) == (0 if kind in IN_PLACE else 4)
        assert await deliver_outbox(store, list(outcome.outbox)) == [Appended.OK] * len(outcome.outbox)
        assert await read_all(store, "p:4") == [b"a"]
        assert await read_all(store, "q:work") == [b"b", b"c"]
        assert await read_all(store, "c:me") == [b"d"]
        assert await read_all(store, "p:3") == [b"self"]
        assert (await store.claim(3, "A", "t1")).sequences == {"p:4": 1, "q:work": 1, "p:3": 1}

    async def test_outbox_entry_goes_when_delivered(self, store: Store) -> None:
        await store.claim(3, "A", "t1")
        deliveries = [Delivery("p:4", 2, (b"a",)), Delivery("p:5", 2, (b"b",))]
        await store.commit([Commit(3, "t1", 1, deliveries=deliveries)])
        await store.commit([Commit(3, "t1", 2, delivered=["1-0"])])
        image = await store.claim(3, "A", "t1")
        assert [entry.id for entry in image.outbox] == ["1-1"]

    async def test_full_target_waits_and_none_overtakes(self, store: Store, kind: str) -> None:
        await store.append([put("p:4", n) for n in range(1, INBOX_MAX + 1)])
        await store.claim(3, "A", "t1")
        await store.commit([Commit(3, "t1", 1, deliveries=[Delivery("p:4", 1, (b"first",))])])
        entries = (await store.reader().read({"p:4": START}, block_ms=0, count=100))["p:4"]
        await store.claim(4, "A", "t4")
        await store.commit([Commit(4, "t4", 1, position=entries[-1].id)])
        (outcome,) = await store.commit([Commit(3, "t1", 2, deliveries=[Delivery("p:4", 2, (b"second",))])])
        assert isinstance(outcome, Committed)
        assert [entry.id for entry in outcome.outbox] == ["2-0"], "there is room, but it is not its turn"
        image = await store.claim(3, "A", "t1")
        assert await deliver_outbox(store, image.outbox) == [Appended.OK] * 2
        await store.commit([Commit(3, "t1", 3, deliveries=[Delivery("p:4", 3, (b"third",))])])
        image = await store.claim(3, "A", "t1")
        await deliver_outbox(store, image.outbox)
        assert await read_all(store, "p:4") == [b"first", b"second", b"third"]

    async def test_relay_of_what_was_delivered_in_place_is_a_repeat(self, store: Store) -> None:
        await store.claim(3, "A", "t1")
        await store.commit([Commit(3, "t1", 1, deliveries=[Delivery("p:4", 1, (b"a",))])])
        again = [OutboxEntry("1-0", "p:4", 1, (b"a",))]
        assert await deliver_outbox(store, again) == [Appended.OK]
        assert await deliver_outbox(store, again) == [Appended.OK]
        assert await read_all(store, "p:4") == [b"a"]

    async def test_wakes_a_reader(self, store: Store) -> None:
        await store.claim(3, "A", "t1")
        reading = asyncio.create_task(store.reader().read({"c:me": START}, block_ms=600_000, count=10))
        await asyncio.sleep(0.01)
        (outcome,) = await store.commit([Commit(3, "t1", 1, deliveries=[Delivery("c:me", 0, (b"r",))])])
        assert isinstance(outcome, Committed)
        await deliver_outbox(store, list(outcome.outbox))
        async with asyncio.timeout(60):
            assert (await reading)["c:me"][0].payload == b"r"

    async def test_replies_of_several_commits_to_several_clients(self, store: Store) -> None:
        for partition in (1, 2, 3):
            await store.claim(partition, "A", "t1")
        refused = Commit(2, "stale", 1, deliveries=[Delivery("c:me", 0, (b"no",))])
        commits = [
            Commit(1, "t1", 1, deliveries=[Delivery("c:me", 0, (b"1",)), Delivery("c:you", 0, (b"2",))]),
            refused,
            Commit(3, "t1", 1, deliveries=[Delivery("c:me", 0, (b"3", *[b"x"] * 900, b"4"))]),
        ]
        for outcome in await store.commit(commits):
            if isinstance(outcome, Committed):
                await deliver_outbox(store, list(outcome.outbox))
        assert await read_all(store, "c:me") == [b"1", b"3", *[b"x"] * 900, b"4"]
        assert await read_all(store, "c:you") == [b"2"]


# --- hosts -------------------------------------------------------------------------------


class TestHosts:
    async def test_first_host_leads_until_it_stops(self, store: Store) -> None:
        view = await store.heartbeat("A", b"ra", lease_ms=60_000)
        assert (view.leader, view.placement_version, view.placement) == ("A", 0, b"")
        view = await store.heartbeat("B", b"r b \x00", lease_ms=60_000)
        assert view.leader == "A"
        assert [(beat.host, beat.record) for beat in view.hosts] == [("A", b"ra"), ("B", b"r b \x00")]
        assert all(0 <= beat.age_ms < 5000 for beat in view.hosts)
        assert abs(view.now_ms - await store.now_ms()) < 5000
        await store.remove_host("A")
        view = await store.heartbeat("B", b"rb", lease_ms=60_000)
        assert view.leader == "B"
        assert [beat.host for beat in view.hosts] == ["B"]

    async def test_removing_a_follower_keeps_the_leader(self, store: Store) -> None:
        await store.heartbeat("A", b"", lease_ms=60_000)
        await store.heartbeat("B", b"", lease_ms=60_000)
        await store.remove_host("B")
        assert (await store.heartbeat("A", b"", lease_ms=60_000)).leader == "A"

    async def test_a_host_that_has_beaten_since_is_not_removed(self, store: Store) -> None:
        await store.heartbeat("A", b"ra", lease_ms=60_000)
        view = await store.heartbeat("B", b"rb", lease_ms=60_000)
        seen_ms = {beat.host: view.now_ms - beat.age_ms for beat in view.hosts}
        await clock_moves(store)
        await store.heartbeat("A", b"ra", lease_ms=60_000)
        assert await store.remove_host("A", seen_ms["A"]) is False
        assert await store.remove_host("B", seen_ms["B"]) is True
        assert await store.remove_host("B", seen_ms["B"]) is False, "nothing is left to be removed"
        view = await store.heartbeat("C", b"rc", lease_ms=60_000)
        assert [beat.host for beat in view.hosts] == ["A", "C"]
        assert view.leader == "A", "who is not removed still leads"

    async def test_who_only_looks_is_no_host(self, store: Store) -> None:
        await store.heartbeat("A", b"ra", lease_ms=60_000)
        view = await store.heartbeat("", b"", lease_ms=1, lead=False)
        assert [(beat.host, beat.record) for beat in view.hosts] == [("A", b"ra")]
        assert view.leader == "A"

    async def test_lease_expires(self, store: Store) -> None:
        await store.heartbeat("A", b"", lease_ms=1)
        await clock_moves(store)
        assert (await store.heartbeat("B", b"", lease_ms=60_000)).leader == "B"

    async def test_who_must_not_lead_does_not(self, store: Store) -> None:
        assert (await store.heartbeat("A", b"", lease_ms=60_000, lead=False)).leader == ""
        assert (await store.heartbeat("B", b"", lease_ms=60_000)).leader == "B"

    async def test_only_the_leader_places_the_next_version(self, store: Store) -> None:
        assert await store.place("A", 1, b"map") is False
        await store.heartbeat("A", b"", lease_ms=60_000)
        assert await store.place("B", 1, b"map") is False
        assert await store.place("A", 2, b"map") is False
        assert await store.place("A", 1, b"map") is True
        assert await store.place("A", 1, b"map") is True, "a repeat is answered as the first time"
        assert await store.place("A", 1, b"other") is False
        assert await store.place("A", 2, b"\x00map2") is True
        view = await store.heartbeat("B", b"", lease_ms=60_000)
        assert (view.placement_version, view.placement) == (2, b"\x00map2")


class TestReading:
    async def test_nothing(self, store: Store) -> None:
        assert await store.snapshots([]) == []
        assert await store.instances([], history=True) == []
        assert await store.has_activities([]) == []

    async def test_sweep_forgets_old_clients_but_no_partition_and_no_sink(self, store: Store) -> None:
        await store.append([put("p:1", 1, producer=name) for name in ("s1", "p:2", "s:sink")])
        assert await store.sweep_producers(1, 3_600_000) == 0
        await clock_moves(store)
        assert await store.sweep_producers(1, 0) == 1
        assert await store.append([put("p:1", 2, producer="s1")]) == [Appended.GAP]
        assert await store.append([put("p:1", 2, producer="p:2")]) == [Appended.OK]
        assert await store.marks("s:sink", [1]) == [1]


# --- queues ------------------------------------------------------------------------------


class TestQueues:
    async def fill(self, store: Store, queue: str, count: int, sequence: int = 1) -> None:
        payloads = tuple(b"%s%d" % (queue.encode(), n) for n in range(count))
        assert await store.append([Append(f"q:{queue}", "p:1", sequence, payloads)]) == [Appended.OK]

    async def test_each_entry_is_taken_once(self, store: Store) -> None:
        await self.fill(store, "work", 3)
        a, b = store.queue_reader("a"), store.queue_reader("b")
        first = await a.take(["work"], block_ms=0, count=2)
        second = await b.take(["work"], block_ms=0, count=2)
        assert [entry.payload for entry in first] == [b"work0", b"work1"]
        assert [(e.payload, e.queue, e.deliveries) for e in second] == [(b"work2", "work", 1)]
        assert await a.take(["work"], block_ms=0, count=2) == []

    async def test_count_is_over_all_queues(self, store: Store) -> None:
        for queue in ("x", "y", "z"):
            await self.fill(store, queue, 3)
        reader = store.queue_reader("a")
        taken = []
        for _ in range(5):
            entries = await reader.take(["x", "y", "z"], block_ms=10, count=2)
            assert len(entries) <= 2
            taken += entries
        assert len({(entry.queue, entry.id) for entry in taken}) == 9
        assert {entry.queue for entry in taken[:6]} == {"x", "y", "z"}, "a busy queue starves none"

    @pytest.mark.parametrize("queues", [["work"], ["other", "work"]])
    async def test_waits_for_the_first_entry(self, store: Store, queues: list[str]) -> None:
        reader = store.queue_reader("a")
        taking = asyncio.create_task(reader.take(queues, block_ms=600_000, count=10))
        await asyncio.sleep(0.02)
        assert not taking.done()
        await self.fill(store, "work", 1)
        async with asyncio.timeout(60):
            assert [entry.payload for entry in await taking] == [b"work0"]
        assert await reader.take(queues, block_ms=10, count=10) == []

    async def test_waits_over_ready_queues_take_no_more_than_count(self, store: Store) -> None:
        reader = store.queue_reader("a")
        taken: list[object] = []
        taking = asyncio.create_task(reader.take(["x", "y"], block_ms=600_000, count=1))
        await asyncio.sleep(0.02)
        await store.append([Append(f"q:{queue}", "p:1", 1, (b"1",)) for queue in ("x", "y")])
        taken += await taking
        assert len(taken) == 1
        taken += await store.queue_reader("b").take(["x", "y"], block_ms=1000, count=1)
        assert len(taken) == 2

    async def test_finished_entries_are_gone(self, store: Store) -> None:
        await self.fill(store, "work", 2)
        reader = store.queue_reader("a")
        first, second = await reader.take(["work"], block_ms=0, count=10)
        await store.finish_entries([("work", first.id)])
        await store.finish_entries([("work", first.id), ("never", "1-1")])
        assert await read_all(store, "q:work") == [b"work1"]
        for _ in range(2):
            assert [(e.id, e.deliveries) for e in await reader.retake(["work"], count=10)] == [(second.id, 2)]
        await store.finish_entries([("work", second.id)])
        assert await reader.retake(["work", "never"], count=10) == []

    async def test_entries_of_the_dead_are_claimed_by_one(self, store: Store) -> None:
        await self.fill(store, "work", 6)
        for worker in ("a", "b", "c"):
            await store.worker_beat(worker, b"")
        held = await store.queue_reader("a").take(["work"], block_ms=0, count=4)
        alive = await store.queue_reader("b").take(["work"], block_ms=0, count=2)
        assert await store.claim_entries("c", ["work"], alive_ms=60_000, count=10) == []
        await store.remove_worker("a")
        claims = await asyncio.gather(
            store.claim_entries("b", ["work", "never"], alive_ms=60_000, count=3),
            store.claim_entries("c", ["work"], alive_ms=60_000, count=3),
        )
        claimed = [entry for found in claims for entry in found]
        assert sorted(entry.id for entry in claimed) == sorted(entry.id for entry in held)
        assert {entry.deliveries for entry in claimed} == {2}
        assert not {entry.id for entry in alive} & {entry.id for entry in claimed}
        assert await store.claim_entries("c", ["work"], alive_ms=60_000, count=10) == []

    async def test_looking_for_own_entries_is_no_delivery(self, store: Store) -> None:
        await self.fill(store, "work", 1)
        reader = store.queue_reader("a")
        await reader.take(["work"], block_ms=0, count=1)
        for _ in range(30):
            await reader.retake(["work"], count=1)
        (claimed,) = await store.claim_entries("b", ["work"], alive_ms=60_000, count=1)
        assert claimed.deliveries == 2

    async def test_workers_that_are_gone_for_long_are_forgotten(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for worker in ("crashed", "holds", "live"):
            await store.worker_beat(worker, b"")
        await self.fill(store, "work", 2)
        await store.queue_reader("holds").take(["work"], block_ms=0, count=2)
        await store.queue_reader("crashed").take(["work"], block_ms=0, count=2)
        await clock_moves(store)
        assert len(await store.claim_entries("live", ["work"], alive_ms=0, count=1)) == 1
        assert len(await store.workers()) == 3, "they have not been silent for that long"
        for module in (memory_store, redis_store):
            monkeypatch.setattr(module, "WORKER_TTL_MS", 0)
        await store.worker_beat("live", b"")
        assert await store.claim_entries("live", ["work"], alive_ms=60_000, count=0) == []
        assert len(await store.workers()) == 3, "they may be alive"
        await clock_moves(store)
        await store.worker_beat("live", b"")
        await store.claim_entries("live", ["work"], alive_ms=0, count=0)
        assert [beat.host for beat in await store.workers() if beat.host != "live"] == ["holds"]

    async def test_silent_worker_loses_its_entries(self, store: Store) -> None:
        await self.fill(store, "work", 1)
        await store.worker_beat("a", b"")
        await store.queue_reader("a").take(["work"], block_ms=0, count=1)
        await clock_moves(store)
        (claimed,) = await store.claim_entries("b", ["work"], alive_ms=0, count=1)
        assert claimed.deliveries == 2
        await store.finish_entries([("work", claimed.id)])
        assert await read_all(store, "q:work") == []

    async def test_dead_worker_that_comes_back_can_take(self, store: Store) -> None:
        reader = store.queue_reader("a")
        await self.fill(store, "work", 1)
        (entry,) = await reader.take(["work"], block_ms=0, count=1)
        await store.finish_entries([("work", entry.id)])
        assert await store.claim_entries("b", ["work"], alive_ms=0, count=1) == []
        await self.fill(store, "work", 1, sequence=2)
        assert len(await reader.take(["work"], block_ms=0, count=1)) == 1

    async def test_details_are_kept_as_long_as_their_entry(self, store: Store) -> None:
        await self.fill(store, "work", 2)
        await self.fill(store, "other", 1)
        (kept,) = await store.queue_reader("a").take(["work"], block_ms=0, count=1)
        (other,) = await store.queue_reader("a").take(["other"], block_ms=0, count=1)
        entries = [("work", kept.id), ("other", other.id), ("never", kept.id)]
        assert await store.details_of(entries) == [None, None, None]
        await store.keep_details({entries[0]: b"first"})
        await store.keep_details({entry: b"%d" % at for at, entry in enumerate(entries)})
        assert await store.details_of(entries) == [b"0", b"1", None], "what has no entry keeps nothing"
        await store.remove_worker("a")
        await store.claim_entries("b", ["work", "other"], alive_ms=60_000, count=10)
        assert await store.details_of(entries[:2]) == [b"0", b"1"], "whoever has the entry"
        await store.finish_entries(entries[:1])
        await store.keep_details({entries[0]: b"late"})
        assert await store.details_of(entries) == [None, b"1", None]
        await store.keep_details({})
        assert await store.details_of([]) == []

    async def test_full_queue(self, store: Store) -> None:
        await self.fill(store, "work", QUEUE_MAX)
        assert await store.append([Append("q:work", "p:1", 2, (b"x",))]) == [Appended.FULL]

    async def test_workers(self, store: Store) -> None:
        await store.worker_beat("a", b"first")
        await store.worker_beat("a", b"second one")
        await store.worker_beat("b", b"")
        found = await store.workers()
        assert [(beat.host, beat.record) for beat in found] == [("a", b"second one"), ("b", b"")]
        await store.remove_worker("a")
        assert [beat.host for beat in await store.workers()] == ["b"]


class TestQueueLimits:
    """What readers are given of queues with limits and priorities."""

    async def fill(self, store: Store, queue: str, *priorities: int) -> None:
        for at, priority in enumerate(priorities):
            lane = lane_of(queue, priority)
            put = Append(f"q:{lane}", f"p:{at}", 1, (b"%d.%d" % (priority, at),))
            assert await store.append([put]) == [Appended.OK]

    async def limit(self, store: Store, queue: str, **limits: float | None) -> None:
        await store.adjust_queue(queue, QueueLimits(**limits).to_fields("s"))  # type: ignore[arg-type]

    async def test_the_urgent_go_first_and_each_priority_in_order(self, store: Store) -> None:
        await self.fill(store, "work", 5, 9, 0, 5, 2, 0)
        reader = store.queue_reader("a")
        first = await reader.take(["work"], block_ms=0, count=3)
        assert [entry.payload for entry in first] == [b"0.2", b"0.5", b"2.4"]
        rest = await reader.take(["work"], block_ms=0, count=100)
        assert [entry.payload for entry in rest] == [b"5.0", b"5.3", b"9.1"]
        state = await store.queue_state("work")
        assert (sum(state.waiting.values()), state.taken) == (0, {"a": 6})
        await store.finish_entries([(entry.queue, entry.id) for entry in (*first, *rest)])
        assert (await store.queue_state("work")).taken == {}
        for priority in (0, 2, 5, 9):
            assert await read_all(store, f"q:{lane_of('work', priority)}") == []

    async def test_the_last_are_not_starved(self, store: Store) -> None:
        await self.fill(store, "work", 9, 9, *[0] * 30)
        reader = store.queue_reader("a")
        order = [
            entry.payload[:1] for _ in range(16) for entry in await reader.take(["work"], block_ms=0, count=2)
        ]
        assert len(order) == 32
        assert [at for at, priority in enumerate(order) if priority == b"9"] == [9, 19], "one in ten"

    async def test_who_waits_hears_of_every_priority(self, store: Store) -> None:
        await self.fill(store, "work", 1)
        reader = store.queue_reader("a")
        await reader.take(["other", "work"], block_ms=0, count=1)
        taking = asyncio.create_task(reader.take(["other", "work"], block_ms=600_000, count=10))
        await asyncio.sleep(0.02)
        assert not taking.done()
        await store.append([Append(f"q:{lane_of('work', 7)}", "p:1", 1, (b"late",))])
        async with asyncio.timeout(60):
            assert [entry.payload for entry in await taking] == [b"late"]

    async def test_concurrency_is_over_all_workers(self, store: Store) -> None:
        await self.fill(store, "work", 5, 5, 1, 5, 5)
        await self.limit(store, "work", concurrency=3)
        a, b = store.queue_reader("a"), store.queue_reader("b")
        first = await a.take(["work"], block_ms=0, count=2)
        second = await b.take(["work"], block_ms=0, count=100)
        assert [len(first), len(second)] == [2, 1]
        assert await a.take(["work"], block_ms=0, count=100) == []
        await store.finish_entries([(first[0].queue, first[0].id)])
        assert len(await b.take(["work"], block_ms=0, count=100)) == 1
        assert await b.take(["work"], block_ms=0, count=100) == []
        state = await store.queue_state("work")
        assert (sum(state.waiting.values()), state.taken) == (1, {"a": 1, "b": 2})

    async def test_a_limit_on_each_worker(self, store: Store) -> None:
        await self.fill(store, "work", *[5] * 5)
        await self.limit(store, "work", worker_concurrency=2)
        a, b = store.queue_reader("a"), store.queue_reader("b")
        assert len(await a.take(["work"], block_ms=0, count=100)) == 2
        assert await a.take(["work"], block_ms=0, count=100) == []
        assert len(await b.take(["work"], block_ms=0, count=100)) == 2

    async def test_a_dead_workers_slots_move_with_its_entries(self, store: Store) -> None:
        await self.fill(store, "work", 1, 5, 8, 5)
        await self.limit(store, "work", concurrency=3)
        await store.worker_beat("a", b"")
        held = await store.queue_reader("a").take(["work"], block_ms=0, count=100)
        assert len(held) == 3
        await store.remove_worker("a")
        b = store.queue_reader("b")
        assert await b.take(["work"], block_ms=0, count=100) == [], "they are still to be run"
        claimed = await store.claim_entries("b", ["work"], alive_ms=60_000, count=10)
        assert sorted((e.queue, e.id) for e in claimed) == sorted((e.queue, e.id) for e in held)
        assert {entry.deliveries for entry in claimed} == {2}
        again = await b.retake(["work"], count=10)
        assert len(again) == 3
        await store.finish_entries([(entry.queue, entry.id) for entry in claimed])
        assert len(await b.take(["work"], block_ms=0, count=100)) == 1

    async def test_a_rate_is_over_all_workers(self, store: Store) -> None:
        await self.fill(store, "work", *[5] * 5)
        await self.limit(store, "work", rate=0.001)
        assert len(await store.queue_reader("a").take(["work"], block_ms=0, count=100)) == 1
        assert await store.queue_reader("b").take(["work"], block_ms=0, count=100) == []
        await self.limit(store, "work", rate=None)
        assert len(await store.queue_reader("c").take(["work"], block_ms=0, count=100)) == 4

    async def test_a_rate_lets_the_next_go_in_time(self, store: Store) -> None:
        await self.fill(store, "work", *[5] * 3)
        await self.limit(store, "work", rate=50.0)
        reader, taken = store.queue_reader("a"), 0
        async with asyncio.timeout(60):
            while taken < 3:
                taken += len(await reader.take(["work"], block_ms=1_000, count=100))

    async def test_a_paused_queue_gives_nothing_and_others_go_on(self, store: Store) -> None:
        await self.fill(store, "work", 5)
        await self.fill(store, "other", 5)
        await store.adjust_queue("work", {"paused": "1"})
        reader = store.queue_reader("a")
        taken = await reader.take(["work", "other"], block_ms=0, count=100)
        assert [entry.queue for entry in taken] == ["other"]
        taking = asyncio.create_task(reader.take(["work", "other"], block_ms=600_000, count=10))
        await asyncio.sleep(0.05)
        assert not taking.done()
        await store.adjust_queue("work", {"paused": None})
        async with asyncio.timeout(60):
            assert [entry.queue for entry in await taking] == ["work"]

    async def test_readers_notice_new_limits_and_their_end(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(redis_queues, "LOOK_S", 0.0)
        reader = store.queue_reader("a")
        await self.fill(store, "work", *[5] * 4)
        assert len(await reader.take(["work"], block_ms=0, count=1)) == 1
        await self.limit(store, "work", concurrency=2)
        assert len(await reader.take(["work"], block_ms=0, count=100)) == 1
        await self.limit(store, "work")
        assert (await store.queue_state("work")).fields == {}
        assert len(await reader.take(["work"], block_ms=0, count=100)) == 2

    async def test_what_is_set_goes_before_what_is_declared(self, store: Store) -> None:
        await store.adjust_queue("work", QueueLimits(concurrency=1, rate=2.5).to_fields("d"))
        await store.adjust_queue("work", {"s:concurrency": "7", "s:rate": ""})
        limits, paused = limits_from((await store.queue_state("work")).fields)
        assert (limits, paused) == (QueueLimits(concurrency=7), False)
        await self.fill(store, "work", *[5] * 9)
        assert len(await store.queue_reader("a").take(["work"], block_ms=0, count=100)) == 7

    async def test_rows_of_what_is_queued(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(redis_queues, "PAGE_ENTRIES", 2)
        for at in range(7):
            payload = wire.pack([activity_task(row=f"i\x00x\x00{at}")])
            lane = lane_of("work", 5 if at < 5 else 0)
            assert await store.append([Append(f"q:{lane}", f"p:{at}", 1, (payload,))]) == [Appended.OK]
        await store.append([Append("q:work", "p:9", 1, (b"not a task", b"\x93\x01\x02\x03"))])
        taken = await store.queue_reader("a").take(["work"], block_ms=0, count=3)
        await store.finish_entries([(taken[0].queue, taken[0].id)])
        gone = wire.unpack_task(taken[0].payload).row
        rows = [f"i\x00x\x00{at}" for at in range(9)]
        found = await store.queued_rows("work", rows)
        assert found == set(rows[:7]) - {gone}
        assert await store.queued_rows("work", rows[2:3]) == {rows[2]}
        assert await store.queued_rows("never", rows) == set()
        assert await store.queued_rows("work", []) == set()

    async def test_a_queue_that_nobody_used(self, store: Store) -> None:
        state = await store.queue_state("never")
        assert (state.fields, sum(state.waiting.values()), state.taken) == ({}, 0, {})
        await store.adjust_queue("never", {})
        await store.adjust_queue("never", {"s:rate": None})


def activity_task(row: str) -> ActivityTask:
    owner = ActorId(ORCHESTRATION, "", "i")
    return ActivityTask(owner, "x", 1, 1, "a", b"\xc4\x03abc", "key", 0, row, 0, b"details", 0, 0)


async def test_messages_that_are_set_aside_are_listed_in_pages_and_removed(store: Store) -> None:
    await store.claim(1, "a", "t")
    for number in range(1, 4):
        dead = [b"%d.%d" % (number, n) for n in range(2)]
        assert await store.commit([Commit(1, "t", number, dead=dead)]) == [Committed()]
    first = await store.dead(1, START, 4)
    rest = await store.dead(1, first[-1].id, 4)
    expected = [b"%d.%d" % (number, n) for number in range(1, 4) for n in range(2)]
    assert [entry.payload for entry in (*first, *rest)] == expected
    await store.remove_dead(1, [])
    await store.remove_dead(1, [first[1].id, "1-1"])
    await store.remove_dead(1, [first[1].id])
    assert [entry.payload for entry in await store.dead(1, START, 10)] == [expected[0], *expected[2:]]
    assert await store.dead(2, START, 10) == []


async def test_deaths_in_a_row_are_counted_and_a_release_is_none(store: Store) -> None:
    deaths = [(await store.claim(1, "a", token)).deaths for token in ("t1", "t2", "t3", "t3", "t4")]
    assert deaths == [0, 1, 2, 2, 3]
    assert await store.release(1, "t4")
    assert [(await store.claim(1, "a", token)).deaths for token in ("t5", "t6")] == [0, 1]
