"""Reminders of an entity: set with the state, rolled back with it, due in the mailbox's order."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import pytest

from lungfish.entities.alarms import timer_id
from lungfish.entities.entity import Entity
from lungfish.runtime import codec
from lungfish.runtime.declared.app import App
from lungfish.runtime.declared.definitions import shared
from lungfish.runtime.declared.reminders import Reminder, from_rows
from lungfish.runtime.messages.messages import ReminderDue, Signal

from .fakes import Host, error, value

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
SECOND = dt.timedelta(seconds=1)


class Bell(Entity):
    rung: list[str] = []
    broken: bool = False

    def set(self, name: str, due_s: float, period_s: float = 0, then: str = "", **options: Any) -> None:
        if then:
            options["operation"] = then
        period = period_s * SECOND if period_s else None
        self.context.set_reminder(name, due_s * SECOND, period, **options)

    def set_and_fail(self, name: str) -> None:
        self.set(name, 1)
        raise ValueError("no")

    def cancel(self, name: str) -> bool:
        return self.context.cancel_reminder(name)

    def names(self) -> list[str]:
        return sorted(self.context.reminders())

    def breaks(self, broken: bool = True) -> None:
        self.broken = broken

    def end(self) -> None:
        self.context.delete()

    def on_reminder(self, name: str) -> None:
        self.rung.append(name)
        if self.broken:
            raise ValueError("broken")

    def greet(self, a: int, b: str = "") -> None:
        self.rung.append(f"{a}{b}")

    def rings_again(self) -> None:
        self.rung.append("again")
        if len(self.rung) < 4:
            self.context.set_reminder("now", EPOCH, operation="rings_again")

    def rings_daily(self) -> None:
        self.rung.append("daily")
        self.context.set_reminder("daily", EPOCH, 86_400 * SECOND, operation="rings_daily")

    async def later(self) -> None:
        await asyncio.sleep(0)
        self.rung.append("later")

    async def again(self) -> None:
        self.context.set_reminder("again", SECOND, operation=Bell.again)
        self.rung.append("again")

    @shared
    def looks(self) -> None:
        self.context.set_reminder("x", SECOND)


class Checked(Bell):
    model_config = {"validate_assignment": True}


def stored(host: Host) -> dict[str, Reminder]:
    row = [] if host.snapshot is None else codec.decode(host.snapshot)
    return dict(from_rows(row[3])) if len(row) > 3 else {}


def alarms(host: Host) -> dict[str, ReminderDue]:
    found = {}
    for due_ms, message in host.effects.timers.values():
        assert isinstance(message, ReminderDue)
        assert due_ms == message.due_ms
        found[message.name] = message
    return found


def consistent(host: Host) -> None:
    """Timers and snapshot say the same."""
    assert {name: m.due_ms for name, m in alarms(host).items()} == {
        name: r.due_ms for name, r in stored(host).items()
    }


def fire(host: Host) -> list[str]:
    """Ring all alarms that are due, as the partition does."""
    due = [
        (due_ms, name) for name, (due_ms, _) in host.effects.timers.items() if due_ms <= host.effects.now_ms
    ]
    for _, name in sorted(due):
        host.accept(host.effects.timers.pop(name)[1])
    host.run()
    return [name for _, name in due]


def rung(host: Host) -> list[str]:
    lines: list[str] = (host.fields or {}).get("rung", [])
    return lines


def test_it_is_set_with_the_state_and_fires_once() -> None:
    host = Host(Bell)
    host.call("set", "wake", 2)
    assert list(alarms(host)) == ["wake"]
    host.effects.now_ms += 1_999
    assert not fire(host)
    host.effects.now_ms += 1
    assert fire(host)
    assert (rung(host), stored(host), alarms(host)) == (["wake"], {}, {})


def test_a_period_goes_on_in_its_phase() -> None:
    host = Host(Bell)
    host.call("set", "tick", 1, 10)
    first_ms = stored(host)["tick"].due_ms
    for late_ms in (3, 17, 0):
        host.effects.now_ms = stored(host)["tick"].due_ms + late_ms
        fire(host)
        consistent(host)
    assert stored(host)["tick"].due_ms == first_ms + 30_000
    assert (rung(host), stored(host)["tick"].fired) == (["tick"] * 3, 3)


@pytest.mark.parametrize("cls", [Bell, Checked])
def test_what_raises_sets_nothing(cls: type[Bell]) -> None:
    host = Host(cls)
    assert error(host.call("set_and_fail", "wake")) == "ValueError"
    assert (stored(host), alarms(host)) == ({}, {})
    host.call("set", "wake", 5)
    before = stored(host)
    host.call("set_and_fail", "other")
    assert value(host.call("names")) == ["wake"]
    assert stored(host) == before
    host.call("breaks")
    assert stored(host) == before


def test_in_one_batch_each_operation_is_rolled_back_alone() -> None:
    host = Host(Bell)
    host.signal("set", ["a", 5])
    host.signal("set_and_fail", ["b"], ["c"])
    host.signal("set", ["d", 5])
    host.run()
    assert sorted(stored(host)) == ["a", "d"]
    consistent(host)


def test_a_handler_that_raises_is_rolled_back_counted_and_comes_again() -> None:
    host = Host(Bell)
    host.call("set", "tick", 1, 10)
    host.call("breaks")
    host.effects.now_ms += 1_000
    fire(host)
    found = stored(host)["tick"]
    assert (rung(host), found.failed, found.fired, found.last_failure) == ([], 1, 0, "ValueError: broken")
    consistent(host)
    host.call("breaks", False)
    host.effects.now_ms += 10_000
    fire(host)
    assert (rung(host), stored(host)["tick"].fired) == (["tick"], 1)


def test_one_without_a_period_is_tried_until_it_goes_well() -> None:
    host = Host(Bell)
    host.call("set", "wake", 1)
    host.call("breaks")
    for wait_ms in (1_000, 1_000, 2_000):
        host.effects.now_ms += wait_ms
        assert fire(host), wait_ms
        consistent(host)
    host.call("breaks", False)
    host.effects.now_ms += 4_000
    fire(host)
    assert (rung(host), alarms(host)) == (["wake"], {})


def test_after_cancel_it_does_not_fire_even_if_it_waited_already() -> None:
    host = Host(Bell)
    host.call("set", "wake", 1)
    host.ask("cancel", "wake")
    host.effects.now_ms += 1_000
    assert fire(host)
    assert (rung(host), stored(host), alarms(host)) == ([], {}, {})


def test_setting_it_anew_pushes_it_away_even_if_it_waited_already() -> None:
    host = Host(Bell)
    host.call("set", "lost contact", 10)
    host.ask("set", "lost contact", 20)
    host.effects.now_ms += 10_000
    fire(host)
    assert rung(host) == []
    assert stored(host)["lost contact"].due_ms == host.effects.now_ms + 20_000
    consistent(host)


def test_delete_takes_them_along() -> None:
    host = Host(Bell)
    host.call("set", "wake", 1)
    host.call("set", "tick", 1, 1)
    host.call("end")
    assert (host.snapshot, alarms(host)) == (None, {})


def test_a_late_alarm_does_not_bring_a_deleted_entity_back() -> None:
    host = Host(Bell)
    host.call("set", "tick", 1, 1)
    host.ask("end")
    host.effects.now_ms += 1_000
    fire(host)
    assert host.snapshot is None


@pytest.mark.parametrize("reactivated", [False, True])
def test_they_survive_passivation(reactivated: bool) -> None:
    host = Host(Bell)
    host.call("set", "tick", 1, 1)
    for _ in range(3):
        if reactivated:
            host.activation.drop()
            host.reactivate()
        host.effects.now_ms += 1_000
        fire(host)
        consistent(host)
    assert rung(host) == ["tick"] * 3


async def test_an_interrupted_handler_is_due_again_and_counts_once() -> None:
    host = Host(Bell)
    host.call("set", "nap", 1, 10, then="later")
    host.effects.now_ms += 1_000
    fire(host)
    await host.crash()
    assert rung(host) == []
    await host.settle()
    assert rung(host) == ["later"]
    assert stored(host)["nap"].fired == 1
    consistent(host)


async def test_a_handler_may_set_its_own_reminder_anew() -> None:
    host = Host(Bell)
    host.call("set", "again", 1, then="again")
    for _ in range(3):
        host.effects.now_ms += 1_000
        fire(host)
        await host.settle()
        consistent(host)
    assert rung(host) == ["again"] * 3
    assert list(alarms(host)) == ["again"]


def test_the_same_setting_from_its_own_handler_is_a_new_one() -> None:
    host = Host(Bell)
    host.call("rings_again")
    while fire(host):
        consistent(host)
    assert rung(host) == ["again"] * 4


def test_a_handler_that_ensures_its_own_period_changes_nothing() -> None:
    host = Host(Bell)
    host.call("rings_daily")
    fire(host)
    assert not fire(host)
    assert (rung(host), stored(host)["daily"].fired) == (["daily"] * 2, 1)


def test_it_runs_the_named_operation_with_its_arguments() -> None:
    host = Host(Bell)
    host.call("set", "x", 1, then="greet", args=[1, "b"])
    host.effects.now_ms += 1_000
    fire(host)
    assert rung(host) == ["1b"]


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"then": "nonsense"}, "NotRegistered"),
        ({"then": "greet", "args": []}, "InvalidArguments"),
        ({"period_s": 0.001}, "UsageError"),
        ({"catch_up": "maybe"}, "UsageError"),
        ({"name": ""}, "InvalidId"),
    ],
)
def test_mistakes_are_found_where_they_are_made(options: dict[str, Any], wrong: str) -> None:
    host = Host(Bell)
    assert error(host.call("set", **{"name": "x", "due_s": 1, **options})) == wrong
    assert stored(host) == {}


def test_a_shared_operation_sets_nothing() -> None:
    assert error(Host(Bell).call("looks")) == "UsageError"


def test_the_operation_is_gone_in_this_release() -> None:
    class Old(Bell):
        def chime(self) -> None: ...

    yesterday = App("test")
    yesterday.entity(name="Bell")(Old)
    host = Host(name="Bell", app=yesterday)
    host.call("set", "noon", 1, 10, then="chime")
    later = Host(Bell)
    later.effects, later.row = host.effects, host.snapshot
    later.reactivate()
    later.effects.now_ms += 1_000
    fire(later)
    found = stored(later)["noon"]
    assert (found.failed, "chime" in found.last_failure) == (1, True)
    consistent(later)


def test_a_thousand_are_the_limit() -> None:
    host = Host(Bell)
    host.signal("set", *([f"r{n}", 5] for n in range(1_000)))
    host.run()
    assert error(host.call("set", "one more", 5)) == "LimitExceeded"
    assert len(alarms(host)) == 1_000


def test_a_signal_after_a_duration_counts_from_its_acceptance() -> None:
    host = Host(Bell)
    host.effects.now_ms = 5_000
    item = host.signal("greet", [1], due_ms=-2_000)
    host.effects.now_ms = 6_500  # it was loaded, replayed, whatever
    host.run()
    ((due_ms, message),) = host.effects.timers.values()
    assert (due_ms, item in host.effects.finished) == (7_000, True)
    assert isinstance(message, Signal)
    assert message.due_ms == 0


def test_timers_of_two_entities_do_not_meet() -> None:
    assert timer_id(Host(Bell, key="a").actor, "b") != timer_id(Host(Bell, key="b").actor, "a")
