"""Mailboxes: who runs when, also across await; and what is done with messages that cannot be run."""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest

from lungfish.entities import Entity, shared
from lungfish.entities.kind import EntityKind
from lungfish.entities.refusing import Refusing
from lungfish.runtime import codec
from lungfish.runtime.declared.app import App
from lungfish.runtime.errors import FailureDetails, UsageError
from lungfish.runtime.ids import ENTITY, ActorId
from lungfish.runtime.messages.messages import RaiseEvent, Response, Signal
from lungfish.runtime.partitions.kinds import Item, Stored
from tests.unit.entities.fakes import Host, activation, error, value

GATES: dict[str, asyncio.Event] = {}
TRACE: list[str] = []


@pytest.fixture(autouse=True)
def _clean() -> None:
    GATES.clear()
    TRACE.clear()


def gate(name: str) -> asyncio.Event:
    return GATES.setdefault(name, asyncio.Event())


class Door(Entity):
    value: int = 0
    items: list[str] = []

    def add(self, n: int = 1) -> int:
        TRACE.append(f"add {n}")
        self.value += n
        return self.value

    async def hold(self, name: str, n: int = 1) -> int:
        """Change the state before and after waiting."""
        TRACE.append(f"{name} begins")
        self.value += n
        self.items.append(name)
        self.context.entity(Door, name).signal(Door.add, n)
        await gate(name).wait()
        self.value += n
        TRACE.append(f"{name} ends")
        if n < 0:
            raise ValueError(name)
        return self.value

    async def instant(self, n: int = 1) -> int:
        self.value += n
        if n < 0:
            raise ValueError(n)
        return self.value

    @shared
    def get(self) -> int:
        TRACE.append("get")
        return self.value

    @shared
    async def watch(self, name: str) -> int:
        TRACE.append(f"{name} begins")
        seen = self.value
        self.value = 1000
        self.items.append(name)
        self.context.entity(Door, name).signal(Door.add, seen)
        await gate(name).wait()
        TRACE.append(f"{name} ends")
        return seen


async def test_one_operation_at_a_time_also_across_await() -> None:
    host = Host(Door)
    first, second, third = host.ask("hold", "a"), host.ask("add", 10), host.ask("hold", "b")
    await host.settle()
    assert TRACE == ["a begins"]
    assert (host.activation.ready, host.activation.passive) == (False, False)
    assert host.snapshot is None, "nothing of it is committed before it ends"
    assert host.signals == []
    gate("a").set()
    await host.settle()
    assert TRACE == ["a begins", "a ends", "add 10", "b begins"]
    assert value(host.answer(first)) == 2
    assert value(host.answer(second)) == 12
    assert host.fields == {"value": 12, "items": ["a"]}
    assert not host.answered(third)
    gate("b").set()
    await host.settle()
    assert value(host.answer(third)) == 14
    assert host.activation.passive
    assert [signal.target.key for signal in host.signals] == ["a", "b"]
    assert len(host.effects.finished) == 3


async def test_an_async_operation_that_raises_leaves_nothing() -> None:
    host = Host(Door)
    host.call("add", 5)
    request = host.ask("hold", "a", -1)
    await host.settle()
    gate("a").set()
    await host.settle()
    assert error(host.answer(request)) == "ValueError"
    assert host.fields == {"value": 5, "items": []}
    assert host.signals == []
    assert value(host.call("add", 1)) == 6


async def test_an_async_operation_that_never_waits() -> None:
    host = Host(Door)
    requests = [host.ask("add", 1), host.ask("instant", 2), host.ask("instant", -1), host.ask("add", 3)]
    host.run()
    eager = sys.version_info >= (3, 12)
    assert host.answered(requests[3]) is eager
    assert len(host.effects.spawned) == (0 if eager else 1)
    await host.settle()
    assert [value(host.answer(requests[at])) for at in (0, 1, 3)] == [1, 3, 6]
    assert error(host.answer(requests[2])) == "ValueError"
    assert host.fields == {"value": 6, "items": []}


async def test_timeouts_and_tasks_work_inside() -> None:
    class Timed(Entity):
        value: int = 0

        async def wait(self) -> str:
            try:
                async with asyncio.timeout(0.001):
                    await asyncio.Event().wait()
            except TimeoutError:
                async with asyncio.TaskGroup() as group:
                    task = group.create_task(asyncio.sleep(0, "done"))
                assert asyncio.current_task() is not None
                return await task
            return "never"

    host = Host(Timed)
    request = host.ask("wait")
    host.run()
    await asyncio.gather(*host.effects.spawned)
    host.run()
    assert value(host.answer(request)) == "done"


# --- readers and writers -------------------------------------------------------------------


async def test_shared_operations_overlap() -> None:
    host = Host(Door)
    host.call("add", 7)
    one, two = host.ask("watch", "one"), host.ask("watch", "two")
    reading = host.ask("get")
    await host.settle()
    assert sorted(TRACE) == ["add 7", "get", "one begins", "two begins"]
    assert value(host.answer(reading)) == 7
    gate("two").set()
    await host.settle()
    assert value(host.answer(two)) == 7
    assert not host.answered(one)
    gate("one").set()
    await host.settle()
    assert value(host.answer(one)) == 7
    assert host.fields == {"value": 7, "items": []}, "what readers change is not kept"
    assert [signal.target.key for signal in host.signals] == ["two", "one"]


async def test_a_writer_waits_for_readers_and_later_readers_for_it() -> None:
    host = Host(Door)
    requests = [host.ask("watch", "one"), host.ask("add", 1), host.ask("get"), host.ask("watch", "two")]
    await host.settle()
    assert TRACE == ["one begins"]
    gate("one").set()
    await host.settle()
    assert TRACE == ["one begins", "one ends", "add 1", "get", "two begins"]
    gate("two").set()
    await host.settle()
    assert [value(host.answer(request)) for request in requests] == [0, 1, 1, 1]


async def test_readers_wait_for_a_running_writer() -> None:
    host = Host(Door)
    host.ask("hold", "w")
    reading = host.ask("get")
    await host.settle()
    assert not host.answered(reading)
    gate("w").set()
    await host.settle()
    assert value(host.answer(reading)) == 2


# --- batches of async operations ---------------------------------------------------------------


async def test_a_batch_of_async_operations_runs_in_order_with_nothing_between() -> None:
    host = Host(Door)
    item = host.signal("hold", ["a"], ["b", -1], ["x", "y"], ["c"])
    later = host.ask("add", 0)
    for name in "abc":
        await host.settle()
        assert TRACE[-1] == f"{name} begins"
        assert not host.answered(later)
        gate(name).set()
    await host.settle()
    assert value(host.answer(later)) == 4
    assert host.fields == {"value": 4, "items": ["a", "c"]}
    assert item in host.effects.finished


async def test_a_batch_goes_on_after_a_crash_where_it_was() -> None:
    host = Host(Door)
    host.signal("hold", ["a"], ["b"], ["c"])
    gate("a").set()
    await host.settle()
    assert TRACE == ["a begins", "a ends", "b begins"]
    await host.crash()
    gate("b").set()
    gate("c").set()
    TRACE.clear()
    await host.settle()
    assert TRACE == ["b begins", "b ends", "c begins", "c ends"]
    assert host.fields == {"value": 6, "items": ["a", "b", "c"]}


@pytest.mark.parametrize("batch", [b"\xc1", codec.encode([]), codec.encode([["x", "y"]])])
async def test_an_async_batch_that_is_none_is_dropped(batch: bytes) -> None:
    host = Host(Door)
    item = host.accept(Signal(host.actor, "hold", batch))
    later = host.ask("add", 1)
    await host.settle()
    assert item in host.effects.finished
    assert value(host.answer(later)) == 1


async def test_bad_arguments_of_an_async_operation() -> None:
    host = Host(Door)
    request = host.ask("hold", [1])
    await host.settle()
    assert error(host.answer(request)) == "InvalidArguments"


async def test_what_an_async_operation_cannot_store_or_send() -> None:
    class Odd(Entity):
        anything: Any = None

        async def keep(self, big: bool) -> None:
            self.anything = "x" * 5_000_000 if big else object()

        async def give(self) -> object:
            self.anything = 1
            return object()

    host = Host(Odd)
    requests = [host.ask("keep", True), host.ask("keep", False), host.ask("give")]
    await host.settle()
    assert [error(host.answer(r)) for r in requests] == [
        "PayloadTooLarge",
        "SerializationError",
        "SerializationError",
    ]
    assert host.snapshot is None
    assert activation(host)._turns.state.anything is None


async def test_deleting_from_an_async_operation() -> None:
    class Gone(Entity):
        value: int = 0

        async def put(self, n: int) -> int:
            self.value += n
            if n == 0:
                self.context.delete()
            return self.value

    host = Host(Gone)
    requests = [host.ask("put", n) for n in (1, 0, 5)]
    await host.settle()
    assert [value(host.answer(r)) for r in requests] == [1, 1, 5]
    assert host.effects.snapshots[1] is None
    assert host.fields == {"value": 5}


# --- odd exits -----------------------------------------------------------------------------------


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize(
    "raised", [SystemExit(3), KeyboardInterrupt(), BaseException("b"), asyncio.CancelledError()], ids=repr
)
async def test_whatever_an_async_operation_raises_is_a_failure(raised: BaseException, waits: bool) -> None:
    class Exits(Entity):
        value: int = 0

        async def out(self) -> None:
            self.value = 5
            if waits:
                await asyncio.sleep(0)
            raise raised

        async def fine(self) -> int:
            return self.value

    host = Host(Exits)
    request, after = host.ask("out"), host.ask("fine")
    await host.settle()
    assert error(host.answer(request)) == type(raised).__name__
    assert value(host.answer(after)) == 0


async def test_an_operation_that_cancels_itself_has_failed() -> None:
    class Selfish(Entity):
        value: int = 0

        async def stop(self) -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)

    host = Host(Selfish)
    request = host.ask("stop")
    await host.settle()
    assert error(host.answer(request)) == "CancelledError"
    assert host.activation.passive


async def test_an_operation_that_the_host_stops_is_neither_done_nor_failed() -> None:
    host = Host(Door)
    host.call("add", 1)
    request = host.ask("hold", "a")
    after = host.ask("add", 5)
    await host.settle()
    await host.crash()
    assert not host.answered(request)
    assert len(host.effects.finished) == 1
    gate("a").set()
    await host.settle()
    assert value(host.answer(request)) == 3
    assert value(host.answer(after)) == 8


async def test_a_host_may_stop_before_the_operation_has_begun() -> None:
    host = Host(Door)
    host.ask("hold", "a")
    host.run()
    await host.crash()
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_a_context_is_of_no_use_after_its_operation() -> None:
    kept: list[Any] = []

    class Keeper(Entity):
        value: int = 0

        async def keep(self) -> None:
            kept.append((self.context, self.context.entity(Keeper, "other")))

        def keep_too(self) -> None:
            kept.append((self.context, self.context.entity(Keeper, "other")))

    host = Host(Keeper)
    host.ask("keep")
    host.ask("keep_too")
    await host.settle()
    uses: list[Callable[[Any, Any], Any]] = [
        lambda context, _: context.key,
        lambda context, _: context.caller,
        lambda context, _: context.delete(),
        lambda context, ref: context.signal(ref, Keeper.keep),
        lambda _, ref: ref.signal(Keeper.keep),
        lambda _, ref: ref.call(Keeper.keep),
    ]
    for use, (context, ref) in itertools.product(uses, kept):
        with pytest.raises(UsageError, match="has ended"):
            use(context, ref)


# --- deadlines -----------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["add", "instant", "get"])
async def test_an_expired_call_is_not_run(operation: str) -> None:
    host = Host(Door)
    now = host.effects.now_ms
    in_time, late = host.ask(operation, deadline_ms=now), host.ask(operation, deadline_ms=now - 1)
    after = host.ask("add", 10)
    await host.settle()
    assert host.answer(in_time).failure is None
    assert error(host.answer(late)) == "DeadlineExceeded"
    assert value(host.answer(after)) == (10 if operation == "get" else 11)


async def test_a_call_that_expires_while_it_waits_is_not_run() -> None:
    host = Host(Door)
    host.ask("hold", "a")
    late = host.ask("add", 100, deadline_ms=host.effects.now_ms + 5)
    await host.settle()
    host.effects.now_ms += 6
    gate("a").set()
    await host.settle()
    assert error(host.answer(late)) == "DeadlineExceeded"
    assert host.fields == {"value": 2, "items": ["a"]}


# --- messages that are not run ---------------------------------------------------------------------


def test_a_scheduled_signal_becomes_a_timer() -> None:
    host = Host(Door)
    now = host.effects.now_ms
    items = [host.signal("add", [5], due_ms=now + 100), host.signal("add", [6], due_ms=now + 100)]
    host.signal("add", [1], due_ms=now)
    host.run()
    assert host.fields == {"value": 1, "items": []}
    assert set(items) < set(host.effects.finished)
    assert [due for due, _ in host.effects.timers.values()] == [now + 100] * 2
    host.effects.now_ms += 100
    for _, message in host.effects.timers.values():
        host.accept(message)
    host.run()
    assert host.fields == {"value": 12, "items": []}


async def test_a_scheduled_signal_does_not_wait_for_the_mailbox() -> None:
    host = Host(Door)
    host.ask("hold", "a")
    await host.settle()
    host.signal("add", [5], due_ms=host.effects.now_ms + 100)
    host.run()
    assert len(host.effects.timers) == 1


def test_unknown_operations(caplog: pytest.LogCaptureFixture) -> None:
    host = Host(Door)
    answer = host.call("nope")
    assert error(answer) == "NotRegistered"
    assert answer.failure is not None
    assert (
        answer.failure.message
        == "no operation of Door named 'nope'; there are: add, delete, get, hold, instant, watch"
    )
    item = host.signal("nope", [1], [2])
    host.run()
    assert item in host.effects.finished
    assert host.kind.counts.signals_dropped == 2
    assert item in host.effects.aside
    assert "a signal is set aside: no operation of Door named 'nope'" in caplog.text


def test_unregistered_entities(caplog: pytest.LogCaptureFixture) -> None:
    host = Host(Door, name="Gone")
    answer = host.call("add")
    assert error(answer) == "NotRegistered"
    assert answer.failure is not None
    assert answer.failure.message == "no entity named 'Gone' in app 'test'; there are: Door"
    item = host.signal("add", [1], [2], [3])
    host.run()
    assert item not in host.effects.finished, "a host of the next release may know the entity"
    assert "Gone/k cannot be activated, signals to it wait: no entity named 'Gone'" in caplog.text
    assert not host.activation.passive, "it must not be loaded again and again"
    assert not host.activation.ready
    host.activation.drop()


@pytest.mark.parametrize(
    "row", [b"\xc1", codec.encode([1, 1, {"value": "x"}]), codec.encode([1, 9, {"value": 1}])]
)
def test_a_state_that_cannot_be_read(row: bytes, caplog: pytest.LogCaptureFixture) -> None:
    host = Host(Door)
    host.row = row
    host.reactivate()
    assert isinstance(host.activation, Refusing)
    assert error(host.call("get")) in {"SerializationError", "StateMismatch"}
    waiting = host.signal("add", [1])
    response = host.respond("r99")
    host.run()
    assert waiting not in host.effects.finished, "an acknowledged signal is not lost for a bug in a model"
    assert response in host.effects.finished
    assert not host.activation.passive, "it must not be loaded again and again"
    assert "Door/k cannot be activated, signals to it wait" in caplog.text
    host.row = codec.encode([1, 1, {"value": 5}])
    host.reactivate()
    host.run()
    assert host.fields == {"value": 6, "items": []}


def test_other_messages_are_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    host = Host(Door)
    unmatched = host.respond("never-asked")
    failed = host.respond("never-asked", failure=FailureDetails("x.Y", "z"))
    event = host.accept(RaiseEvent(host.actor, "e", b""))
    host.run()
    assert host.effects.finished == [unmatched, failed, event]
    assert host.effects.sent == []
    assert "a RaiseEvent is not for an entity" in caplog.text


def test_a_journal_of_a_later_release_refuses_its_call() -> None:
    host = Host(Door)
    request = host.ask("add")
    host.items[-1].record = b"\xc1"
    host.run()
    assert error(host.answer(request)) == "SerializationError"


def test_kinds_are_made_from_an_app() -> None:
    app = App("a")
    app.entity(Door)
    made = EntityKind(app).activate(ActorId(ENTITY, "Door", "k"), Stored(None))
    made.accept(Item(Response(ActorId(ENTITY, "Door", "k"), "r"), 1))
    assert not made.passive


async def test_what_happens_after_a_drop_has_no_effect(caplog: pytest.LogCaptureFixture) -> None:
    host = Host(Door)
    host.ask("hold", "a")
    host.ask("watch", "b")
    await host.settle()
    before = (list(host.effects.sent), list(host.effects.snapshots), list(host.effects.finished))
    with caplog.at_level(logging.DEBUG, logger="asyncio"):
        host.activation.drop()
        gate("a").set()
        for _ in range(5):
            await asyncio.sleep(0)
    assert before == (host.effects.sent, host.effects.snapshots, host.effects.finished)
    assert "never retrieved" not in caplog.text
    await asyncio.gather(*host.effects.spawned, return_exceptions=True)
