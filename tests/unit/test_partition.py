"""A partition in memory: what it accepts, keeps, and puts into its commits."""

from __future__ import annotations

import asyncio

import pytest

from lungfish.runtime.ids import CLIENT, ORCHESTRATION, ActorId
from lungfish.runtime.messages import wire
from lungfish.runtime.messages.letters import UNREADABLE, unpack_letter
from lungfish.runtime.messages.messages import ActivityTask, Message, Response, Signal
from lungfish.runtime.partitions.caution import DEATHS_MAX
from lungfish.runtime.partitions.kinds import Effects, Item, Stored
from lungfish.runtime.partitions.partition import LATE_MS, Partition
from lungfish.runtime.partitions.slots import ActivationBroke
from lungfish.runtime.store.store import Entry
from tests.unit.fakes import Clock, FakeActivation, FakeKind, actor_in, make_partition, run_all

HERE = actor_in(0)
ALSO_HERE = actor_in(0, "b")
THERE = actor_in(2)


def signal(actor: ActorId = HERE, word: bytes = b"") -> Signal:
    return Signal(actor, "op", word)


def entry(number: int, *messages: Message) -> Entry:
    return Entry(f"{number}-0", wire.pack(messages))


def keep(_activation: FakeActivation, _item: Item, _effects: Effects) -> None:
    """Leave every item unfinished."""


def words(activation: FakeActivation) -> list[bytes]:
    return [item.message.batch for item in activation.seen if isinstance(item.message, Signal)]


def test_messages_are_given_in_the_order_of_the_inbox() -> None:
    kind = FakeKind()
    partition = make_partition(kind)
    partition.buffer([entry(1, signal(word=b"1"), signal(word=b"2")), entry(2, signal(word=b"3"))])
    run_all(partition)
    assert words(kind.made[HERE]) == [b"1", b"2", b"3"]


def test_the_inbox_position_is_in_the_same_commit_as_what_the_messages_did() -> None:
    def write(activation: FakeActivation, item: Item, effects: Effects) -> None:
        effects.snapshot(activation.actor, b"state")
        effects.done(item)

    partition = make_partition(FakeKind(write))
    partition.buffer([entry(1, signal()), entry(2, signal())])
    partition.receive(1)
    run_all_received(partition)
    first = partition.take_commit()
    assert (first.number, first.position, first.mailbox) == (11, "1-0", {})
    assert first.snapshots == {(HERE.name, HERE.key): b"state"}
    run_all(partition)
    second = partition.take_commit()
    assert (second.number, second.position) == (12, "2-0")


def run_all_received(partition: Partition) -> None:
    for actor in partition.wanted():
        partition.activate(actor, Stored(None))
    partition.run(1_000)


def test_what_is_unfinished_becomes_a_mailbox_row_and_is_given_again_in_order() -> None:
    partition = make_partition(FakeKind(keep))
    partition.buffer([entry(1, signal(word=b"1"), signal(word=b"2"), signal(word=b"3"))])
    run_all(partition)
    mailbox = partition.take_commit().mailbox
    assert len(mailbox) == 3
    rows = {row: data for row, data in mailbox.items() if data is not None}
    kind = FakeKind()
    successor = make_partition(kind, mailbox=dict(reversed(rows.items())))
    run_all(successor)
    assert words(kind.made[HERE]) == [b"1", b"2", b"3"]
    assert successor.take_commit().mailbox == dict.fromkeys(rows)


def test_new_messages_queue_behind_restored_rows() -> None:
    partition = make_partition(FakeKind(keep))
    partition.buffer([entry(1, signal(word=b"old"))])
    run_all(partition)
    rows = {row: data for row, data in partition.take_commit().mailbox.items() if data is not None}
    kind = FakeKind(keep)
    successor = make_partition(kind, mailbox=rows)
    successor.buffer([entry(2, signal(word=b"new"))])
    run_all(successor)
    assert words(kind.made[HERE]) == [b"old", b"new"]
    assert min(rows) < min(successor.take_commit().mailbox)


def test_a_record_is_found_by_the_next_activation() -> None:
    def note(_activation: FakeActivation, item: Item, effects: Effects) -> None:
        effects.record(item, b"half-way")

    partition = make_partition(FakeKind(note))
    partition.accept(signal())
    run_all(partition)
    rows = {row: data for row, data in partition.take_commit().mailbox.items() if data is not None}
    kind = FakeKind()
    run_all(make_partition(kind, mailbox=rows))
    assert [item.record for item in kind.made[HERE].seen] == [b"half-way"]


def test_a_message_to_the_same_partition_is_run_before_the_commit() -> None:
    def pass_on(activation: FakeActivation, item: Item, effects: Effects) -> None:
        if activation.actor == HERE:
            effects.send(signal(ALSO_HERE))
        effects.done(item)

    kind = FakeKind(pass_on)
    partition = make_partition(kind)
    partition.accept(signal(HERE))
    run_all(partition)
    commit = partition.take_commit()
    assert len(kind.made[ALSO_HERE].seen) == 1
    assert (commit.deliveries, commit.mailbox) == ([], {})


def test_a_local_message_that_was_not_run_is_a_row_of_the_same_commit() -> None:
    def pass_on(activation: FakeActivation, item: Item, effects: Effects) -> None:
        if activation.actor == HERE:
            effects.send(signal(ALSO_HERE))
            effects.done(item)

    partition = make_partition(FakeKind(pass_on))
    partition.accept(signal(HERE))
    run_all(partition)
    assert len(partition.take_commit().mailbox) == 1


def test_deliveries_carry_the_next_sequence_number_of_their_target() -> None:
    def pass_on(_activation: FakeActivation, item: Item, effects: Effects) -> None:
        effects.send(signal(THERE))
        effects.send(Response(ActorId(CLIENT, "", "me"), "1"))
        task = ActivityTask(HERE, "x", 1, 1, "act", b"", "key")
        effects.dispatch("slow", task)
        effects.dispatch("slow", task)
        effects.done(item)

    partition = make_partition(FakeKind(pass_on), sequences={"p:2": 5})
    for number in (1, 2):
        partition.accept(signal())
        run_all(partition)
        commit = partition.take_commit()
        sent = {d.target: (d.sequence, len(d.payloads)) for d in commit.deliveries}
        assert sent == {"p:2": (5 + number, 1), "c:me": (0, 1), "q:slow": (number, 2)}


def test_a_timer_fires_at_its_time_and_once() -> None:
    def set_timer(activation: FakeActivation, item: Item, effects: Effects) -> None:
        effects.done(item)
        if item.message == signal(word=b"start"):
            effects.timer("t", 5_000, signal(word=b"due"))

    clock, kind = Clock(1_000), FakeKind(set_timer)
    partition = make_partition(kind, clock)
    partition.accept(signal(word=b"start"))
    run_all(partition)
    commit = partition.take_commit()
    due_ms, payload = commit.timers["t"] or (0, b"")
    assert (due_ms, partition.next_due_ms) == (5_000, 5_000)
    clock.now_ms = 4_999
    run_all(partition)
    assert words(kind.made[HERE]) == [b"start"]
    clock.now_ms = 5_000
    run_all(partition)
    assert words(kind.made[HERE]) == [b"start", b"due"]
    assert partition.take_commit().timers == {"t": None}
    clock.now_ms = 9_000
    run_all(partition)
    assert len(kind.made[HERE].seen) == 2
    # The next owner finds it, too, if that commit did not come to be.
    late = FakeKind()
    run_all(make_partition(late, clock, timers={"t": (due_ms, payload)}))
    assert words(late.made[HERE]) == [b"due"]


def test_a_late_timer_does_not_overtake_what_came_before_its_time() -> None:
    timers = {str(due_ms): (due_ms, wire.pack([signal(word=b"%d" % due_ms)])) for due_ms in (2_000, 3_000)}
    clock, kind = Clock(9_000), FakeKind()
    partition = make_partition(kind, clock, timers=timers)
    assert partition.is_due(clock.now_ms)
    assert partition.must_look(clock.now_ms)
    # The host does not try again and again meanwhile.
    assert not partition.is_due(clock.now_ms)
    assert partition.next_due_ms is None
    partition.buffer([entry(number, signal(word=b"%d" % number)) for number in (1_999, 2_000, 2_001)])
    partition.looked()
    assert not partition.is_due(clock.now_ms), "what was read is not accepted yet"
    while partition.buffered:
        partition.receive(1)
    assert partition.is_due(clock.now_ms)
    assert not partition.must_look(clock.now_ms)
    run_all(partition)
    assert words(kind.made[HERE]) == [b"1999", b"2000", b"2000", b"2001", b"3000"]


def test_an_entry_that_came_after_the_look_ends_it() -> None:
    timers = {"t": (2_000, wire.pack([signal(word=b"due")]))}
    clock, kind = Clock(9_000), FakeKind()
    partition = make_partition(kind, clock, timers=timers)
    assert partition.must_look(clock.now_ms)
    partition.buffer([entry(9_001, signal(word=b"later"))])
    partition.receive(1)
    run_all(partition)
    assert words(kind.made[HERE]) == [b"due", b"later"]
    assert partition.next_due_ms is None


def test_what_a_look_did_not_see_is_looked_for_again() -> None:
    """The look, or what it found, took long: a timer that is late by then may not go with an earlier one."""
    timers = {str(due_ms): (due_ms, wire.pack([signal(word=b"%d" % due_ms)])) for due_ms in (2_000, 9_100)}
    clock, kind = Clock(9_000), FakeKind()
    partition = make_partition(kind, clock, timers=timers)
    assert partition.must_look(clock.now_ms)
    partition.looked()
    clock.now_ms = 10_000
    assert partition.must_look(clock.now_ms), "the second one is late, and nobody has looked"
    partition.buffer([entry(9_099, signal(word=b"9099"))])
    partition.looked()
    partition.receive(1)
    assert not partition.must_look(clock.now_ms)
    run_all(partition)
    assert words(kind.made[HERE]) == [b"2000", b"9099", b"9100"]


def test_a_timer_that_is_hardly_late_waits_for_nothing() -> None:
    timers = {"t": (2_000, wire.pack([signal(word=b"due")]))}
    clock = Clock(2_000 + LATE_MS)
    assert not make_partition(FakeKind(), clock, timers=timers).must_look(clock.now_ms)


def test_a_cancelled_timer_does_not_fire() -> None:
    clock, kind = Clock(), FakeKind()
    partition = make_partition(kind, clock, timers={"t": (2_000, wire.pack([signal()]))})
    partition.cancel_timer("t")
    partition.cancel_timer("never was")
    clock.now_ms = 3_000
    run_all(partition)
    assert not kind.made
    assert partition.take_commit().timers == {"t": None}


def test_a_timer_that_is_set_again_fires_at_its_new_time_only() -> None:
    clock, kind = Clock(), FakeKind()
    partition = make_partition(kind, clock, timers={"t": (2_000, wire.pack([signal(word=b"old")]))})
    partition.timer("t", 4_000, signal(word=b"new"))
    clock.now_ms = 3_000
    run_all(partition)
    assert not kind.made
    clock.now_ms = 4_000
    run_all(partition)
    assert words(kind.made[HERE]) == [b"new"]


def test_time_does_not_go_back() -> None:
    clock = Clock(5_000)
    partition = make_partition(FakeKind(), clock)
    assert partition.now_ms == 5_000
    clock.now_ms = 4_000
    assert partition.now_ms == 5_000


def test_bytes_that_are_no_batch_are_set_aside_and_what_is_around_them_is_run() -> None:
    kind = FakeKind()
    partition = make_partition(kind)
    broken_row = wire.pack_rows(
        [wire.to_row(signal(word=b"2")), [99, "what"], wire.to_row(signal(word=b"3"))]
    )
    partition.buffer([entry(1, signal(word=b"1")), Entry("2-0", b"rubbish"), Entry("3-0", broken_row)])
    run_all(partition)
    commit = partition.take_commit()
    assert words(kind.made[HERE]) == [b"1", b"2", b"3"]
    letters = [unpack_letter(letter) for letter in commit.dead]
    assert [letter.payload for letter in letters] == [b"rubbish", wire.pack_rows([[99, "what"]])]
    assert {letter.reason for letter in letters} == {UNREADABLE}
    assert (partition.malformed, commit.position) == (2, "3-0")


def test_a_message_for_a_kind_that_this_host_lacks_is_kept() -> None:
    partition = make_partition(FakeKind())
    partition.accept(signal(ActorId(ORCHESTRATION, "", "i")))
    run_all(partition)
    assert len(partition.take_commit().mailbox) == 1


def test_an_activation_goes_only_when_all_that_it_did_is_in_the_store() -> None:
    clock, kind = Clock(), FakeKind()
    partition = make_partition(kind, clock)
    partition.accept(signal())
    run_all(partition)
    clock.now_ms = 50_000
    assert partition.passivate(clock.now_ms, most=10) == 0
    commit = partition.take_commit()
    assert partition.passivate(clock.now_ms, most=10) == 0
    partition.acknowledged(commit.number)
    assert partition.passivate(clock.now_ms, most=10) == 1
    assert kind.made[HERE].dropped
    assert partition.activations == 0


def test_an_activation_with_something_to_do_stays() -> None:
    clock = Clock()
    partition = make_partition(FakeKind(keep), clock)
    partition.accept(signal())
    run_all(partition)
    partition.acknowledged(partition.take_commit().number)
    partition.accept(signal())
    assert partition.passivate(clock.now_ms, most=10) == 0


def test_the_least_recently_used_goes_first() -> None:
    clock, kind = Clock(), FakeKind()
    partition = make_partition(kind, clock)
    for actor in (HERE, ALSO_HERE):
        clock.now_ms += 1_000
        partition.accept(signal(actor))
        run_all(partition)
    partition.acknowledged(partition.take_commit().number)
    assert partition.passivate(clock.now_ms, most=1) == 1
    assert [activation.dropped for activation in kind.made.values()] == [True, False]


def test_an_activation_that_raises_names_its_actor() -> None:
    def broken(_activation: FakeActivation, _item: Item, _effects: Effects) -> None:
        raise RuntimeError("a bug")

    partition = make_partition(FakeKind(broken))
    partition.accept(signal())
    with pytest.raises(ActivationBroke) as raised:
        run_all(partition)
    assert raised.value.actor == HERE


async def test_a_spawned_task_runs_the_actor_when_it_ends_and_is_cancelled_by_a_drop() -> None:
    gate, runs, cancelled = asyncio.Event(), [], asyncio.Event()

    async def wait() -> None:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def spawn(activation: FakeActivation, item: Item, effects: Effects) -> None:
        runs.append(item)
        effects.spawn(activation.actor, wait())

    partition = make_partition(FakeKind(spawn))
    partition.accept(signal())
    run_all(partition)
    partition.acknowledged(partition.take_commit().number)
    assert partition.running == 1
    assert partition.passivate(10**12, most=10) == 0
    gate.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (partition.running, partition.busy) == (0, True)
    gate.clear()
    partition.accept(signal())
    run_all(partition)
    await asyncio.sleep(0)
    partition.drop()
    async with asyncio.timeout(60):
        await cancelled.wait()


def test_ids_are_never_repeated_not_even_by_the_next_owner() -> None:
    first = make_partition(FakeKind())
    second = make_partition(FakeKind(), epoch=8)
    ids = {owner.unique() for owner in (first, second) for _ in range(100)}
    assert len(ids) == 200


def test_what_a_cautious_partition_has_not_given_yet_is_not_given_twice_by_a_reload() -> None:
    def ask(activation: FakeActivation, item: Item, effects: Effects) -> None:
        if isinstance(item.message, Signal) and item.message.batch == b"1":
            effects.reload(activation.actor)
        effects.done(item)

    kind = FakeKind(ask)
    partition = make_partition(kind, deaths=DEATHS_MAX)
    partition.buffer([entry(1, signal(word=b"1"), signal(word=b"2"), signal(word=b"3"))])
    given: list[FakeActivation] = []
    for _ in range(10):
        run_all(partition)
        given += [made for made in kind.made.values() if made not in given]
        if partition.dirty:
            partition.acknowledged(partition.take_commit().number)
    assert sorted(word for activation in given for word in words(activation)) == [b"1", b"2", b"3"]


def test_an_actor_is_loaded_again_once_all_that_it_did_is_committed() -> None:
    def ask(activation: FakeActivation, item: Item, effects: Effects) -> None:
        if isinstance(item.message, Signal) and item.message.batch == b"2":
            effects.reload(activation.actor)

    kind = FakeKind(ask)
    partition = make_partition(kind)
    partition.buffer([entry(1, signal(word=b"1"), signal(ALSO_HERE, b"x"), signal(word=b"2"))])
    earlier = partition.take_commit()
    run_all(partition)
    first = kind.made[HERE]
    partition.acknowledged(earlier.number)  # it does not carry what the actor did
    assert not partition.wanted()
    assert partition.dirty
    number = partition.take_commit().number
    partition.buffer([entry(2, signal(word=b"3"))])
    run_all(partition)
    partition.acknowledged(number)
    assert partition.wanted() == [HERE]
    kind.handler = keep
    run_all(partition)
    assert kind.made[HERE] is not first
    assert words(kind.made[HERE]) == [b"1", b"2", b"3"]
