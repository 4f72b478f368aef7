"""The outbox relay: each entry once and in order, from one owner or from two."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from lungfish.runtime.messages import wire
from lungfish.runtime.messages.messages import Signal
from lungfish.runtime.partitions.partition import Partition
from lungfish.runtime.partitions.relay import LANE_ENTRIES_MAX, Relay
from lungfish.runtime.store.generations import base_at
from lungfish.runtime.store.store import Append, Delivery, OutboxEntry, Store
from lungfish.runtime.testing.memory_store import MemoryServer, MemoryStore
from tests.unit.fakes import FakeKind, actor_in, make_partition
from tests.unit.scripted import BROKEN, FULL, GAP, OK, FlakyStore, ScriptedStore, words_of
from tests.virtual import virtual_server, virtually

THERE = actor_in(1)
ONE, TWO = "p:1", "p:2"


def entry(sequence: int, target: str = ONE) -> OutboxEntry:
    payload = wire.pack([Signal(THERE, "op", b"%d" % sequence)])
    return OutboxEntry(f"{target}/{sequence}", target, sequence, (payload,))


def partition() -> Partition:
    return make_partition(FakeKind())


def delivered(owner: Partition) -> list[str]:
    return owner.take_commit().delivered


@contextlib.asynccontextmanager
async def relay_on(store: ScriptedStore | Store) -> AsyncIterator[Relay]:
    relay = Relay(cast("Any", store))
    task = asyncio.create_task(relay.run_forever())
    try:
        yield relay
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def empty(relay: Relay) -> None:
    async with asyncio.timeout(1_000):
        while relay.backlog:
            await asyncio.sleep(0.01)


Test = Callable[[], Coroutine[Any, Any, None]]


def virtual(test: Test) -> Callable[[], None]:
    def run() -> None:
        virtually(test)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@virtual
async def test_entries_go_in_order_and_are_reported() -> None:
    store, owner = ScriptedStore(), partition()
    async with relay_on(store) as relay:
        relay.add(owner, [entry(1), entry(2), entry(1, TWO)])
        assert relay.backlog == 3
        await empty(relay)
        relay.add(owner, [entry(3)])
        await empty(relay)
    assert store.sent == [
        [(ONE, 1, False, [b"1"]), (ONE, 2, False, [b"2"]), (TWO, 1, False, [b"1"])],
        [(ONE, 3, False, [b"3"])],
    ]
    assert {append.producer for call in store.calls for append in call} == {"p:0"}
    assert delivered(owner) == ["p:1/1", "p:1/2", "p:2/1", "p:1/3"]


@virtual
async def test_after_a_broken_connection_the_same_is_sent_again() -> None:
    store, owner = ScriptedStore(BROKEN, BROKEN), partition()
    async with relay_on(store) as relay:
        relay.add(owner, [entry(1), entry(2)])
        await empty(relay)
    assert store.calls == [store.calls[0]] * 3
    assert delivered(owner) == ["p:1/1", "p:1/2"]


@virtual
async def test_a_full_target_holds_up_its_own_entries_only() -> None:
    store, owner = ScriptedStore([FULL, FULL, OK], [FULL, GAP]), partition()
    async with relay_on(store) as relay:
        relay.add(owner, [entry(1), entry(2), entry(1, TWO)])
        await empty(relay)
    assert [[(t, s) for t, s, _, _ in call] for call in store.sent] == [
        [(ONE, 1), (ONE, 2), (TWO, 1)],
        [(ONE, 1), (ONE, 2)],
        [(ONE, 1), (ONE, 2)],
    ]
    assert not any(resync for call in store.sent for _, _, resync, _ in call), "it lost nothing: it is full"
    assert delivered(owner) == ["p:2/1", "p:1/1", "p:1/2"]


@virtual
async def test_what_was_accepted_before_a_refusal_is_not_sent_again() -> None:
    store, owner = ScriptedStore([OK, FULL, GAP]), partition()
    async with relay_on(store) as relay:
        relay.add(owner, [entry(1), entry(2), entry(3)])
        await empty(relay)
    assert [sent[:3] for sent in store.sent[1]] == [(ONE, 2, False), (ONE, 3, False)]


@virtual
async def test_after_a_failover_of_the_target_the_first_entry_and_no_other_may_jump() -> None:
    """Were the second one let in while the first is refused, the first would count as a repeat
    and be lost.
    """
    store, owner = ScriptedStore([GAP, GAP, GAP], [FULL, GAP, GAP]), partition()
    async with relay_on(store) as relay:
        relay.add(owner, [entry(5), entry(6), entry(7)])
        await empty(relay)
    assert [[resync for _, _, resync, _ in call] for call in store.sent] == [
        [False, False, False],
        [True, False, False],
        [True, False, False],
    ]
    assert delivered(owner) == ["p:1/5", "p:1/6", "p:1/7"]


@virtual
async def test_a_generation_begins_when_all_before_it_has_arrived() -> None:
    """Else what waits from an earlier owner would count as a repeat, and be lost."""
    base = base_at(1_700_000_000_000)
    store, owner = ScriptedStore([OK, FULL], [OK]), partition()
    async with relay_on(store) as relay:
        relay.add(owner, [entry(5), entry(6), entry(base + 1), entry(base + 2)])
        await empty(relay)
    assert [[sent[1:3] for sent in call] for call in store.sent] == [
        [(5, False), (6, False)],
        [(6, False)],
        [(base + 1, True), (base + 2, False)],
    ]
    assert delivered(owner) == ["p:1/5", "p:1/6", f"p:1/{base + 1}", f"p:1/{base + 2}"]


@virtual
async def test_what_a_shard_forgot_to_have_sent_is_no_repeat() -> None:
    """The target has taken 3 from an owner that the sender's shard has forgotten, together with 2 and 3."""
    server = MemoryServer(virtual_server().now_ms, delivers_in_place=False)
    store = MemoryStore(server, "h")
    await store.open()
    await store.append([Append(ONE, "p:0", number, (b"",)) for number in (1, 2, 3)])
    base = (await store.claim(0, "A", "t")).base
    owner = make_partition(FakeKind(), sequences={ONE: 1}, base=base)
    owner.send(Signal(THERE, "op", b"new"))
    (delivery,) = owner.take_commit().deliveries
    assert delivery.sequence == base + 1 > 3
    async with relay_on(store) as relay:
        relay.add(owner, [OutboxEntry("1-0", ONE, 1, (b"",)), OutboxEntry("2-0", *_fields(delivery))])
        await empty(relay)
    assert server.hub("h").streams[ONE].payloads[3:] == list(delivery.payloads), "1 is one, and dropped"


def _fields(delivery: Delivery) -> tuple[str, int, tuple[bytes, ...]]:
    return delivery.target, delivery.sequence, delivery.payloads


@virtual
async def test_nothing_is_lost_when_room_appears_between_two_entries() -> None:
    server = virtual_server()
    small = MemoryServer(server.now_ms, delivers_in_place=False, inbox_length_max=1)
    store, owner = FlakyStore(small, "h", random.Random(1), broken=0), partition()
    await store.open()
    small._put("h", ONE, "other", 1, (wire.pack([Signal(THERE, "op", b"in the way")]),))
    make_room_after = [3]

    def admit(hub: str, append: Any, real: Any = small.append) -> Any:
        outcome = real(hub, append)
        make_room_after[0] -= 1
        if make_room_after[0] == 0:
            small.hub(hub).streams[ONE].cap(0)
        return outcome

    small.append = admit  # type: ignore[method-assign]
    async with relay_on(store) as relay:
        relay.add(owner, [entry(5), entry(6)])
        arrived: list[bytes] = []
        for _ in range(100):
            await asyncio.sleep(0.5)
            arrived = words_of(small, "h", ONE)
            if arrived == [b"6"]:
                break
            if arrived == [b"5"]:
                small.hub("h").streams[ONE].cap(0)
                await empty(relay)
                arrived += words_of(small, "h", ONE)
                break
    assert arrived == [b"5", b"6"]


@virtual
async def test_one_call_takes_a_bounded_number_of_a_lane() -> None:
    store, owner = ScriptedStore(), partition()
    async with relay_on(store) as relay:
        relay.add(owner, [entry(number) for number in range(1, 2 * LANE_ENTRIES_MAX + 2)])
        await empty(relay)
    assert [len(call) for call in store.calls] == [LANE_ENTRIES_MAX, LANE_ENTRIES_MAX, 1]


@virtual
async def test_nothing_is_sent_for_a_partition_that_was_given_up() -> None:
    store, owner = ScriptedStore(BROKEN), partition()
    async with relay_on(store) as relay:
        relay.add(owner, [entry(1)])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(store.calls) == 1
        relay.forget(owner)
        await asyncio.sleep(60)
        assert (len(store.calls), relay.backlog) == (1, 0)


@virtual
async def test_a_partition_that_was_loaded_again_starts_with_its_own_entries() -> None:
    store, old, new = ScriptedStore(), partition(), partition()
    store.open.clear()
    async with relay_on(store) as relay:
        relay.add(old, [entry(1), entry(2)])
        await asyncio.sleep(1)
        old.drop()
        relay.add(new, [entry(2)])
        store.open.set()
        await empty(relay)
    assert delivered(new) == ["p:1/2"]
    assert delivered(old) == []


@given(st.integers(0, 2**32))
def test_two_owners_may_both_send(seed: int) -> None:
    """The old owner does not know yet that it is one: both send, each entry arrives once, in order."""
    chance = random.Random(seed)

    async def run() -> None:
        server = virtual_server()
        entries = [entry(number, target) for target in (ONE, TWO) for number in range(1, 21)]
        trimmed = chance.randrange(20)
        async with contextlib.AsyncExitStack() as stack:
            relays = []
            for _ in range(2):
                store = FlakyStore(server, "h", chance, broken=0.3)
                await store.open()
                relays.append(await stack.enter_async_context(relay_on(store)))
            relays[0].add(partition(), entries)
            while sum(1 for _ in words_of(server, "h", ONE)) < trimmed:
                await asyncio.sleep(0.01)
            # The new owner finds what the old one's last commit had not trimmed.
            relays[1].add(partition(), [e for e in entries if e.target == TWO or e.sequence > trimmed])
            for relay in relays:
                await empty(relay)
        for target in (ONE, TWO):
            assert words_of(server, "h", target) == [b"%d" % number for number in range(1, 21)]

    virtually(run)
