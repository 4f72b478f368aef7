"""When something recurs: intervals, cron expressions, and the days on which clocks are changed."""

from __future__ import annotations

import datetime as dt
import functools
import sys
import zoneinfo
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungfish.runtime.declared.calendar import Cron, Every, cron, every, next_after, times_between
from lungfish.runtime.errors import UsageError

HOUR_MS = 3_600_000
EXPRESSIONS = ["30 2 * * *", "0 * * * *", "*/7 * * * *", "15 1,2,3 * * *", "*/30 2 * * *", "30 1-3 * * 0,6"]
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo"]
#: Around these days some of the zones change their clocks.
DAYS = ["2026-03-08", "2026-03-29", "2026-04-05", "2026-10-04", "2026-10-25", "2026-11-01", "2018-11-04"]


def ms(text: str, tz: str = "UTC") -> int:
    return int(dt.datetime.fromisoformat(text).replace(tzinfo=zoneinfo.ZoneInfo(tz)).timestamp() * 1_000)


def local(times: Any, tz: str, after: str, count: int) -> list[str]:
    at_ms: int | None = ms(after, tz)
    found = []
    for _ in range(count):
        assert at_ms is not None
        at_ms = next_after(times, at_ms)
        assert at_ms is not None
        at = dt.datetime.fromtimestamp(at_ms / 1_000, zoneinfo.ZoneInfo(tz))
        found.append(f"{at:%d %H:%M %z}")
    return found


def test_a_job_at_a_fixed_time_that_is_left_out_runs_at_the_moment_of_the_change() -> None:
    berlin = cron("30 2 * * *", "Europe/Berlin")
    assert local(berlin, "Europe/Berlin", "2026-03-28T00:00", 3) == [
        "28 02:30 +0100", "29 03:00 +0200", "30 02:30 +0200",
    ]  # fmt: skip


def test_a_job_at_a_fixed_time_that_comes_twice_runs_the_first_time() -> None:
    berlin = cron("30 2 * * *", "Europe/Berlin")
    assert local(berlin, "Europe/Berlin", "2026-10-24T00:00", 3) == [
        "24 02:30 +0200", "25 02:30 +0200", "26 02:30 +0100",
    ]  # fmt: skip


def test_a_job_of_every_hour_follows_the_passing_of_time() -> None:
    berlin = cron("0 * * * *", "Europe/Berlin")
    assert local(berlin, "Europe/Berlin", "2026-03-29T00:30", 3) == [
        "29 01:00 +0100", "29 03:00 +0200", "29 04:00 +0200",
    ]  # fmt: skip
    assert local(berlin, "Europe/Berlin", "2026-10-25T01:30", 3) == [
        "25 02:00 +0200", "25 02:00 +0100", "25 03:00 +0100",
    ]  # fmt: skip


def test_working_days() -> None:
    berlin = cron("0 9 * * MON-FRI", "Europe/Berlin")
    assert local(berlin, "Europe/Berlin", "2026-10-23T00:00", 2) == ["23 09:00 +0200", "26 09:00 +0100"]


@functools.cache
def times_around(times: Cron, begin_ms: int) -> list[int]:
    return list(times_between(times, begin_ms, begin_ms + 9 * 24 * HOUR_MS))


@settings(deadline=None)
@given(
    st.sampled_from(EXPRESSIONS),
    st.sampled_from(ZONES),
    st.sampled_from(DAYS),
    st.integers(-24 * 3_600, 36 * 3_600),
)
def test_time_goes_forward_and_does_not_depend_on_where_one_begins(
    expression: str, tz: str, day: str, after_s: int
) -> None:
    """A schedule's alarm is worked out anew after each crash: it must come to the same times."""
    times, begin_ms = Cron(expression, tz), ms(day) - 24 * HOUR_MS
    known = times_around(times, begin_ms)
    assert known == sorted(set(known))
    after_ms = ms(day) + after_s * 1_000
    expected = next((at_ms for at_ms in known if at_ms > after_ms), None)
    assert expected is not None
    assert next_after(times, after_ms) == expected
    assert next_after(times, expected - 1) == expected


@given(st.integers(1_000, 10**11), st.integers(0, 10**13), st.data())
def test_intervals_are_counted_from_the_epoch(interval_ms: int, after_ms: int, data: st.DataObject) -> None:
    offset_ms = data.draw(st.integers(0, interval_ms - 1))
    found = next_after(Every(interval_ms, offset_ms), after_ms)
    assert found is not None
    assert after_ms < found <= after_ms + interval_ms
    assert (found - offset_ms) % interval_ms == 0


@pytest.mark.parametrize(
    "expression", ["", "* * * *", "61 * * * *", "whenever", "0 9 * * FOO", "0 0 * * * * *", "0 0 30 2 *"]
)
def test_what_is_no_cron_expression(expression: str) -> None:
    with pytest.raises(UsageError, match="cron expression"):
        cron(expression)


@pytest.mark.parametrize("tz", ["", "Mars/Olympus", "../etc/passwd", "Europe"])
def test_what_is_no_time_zone(tz: str) -> None:
    with pytest.raises(UsageError, match="time zone"):
        cron("0 9 * * *", tz)


@pytest.mark.parametrize("wrong", [None, 5, "0 9 * * *"])
def test_arguments_of_other_kinds(wrong: Any) -> None:
    with pytest.raises(UsageError):
        cron(wrong if not isinstance(wrong, str) else "0 9 * * *", tz=wrong)
    with pytest.raises(UsageError):
        every(wrong)  # pyright: ignore[reportArgumentType]


def test_intervals_have_bounds() -> None:
    hour = dt.timedelta(hours=1)
    for interval, offset in [(dt.timedelta(0), 0 * hour), (hour, hour), (hour, -hour), (-hour, 0 * hour)]:
        with pytest.raises(UsageError):
            every(interval, offset=offset)


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(UsageError, match=r"lungfish\[cron\]"):
        cron("0 9 * * *")
