"""Calls that go straight to their host: in how many writes, in what order, and what if it does not answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

import lungfish
from lungfish.runtime.client.client import Client
from lungfish.runtime.errors import (
    DeadlineExceeded,
    InternalError,
    Overloaded,
    SerializationError,
    StoreUnavailable,
)
from lungfish.runtime.messages import wire
from lungfish.runtime.session.direct import Handed
from lungfish.runtime.session.sender import ANSWER_S, CROWDED_S, SILENCE_S
from lungfish.runtime.store.store import Append, Appended
from lungfish.runtime.testing.memory_store import MemoryStore
from tests.unit.hub import Hub, hub_of, key_in
from tests.virtual import virtually

app = lungfish.App("handing")
#: Operations that wait end when this is set.
GO = asyncio.Event()


@app.entity
class Tally(lungfish.Entity):
    """Notes what it is told, in order."""

    said: list[str] = []

    def say(self, word: str) -> list[str]:
        self.said.append(word)
        return list(self.said)

    async def wait(self) -> str:
        await GO.wait()
        return "waited"


class Wire(MemoryStore):
    """A client's way to the store: counts what goes which way, and loses what it is told to."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub.server, hub.name)
        self.handed = 0
        self.appended = 0
        #: What becomes of what is handed over: it travels, is lost, or nobody is there.
        self.fate: Callable[[str, bytes], bool | None] = lambda host, payload: None
        #: Instead of the store's answer to an append; None: the store's.
        self.answer: Callable[[Sequence[Append]], list[Appended] | None] = lambda appends: None

    async def hand(self, host: str, partitions: Sequence[int], payload: bytes) -> bool:
        self.handed += 1
        fate = self.fate(host, payload)
        return await super().hand(host, partitions, payload) if fate is None else fate

    async def append(self, appends: Sequence[Append]) -> list[Appended]:
        self.appended += len(appends)
        answer = self.answer(appends)
        return await super().append(appends) if answer is None else answer


@contextlib.asynccontextmanager
async def connected(hub: Hub) -> AsyncIterator[tuple[Client, Wire]]:
    """Give a client that knows who owns what, and whose lanes to partition 0 and 1 are known there."""
    store = Wire(hub)
    async with Client(lambda: store, app) as client:
        for partition in (0, 1):
            await said(client, partition, "warm")
            await hub.until(lambda: store.handed or store.appended, "something was sent")
        while not store.handed:
            await said(client, 0, "warm")
            await asyncio.sleep(0.01)
        await said(client, 1, "warm")
        store.handed = store.appended = 0
        yield client, store


def tally(client: Client, partition: int = 0, prefix: str = "k") -> lungfish.EntityRef[Tally]:
    return client.entity(Tally, key_in(partition, "Tally", prefix))


async def said(client: Client, partition: int, word: str) -> list[str]:
    found = await tally(client, partition).call(Tally.say, word)
    return [each for each in found if each != "warm"]


def of_one_host(test: Callable[[Hub, Client, Wire], Any]) -> Callable[[], None]:
    """Run a test with one host, on a virtual clock."""

    async def body() -> None:
        global GO  # noqa: PLW0603 - an event belongs to one loop
        GO = asyncio.Event()
        async with hub_of(app) as hub:
            await hub.start_all("one")
            async with connected(hub) as (client, store):
                await test(hub, client, store)

    def run() -> None:
        virtually(body)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@of_one_host
async def test_a_call_is_written_once(hub: Hub, client: Client, store: Wire) -> None:
    commits = hub.row(0).number
    for word in "abc":
        await said(client, 0, word)
    assert (store.handed, store.appended) == (3, 0)
    assert hub.row(0).number == commits + 3
    assert await said(client, 0, "d") == ["a", "b", "c", "d"]


@of_one_host
async def test_calls_of_one_moment_go_together_and_in_order(hub: Hub, client: Client, store: Wire) -> None:
    words = [f"{number}" for number in range(20)]
    found = await asyncio.gather(*(said(client, number % 2, word) for number, word in enumerate(words)))
    assert (store.handed, store.appended) == (1, 0)
    assert found[-2:] == [words[0::2], words[1::2]]


@of_one_host
async def test_signals_and_calls_keep_their_order(hub: Hub, client: Client, store: Wire) -> None:
    ref = tally(client)
    work: list[Any] = []
    for number in range(12):
        send = ref.signal if number % 3 else ref.call
        work.append(asyncio.ensure_future(send(Tally.say, f"{number}")))
        if number % 4 == 0:
            await asyncio.sleep(0.001)
    await asyncio.gather(*work)
    assert await said(client, 0, "end") == [*map(str, range(12)), "end"]
    assert store.handed
    assert store.appended, "signals are durable when they return"


@of_one_host
async def test_one_that_is_lost_is_appended_and_applied_once(hub: Hub, client: Client, store: Wire) -> None:
    store.fate = lambda host, payload: True
    began_s = asyncio.get_running_loop().time()
    assert await said(client, 0, "a") == ["a"]
    assert asyncio.get_running_loop().time() - began_s >= ANSWER_S
    assert (store.handed, store.appended) == (1, 1)
    assert await said(client, 0, "b") == ["a", "b"]
    assert (store.handed, store.appended) == (1, 2), "who was silent is left alone for a while"
    await asyncio.sleep(SILENCE_S[0])
    store.fate = lambda host, payload: None
    while store.handed == 1:
        await said(client, 0, "c")
    assert (await said(client, 0, "d"))[:2] == ["a", "b"]


@of_one_host
async def test_where_nobody_listens_it_is_appended_at_once(hub: Hub, client: Client, store: Wire) -> None:
    store.fate = lambda host, payload: False
    began_s = asyncio.get_running_loop().time()
    assert await said(client, 0, "a") == ["a"]
    assert await said(client, 0, "b") == ["a", "b"]
    assert asyncio.get_running_loop().time() - began_s < ANSWER_S
    assert (store.handed, store.appended) == (1, 2)


@of_one_host
async def test_a_broken_connection_makes_it_append(hub: Hub, client: Client, store: Wire) -> None:
    def broken(host: str, payload: bytes) -> bool:
        hub.server.listeners[hub.name, host](["", ""], payload)  # it arrived, though
        raise StoreUnavailable("broken")

    store.fate = broken
    assert await said(client, 0, "a") == ["a"]
    store.fate = lambda host, payload: None
    assert await said(client, 0, "b") == ["a", "b"]


@of_one_host
async def test_a_commit_that_takes_long_meets_its_double(hub: Hub, client: Client, store: Wire) -> None:
    host = hub.stores["one"]
    host.commits_pass.clear()
    work = asyncio.ensure_future(said(client, 0, "a"))
    await hub.until(lambda: store.appended, "the client has appended what it had handed over")
    await asyncio.sleep(0.05)  # the host has read it
    host.commits_pass.set()
    assert await work == ["a"]
    await hub.until(lambda: not hub.row(0).doubled, "the double was passed over")
    assert await said(client, 0, "b") == ["a", "b"]


async def _dies_between(hub: Hub) -> list[str]:
    """The owner commits what it was handed, and dies before it has read the same from its inbox."""
    await hub.start_all("one")
    async with connected(hub) as (client, store):
        host = hub.stores["one"]
        reading = hub.hosts["one"]._rounds
        host.commits_pass.clear()
        work = asyncio.ensure_future(said(client, 0, "a"))
        await asyncio.sleep(ANSWER_S / 2)
        reading.stop_reading(0)  # as if the answer to its read were late
        await hub.until(lambda: store.appended, "the client has appended what it had handed over")
        host.commits_pass.set()
        assert await work == ["a"]
        assert hub.row(0).doubled
        await hub.kill("one")
        await hub.start_all("two")
        return await said(client, 0, "b")


def test_a_death_between_a_commit_and_its_double_doubles_nothing() -> None:
    async def run() -> None:
        async with hub_of(app) as hub:
            assert await _dies_between(hub) == ["a", "b"]
            await hub.until(lambda: not hub.row(0).doubled, "nothing of it is left")

    virtually(run)


@of_one_host
async def test_a_host_that_dies_with_it_loses_nothing(hub: Hub, client: Client, store: Wire) -> None:
    hub.stores["one"].commits_pass.clear()
    work = asyncio.ensure_future(said(client, 0, "a"))
    await hub.until(lambda: store.handed, "it was handed over")
    await hub.kill("one")
    await hub.start_all("two")
    assert await work == ["a"]
    assert await said(client, 0, "b") == ["a", "b"]


@of_one_host
async def test_what_runs_for_long_holds_up_nothing_else(hub: Hub, client: Client, store: Wire) -> None:
    slow = asyncio.ensure_future(tally(client).call(Tally.wait))
    await hub.until(lambda: hub.row(0).mailbox, "it is durable")
    began_s = asyncio.get_running_loop().time()
    other = tally(client, prefix="other")
    assert await other.call(Tally.say, "a") == ["a"]
    assert await other.call(Tally.say, "b") == ["a", "b"]
    assert asyncio.get_running_loop().time() - began_s < ANSWER_S
    await asyncio.sleep(2 * ANSWER_S)
    assert store.appended == 0, "a receipt came before the answer"
    GO.set()
    assert await slow == "waited"


@of_one_host
async def test_a_host_that_owns_it_no_more_says_so_at_once(hub: Hub, client: Client, store: Wire) -> None:
    await hub.start_all("two")
    await hub.until(lambda: len(set(hub.owners().values())) == 2, "the two share")
    await hub.settled()
    moved = next(number for number in (0, 1, 2, 3) if hub.owners()[number] == "two")
    ref = tally(client, moved)
    warm = len(await ref.call(Tally.say, "warm"))
    began_s = asyncio.get_running_loop().time()
    for number in range(4):
        assert len(await ref.call(Tally.say, "x")) == warm + number + 1
    assert asyncio.get_running_loop().time() - began_s < ANSWER_S
    assert store.handed > 0


def refused(hub: Hub) -> Callable[[str, bytes], bool]:
    """Have the host refuse what is handed to it, in words."""

    def pass_on(host: str, payload: bytes) -> bool:
        for number, sequence, _ in wire.unpack_handed(payload)[1]:
            hub.hosts[host]._rounds._notes.refused(number, wire.unpack_handed(payload)[0], sequence)
        return True

    return pass_on


def broken(host: str, payload: bytes) -> bool:
    raise StoreUnavailable("broken")


@of_one_host
async def test_overloaded_is_said_of_what_was_refused(hub: Hub, client: Client, store: Wire) -> None:
    store.answer = lambda appends: [Appended.CROWDED] * len(appends)
    store.fate = refused(hub)
    with pytest.raises(Overloaded):
        await tally(client).call(Tally.say, "a", timeout=4 * CROWDED_S)
    assert store.handed == 1


def silent(host: str, payload: bytes) -> bool:
    return True


def deaf(host: str, payload: bytes) -> bool:
    return False


@pytest.mark.parametrize("fate", [silent, deaf, broken])
def test_overloaded_is_not_said_of_what_may_have_been_taken(fate: Callable[[str, bytes], bool]) -> None:
    @of_one_host
    async def test(hub: Hub, client: Client, store: Wire) -> None:
        store.answer = lambda appends: [Appended.CROWDED] * len(appends)
        store.fate = fate
        with pytest.raises(StoreUnavailable, match="unknown"):
            await tally(client).call(Tally.say, "c", timeout=4 * CROWDED_S)
        assert store.handed == 1

    test()


@of_one_host
async def test_a_call_that_timed_out_is_no_answer_for_the_others(
    hub: Hub, client: Client, store: Wire
) -> None:
    store.fate = silent
    lost = asyncio.ensure_future(tally(client).call(Tally.say, "a", timeout=ANSWER_S / 5))
    others = [asyncio.ensure_future(said(client, 0, word)) for word in "bc"]
    with pytest.raises(DeadlineExceeded):
        await lost
    store.fate = lambda host, payload: None
    assert await said(client, 1, "x") == ["x"], "answers come while the batch is still waited for"
    assert store.handed == 2
    assert [(await other)[-1] for other in others] == ["b", "c"]


@of_one_host
async def test_each_batch_waits_for_what_is_in_its_own_inbox(hub: Hub, client: Client, store: Wire) -> None:
    """Another client's signals are acknowledged, and lie unread; who calls then must see them."""
    rounds = hub.hosts["one"]._rounds
    async with Client(hub.store, app) as other:
        rounds.stop_reading(0)
        rounds.stop_reading(1)
        await rounds._reader.wake()
        await asyncio.sleep(0.01)
        await tally(other, 1).signal(Tally.say, "first")
        rounds._taking = frozenset()
        ends: list[str] = []
        genuine = rounds._hand

        def late(found: list[str], payload: bytes) -> None:
            ends.extend(found)
            genuine(found, payload)

        hub.server.listeners[hub.name, "one"] = late
        near, far = await asyncio.gather(said(client, 0, "x"), said(client, 1, "y"))
    assert (near, far) == (["x"], ["first", "y"])
    assert len(ends) == 2


@of_one_host
async def test_a_lane_is_forgotten_when_nothing_happens(hub: Hub, client: Client, store: Wire) -> None:
    partition = hub.hosts["one"]._rounds.get(0)
    assert partition is not None
    await asyncio.sleep(1)  # positions are committed lazily
    assert partition.idle_lanes() == []
    lanes = partition.idle_lanes()
    assert len(lanes) == 1
    partition.direct.forget(lanes, {})
    lost = hub.hosts["one"].lost
    assert await said(client, 0, "a") == ["a"]
    assert (store.handed, store.appended, hub.hosts["one"].lost) == (1, 1, lost)


@of_one_host
async def test_what_nobody_can_read_on_the_channel_harms_nothing(
    hub: Hub, client: Client, store: Wire
) -> None:
    take = hub.server.listeners[hub.name, "one"]
    lane = next(iter(hub.state.producers["p:0"]))
    number = hub.state.producers["p:0"][lane][0] + 1
    good = wire.pack_handed(lane, [(0, number, [])])
    for ends in (["junk"], [], ["", ""], ["\ufffd-1"]):
        take(ends, good)
    take([""], b"junk")
    assert await said(client, 0, "a") == ["a"]


@of_one_host
async def test_one_that_cannot_be_sent_fails_alone(hub: Hub, client: Client, store: Wire) -> None:
    found = await asyncio.gather(
        said(client, 0, "a"),
        client.entity("Tally", key_in(0, "Tally")).call("\udcff"),
        said(client, 0, "b"),
        return_exceptions=True,
    )
    assert isinstance(found[1], (SerializationError, lungfish.LungfishError))
    assert (found[0], found[2]) == (["a"], ["a", "b"])


@of_one_host
async def test_closing_ends_what_was_handed_over(hub: Hub, client: Client, store: Wire) -> None:
    store.fate = lambda host, payload: True
    work = asyncio.ensure_future(said(client, 0, "a"))
    await hub.until(lambda: store.handed, "it was handed over")
    await client.close()
    with pytest.raises(StoreUnavailable):
        await work


@of_one_host
async def test_a_full_mailbox_is_not_passed_by(hub: Hub, client: Client, store: Wire) -> None:
    """A partition with many unfinished messages refuses what is handed over: the inbox says when to stop."""
    work = [asyncio.ensure_future(tally(client, prefix=f"w{n}").call(Tally.wait)) for n in range(1_010)]
    await hub.until(lambda: len(hub.row(0).mailbox) >= 1_010, "all wait")
    store.handed = store.appended = 0
    assert await said(client, 0, "a") == ["a"]
    assert store.appended == 1
    GO.set()
    await asyncio.gather(*work)


@of_one_host
async def test_a_bug_in_handing_over_is_no_end_of_sending(hub: Hub, client: Client, store: Wire) -> None:
    def broken(host: str, payload: bytes) -> bool:
        raise InternalError("a bug")

    store.fate = broken
    assert await said(client, 0, "a") == ["a"]
    await tally(client).signal(Tally.say, "b")
    assert await said(client, 0, "c") == ["a", "b", "c"]


@of_one_host
async def test_a_refusal_of_a_later_one_makes_no_double_new(hub: Hub, client: Client, store: Wire) -> None:
    """The owner knows what it was handed until that is read, whatever comes meanwhile."""
    host, rounds = hub.stores["one"], hub.hosts["one"]._rounds
    host.commits_pass.clear()
    work = asyncio.ensure_future(said(client, 0, "a"))
    await asyncio.sleep(ANSWER_S / 2)
    rounds.stop_reading(0)
    await hub.until(lambda: store.appended, "the client has appended what it had handed over")
    host.commits_pass.set()
    assert await work == ["a"]
    partition = rounds.get(0)
    assert partition is not None
    lane = next(iter(hub.row(0).doubled))
    partition.direct.refuse(Handed(lane, 99, [], (0, 0), 0))
    rounds._taking = frozenset()
    assert await said(client, 0, "b") == ["a", "b"]


def test_a_signal_sent_while_others_are_handed_over_is_acknowledged() -> None:
    async def run() -> None:
        async with hub_of(app) as hub:
            await hub.start_all("one", "two")
            async with connected(hub) as (client, store):
                await hub.until(lambda: len(set(hub.owners().values())) == 2, "the two share")
                await hub.settled()
                refs = [tally(client, number) for number in range(4)]
                for _ in range(5):
                    await asyncio.gather(*(ref.call(Tally.say, "warm") for ref in refs))
                    await asyncio.sleep(0.2)
                signals: list[asyncio.Task[None]] = []

                def signal_meanwhile(host: str, payload: bytes) -> None:
                    signals.extend(asyncio.ensure_future(ref.signal(Tally.say, "s")) for ref in refs)

                store.fate, store.handed = signal_meanwhile, 0
                await asyncio.gather(*(ref.call(Tally.say, "x") for ref in refs))
                assert store.handed == 2, "one for each host"
                async with asyncio.timeout(10):
                    await asyncio.gather(*signals)
                store.fate = lambda host, payload: None
                found = await asyncio.gather(*(ref.call(Tally.say, "end") for ref in refs))
                assert [words.count("s") for words in found] == [2] * 4

    virtually(run)


@of_one_host
async def test_what_comes_when_a_host_has_ended_starts_nothing(hub: Hub, client: Client, store: Wire) -> None:
    host = hub.hosts["one"]
    await hub.drain("one")
    before = asyncio.all_tasks()
    host._rounds._hand([""], wire.pack_handed("c:me:e", [(0, 2, [])]))
    assert asyncio.all_tasks() == before


@of_one_host
async def test_a_late_receipt_is_none_for_a_later_batch(hub: Hub, client: Client, store: Wire) -> None:
    store.fate = silent
    work = asyncio.ensure_future(said(client, 0, "a"))
    await hub.until(lambda: store.handed, "it was handed over")
    assert client._connection is not None
    sender = client._connection._sender
    (lane,) = sender._handed
    sender.note(taken=True, partition=0, sequence=lane.sequence - 1)
    assert await work == ["a"]
    assert (store.handed, store.appended) == (1, 1), "it was appended when no answer came"
