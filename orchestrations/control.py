"""What an operator may do to an instance: one function a verb.

Rules:

* A verb is answered when it has taken effect, in the same commit.
* Every verb is idempotent: it may be sent again after an answer that was lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lungfish.runtime.errors import (
    InstanceEnded,
    InstanceNotFound,
    InstanceRunning,
    LungfishError,
    UsageError,
)
from lungfish.runtime.messages.messages import Control
from lungfish.runtime.partitions.kinds import Item

from . import events, purging
from .endings import end
from .instance import Instance
from .matching import Outstanding
from .outcomes import CANCELED, Ended, canceled_failure
from .replies import accept, lacks_code
from .resuming import restarted, rewind_instance
from .row import InstanceRow, Status
from .starting import start
from .turns import close_turn, feed, terminate

#: The verbs for what has ended.
_PAST: Final = {"rewind": "rewound", "restart": "restarted"}


def control(instance: Instance, item: Item, message: Control) -> bool:
    """Do what a ``Control`` message says, and answer it; return False if it stays in the mailbox."""
    row = instance.row
    if message.parent is not None and not _is_child_of(row, message):
        return True
    if message.verb == purging.PURGE:
        purging.purge(instance, message)
        return True
    if message.verb == "cancel" and row is not None and not row.terminal:
        accept(instance.effects, message)
        return _cancel(instance, row, item, message.reason)
    _control(instance, row, message)
    return True


def _is_child_of(row: InstanceRow | None, message: Control) -> bool:
    return row is not None and (row.parent, row.parent_request) == (message.parent, message.parent_request)


def _control(instance: Instance, row: InstanceRow | None, message: Control) -> None:
    if row is None:
        instance.refuse(message, InstanceNotFound(f"no instance {instance.id!r}"))
        return
    if message.verb in _PAST:
        _revive(instance, row, message)
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


def _revive(instance: Instance, row: InstanceRow, message: Control) -> None:
    """Let an instance that has ended live again."""
    try:
        if not row.terminal:
            raise InstanceRunning(
                f"instance {instance.id!r} has not ended ({row.status}): it cannot be {_PAST[message.verb]}"
            )
        if message.verb == "rewind":
            if row.status is not Status.FAILED:
                raise InstanceEnded(
                    f"instance {instance.id!r} did not fail ({row.status}): nothing to rewind"
                )
            rewind_instance(instance, message.reason)
        else:
            start(instance, restarted(instance))
    except LungfishError as error:
        instance.refuse(message, error)
    else:
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


def _cancel(instance: Instance, row: InstanceRow, item: Item, reason: str) -> bool:
    """Tell the code to end; return False if it cannot be told yet: the message then stays."""
    if row.cancel_told:
        return True
    now_ms = instance.effects.now_ms
    if not row.begun:
        failure = canceled_failure(reason)
        instance.record(events.TurnStarted(now_ms), events.CancelRequested(reason, now_ms))
        instance.record(events.ExecutionCompleted(CANCELED, failure=failure))
        end(instance, Ended(CANCELED, failure=failure), Outstanding())
        return True
    if row.status is Status.SUSPENDED or lacks_code(instance.app, row, instance.id):
        if row.cancel is None:
            row.cancel = reason
            instance.write_row()
        instance.hold(item)
        return False
    row.cancel, row.cancel_told = reason if row.cancel is None else row.cancel, True
    feed(instance, events.CancelRequested(row.cancel, now_ms))
    return True


def _find(_instance: Instance, _row: InstanceRow, _reason: str) -> None:
    """The answer is all: this came after what was in the inbox, a start perhaps."""


_VERBS: Final[dict[str, Callable[[Instance, InstanceRow, str], None]]] = {
    "terminate": terminate,
    "suspend": _suspend,
    "resume": _resume,
    "find": _find,
}
