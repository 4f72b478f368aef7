"""What an operator may do to an instance: one function a verb.

Rules:

* A verb is answered when it has taken effect, in the same commit.
* Every verb is idempotent: it may be sent again after an answer that was lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lungfish.runtime.errors import InstanceEnded, InstanceNotFound, UsageError
from lungfish.runtime.ids import ORCHESTRATION, ActorId
from lungfish.runtime.messages import Control

from . import events
from .endings import end
from .instance import Instance
from .outcomes import TERMINATED, Ended, terminated_failure
from .replies import accept
from .row import InstanceRow, Status
from .turns import close_turn


def control(instance: Instance, message: Control) -> None:
    """Do what a ``Control`` message says, and answer it."""
    row = instance.row
    if row is None:
        instance.refuse(message, InstanceNotFound(f"no instance {instance.id!r}"))
        return
    if row.terminal:
        instance.refuse(message, InstanceEnded(f"instance {instance.id!r} has ended ({row.status})"))
        return
    verb = _VERBS.get(message.verb)
    if verb is None:
        instance.refuse(message, UsageError(f"unknown control verb {message.verb!r}"))
        return
    verb(instance, row, message.reason)
    accept(instance.effects, message)


def _suspend(instance: Instance, row: InstanceRow, reason: str) -> None:
    if row.status is Status.SUSPENDED:
        return
    close_turn(instance)
    if row.terminal:
        return
    row.status = Status.SUSPENDED
    instance.record(events.Suspended(reason, instance.effects.now_ms))
    instance.write_row()


def _resume(instance: Instance, row: InstanceRow, reason: str) -> None:
    if row.status is not Status.SUSPENDED:
        return
    row.status = Status.RUNNING if row.begun else Status.PENDING
    instance.record(events.Resumed(reason, instance.effects.now_ms))
    instance.write_row()
    instance.release_held()


def _terminate(instance: Instance, row: InstanceRow, reason: str) -> None:
    close_turn(instance)
    if row.terminal:
        return
    outstanding = instance.outstanding
    now_ms = instance.effects.now_ms
    instance.record(events.TurnStarted(now_ms), events.ExecutionTerminated(reason, now_ms))
    end(instance, Ended(TERMINATED, failure=terminated_failure(reason)), outstanding)
    for child in outstanding.children.values():
        instance.effects.send(Control(ActorId(ORCHESTRATION, "", child), "terminate", reason))


_VERBS: Final[dict[str, Callable[[Instance, InstanceRow, str], None]]] = {
    "terminate": _terminate,
    "suspend": _suspend,
    "resume": _resume,
}
