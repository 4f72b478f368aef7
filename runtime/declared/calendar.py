"""When something recurs, pure: cron expressions in a time zone, and intervals.

Rules:

* A nominal time is a function of the specification alone: not of when a schedule was made, when it was
  looked at, or what ran before. So whoever works it out again, after a crash, comes to the same.
* Cron follows Debian's cron where clocks are changed (``cronsim`` does the work). A job at a fixed time runs
  once a day: at the moment of the change if its time does not exist that day, the first time if its time
  comes twice. A job with ``*`` or ``*/n`` for hour or minute follows the passing of time.
"""

from __future__ import annotations

import datetime as dt
import functools
import zoneinfo
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from lungfish.runtime.errors import UsageError

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MS: Final = dt.timedelta(milliseconds=1)
#: A shorter interval is refused: nothing is started more often than a commit takes.
INTERVAL_MIN: Final = dt.timedelta(seconds=1)
#: Times after this are not looked for (Unix ms, the end of the year 9000).
_END_MS: Final = 221_845_392_000_000


@dataclass(frozen=True, slots=True)
class Cron:
    """Times by a cron expression in a time zone; make it with ``lungfish.cron``."""

    expression: str
    tz: str = "UTC"

    def __str__(self) -> str:
        return f"cron {self.expression!r} ({self.tz})"


@dataclass(frozen=True, slots=True)
class Every:
    """Times at an interval since 1970-01-01 UTC; make it with ``lungfish.every``."""

    interval_ms: int
    offset_ms: int = 0

    def __str__(self) -> str:
        offset = f" + {self.offset_ms * _MS}" if self.offset_ms else ""
        return f"every {self.interval_ms * _MS}{offset}"


Recurrence: TypeAlias = Cron | Every


def cron(expression: str, tz: str = "UTC") -> Cron:
    """Return the times that a cron expression names, in a time zone.

    Needs the package ``cronsim`` (``pip install lungfish[cron]``). When clocks are changed, a job at a fixed
    time runs exactly once that day: at the moment of the change if its time is left out, the first time
    if its time comes twice. A job with ``*`` for hour or minute follows the passing of time: it runs in both
    hours of two, and in none that is left out. As Debian's cron does.

    Args:
        expression: five fields (minute, hour, day of month, month, day of week), as ``"0 9 * * MON-FRI"``;
            with six, the first is the second.
        tz: an IANA name, as ``"Europe/Berlin"``.

    Raises:
        UsageError: no such expression or time zone, or ``cronsim`` is not installed.
    """
    made = Cron(expression, tz)
    next_after(made, 0)
    return made


def every(interval: dt.timedelta, *, offset: dt.timedelta = dt.timedelta(0)) -> Every:
    """Return the times at an interval, counted from 1970-01-01 UTC: ``every(hours=1)`` is on the hour.

    Args:
        interval: 1 s or more.
        offset: moves all of them; less than ``interval``.

    Raises:
        UsageError: not such durations.
    """
    given: tuple[Any, Any] = (interval, offset)  # whatever the annotations say
    if not all(isinstance(one, dt.timedelta) for one in given) or interval < INTERVAL_MIN:
        raise UsageError(f"an interval is a timedelta of {INTERVAL_MIN} or more, not {interval!r}")
    if not dt.timedelta(0) <= offset < interval:
        raise UsageError(f"offset={offset!r} must be less than the interval, and not negative")
    return Every(interval // _MS, offset // _MS)


def next_after(times: Recurrence, after_ms: int) -> int | None:
    """Return the first time after ``after_ms`` (Unix ms); None: there is none.

    Raises:
        UsageError: as ``cron``.
    """
    match times:
        case Every(interval_ms, offset_ms):
            found = ((after_ms - offset_ms) // interval_ms + 1) * interval_ms + offset_ms
            return found if found < _END_MS else None
        case Cron(expression, tz):
            return _next_cron(expression, tz, after_ms)


def times_between(times: Recurrence, after_ms: int, until_ms: int) -> Iterator[int]:
    """Iterate over the times after ``after_ms`` up to and including ``until_ms``."""
    found = next_after(times, after_ms)
    while found is not None and found <= until_ms:
        yield found
        found = next_after(times, found)


def _next_cron(expression: str, tz: str, after_ms: int) -> int | None:
    begin = (_EPOCH + after_ms * _MS).astimezone(_zone(tz))
    try:
        for found in _cronsim().CronSim(expression, begin):
            found_ms: int = (found - _EPOCH) // _MS
            # Asked in the second pass of an hour that comes twice, it may begin with a time of the first.
            if found_ms > after_ms:
                return found_ms
    except (_cronsim().CronSimError, AttributeError) as error:
        raise UsageError(f"no cron expression: {expression!r}: {error}") from None
    return None


def _cronsim() -> Any:
    try:
        import cronsim
    except ImportError:
        raise UsageError("cron expressions need the package cronsim: pip install lungfish[cron]") from None
    return cronsim


@functools.lru_cache(maxsize=64)
def _zone(tz: str) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(tz)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, TypeError, OSError) as error:
        raise UsageError(f"no time zone named {tz!r}: use an IANA name, as 'Europe/Berlin'") from error
