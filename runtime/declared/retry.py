"""When to try an activity again: a pure policy.

The delay before retry ``n`` (1 is the first retry) is
``initial_interval * backoff_coefficient ** (n - 1)``, at most ``max_interval``; as in
Durable Functions and Temporal. The first attempt counts as an attempt.

Rules:

* No clock and no randomness: jitter comes from the idempotency key and the attempt, so that whoever
  computes a delay again, after a crash or in a test, computes the same one.
* What the error says goes before the policy: it may forbid a retry, and it may set the wait.
"""

from __future__ import annotations

import datetime as dt
import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lungfish.runtime.amounts import check_amount
from lungfish.runtime.errors import FailureDetails, UsageError, qualified_name


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how soon a failed activity is tried again.

    Errors are named by class or by name (bare or qualified); a class means its subclasses, too.

    Attributes:
        max_attempts: how many attempts there are in all, the first included; 0 is unlimited.
        initial_interval: wait before the first retry.
        backoff_coefficient: factor between one wait and the next (at least 1).
        max_interval: the longest wait; None is no limit.
        retry_timeout: give up when the next attempt would start later than this after
            the first one was scheduled; None is no limit.
        non_retriable: errors that end it at once.
        retry_on: the only errors after which it is tried again; empty: all that are not ``non_retriable``.
        jitter: the part of each wait (0 to 1) that is spread by chance, so that many that failed together do
            not come back together: a wait is between ``1 - jitter`` and 1 times what it would be.
    """

    max_attempts: int = 1
    initial_interval: dt.timedelta = dt.timedelta(seconds=1)
    backoff_coefficient: float = 2.0
    max_interval: dt.timedelta | None = None
    retry_timeout: dt.timedelta | None = None
    non_retriable: Iterable[str | type[BaseException]] = ()
    retry_on: Iterable[str | type[BaseException]] = ()
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if type(self.max_attempts) is not int:
            raise UsageError(f"RetryPolicy: max_attempts is a whole number, not {self.max_attempts!r}")
        if self.max_attempts < 0:
            raise UsageError(
                f"RetryPolicy: max_attempts must be 0 (unlimited) or more, not {self.max_attempts}"
            )
        for name in ("initial_interval", "max_interval", "retry_timeout"):
            duration = getattr(self, name)
            may_lack = name != "initial_interval"
            if not isinstance(duration, dt.timedelta) and not (may_lack and duration is None):
                raise UsageError(f"RetryPolicy: {name} is a timedelta, not {duration!r}")
            if duration is not None and duration < dt.timedelta(0):
                raise UsageError(f"RetryPolicy: {name} must not be negative: {duration}")
        factor: Any = self.backoff_coefficient
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 1 <= factor < math.inf:
            raise UsageError(f"RetryPolicy: backoff_coefficient must be at least 1, not {factor!r}")
        check_amount("RetryPolicy: jitter", self.jitter, most=1)
        for name in ("non_retriable", "retry_on"):
            object.__setattr__(self, name, _names(name, getattr(self, name)))

    def to_wire(self) -> list[Any]:
        """Return the form that is kept in the activity's row."""
        return [
            self.max_attempts,
            _ms(self.initial_interval),
            self.backoff_coefficient,
            None if self.max_interval is None else _ms(self.max_interval),
            None if self.retry_timeout is None else _ms(self.retry_timeout),
            list(self.non_retriable),
            list(self.retry_on),
            self.jitter,
        ]

    @classmethod
    def from_wire(cls, row: list[Any]) -> RetryPolicy:
        """Read what ``to_wire`` wrote; fields of later versions are passed over."""
        attempts, initial, coefficient, longest, timeout, non_retriable, *rest = row
        retry_on, jitter, *_ = rest if len(rest) > 1 else ((), 0.0)
        return cls(
            attempts,
            dt.timedelta(milliseconds=initial),
            coefficient,
            None if longest is None else dt.timedelta(milliseconds=longest),
            None if timeout is None else dt.timedelta(milliseconds=timeout),
            tuple(non_retriable),
            tuple(retry_on),
            jitter,
        )

    def next_attempt_ms(
        self, attempt: int, failure: FailureDetails, first_ms: int, now_ms: int, key: str = ""
    ) -> int | None:
        """Return when (Unix ms) to start the attempt after ``attempt``; None is never.

        Args:
            attempt: number of the attempt that failed; the first is 1.
            failure: why it failed.
            first_ms: when the first attempt was scheduled (Unix ms).
            now_ms: the time now (Unix ms), from the store's clock.
            key: idempotency key of the activity: what jitter is made of.
        """
        if failure.non_retriable or not self._includes(failure):
            return None
        if self.max_attempts and attempt >= self.max_attempts:
            return None
        asked_ms = failure.retry_after_ms
        due_ms = now_ms + (self._delay_ms(attempt, key) if asked_ms is None else asked_ms)
        if self.retry_timeout is not None and due_ms > first_ms + _ms(self.retry_timeout):
            return None
        return due_ms

    def _includes(self, failure: FailureDetails) -> bool:
        if any(failure.is_a(name) for name in self.non_retriable):
            return False
        retry_on = tuple(self.retry_on)
        return not retry_on or any(failure.is_a(name) for name in retry_on)

    def _delay_ms(self, attempt: int, key: str) -> int:
        limit = _LONGEST_MS if self.max_interval is None else _ms(self.max_interval)
        try:
            delay = min(_ms(self.initial_interval) * self.backoff_coefficient ** (attempt - 1), limit)
        except OverflowError:
            delay = limit
        return int(delay * (1 - self.jitter * _fraction(key, attempt)))


#: A century: no wait is longer, whatever the coefficient.
_LONGEST_MS = 100 * 365 * 86_400_000


def _names(option: str, given: object) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise UsageError(f"RetryPolicy: {option} is a tuple of exception classes or names, not {given!r}")
    return tuple(_name(option, item) for item in given)


def _name(option: str, item: object) -> str:
    if isinstance(item, str):
        return item
    if isinstance(item, type) and issubclass(item, BaseException):
        return qualified_name(item)
    raise UsageError(f"RetryPolicy: {option} takes exception classes or their names, not {item!r}")


def _fraction(key: str, attempt: int) -> float:
    """Return a number in [0, 1) that looks random and is the same for the same attempt."""
    return zlib.crc32(f"{attempt}\x00{key}".encode("utf-8", "surrogatepass")) / 2**32


def _ms(duration: dt.timedelta) -> int:
    return duration // dt.timedelta(milliseconds=1)
