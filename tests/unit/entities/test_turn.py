"""The turn: each operation wholly or not at all, alone and within a batch, however it fails."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ConfigDict

from lungfish.entities import Entity, shared
from lungfish.entities import turn as turn_module
from lungfish.entities.processor import OPERATIONS_MAX
from lungfish.runtime.declared.definitions import Operation
from lungfish.runtime.messages.messages import Signal
from tests.unit.entities.fakes import Host, activation, error, value


class Log(Entity):
    """A state with a field that changes in place."""

    items: list[Any] = []
    nested: dict[str, list[int]] = {}
    total: int = 0

    def put(self, n: int) -> int:
        self.items.append(n)
        self.nested.setdefault("all", []).append(n)
        self.total += n
        self.context.entity(Log, f"to-{n}").signal(Log.put, n)
        if n < 0:
            raise ValueError(f"negative {n}")
        return len(self.items)

    def spoil(self, n: int) -> None:
        self.put(n)
        self.items.append(object())

    def unspoil(self) -> None:
        self.items = [item for item in self.items if isinstance(item, int)]

    @shared
    def get(self) -> list[Any]:
        return [self.items, self.nested.get("all", []), self.total]

    @shared
    def meddle(self) -> int:
        self.total = 1000
        self.items.append(1000)
        return self.total


class Flat(Entity):
    """A state of immutable fields only."""

    total: int = 0
    last: str = ""

    def put(self, n: int) -> int:
        self.total += n
        self.last = str(n)
        self.context.entity(Flat, f"to-{n}").signal(Flat.put, n)
        if n < 0:
            raise ValueError(f"negative {n}")
        return self.total

    @shared
    def get(self) -> list[Any]:
        return [self.total, self.last]

    @shared
    def meddle(self) -> int:
        self.total = 1000
        return self.total


def targets(host: Host) -> list[str]:
    return [message.target.key for message in host.signals]


def exists(host: Host) -> bool:
    return host.snapshot is not None


@pytest.mark.parametrize("cls", [Log, Flat])
def test_a_call_that_raises_leaves_nothing(cls: type[Entity]) -> None:
    host = Host(cls)
    host.call("put", 1)
    before = host.snapshot
    answer = host.call("put", -1)
    assert error(answer) == "ValueError"
    assert answer.failure is not None
    assert answer.failure.message == "negative -1"
    assert "lungfish/entities" not in answer.failure.traceback
    assert 'raise ValueError(f"negative' in answer.failure.traceback
    assert host.snapshot == before
    assert targets(host) == ["to-1"]
    assert host.call("put", 2).failure is None, "the entity lives on"
    assert value(host.call("get")) == ([[1, 2], [1, 2], 3] if cls is Log else [3, "2"])


@pytest.mark.parametrize("cls", [Log, Flat])
@pytest.mark.parametrize("runs", ["one run", "a run each"])
def test_operations_of_a_batch_roll_back_alone(cls: type[Entity], runs: str) -> None:
    host = Host(cls)
    for numbers in ([1, -1, 2], [-2], [3, -3], [-4, 4]):
        host.signal("put", *[[n] for n in numbers])
        if runs == "a run each":
            host.run()
    host.run()
    expected = [1, 2, 3, 4]
    got = value(host.call("get"))
    assert got == ([expected, expected, 10] if cls is Log else [10, "4"])
    assert targets(host) == [f"to-{n}" for n in expected]
    assert len(host.effects.finished) == 5
    host.reactivate()
    assert value(host.call("get")) == got


@pytest.mark.parametrize("cls", [Log, Flat])
def test_calls_of_one_run_roll_back_alone(cls: type[Entity]) -> None:
    host = Host(cls)
    requests = [host.ask("put", n) for n in (1, -1, 2, -2, 3)]
    host.run()
    results = [1, None, 2, None, 3] if cls is Log else [1, None, 3, None, 6]
    assert [error(a) if (a := host.answer(r)).failure else value(a) for r in requests] == [
        "ValueError" if result is None else result for result in results
    ]
    assert len(host.effects.snapshots) == 1, "one snapshot a run"
    assert targets(host) == ["to-1", "to-2", "to-3"]


@pytest.mark.parametrize("cls", [Log, Flat])
def test_a_failure_behind_a_success_names_no_cause_of_ours(cls: type[Entity]) -> None:
    host = Host(cls)
    requests = [host.ask("put", n) for n in (1, -1)]
    host.run()
    failure = host.answer(requests[1]).failure
    assert failure is not None
    assert failure.cause is None, "the first try, which had no image to roll back to, is nobody's cause"


def test_a_snapshot_is_written_only_if_it_changed() -> None:
    host = Host(Flat)
    host.call("put", 0)
    assert len(host.effects.snapshots) == 1, "an operation on it makes it exist"
    host.call("put", 0)
    assert len(host.effects.snapshots) == 1
    host.call("put", -1)
    host.call("get")
    assert len(host.effects.snapshots) == 1
    host.reactivate()
    host.call("put", 0)
    assert len(host.effects.snapshots) == 1
    host.call("put", 1)
    assert len(host.effects.snapshots) == 2


def test_reading_does_not_make_it_exist() -> None:
    host = Host(Flat)
    assert value(host.call("get")) == [0, ""]
    assert host.call("put", -1).failure is not None
    assert host.snapshot is None


@pytest.mark.parametrize("cls", [Log, Flat])
def test_what_a_shared_operation_changes_is_not_kept(cls: type[Entity]) -> None:
    host = Host(cls)
    host.call("put", 1)
    before = host.snapshot
    requests = [host.ask("meddle"), host.ask("put", 2), host.ask("get")]
    host.run()
    assert value(host.answer(requests[0])) == 1000
    assert value(host.answer(requests[2])) == ([[1, 2], [1, 2], 3] if cls is Log else [3, "2"])
    host.signal("meddle", [], [])
    host.run()
    assert value(host.call("get")) == value(host.answer(requests[2]))
    assert host.snapshot != before, "the one exclusive operation among them has changed it"


# --- what cannot be stored ---------------------------------------------------------------


def test_a_state_that_cannot_be_stored_fails_its_operation_alone() -> None:
    host = Host(Log)
    requests = [host.ask("put", 1), host.ask("spoil", 2), host.ask("put", 3)]
    host.signal("put", [4], [-1], [5])
    host.signal("spoil", [6], [7])
    last = host.ask("put", 8)
    host.run()
    assert value(host.answer(requests[0])) == 1
    assert error(host.answer(requests[1])) == "SerializationError"
    assert value(host.answer(requests[2])) == 2
    assert value(host.answer(last)) == 5
    assert targets(host) == ["to-1", "to-3", "to-4", "to-5", "to-8"]
    assert host.fields == {"items": [1, 3, 4, 5, 8], "nested": {"all": [1, 3, 4, 5, 8]}, "total": 21}
    assert len(host.effects.finished) == len(host.items)


def test_a_wrong_state_that_is_put_right_in_the_same_turn_fails_all_the_same_if_seen() -> None:
    # Only the state at the end of a turn is looked at: what was in between has not been stored.
    host = Host(Log)
    requests = [host.ask("spoil", 1), host.ask("unspoil")]
    host.run()
    assert [host.answer(request).failure for request in requests] == [None, None]
    assert host.fields is not None
    assert host.fields["items"] == [1]


def test_normal_turns_come_back_after_a_careful_one() -> None:
    host = Host(Log)
    host.call("put", 1)
    host.call("spoil", 2)
    assert activation(host)._turns.careful
    host.call("put", 3)
    assert not activation(host)._turns.careful


def test_a_state_over_the_limit_fails_its_operation_alone() -> None:
    class Blob(Entity):
        text: str = ""

        def grow(self, n: int) -> int:
            self.text += "x" * n
            return len(self.text)

        def clear(self) -> None:
            self.text = ""

    host = Host(Blob)
    requests = [host.ask("grow", n) for n in (3_000_000, 3_000_000, 1_000_000, 1_000_000)]
    host.run()
    answers = [host.answer(request) for request in requests]
    assert [answer.failure is None for answer in answers] == [True, False, True, False]
    assert error(answers[1]) == "PayloadTooLarge"
    assert value(answers[2]) == 4_000_000
    assert host.fields == {"text": "x" * 4_000_000}
    host.call("clear")
    assert value(host.call("grow", 5)) == 5


def test_careful_turns_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn_module, "CAREFUL_MAX", 3)
    host = Host(Log)
    item = host.signal("spoil", *[[n] for n in range(5)])
    host.signal("put", *[[n] for n in range(5)])
    host.activation.run(host.effects)
    assert host.activation.ready
    assert host.effects.finished == []
    assert item.record, "what was tried is not tried again"
    host.reactivate()
    host.run()
    assert host.fields is not None
    assert host.fields["items"] == [0, 1, 2, 3, 4]


def test_a_result_that_cannot_be_sent_rolls_back() -> None:
    class Odd(Entity):
        items: list[int] = []
        value: int = 0

        def odd(self) -> object:
            self.value += 1
            self.items.append(1)
            return object()

        def long(self) -> str:
            self.value += 1
            return "x" * 5_000_000

        def fine(self) -> list[int]:
            self.value += 1
            return [self.value, *self.items]

    host = Host(Odd)
    requests = [host.ask(name) for name in ("fine", "odd", "long", "fine")]
    host.run()
    answers = [host.answer(request) for request in requests]
    assert value(answers[0]) == [1]
    assert error(answers[1]) == "SerializationError"
    assert error(answers[2]) == "PayloadTooLarge"
    assert value(answers[3]) == [2]


def test_private_attributes_of_a_first_try_are_not_met_by_the_second() -> None:
    class Once(Entity):
        items: list[int] = []
        _seen: set[int] = set()

        def put(self, n: int) -> None:
            if n in self._seen:
                return
            self._seen.add(n)
            if n < 0:
                raise ValueError(n)
            self.items.append(n)

    host = Host(Once)
    host.signal("put", [1], [2], [-1], [3])
    host.run()
    assert host.fields == {"items": [1, 2, 3]}


# --- arguments ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [(("x",), {}), ((), {}), ((1, 2), {}), ((1,), {"n": 2}), ((), {"m": 1}), ((None,), {})],
)
def test_bad_arguments_are_the_callers(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    host = Host(Flat)
    answer = host.call("put", *args, **kwargs)
    assert error(answer) == "InvalidArguments"
    assert answer.failure is not None
    assert "Flat.put" in answer.failure.message
    assert answer.failure.non_retriable
    assert host.snapshot is None


def test_arguments_by_name() -> None:
    host = Host(Flat)
    assert value(host.call("put", n=4)) == 4


def test_only_the_bad_element_of_a_batch_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    host = Host(Flat)
    host.signal("put", [1], ["x"], [], [2, 3], [4])
    host.run()
    assert value(host.call("get")) == [5, "4"]
    assert "3 of 5 signals failed" in caplog.text
    assert "Flat.put: argument 1" in caplog.text


def test_elements_with_names() -> None:
    class Named(Entity):
        got: list[int] = []

        def put(self, a: int, *, b: int = 0) -> None:
            self.got.append(a + b)

    host = Host(Named)
    data = Named.lungfish_definition("Named").operations["put"].signature.encode_signal((1,), {"b": 5})
    host.accept(Signal(host.actor, "put", data))
    host.signal("put", [7])
    host.run()
    assert host.fields == {"got": [6, 7]}


def test_columns_are_converted() -> None:
    class Typed(Entity):
        total: float = 0.0
        days: list[str] = []

        def put(self, x: float, *rest: int) -> None:
            assert type(x) is float
            assert all(type(n) is int for n in rest)
            self.total += x + sum(rest)

    host = Host(Typed)
    host.signal("put", [1, 2, 3], [0.5, "1", True])
    host.signal("put", [1])
    host.run()
    assert host.fields is not None
    assert host.fields["total"] == 1 + 2 + 3 + 0.5 + 1 + 1 + 1


@pytest.mark.parametrize("batch", [b"\xc1", b"\x05", b""])
def test_a_batch_that_is_none_is_dropped(batch: bytes, caplog: pytest.LogCaptureFixture) -> None:
    host = Host(Flat)
    item = host.accept(Signal(host.actor, "put", batch))
    host.run()
    assert item in host.effects.finished
    assert "signals failed" in caplog.text


def test_an_empty_batch_is_nothing() -> None:
    host = Host(Flat)
    item = host.signal("put")
    host.run()
    assert item in host.effects.finished
    assert host.snapshot is None


@pytest.mark.parametrize("mutable", [False, True])
def test_models_that_validate_assignment(mutable: bool) -> None:
    class Validated(Entity):
        model_config = ConfigDict(validate_assignment=True)
        value: int = 0
        other: Any = None

        def put(self, n: Any) -> int:
            self.other = [n] if mutable else n
            self.value = n
            if n == 3:
                raise ValueError(n)
            return self.value

    host = Host(Validated)
    host.signal("put", [1], ["2"], ["x"], [3], [4], [3])
    host.run()
    assert host.fields == {"value": 4, "other": [4] if mutable else 4}
    host.signal("put", [5], [3], ["x"])
    host.run()
    assert host.fields == {"value": 5, "other": [5] if mutable else 5}


# --- odd exits ------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [Log, Flat])
@pytest.mark.parametrize(
    "raised",
    [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError(), BaseException("b")],
    ids=repr,
)
def test_whatever_an_operation_raises_is_a_failure(
    cls: type[Entity], raised: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(cls)
    host.call("put", 1)

    def exit_now(self: Any, n: int) -> None:
        self.total = 77
        raise raised

    definition = host.app.find_entity(cls)
    operations: dict[str, Operation] = dict(definition.operations)
    operations["put"] = replace(operations["put"], function=exit_now)
    monkeypatch.setattr(activation(host), "_definition", replace(definition, operations=operations))
    assert error(host.call("put", 1)) == type(raised).__name__
    host.signal("put", [1], [2])
    host.run()
    assert value(host.call("get"))[0] in ([1], 1)


def test_the_operation_delete_is_built_in() -> None:
    class Kept(Entity):
        value: int = 0

        def put(self, n: int) -> None:
            self.value = n

    host = Host(Kept)
    for given in ([], [None], ["passed over"]):
        host.call("put", 3)
        assert host.fields == {"value": 3}
        assert value(host.call("delete", *given)) is None
        assert not exists(host)
        host.reactivate()
    host.signal("put", [1], [2])
    host.signal("delete", [])
    host.run()
    assert not exists(host)


def test_a_class_may_say_itself_what_delete_is() -> None:
    class Kept(Entity):
        value: int = 0

        def delete(self, by: int) -> int:
            self.value -= by
            return self.value

    host = Host(Kept)
    assert value(host.call("delete", 3)) == -3
    assert host.fields == {"value": -3}


def test_delete() -> None:
    class Gone(Entity):
        value: int = 0
        items: list[int] = []

        def put(self, n: int) -> int:
            self.value += n
            self.items.append(n)
            if n == 0:
                self.context.delete()
                self.value = 55
            if n < 0:
                self.context.delete()
                raise ValueError
            return self.value

        @shared
        def peek(self) -> None:
            self.context.delete()

    host = Host(Gone)
    host.call("put", 3)
    assert host.fields == {"value": 3, "items": [3]}
    host.call("put", -1)
    assert host.fields == {"value": 3, "items": [3]}, "a failed operation deletes nothing"
    assert error(host.call("peek")) == "UsageError"
    assert value(host.call("put", 0)) == 55
    assert not exists(host)
    host.call("put", 0)
    assert host.effects.snapshots[-2:] != [None, None], "what does not exist is not deleted again"
    host.signal("put", [1], [2], [0], [4], [-1], [5])
    host.run()
    assert host.fields == {"value": 9, "items": [4, 5]}
    host.signal("put", [1], [0])
    host.run()
    assert not exists(host)
    host.reactivate()
    assert value(host.call("put", 2)) == 2


def test_a_run_is_bounded() -> None:
    host = Host(Flat)
    item = host.signal("get", *[[]] * (OPERATIONS_MAX + 5))
    later = host.ask("put", 1)
    host.activation.run(host.effects)
    assert (host.activation.ready, host.activation.passive) == (True, False)
    assert not host.answered(later)
    assert item.record
    host.activation.run(host.effects)
    assert (host.activation.ready, host.activation.passive) == (False, True)
    assert value(host.answer(later)) == 1


def test_a_batch_that_was_left_in_the_middle_goes_on_after_a_crash() -> None:
    class Tally(Entity):
        value: int = 0

        def add(self, n: int) -> None:
            self.value += n

    host = Host(Tally)
    host.signal("add", *[[1]] * (2 * OPERATIONS_MAX + 7))
    host.activation.run(host.effects)
    assert host.fields == {"value": OPERATIONS_MAX}
    host.reactivate()
    host.run()
    assert host.fields == {"value": 2 * OPERATIONS_MAX + 7}


def test_an_operation_may_not_send_without_end() -> None:
    class Chatty(Entity):
        sent: int = 0

        def chat(self, n: int) -> None:
            self.sent += n
            for _ in range(n):
                self.context.signal((Chatty, "x"), Chatty.chat, 0)

    host = Host(Chatty)
    host.signal("chat", [10_000], [10_001], [10_000])
    host.run()
    assert host.fields == {"sent": 20_000}
    assert len(host.signals) == 20_000


def test_counts_and_logs(caplog: pytest.LogCaptureFixture) -> None:
    host = Host(Flat)
    host.signal("put", [1], [-1], [-2])
    with caplog.at_level(logging.WARNING):
        host.run()
    assert host.kind.counts.operations == 3
    assert host.kind.counts.failed == 2
    assert (
        "Flat.put: 2 of 3 signals failed and were rolled back; the first: ValueError: negative -1"
        in caplog.text
    )


def test_a_slow_operation_is_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lungfish.entities.processor.SLOW_S", -1)
    host = Host(Flat)
    host.call("put", 1)
    assert "Flat/k held up its host for 0.0 s: 1 operations (put)" in caplog.text
