"""What an instance waits for, from what is stored: no code is run for it.

What only the code knows (names of external events) it is asked for; see ``questions``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lungfish.runtime import codec
from lungfish.runtime.ids import ENTITY, ActorId
from lungfish.runtime.why.facts import (
    ActivityWait,
    Attempt,
    CallWait,
    ChildWait,
    EventWait,
    LockWait,
    Recorded,
    TimerWait,
    UpdateWait,
    Wait,
)

from . import events
from .activities import ActivityRow
from .attempts import row_id
from .row import InstanceRow

if TYPE_CHECKING:
    from .replay import Execution


def read_waits(actor: ActorId, packed: bytes, history: Sequence[bytes]) -> Recorded:
    """Return what an instance has begun and not ended; raises ``MalformedBytes``."""
    row = InstanceRow.unpack(packed)
    found = _open(events.unpack_all(history))
    suspended = events.Suspended()
    for event in events.unpack_all(history):
        if isinstance(event, events.Suspended):
            suspended = event
    return Recorded(
        waits=tuple(found.values()),
        rows={
            wait.id: row_id(actor, row.execution, wait.id)
            for wait in found.values()
            if isinstance(wait, ActivityWait)
        },
        suspended_ms=suspended.at_ms,
        suspended=suspended.reason,
        cancel=row.cancel,
    )


def read_attempt(packed: bytes) -> Attempt:
    """Return how far an activity is; raises ``MalformedBytes``."""
    row = ActivityRow.unpack(packed)
    return Attempt(
        row.attempt,
        row.policy.max_attempts,
        row.queue,
        row.retry_ms if row.waiting else 0,
        row.error,
        row.deadline_ms,
        row.unbegun_ms,
    )


def waiting_now(execution: Execution, args: bytes) -> dict[str, Any]:
    """Tell what live code waits for and no history tells, in plain values.

    Args:
        args: ids of what the history has begun and not ended. Told are those that the code does not wait for
            any more: it went on meanwhile, or it gave up a call, which nothing records.
    """
    (ids, *_), _ = codec.decode(args, "question what the code waits for")
    return {
        "events": execution.external.waited_for(),
        "updates": execution.handlers.updates,
        "given_up": [id for id in ids if not execution.waits_for(id)],
    }


def with_answer(waits: Sequence[Wait], told: Mapping[str, Any]) -> tuple[Wait, ...]:
    """Return what an instance waits for, now that its code has told (see ``waiting_now``)."""
    gone = set(told["given_up"])
    kept = tuple(wait for wait in waits if isinstance(wait, EventWait | UpdateWait) or wait.id not in gone)
    named = tuple(EventWait(name, since) for name, since in told["events"])
    if named or kept or not told["updates"]:
        return (*named, *kept)
    return (UpdateWait(tuple(told["updates"])),)


def _open(history: Sequence[events.Event]) -> dict[int, Wait]:
    """Return what has begun and not ended, by sequence id, in the order in which it began."""
    found: dict[int, Wait] = {}
    now_ms = 0
    for event in history:
        match event:
            case events.TurnStarted():
                now_ms = event.now_ms
            case events.TaskScheduled():
                found[event.id] = ActivityWait(event.id, event.name, now_ms)
            case events.TimerCreated():
                found[event.id] = TimerWait(event.id, now_ms, event.due_ms)
            case events.SubOrchestrationCreated():
                found[event.id] = ChildWait(event.id, event.name, event.instance, now_ms)
            case events.EntityCalled():
                entity = ActorId(ENTITY, event.entity, event.key)
                found[event.id] = CallWait(event.id, entity, event.operation, now_ms)
            case events.LockRequested():
                found[event.id] = LockWait(event.id, event.entities, now_ms)
            case _ if isinstance(event, _ENDS):
                found.pop(event.id, None)
            case _:
                pass
    return found


_ENDS = (
    events.TaskCompleted,
    events.TaskFailed,
    events.TaskCanceled,
    events.TimerFired,
    events.TimerCanceled,
    events.SubOrchestrationCompleted,
    events.SubOrchestrationFailed,
    events.SubOrchestrationCanceled,
    events.EntityResponded,
    events.LockGranted,
    events.LockReleased,
)
