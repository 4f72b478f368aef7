"""What a due reminder leads to, as a function of the time at which it is handled."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungfish.runtime.declared import reminders
from lungfish.runtime.declared.reminders import LATE_MS, Reminder, after, at_ms, put, signal_due_ms, tick
from lungfish.runtime.errors import LimitExceeded, UsageError

POLICIES = st.sampled_from(["skip", "once", "all"])
PERIODS = st.integers(100, 100_000_000)


def reminder(**changes: Any) -> Reminder:
    return Reminder(**{"name": "r", "operation": "op", "batch": b"", "generation": "g", **changes})


def periodic(due_ms: int, period_ms: int, catch_up: str = "once") -> Reminder:
    return reminder(first_ms=due_ms, due_ms=due_ms, period_ms=period_ms, catch_up=catch_up)


@given(st.integers(0, 10**13), PERIODS, POLICIES, st.integers(0, 10**9), st.booleans())
def test_a_period_keeps_its_phase(
    due_ms: int, period_ms: int, catch_up: str, late_ms: int, failed: bool
) -> None:
    found = tick(periodic(due_ms, period_ms, catch_up), due_ms + late_ms)
    following = after(found, "no" if failed and found.fires else None, due_ms + late_ms)
    assert following is not None
    assert following.due_ms > due_ms
    assert (following.due_ms - due_ms) % period_ms == 0


@given(PERIODS, POLICIES, st.lists(st.integers(0, 10**9), min_size=1, max_size=20))
def test_every_time_is_either_handled_or_counted(period_ms: int, catch_up: str, pauses: list[int]) -> None:
    """Whenever it is handled: what was fired and what was missed adds up to the times that have passed."""
    now_ms = 1_000
    found = periodic(now_ms, period_ms, catch_up)
    for pause_ms in pauses:
        now_ms = max(found.due_ms, now_ms + pause_ms)
        following = after(tick(found, now_ms), None, now_ms)
        assert following is not None
        found = following
    assert found.fired + found.missed == (found.due_ms - 1_000) // period_ms


@given(PERIODS, st.integers(0, 10**10))
def test_once_makes_up_for_all_times_with_one_run(period_ms: int, late_ms: int) -> None:
    found = tick(periodic(5_000, period_ms), 5_000 + late_ms)
    assert found.fires
    assert found.next_ms > 5_000 + late_ms
    assert found.next_ms - period_ms <= 5_000 + late_ms


@given(PERIODS, st.integers(0, 10**10))
def test_skip_fires_what_is_hardly_late_only(period_ms: int, late_ms: int) -> None:
    found = tick(periodic(5_000, period_ms, "skip"), 5_000 + late_ms)
    latest_ms = found.next_ms - period_ms
    assert found.fires == (5_000 + late_ms - latest_ms <= min(LATE_MS, period_ms))


def test_all_fires_each() -> None:
    found, fired = periodic(0, 1_000, "all"), []
    while found.due_ms <= 10_500:
        fired.append(found.due_ms)
        following = after(tick(found, 10_500), None, 10_500)
        assert following is not None
        found = following
    assert fired == [k * 1_000 for k in range(11)]


def test_one_without_a_period_is_done_with_after_it_went_well() -> None:
    assert after(tick(reminder(first_ms=1, due_ms=1), 1), None, 1) is None


def test_one_without_a_period_is_tried_again_after_a_failure_less_and_less_often() -> None:
    found = reminder(first_ms=0, due_ms=0)
    waits = []
    for _ in range(14):
        now_ms = found.due_ms
        following = after(tick(found, now_ms), "no", now_ms)
        assert following is not None
        waits.append(following.due_ms - now_ms)
        found = following
    assert waits[:4] == [1_000, 2_000, 4_000, 8_000]
    assert waits[-1] == 3_600_000
    assert (found.failed, found.last_failure) == (14, "no")


def test_one_that_came_too_late_to_be_of_use_is_missed() -> None:
    found = tick(reminder(first_ms=0, due_ms=0, catch_up="skip"), LATE_MS + 1)
    assert not found.fires
    assert after(found, None, LATE_MS + 1) is None


def test_setting_what_is_set_changes_nothing() -> None:
    first = put(reminders.NONE, reminder(first_ms=1, due_ms=1))
    advanced = {"r": reminder(first_ms=1, due_ms=700, fired=7)}
    assert put(advanced, reminder(first_ms=1, due_ms=1, generation="h")) is advanced
    assert put(first, reminder(first_ms=2, due_ms=2, generation="h"))["r"].generation == "h"


def test_there_is_a_bound() -> None:
    full = {str(n): reminder(name=str(n), first_ms=1, due_ms=1) for n in range(reminders.REMINDERS_MAX)}
    with pytest.raises(LimitExceeded, match="1,000 reminders"):
        put(full, reminder(first_ms=1, due_ms=1))
    assert put(full, reminder(name="3", first_ms=2, due_ms=2))["3"].due_ms == 2


def test_rows_come_back_and_a_later_release_may_add_to_them() -> None:
    known = put(reminders.NONE, reminder(first_ms=1, due_ms=2, last_failure="x"))
    rows = reminders.to_rows(known)
    assert reminders.from_rows(rows) == known
    assert reminders.from_rows([[*rows[0], "of a later release"]]) == known


def test_times_are_never_early() -> None:
    assert at_ms(dt.timedelta(microseconds=1), 1_000) == 1_001
    assert at_ms(dt.datetime(1970, 1, 1, 0, 0, 1, 1, tzinfo=dt.UTC), 0) == 1_001
    assert signal_due_ms(None) == 0
    assert signal_due_ms(dt.timedelta(seconds=2)) == -2_000
    assert signal_due_ms(dt.timedelta(seconds=-2)) == 0


@pytest.mark.parametrize("at", [dt.datetime(2026, 1, 1), 5, None, "tomorrow"])  # noqa: DTZ001
def test_times_must_be_aware(at: Any) -> None:
    with pytest.raises(UsageError, match="aware|time zone"):
        at_ms(at, 0)
