"""Reminders, pure: what an entity wants to be reminded of, and what a due one leads to.

Rules:

* A reminder belongs to its entity's snapshot: it is set, cancelled, rolled back and deleted with the state.
  The partition's timer is only the alarm clock, and is set anew from the snapshot.
* An alarm names the setting it belongs to (``generation`` and ``due_ms``). One that rang for a setting
  that is no more (cancelled, or set again, while it waited in the mailbox) does nothing.
* What follows a due reminder is decided when its operation has ended, in the same commit: so it is never due
  twice at once, and an operation that a crash interrupted is due again.
* A period keeps its phase: the times are ``first + k * period``, whenever each was handled.
* A handler that raises loses nothing: the next period comes, and a reminder without a period is tried again.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields, replace
from typing import Any, Final, Literal, TypeAlias

from lungfish.runtime.errors import LimitExceeded, UsageError

#: When: at a time (aware), or after a duration.
When: TypeAlias = dt.datetime | dt.timedelta
#: What becomes of times that nobody could handle.
CatchUp: TypeAlias = Literal["skip", "once", "all"]

#: With ``catch_up="skip"``: a reminder that comes later than this (or than its period) was missed (ms).
LATE_MS: Final = 30_000
#: A shorter period is refused: nothing is gained by being reminded more often than a commit takes.
PERIOD_MIN: Final = dt.timedelta(milliseconds=100)
#: Reminders of one entity.
REMINDERS_MAX: Final = 1_000
#: A reminder without a period whose operation raised is tried again after these (s): doubled up to the last.
RETRY_S: Final = (1, 3_600)

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MS: Final = dt.timedelta(milliseconds=1)
_FAILURE_CHARS_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Reminder:
    """A reminder as it is set: what is due when, and how it went so far.

    Attributes:
        name: which one of its entity.
        operation: what is run when it is due.
        batch: the operation's encoded arguments.
        generation: tells this setting from an earlier one of the same name.
        first_ms: when it was set to be due first: the phase of its period (Unix ms).
        due_ms: when it is due next (Unix ms).
        period_ms: 0: it is due once.
        catch_up: what becomes of times that nobody could handle.
        fired: how often its operation has ended well.
        failed: how often its operation has raised, and was rolled back.
        missed: how many times were passed over.
        last_failure: what its operation raised last; empty if it never did.
        failing: how often it has raised since it last went well.
    """

    name: str
    operation: str
    batch: bytes
    generation: str
    first_ms: int
    due_ms: int
    period_ms: int = 0
    catch_up: str = "once"
    fired: int = 0
    failed: int = 0
    missed: int = 0
    last_failure: str = ""
    failing: int = 0

    @property
    def due(self) -> dt.datetime:
        """When it is due next (aware, UTC)."""
        return _EPOCH + self.due_ms * _MS

    @property
    def period(self) -> dt.timedelta | None:
        """Its period; None: it is due once."""
        return self.period_ms * _MS if self.period_ms else None

    def same_setting(self, other: Reminder) -> bool:
        """Tell whether ``other`` asks for what is set already: then setting it changes nothing."""
        return (
            (self.operation, self.batch, self.first_ms) == (other.operation, other.batch, other.first_ms)
            and (self.period_ms, self.catch_up) == (other.period_ms, other.catch_up)
        )  # fmt: skip


#: All reminders of an entity, by name. Never changed in place: images of a state share it.
Reminders: TypeAlias = Mapping[str, Reminder]

NONE: Final[Reminders] = {}


@dataclass(frozen=True, slots=True)
class Tick:
    """A due reminder, as it was found when its turn came.

    Attributes:
        fires: run the operation; else all of it was missed.
        missed: how many times are passed over.
        next_ms: when it is due next if it has a period.
    """

    reminder: Reminder
    fires: bool
    missed: int
    next_ms: int


def tick(reminder: Reminder, now_ms: int) -> Tick:
    """Decide what a due reminder leads to at ``now_ms``."""
    due_ms, period_ms = reminder.due_ms, reminder.period_ms
    late_ms = max(0, now_ms - due_ms)
    if not period_ms:
        fires = reminder.catch_up != "skip" or late_ms <= LATE_MS
        return Tick(reminder, fires, int(not fires), due_ms)
    if reminder.catch_up == "all":
        return Tick(reminder, True, 0, due_ms + period_ms)
    overtaken = late_ms // period_ms
    next_ms = due_ms + (overtaken + 1) * period_ms
    if reminder.catch_up == "once" or late_ms - overtaken * period_ms <= min(LATE_MS, period_ms):
        return Tick(reminder, True, overtaken, next_ms)
    return Tick(reminder, False, overtaken + 1, next_ms)


def after(tick: Tick, failure: str | None, now_ms: int) -> Reminder | None:
    """Return the reminder as it is after a tick; None: it is done with.

    Args:
        failure: what its operation raised; None: it went well, or was not run.
    """
    reminder = tick.reminder
    missed = reminder.missed + tick.missed
    if failure is not None:
        failing = reminder.failing + 1
        due_ms = tick.next_ms if reminder.period_ms else now_ms + _retry_ms(failing)
        return replace(
            reminder,
            due_ms=due_ms,
            missed=missed,
            failed=reminder.failed + 1,
            failing=failing,
            last_failure=failure[:_FAILURE_CHARS_MAX],
        )
    if not reminder.period_ms:
        return None
    fired = reminder.fired + tick.fires
    return replace(reminder, due_ms=tick.next_ms, missed=missed, fired=fired, failing=0)


def _retry_ms(failing: int) -> int:
    first_s, most_s = RETRY_S
    return min(first_s << min(failing - 1, 20), most_s) * 1_000


def put(reminders: Reminders, reminder: Reminder, handling: str = "") -> Reminders:
    """Return ``reminders`` with one more, or one replaced; the same object if it was set so already.

    Args:
        reminders: all of the entity.
        reminder: the new one.
        handling: generation of the one whose operation sets it. If that is due once, it is done with: the
            same setting is a new one then.

    Raises:
        LimitExceeded: too many.
    """
    known = reminders.get(reminder.name)
    ends = known is not None and known.generation == handling and not known.period_ms
    if known is not None and known.same_setting(reminder) and not ends:
        return reminders
    if known is None and len(reminders) >= REMINDERS_MAX:
        raise LimitExceeded(
            f"an entity may have {REMINDERS_MAX:,} reminders: cancel some, or use several entities"
        )
    return {**reminders, reminder.name: reminder}


def without(reminders: Reminders, name: str) -> Reminders:
    """Return ``reminders`` without one."""
    return {known: reminder for known, reminder in reminders.items() if known != name}


def to_rows(reminders: Reminders) -> list[list[Any]]:
    """Return the stored form: positional; fields are only added at the end."""
    return [list(astuple(reminder)) for reminder in reminders.values()]


def from_rows(rows: list[list[Any]]) -> Reminders:
    """Read the stored form; a longer row, of a later release, is cut to what this one knows."""
    known = len(fields(Reminder))
    return {row[0]: Reminder(*row[:known]) for row in rows}


# --- times ------------------------------------------------------------------------------


def at_ms(at: dt.datetime | dt.timedelta, now_ms: int, what: str = "at") -> int:
    """Return a time, or a duration from now, as Unix ms, rounded up: what is scheduled is never early.

    Raises:
        UsageError: neither of them, or a time without a time zone.
    """
    if isinstance(at, dt.timedelta):
        return now_ms - (-at // _MS)
    given: Any = at  # whatever the annotation says
    if not isinstance(given, dt.datetime):
        raise UsageError(f"{what} is an aware datetime, or a timedelta from now, not {at!r}")
    if at.tzinfo is None:
        raise UsageError(f"{what}={at!r} has no time zone: use datetime.now(timezone.utc), or a timedelta")
    return -(-(at - _EPOCH) // _MS)


def signal_due_ms(at: dt.datetime | dt.timedelta | None) -> int:
    """Return the ``due_ms`` of a signal whose sender does not read the store's clock.

    A duration is negative: it counts from the moment at which the message is accepted.
    """
    if at is None:
        return 0
    if isinstance(at, dt.timedelta):
        return min(0, -at_ms(at, 0))
    return max(0, at_ms(at, 0))


def check_period(period: dt.timedelta | None) -> int:
    """Return a period in ms; 0 for None.

    Raises:
        UsageError: no timedelta, or shorter than ``PERIOD_MIN``.
    """
    if period is None:
        return 0
    given: Any = period  # whatever the annotation says
    if not isinstance(given, dt.timedelta) or given < PERIOD_MIN:
        raise UsageError(f"a period is a timedelta of {PERIOD_MIN / _MS:g} ms or more, not {period!r}")
    return period // _MS


def check_catch_up(catch_up: Any) -> str:
    """Return a catch-up policy; raises ``UsageError`` for anything else."""
    if catch_up not in ("skip", "once", "all"):
        raise UsageError(f"catch_up is 'skip', 'once' or 'all', not {catch_up!r}")
    return str(catch_up)
