"""When a failed activity is tried again: one table."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungfish.runtime.declared.retry import RetryPolicy
from lungfish.runtime.errors import FailureDetails, NonRetryable, RetryAfter, UsageError

S = dt.timedelta(seconds=1)
FIRST_MS, NOW_MS = 1_000_000, 1_500_000
FAILURE = FailureDetails(
    "shop.Busy", "busy", bases=("builtins.ConnectionError", "builtins.OSError", "builtins.Exception")
)
CENTURY_MS = 100 * 365 * 86_400_000


@pytest.mark.parametrize(
    ("policy", "attempt", "delay_ms"),
    [
        (RetryPolicy(), 1, None),
        (RetryPolicy(max_attempts=2), 1, 1_000),
        (RetryPolicy(max_attempts=2), 2, None),
        (RetryPolicy(max_attempts=2), 3, None),
        (RetryPolicy(max_attempts=5), 2, 2_000),
        (RetryPolicy(max_attempts=5), 4, 8_000),
        (RetryPolicy(max_attempts=5), 5, None),
        (RetryPolicy(5, 10 * S, 1.0), 4, 10_000),
        (RetryPolicy(5, 10 * S, 1.5), 3, 22_500),
        (RetryPolicy(5, 10 * S, 3), 3, 90_000),
        (RetryPolicy(5, dt.timedelta(0)), 3, 0),
        (RetryPolicy(5, dt.timedelta(milliseconds=250)), 2, 500),
        (RetryPolicy(9, 10 * S, max_interval=25 * S), 1, 10_000),
        (RetryPolicy(9, 10 * S, max_interval=25 * S), 2, 20_000),
        (RetryPolicy(9, 10 * S, max_interval=25 * S), 3, 25_000),
        (RetryPolicy(9, 10 * S, max_interval=5 * S), 1, 5_000),
        # max_attempts=0 is unlimited, and no number of attempts overflows.
        (RetryPolicy(0, S, 1.0), 1_000_000, 1_000),
        (RetryPolicy(0), 10_000, CENTURY_MS),
        (RetryPolicy(0, S, 2), 200, CENTURY_MS),
        (RetryPolicy(0, max_interval=60 * S), 10_000, 60_000),
        # 500 s have passed since the first attempt was scheduled.
        (RetryPolicy(0, 100 * S, retry_timeout=600 * S), 1, 100_000),
        (RetryPolicy(0, 100 * S, retry_timeout=599 * S), 1, None),
        (RetryPolicy(0, dt.timedelta(0), retry_timeout=499 * S), 1, None),
        (RetryPolicy(2, 100 * S, retry_timeout=9_000 * S), 2, None),
        (RetryPolicy(9, non_retriable=("Busy",)), 1, None),
        (RetryPolicy(9, non_retriable=("shop.Busy",)), 1, None),
        (RetryPolicy(9, non_retriable=("other.Busy", "Bus")), 1, 1_000),
        # By class, by the name of a base class, and the other way round.
        (RetryPolicy(9, non_retriable=(ConnectionError,)), 1, None),
        (RetryPolicy(9, non_retriable=("OSError",)), 1, None),
        (RetryPolicy(9, non_retriable=(ValueError,)), 1, 1_000),
        (RetryPolicy(9, retry_on=(ConnectionError, ValueError)), 1, 1_000),
        (RetryPolicy(9, retry_on=("shop.Busy",)), 1, 1_000),
        (RetryPolicy(9, retry_on=(Exception,)), 1, 1_000),
        (RetryPolicy(9, retry_on=(ValueError, "Bus")), 1, None),
        (RetryPolicy(9, retry_on=(OSError,), non_retriable=("Busy",)), 1, None),
    ],
)
def test_next_attempt(policy: RetryPolicy, attempt: int, delay_ms: int | None) -> None:
    due_ms = policy.next_attempt_ms(attempt, FAILURE, FIRST_MS, NOW_MS)
    assert due_ms == (None if delay_ms is None else NOW_MS + delay_ms)


def test_what_a_retry_cannot_help_is_not_tried_again() -> None:
    failure = FailureDetails("shop.Busy", "busy", non_retriable=True)
    assert RetryPolicy(9).next_attempt_ms(1, failure, FIRST_MS, NOW_MS) is None


def test_a_cause_does_not_count_as_the_failure() -> None:
    failure = FailureDetails("shop.Wrapped", "", cause=FAILURE)
    assert RetryPolicy(9, non_retriable=("Busy",)).next_attempt_ms(1, failure, FIRST_MS, NOW_MS) is not None


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"max_attempts": -1}, "max_attempts must be 0"),
        ({"initial_interval": -S}, "initial_interval must not be negative"),
        ({"max_interval": -S}, "max_interval must not be negative"),
        ({"retry_timeout": -S}, "retry_timeout must not be negative"),
        ({"jitter": -0.1}, "from 0 to 1"),
        ({"jitter": 1.1}, "from 0 to 1"),
        ({"jitter": math.nan}, "from 0 to 1"),
        ({"retry_on": "ValueError"}, "retry_on is a tuple"),
        ({"retry_on": ValueError}, "retry_on is a tuple"),
        ({"retry_on": (ValueError("x"),)}, "exception classes or their names"),
        ({"non_retriable": (int,)}, "exception classes or their names"),
        ({"backoff_coefficient": 0.9}, "at least 1"),
        ({"backoff_coefficient": math.nan}, "at least 1"),
        ({"backoff_coefficient": math.inf}, "at least 1"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(options: dict[str, float], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        RetryPolicy(**options)  # type: ignore[arg-type]


durations = st.integers(0, 10**10).map(lambda ms: dt.timedelta(milliseconds=ms))
policies = st.builds(
    RetryPolicy,
    st.integers(0, 1_000),
    durations,
    st.floats(1, 100),
    st.none() | durations,
    st.none() | durations,
    st.lists(st.text()).map(tuple),
    st.lists(st.text() | st.sampled_from([ValueError, OSError, KeyError])).map(tuple),
    st.floats(0, 1),
)


@given(policies)
def test_a_policy_comes_back_from_its_row(policy: RetryPolicy) -> None:
    assert RetryPolicy.from_wire([*policy.to_wire(), "of a later release"]) == policy


def test_a_policy_of_an_earlier_release_is_read() -> None:
    policy = RetryPolicy(3, S, non_retriable=("Busy",))
    assert RetryPolicy.from_wire(policy.to_wire()[:6]) == policy


@given(policies, st.integers(1, 100), st.text())
def test_jitter_only_shortens_by_its_part_and_is_the_same_every_time(
    policy: RetryPolicy, attempt: int, key: str
) -> None:
    steady = replace(policy, jitter=0.0, retry_on=(), retry_timeout=None, max_attempts=0)
    spread = replace(steady, jitter=policy.jitter)
    due, longest = (each.next_attempt_ms(attempt, FAILURE, 0, 0, key) for each in (spread, steady))
    if due is None or longest is None:
        assert due is longest is None, "jitter says when, not whether"
        return
    assert int(longest * (1 - policy.jitter)) - 1 <= due <= longest
    assert due == spread.next_attempt_ms(attempt, FAILURE, 0, 0, key)


def test_jitter_spreads() -> None:
    policy = RetryPolicy(0, 100 * S, jitter=1.0)
    dues = [policy.next_attempt_ms(1, FAILURE, 0, 0, f"i{n}:x:1") or 0 for n in range(1_000)]
    tenths = {due // 10_000 for due in dues}
    assert tenths == set(range(10))
    assert 45_000 < sum(dues) / len(dues) < 55_000


@given(policies, st.integers(1, 20), st.integers(0, 10**9))
def test_an_error_may_set_the_wait_but_not_whether_there_is_one(
    policy: RetryPolicy, attempt: int, after_ms: int
) -> None:
    asks = replace(FAILURE, retry_after_ms=after_ms)
    due = policy.next_attempt_ms(attempt, asks, FIRST_MS, NOW_MS)
    assert due in (None, NOW_MS + after_ms)
    unlimited = replace(policy, retry_timeout=None)
    without = unlimited.next_attempt_ms(attempt, FAILURE, FIRST_MS, NOW_MS)
    assert (unlimited.next_attempt_ms(attempt, asks, FIRST_MS, NOW_MS) is None) == (without is None)
    if policy.retry_timeout is not None and due is not None:
        assert due <= FIRST_MS + policy.retry_timeout / dt.timedelta(milliseconds=1)


class Slow(Exception):
    """As an HTTP client's error for status 429 may be."""

    lungfish_retry_after_s = 2.5


@pytest.mark.parametrize(
    ("error", "after_ms", "non_retriable"),
    [
        (RetryAfter(2.5), 2_500, False),
        (RetryAfter(0, "now"), 0, False),
        (Slow(), 2_500, False),
        (NonRetryable("no such card"), None, True),
        (ValueError(), None, False),
    ],
)
def test_what_an_error_says(error: Exception, after_ms: int | None, *, non_retriable: bool) -> None:
    details = FailureDetails.of(error)
    assert (details.retry_after_ms, details.non_retriable) == (after_ms, non_retriable)
    assert FailureDetails.from_wire(details.to_wire()) == details


@pytest.mark.parametrize("odd", ["soon", math.nan, -1, True, None])
def test_an_odd_wait_does_not_hide_the_error(odd: object) -> None:
    error = ValueError("this one")
    error.lungfish_retry_after_s = odd  # type: ignore[attr-defined]
    assert FailureDetails.of(error).retry_after_ms is None


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf])
def test_an_odd_wait_is_refused_where_it_is_ours(seconds: float) -> None:
    with pytest.raises(UsageError, match="number of seconds"):
        RetryAfter(seconds)


@given(policies.map(lambda policy: replace(policy, jitter=0.0)), st.integers(1, 2_000))
def test_waits_never_shrink_and_never_exceed_the_longest(policy: RetryPolicy, attempt: int) -> None:
    now, following = (policy.next_attempt_ms(at, FAILURE, 0, 0) for at in (attempt, attempt + 1))
    if now is not None and following is not None:
        assert 0 <= now <= following
        assert policy.max_interval is None or following <= policy.max_interval / dt.timedelta(milliseconds=1)
