"""When to try an activity again: a pure policy.

The delay before retry ``n`` (1 is the first retry) is
``initial_interval * backoff_coefficient ** (n - 1)``, at most ``max_interval``; as in
Durable Functions and Temporal. The first attempt counts as an attempt.
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from typing import Any

from .errors import FailureDetails, UsageError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how soon a failed activity is tried again.

    Attributes:
        max_attempts: how many attempts there are in all, the first included; 0 is unlimited.
        initial_interval: wait before the first retry.
        backoff_coefficient: factor between one wait and the next (at least 1).
        max_interval: the longest wait; None is no limit.
        retry_timeout: give up when the next attempt would start later than this after
            the first one was scheduled; None is no limit.
        non_retriable: names of exception classes (bare or qualified) that end it at once.
    """

    max_attempts: int = 1
    initial_interval: dt.timedelta = dt.timedelta(seconds=1)
    backoff_coefficient: float = 2.0
    max_interval: dt.timedelta | None = None
    retry_timeout: dt.timedelta | None = None
    non_retriable: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_attempts < 0:
            raise UsageError(
                f"RetryPolicy: max_attempts must be 0 (unlimited) or more, not {self.max_attempts}"
            )
        for name in ("initial_interval", "max_interval", "retry_timeout"):
            duration = getattr(self, name)
            if duration is not None and duration < dt.timedelta(0):
                raise UsageError(f"RetryPolicy: {name} must not be negative: {duration}")
        if not 1 <= self.backoff_coefficient < math.inf:  # refuses NaN, too
            raise UsageError(
                f"RetryPolicy: backoff_coefficient must be at least 1, not {self.backoff_coefficient}"
            )

    def to_wire(self) -> list[Any]:
        """Return the form that is kept in the activity's row."""
        return [
            self.max_attempts,
            _ms(self.initial_interval),
            self.backoff_coefficient,
            None if self.max_interval is None else _ms(self.max_interval),
            None if self.retry_timeout is None else _ms(self.retry_timeout),
            list(self.non_retriable),
        ]

    @classmethod
    def from_wire(cls, row: list[Any]) -> RetryPolicy:
        """Read what ``to_wire`` wrote; fields of later versions are passed over."""
        attempts, initial, coefficient, longest, timeout, non_retriable, *_ = row
        return cls(
            attempts,
            dt.timedelta(milliseconds=initial),
            coefficient,
            None if longest is None else dt.timedelta(milliseconds=longest),
            None if timeout is None else dt.timedelta(milliseconds=timeout),
            tuple(non_retriable),
        )

    def next_attempt_ms(
        self, attempt: int, failure: FailureDetails, first_ms: int, now_ms: int
    ) -> int | None:
        """Return when (Unix ms) to start the attempt after ``attempt``; None is never.

        Args:
            attempt: number of the attempt that failed; the first is 1.
            failure: why it failed.
            first_ms: when the first attempt was scheduled (Unix ms).
            now_ms: the time now (Unix ms), from the store's clock.
        """
        if failure.non_retriable or self._excluded(failure):
            return None
        if self.max_attempts and attempt >= self.max_attempts:
            return None
        due_ms = now_ms + self._delay_ms(attempt)
        if self.retry_timeout is not None and due_ms > first_ms + _ms(self.retry_timeout):
            return None
        return due_ms

    def _excluded(self, failure: FailureDetails) -> bool:
        bare = failure.error_type.rpartition(".")[2]
        return failure.error_type in self.non_retriable or bare in self.non_retriable

    def _delay_ms(self, attempt: int) -> int:
        limit = _LONGEST_MS if self.max_interval is None else _ms(self.max_interval)
        try:
            delay = _ms(self.initial_interval) * self.backoff_coefficient ** (attempt - 1)
        except OverflowError:
            return limit
        return int(min(delay, limit))


#: A century: no wait is longer, whatever the coefficient.
_LONGEST_MS = 100 * 365 * 86_400_000


def _ms(duration: dt.timedelta) -> int:
    return duration // dt.timedelta(milliseconds=1)
