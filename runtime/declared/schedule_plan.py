"""What a schedule is, and what it does next: pure.

Rules:

* Time passes in nominal times; each is handled once, in order. How far that has come is the *cursor*.
* A run is named after its nominal time (``run_id``). So whoever starts it twice starts it once.
* Work per turn is bounded; what is left is gone on with at once.
"""

from __future__ import annotations

import datetime as dt
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal, TypeAlias

from lungfish.runtime.errors import UsageError

from .calendar import Cron, Every, Recurrence, next_after

#: The built-in entities that schedules are; see ``plugged_in``.
SCHEDULE: Final = "lungfish.schedule"
CATALOG: Final = "lungfish.schedules"

Overlap: TypeAlias = Literal["skip", "buffer_one", "allow", "cancel_running", "terminate_running"]
OVERLAPS: Final = ("skip", "buffer_one", "allow", "cancel_running", "terminate_running")

#: Nominal times that one turn looks at.
TIMES_PER_TURN: Final = 200

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MS: Final = dt.timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class StartTarget:
    """What a schedule does: start an orchestration.

    Attributes:
        input: encoded ``[positional, keyword]``.
    """

    name: str
    input: bytes


@dataclass(frozen=True, slots=True)
class SignalTarget:
    """What a schedule does: signal an entity. A signal is done with when it is sent: nothing overlaps.

    Attributes:
        batch: the operation's encoded arguments.
    """

    entity: str
    key: str
    operation: str
    batch: bytes


@dataclass(frozen=True, slots=True)
class Definition:
    """A schedule as it is asked for.

    Attributes:
        jitter_ms: each run begins up to so much later than its nominal time; always the same for one time.
        catch_up_ms: a nominal time that could not be handled for longer than this is missed.
        start_ms, end_ms: first and last nominal time; 0: no bound.
        runs: how many runs there may be; 0: no bound.
    """

    times: Recurrence
    target: StartTarget | SignalTarget
    overlap: str = "skip"
    catch_up_ms: int = 3_600_000
    jitter_ms: int = 0
    start_ms: int = 0
    end_ms: int = 0
    runs: int = 0

    def to_wire(self) -> list[Any]:
        """Return the stored form; fields are only added at the end."""
        times: list[Any]
        match self.times:
            case Cron(expression, tz):
                times = ["cron", expression, tz]
            case Every(interval_ms, offset_ms):
                times = ["every", interval_ms, offset_ms]
        target: list[Any]
        match self.target:
            case StartTarget(name, given):
                target = ["start", name, given]
            case SignalTarget(entity, key, operation, batch):
                target = ["signal", entity, key, operation, batch]
        rest = [self.overlap, self.catch_up_ms, self.jitter_ms, self.start_ms, self.end_ms, self.runs]
        return [times, target, *rest]

    @classmethod
    def from_wire(cls, row: list[Any]) -> Definition:
        """Read what ``to_wire`` wrote."""
        (kind, *times), (what, *target), *rest = row
        recurrence: Recurrence = Cron(*times) if kind == "cron" else Every(*times)
        return cls(recurrence, StartTarget(*target) if what == "start" else SignalTarget(*target), *rest[:6])


class Decision(Enum):
    """What becomes of a nominal time."""

    START = "start"
    #: Not at all: an earlier run is still running.
    SKIP = "skip"
    #: When those that run have ended.
    BUFFER = "buffer"
    #: Likewise, and they are asked to end; whatever was buffered is skipped.
    REPLACE = "replace"


def decide(overlap: str, *, running: bool, buffered: bool) -> Decision:
    """Decide what becomes of a nominal time.

    Args:
        overlap: the policy.
        running: whether a run of the schedule has not ended.
        buffered: whether one waits for that already.
    """
    if overlap == "allow" or not (running or buffered):
        return Decision.START
    match overlap:
        case "skip":
            return Decision.SKIP
        case "buffer_one":
            return Decision.SKIP if buffered else Decision.BUFFER
        case "cancel_running" | "terminate_running":
            return Decision.REPLACE
        case _:
            raise UsageError(f"overlap is one of {', '.join(OVERLAPS)}, not {overlap!r}")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done now.

    Attributes:
        times: nominal times to handle, in order.
        missed: how many were passed over, because they came too late.
        cursor_ms: how far this plan comes.
        wake_ms: when to look again; None: never.
    """

    times: tuple[int, ...]
    missed: int
    cursor_ms: int
    wake_ms: int | None


def plan(schedule_id: str, definition: Definition, cursor_ms: int, now_ms: int) -> Plan:
    """Return what is to be done at ``now_ms`` when all nominal times up to ``cursor_ms`` are handled."""
    found: list[int] = []
    missed = 0
    for _ in range(TIMES_PER_TURN):
        nominal_ms = upcoming(definition, cursor_ms)
        if nominal_ms is None:
            return Plan(tuple(found), missed, cursor_ms, None)
        begin_ms = nominal_ms + jitter_ms(schedule_id, definition, nominal_ms)
        if begin_ms > now_ms:
            return Plan(tuple(found), missed, cursor_ms, begin_ms)
        if now_ms - begin_ms > definition.catch_up_ms:
            missed += 1
        else:
            found.append(nominal_ms)
        cursor_ms = nominal_ms
    return Plan(tuple(found), missed, cursor_ms, now_ms)


def upcoming(definition: Definition, after_ms: int) -> int | None:
    """Return the first nominal time after ``after_ms`` within the schedule's bounds; None: there is none."""
    found = next_after(definition.times, max(after_ms, definition.start_ms - 1))
    return None if found is None or (definition.end_ms and found > definition.end_ms) else found


def next_times(definition: Definition, after_ms: int) -> Iterator[int]:
    """Iterate over the nominal times after ``after_ms``."""
    found = upcoming(definition, after_ms)
    while found is not None:
        yield found
        found = upcoming(definition, found)


def jitter_ms(schedule_id: str, definition: Definition, nominal_ms: int) -> int:
    """Return how much later than its nominal time a run begins: by chance, but always the same."""
    if not definition.jitter_ms:
        return 0
    return zlib.crc32(f"{schedule_id}\x00{nominal_ms}".encode()) % (definition.jitter_ms + 1)


def run_id(schedule_id: str, nominal_ms: int, suffix: str = "") -> str:
    """Return the instance id of a run: schedule and nominal time, as ``nightly-2026-01-31T09:00:00Z``."""
    at = _EPOCH + nominal_ms * _MS
    fraction = "milliseconds" if nominal_ms % 1_000 else "seconds"
    return f"{schedule_id}-{at.replace(tzinfo=None).isoformat(timespec=fraction)}Z{suffix}"


def checked(definition: Definition) -> Definition:
    """Return a definition if it can be used; raise ``UsageError`` if it cannot."""
    if definition.overlap not in OVERLAPS:
        raise UsageError(f"overlap is one of {', '.join(OVERLAPS)}, not {definition.overlap!r}")
    if min(definition.catch_up_ms, definition.jitter_ms, definition.runs) < 0:
        raise UsageError("catch_up, jitter and runs must not be negative")
    if definition.end_ms and definition.end_ms < definition.start_ms:
        raise UsageError("end_at lies before start_at")
    next_after(definition.times, 0)
    return definition
