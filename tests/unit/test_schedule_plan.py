"""What a schedule does next, as a function."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungfish.runtime.declared.calendar import Cron, Every
from lungfish.runtime.declared.schedule_plan import (
    OVERLAPS,
    TIMES_PER_TURN,
    Decision,
    Definition,
    SignalTarget,
    StartTarget,
    checked,
    decide,
    jitter_ms,
    plan,
    run_id,
)
from lungfish.runtime.errors import UsageError
from lungfish.runtime.ids import check_id

TARGET = StartTarget("f", b"")


def hourly(**changes: Any) -> Definition:
    return Definition(**{"times": Every(3_600_000), "target": TARGET, **changes})


@given(
    st.integers(1_000, 10_000_000),
    st.integers(0, 5_000_000),
    st.integers(0, 100_000_000),
    st.lists(st.integers(0, 50_000_000), min_size=1, max_size=12),
)
def test_whenever_it_looks_each_time_is_handled_once_in_order(
    interval_ms: int, jitter: int, catch_up_ms: int, pauses: list[int]
) -> None:
    definition = hourly(times=Every(interval_ms), jitter_ms=jitter, catch_up_ms=catch_up_ms)
    cursor_ms = now_ms = 10**12
    handled: list[int] = []
    missed = 0
    for pause_ms in pauses:
        now_ms += pause_ms
        found = plan("s", definition, cursor_ms, now_ms)
        assert len(found.times) + found.missed <= TIMES_PER_TURN
        assert found.wake_ms is not None
        handled += found.times
        missed += found.missed
        assert all(at_ms <= now_ms for at_ms in found.times)
        # It is never looked at too late, but for what it left for the next turn at once.
        assert found.wake_ms > now_ms or len(found.times) + found.missed == TIMES_PER_TURN
        assert found.wake_ms >= now_ms
        cursor_ms = found.cursor_ms
    assert handled == sorted(set(handled))
    assert len(handled) + missed == cursor_ms // interval_ms - 10**12 // interval_ms


@given(st.integers(0, 10**12), st.integers(0, 10**8))
def test_jitter_stays_in_its_bounds_and_is_always_the_same(nominal_ms: int, most_ms: int) -> None:
    definition = hourly(jitter_ms=most_ms)
    found = jitter_ms("s", definition, nominal_ms)
    assert 0 <= found <= most_ms
    assert found == jitter_ms("s", dataclasses.replace(definition), nominal_ms)


@given(st.sampled_from(OVERLAPS), st.booleans(), st.booleans())
def test_overlap(overlap: str, running: bool, buffered: bool) -> None:
    found = decide(overlap, running=running, buffered=buffered)
    if not running and not buffered:
        assert found is Decision.START
    elif overlap != "allow":
        # Two never run at one time, and no more than one waits.
        assert found is not Decision.START
        assert not (found is Decision.BUFFER and buffered)


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(UsageError, match="buffer_one"):
        decide("sometimes", running=True, buffered=False)


@pytest.mark.parametrize("times", [Every(5_000, 7), Cron("0 9 * * *", "Europe/Berlin")])
@pytest.mark.parametrize("target", [TARGET, SignalTarget("E", "k", "op", b"\x91")])
def test_definitions_come_back_and_a_later_release_may_add_to_them(times: Any, target: Any) -> None:
    definition = Definition(times, target, "allow", 1, 2, 3, 4, 5)
    assert Definition.from_wire(definition.to_wire()) == definition
    assert Definition.from_wire([*definition.to_wire(), "of a later release"]) == definition


def test_bounds_are_nominal_times_and_included() -> None:
    hour_ms = 3_600_000
    definition = checked(hourly(start_ms=3 * hour_ms, end_ms=5 * hour_ms, catch_up_ms=3 * hour_ms))
    found = plan("s", definition, 0, 5 * hour_ms + 10)
    assert (found.times, found.wake_ms) == ((3 * hour_ms, 4 * hour_ms, 5 * hour_ms), None)


def test_run_ids_can_be_read_and_be_used() -> None:
    assert run_id("nightly", 0) == "nightly-1970-01-01T00:00:00Z"
    assert run_id("nightly", 1_234, "-x") == "nightly-1970-01-01T00:00:01.234Z-x"
    check_id("instance id", run_id("ü/ 1", 10**12))
