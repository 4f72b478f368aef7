"""What a running activity can ask about itself, and say of itself.

Rules:

* A heartbeat is cheap: it encodes its details and sets two fields. The worker looks at them twice a second,
  stores what is new, and notices silence. So a heartbeat may be given from any thread, as often as one likes.
* Cancellation is a state, not an event: whoever looks sees it, however often.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from lungfish.runtime import codec
from lungfish.runtime.errors import ActivityCancelled, UsageError
from lungfish.runtime.messages.messages import ActivityTask


@dataclass(slots=True, eq=False)
class Pulse:
    """What an attempt and its worker tell one another. Plain fields: written and read from several threads.

    Attributes:
        beats: how many heartbeats there were.
        details: what the last one said, encoded; before the first one, what an earlier attempt said.
        cancelled: why nobody waits for the attempt any more; empty while somebody does.
    """

    beats: int = 0
    details: bytes | None = None
    cancelled: str = ""

    def beat(self, details: bytes | None) -> None:
        """Take a heartbeat; one without details keeps those that there are."""
        if details is not None:
            self.details = details
        self.beats += 1


@dataclass(frozen=True, slots=True)
class ActivityInfo:
    """One attempt of an activity.

    Attributes:
        idempotency_key: the same for every attempt: give it to the outside system, which can
            then tell a repeated request from a new one.
        instance_id: the orchestration that called it.
        name: the activity's registered name.
        attempt: 1 for the first attempt.
        queue: the queue that it came from.
        deadline: when this attempt must have ended, by ``timeout`` and ``schedule_to_close``; None: whenever.
    """

    idempotency_key: str
    instance_id: str
    name: str
    attempt: int = 1
    queue: str = "default"
    deadline: dt.datetime | None = None
    pulse: Pulse = field(default_factory=Pulse, repr=False, compare=False)
    headers: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, task: ActivityTask, queue: str = "default", pulse: Pulse | None = None) -> ActivityInfo:
        """Describe the attempt that ``task`` asks for, as it begins."""
        return cls(
            task.idempotency_key,
            task.owner.key,
            task.name,
            task.attempt,
            queue,
            _deadline(task),
            pulse or Pulse(details=task.details),
            task.headers,
        )

    def heartbeat(self, details: Any = None) -> None:
        """Say that the attempt is alive and, with ``details``, how far it is.

        The last details are there for the next attempt (``heartbeat_details``), whether this one fails, is
        too slow, or dies with its worker: a death may cost what was said in the last second.
        Costs microseconds; the worker sends on what is new twice a second. From any thread; never waits.
        As in Temporal (``activity.heartbeat``).

        Raises:
            ActivityCancelled: nobody waits for this attempt any more.
            SerializationError, PayloadTooLarge: the details cannot be stored.
        """
        self.check_cancelled()
        what = f"heartbeat details of activity {self.name}"
        self.pulse.beat(None if details is None else codec.encode(details, what))

    def heartbeat_details(self, type: Any = Any) -> Any:
        """Return what the last heartbeat said, of this attempt or an earlier one; None: none said anything.

        Args:
            type: what to decode it as, as with an activity's arguments.

        Raises:
            InvalidArguments: what was said does not fit ``type``.
        """
        if self.pulse.details is None:
            return None
        what = f"heartbeat details of activity {self.name}"
        return codec.validate(codec.decode(self.pulse.details, what), type, what)

    @property
    def cancelled(self) -> bool:
        """True when nobody waits for this attempt any more: stop soon, the result would not count.

        Known within about a second, for attempts that run for longer than that. An ``async`` activity
        gets ``asyncio.CancelledError`` as well; a sync one has to look.
        """
        return bool(self.pulse.cancelled)

    def check_cancelled(self) -> None:
        """Raise ``ActivityCancelled`` if the attempt is ``cancelled``."""
        if self.pulse.cancelled:
            raise ActivityCancelled(f"attempt {self.attempt} of activity {self.name}: {self.pulse.cancelled}")


def _deadline(task: ActivityTask) -> dt.datetime | None:
    ends: list[dt.datetime] = []
    if task.timeout_ms:
        ends.append(dt.datetime.now(dt.UTC) + dt.timedelta(milliseconds=task.timeout_ms))
    if task.deadline_ms:
        ends.append(dt.datetime.fromtimestamp(task.deadline_ms / 1000, dt.UTC))
    return min(ends, default=None)


#: Set in the context that an activity runs in.
current_activity: ContextVar[ActivityInfo] = ContextVar("lungfish_activity")


def activity_info() -> ActivityInfo:
    """Return what is known about the activity that is running here.

    Raises:
        UsageError: no activity is running: the function was called as a plain one. In a unit
            test, run it inside ``running_as(ActivityInfo(...))``.
    """
    info = current_activity.get(None)
    if info is None:
        raise UsageError(
            "activity_info() was called outside of an activity; in a unit test, use running_as(...)"
        )
    return info


@contextmanager
def running_as(info: ActivityInfo) -> Iterator[None]:
    """Make ``activity_info()`` return ``info`` in the block."""
    token = current_activity.set(info)
    try:
        yield
    finally:
        current_activity.reset(token)
