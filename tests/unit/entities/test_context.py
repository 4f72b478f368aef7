"""What an operation can do besides changing its state, and what the type checker knows of it."""

from __future__ import annotations

import datetime as dt
from typing import Any, assert_type

import pytest

from lungfish.entities import Entity, EntityRef, shared
from lungfish.runtime import codec
from lungfish.runtime.ids import ENTITY, ORCHESTRATION, ActorId
from lungfish.runtime.messages.messages import Signal, Start
from tests.unit.entities.fakes import Host, error, value


class Counter(Entity):
    value: int = 0

    def add(self, n: int = 1) -> int:
        self.value += n
        return self.value

    async def later(self, text: str) -> list[str]:
        return [text]


class Probe(Entity):
    """Runs what a test gives it."""

    n: int = 0

    def do(self, what: str) -> Any:
        return ACTIONS[what](self)

    @shared
    def look(self, what: str) -> Any:
        return ACTIONS[what](self)


SOON = dt.datetime(2030, 1, 1, 0, 0, 0, 1, tzinfo=dt.timezone(dt.timedelta(hours=1)))


def _signals(probe: Probe) -> None:
    counter = probe.context.entity(Counter, "a")
    counter.signal(Counter.add, 5)
    counter.signal("add")
    counter.signal(Counter.add, n=7)
    probe.context.signal(counter, Counter.add, 8)
    probe.context.signal((Counter, "b"), Counter.add, 9)
    probe.context.signal(("Counter", "b"), "add", 10, at=dt.timedelta(seconds=1))
    counter.signal(Counter.add, 11, at=SOON)


ACTIONS: dict[str, Any] = {
    "signals": _signals,
    "key": lambda probe: [probe.key, probe.context.key],
    "caller": lambda probe: probe.context.caller,
    "now": lambda probe: probe.context.now(),
    "repr": lambda probe: [repr(probe.context), repr(probe.context.entity(Counter, "x"))],
    "start": lambda probe: probe.context.start("order", 1, b="x", id="order-1"),
    "start any": lambda probe: [probe.context.start("order", 1), probe.context.start("order", 2)],
    "start unknown": lambda probe: probe.context.start("nope"),
    "start badly": lambda probe: probe.context.start("order"),
    "start bad id": lambda probe: probe.context.start("order", 1, id=""),
    "unknown entity": lambda probe: probe.context.entity("Nope", "x"),
    "unregistered class": lambda probe: probe.context.entity(Entity, "x"),
    "bad key": lambda probe: probe.context.entity(Counter, ""),
    "number as key": lambda probe: probe.context.entity(Counter, 5),
    "unknown operation": lambda probe: probe.context.entity(Counter, "x").signal("nope"),
    "bad arguments": lambda probe: probe.context.entity(Counter, "x").signal(Counter.add, 1, 2),
    "unencodable": lambda probe: probe.context.entity(Counter, "x").signal(Counter.add, object()),
    "naive time": lambda probe: probe.context.signal((Counter, "x"), "add", at=SOON.replace(tzinfo=None)),
    "delete": lambda probe: probe.context.delete(),
}


@pytest.fixture
def host() -> Host:
    made = Host(Probe, Counter)

    async def order(ctx: Any, a: int, b: str = "") -> None: ...

    made.app.orchestration(order)
    return made


def do(host: Host, what: str) -> Any:
    return value(host.call("do", what))


def test_signals(host: Host) -> None:
    do(host, "signals")
    sent = host.signals
    assert [signal.target for signal in sent] == [ActorId(ENTITY, "Counter", key) for key in "aaaabba"]
    assert {signal.operation for signal in sent} == {"add"}
    assert [codec.decode(signal.batch) for signal in sent] == [
        [[5]], [[]], [{"args": [], "kwargs": {"n": 7}}], [[8]], [[9]], [[10]], [[11]],
    ]  # fmt: skip
    assert {signal.chain for signal in sent} == {("Probe/k",)}
    soon_ms = 1_893_452_400_001
    assert [signal.due_ms for signal in sent] == [0, 0, 0, 0, 0, host.effects.now_ms + 1000, soon_ms]
    receiver = Host(Counter, key="a")
    for signal in sent:
        if signal.target == receiver.actor:
            receiver.accept(signal)
    receiver.run()
    assert receiver.fields == {"value": 21}
    assert len(receiver.effects.timers) == 1


def test_where_signals_came_from_is_kept_but_does_not_grow(host: Host) -> None:
    long = tuple(f"E/{n}" for n in range(100))
    host.signal("do", ["signals"], chain=long)
    host.run()
    assert {signal.chain for signal in host.signals} == {(*long[-15:], "Probe/k")}


def test_key_now_and_names(host: Host) -> None:
    assert do(host, "key") == ["k", "k"]
    assert do(host, "now") == dt.datetime(1970, 1, 1, 0, 16, 40, tzinfo=dt.UTC)
    assert do(host, "repr") == ["<context of Probe/k>", "<entity Counter/x>"]


def test_the_caller(host: Host) -> None:
    seen: list[str | None] = []
    ACTIONS["note"] = lambda probe: seen.append(probe.context.caller)
    assert do(host, "caller") == "client test"
    host.signal("do", ["note"])
    host.signal("do", ["note"], chain=("Door/a", "Door/b"))
    host.run()
    assert seen == [None, "Door/b"]


def test_start(host: Host) -> None:
    assert do(host, "start") == "order-1"
    first, second = do(host, "start any")
    assert first != second
    assert [message for message in host.effects.sent if isinstance(message, Start)] == [
        Start(ActorId(ORCHESTRATION, "", "order-1"), "order", codec.encode([[1], {"b": "x"}])),
        Start(ActorId(ORCHESTRATION, "", first), "order", codec.encode([[1], {}])),
        Start(ActorId(ORCHESTRATION, "", second), "order", codec.encode([[2], {}])),
    ]


def test_start_takes_the_registered_orchestration(host: Host) -> None:
    ACTIONS["start it"] = lambda probe: probe.context.start(host.app.orchestrations["order"], 1, id="o")
    assert do(host, "start it") == "o"


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("start unknown", "NotRegistered"),
        ("start badly", "InvalidArguments"),
        ("start bad id", "InvalidId"),
        ("unknown entity", "NotRegistered"),
        ("unregistered class", "NotRegistered"),
        ("bad key", "InvalidId"),
        ("number as key", "InvalidId"),
        ("unknown operation", "NotRegistered"),
        ("bad arguments", "InvalidArguments"),
        ("unencodable", "SerializationError"),
        ("naive time", "UsageError"),
    ],
)
def test_what_cannot_be_asked_for_fails_where_it_is_asked(host: Host, what: str, expected: str) -> None:
    assert error(host.call("do", what)) == expected
    assert host.signals == []


def test_a_shared_operation_sends_but_does_not_delete(host: Host) -> None:
    host.call("look", "signals")
    assert len(host.signals) == 7
    assert error(host.call("look", "delete")) == "UsageError"


def test_messages_leave_in_the_order_of_sending_after_those_before(host: Host) -> None:
    host.ask("do", "signals")
    host.signal("do", ["signals"], ["bad key"], ["start"])
    host.ask("do", "start any")
    host.run()
    kinds = [type(message).__name__ for message in host.effects.sent]
    assert kinds == ["Signal"] * 7 + ["Response"] + ["Signal"] * 7 + ["Start"] * 3 + ["Response"]


async def checked_by_mypy(ref: EntityRef) -> None:
    """Never called: mypy reads it."""
    assert_type(await ref.call(Counter.add, 1), int)
    assert_type(await ref.call(Counter.later, "x"), list[str])
    assert_type(await ref.call("add", 1), Any)
    ref.signal(Counter.add, 1)
    ref.signal(Counter.later, "x")
    ref.signal(Counter.add, 1, at=dt.timedelta(1))
    ref.signal(Counter.add, "x")  # type: ignore[call-overload]
    await ref.call(Counter.add, "x")  # type: ignore[call-overload]
    assert isinstance(ref.key, str)


def test_a_scheduled_signal_in_the_past_is_now(host: Host) -> None:
    ACTIONS["past"] = lambda probe: probe.context.entity(Counter, "x").signal(
        Counter.add, at=dt.timedelta(-1)
    )
    do(host, "past")
    (signal,) = host.signals
    assert isinstance(signal, Signal)
    assert signal.due_ms < host.effects.now_ms
