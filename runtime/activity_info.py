"""What a running activity can ask about itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from .errors import UsageError
from .messages import ActivityTask


@dataclass(frozen=True, slots=True)
class ActivityInfo:
    """One attempt of an activity.

    Attributes:
        idempotency_key: the same for every attempt: give it to the outside system, which can
            then tell a repeated request from a new one.
        instance_id: the orchestration that called it.
        name: the activity's registered name.
        attempt: 1 for the first attempt.
    """

    idempotency_key: str
    instance_id: str
    name: str
    attempt: int = 1

    @classmethod
    def of(cls, task: ActivityTask) -> ActivityInfo:
        """Describe the attempt that ``task`` asks for."""
        return cls(task.idempotency_key, task.owner.key, task.name, task.attempt)


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
