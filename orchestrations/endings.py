"""How an instance becomes terminal.

Rules:

* An instance that ends leaves nothing behind: no timer, no activity row, no item in the mailbox, no entity
  that it holds.
* Everyone who waits for it is told, in the commit that ends it.
* None of this runs the instance's code, or needs it: what cannot be replayed must still be able to end.
"""

from __future__ import annotations

import logging

from lungfish.runtime.errors import FailureDetails, InstanceEnded, InternalError, LungfishError
from lungfish.runtime.messages.messages import Response, Update

from . import events
from .attempts import timer_id
from .instance import Instance
from .matching import Outstanding
from .outcomes import CANCELS_CHILDREN, FAILED, TERMINATED, Ended
from .outgoing import release_locks, request_id, to_child
from .replies import Request, announce, refuse, refuse_updates
from .row import Status
from .spans import tell_end

log = logging.getLogger("lungfish.orchestrations")


def end(instance: Instance, ended: Ended, outstanding: Outstanding) -> None:
    """Make the instance terminal and tell everyone who waits for it."""
    row = instance.known
    assert not row.terminal
    if not row.begun:
        instance.effects.cancel_timer(timer_id(instance.actor, row.execution, 0, "start"))
    execution = instance.execution
    if execution is not None:  # else the batches stay: a query may want them
        instance.ended = execution if execution.handlers else None
        instance.history.clear()
    tell_end(instance, execution, ended.status, ended.failure)
    clean_up(instance, outstanding)
    _end_children(instance, ended, outstanding)
    row.status = Status(ended.status)
    refuse_updates(instance.effects, row, instance.id)
    row.failure = ended.failure
    if row.parent is not None:
        response = Response(row.parent, row.parent_request, ended.result, ended.failure)
        instance.effects.send(instance.large.sent(instance.effects, response))
    row.output = instance.large.stored(instance.effects, ended.result)
    announce(instance.effects, row)
    instance.write_row()
    for item in instance.held:
        if isinstance(item.message, Update):
            instance.refuse(item.message, InstanceEnded(f"instance {instance.id!r} has ended ({row.status})"))
        instance.finish(item)
    instance.held.clear()


def _end_children(instance: Instance, ended: Ended, outstanding: Outstanding) -> None:
    """End what was begun on behalf of a whole that has failed. The children of one that completed go on."""
    if ended.status == TERMINATED:
        verb, reason = "terminate", ended.failure.message if ended.failure is not None else ""
    elif ended.status in CANCELS_CHILDREN:
        verb, reason = "cancel", f"its parent {instance.id!r} has ended ({ended.status})"
    else:
        return
    execution = instance.known.execution
    for sequence, child in outstanding.children.items():
        request = request_id(execution, sequence)
        instance.effects.send(to_child(verb, reason, child, instance.actor, request))


def clean_up(instance: Instance, outstanding: Outstanding) -> None:
    """Forget the execution, its timers, its activities and its locks."""
    instance.attempts.cancel_all(instance.effects)
    for timer in outstanding.timers:
        instance.effects.cancel_timer(timer_id(instance.actor, instance.known.execution, timer, "timer"))
    release_locks(instance.effects, instance.known.execution, outstanding)
    instance.turn_open = False
    instance.outgoing.clear()
    instance.drop_code()


def fail(instance: Instance, error: LungfishError) -> None:
    """End an instance that cannot go on, without its code."""
    failure = FailureDetails.of(error)
    outstanding = instance.outstanding
    now_ms = instance.effects.now_ms
    instance.record(events.TurnStarted(now_ms), events.ExecutionCompleted(FAILED, failure=failure))
    end(instance, Ended(FAILED, failure=failure), outstanding)


def end_broken(instance: Instance, error: Exception) -> None:
    """End the instance after an error of ours: worse than a failed instance is one that never answers."""
    log.error("instance %s: internal error", instance.id, exc_info=error)
    wrapped = InternalError(f"{type(error).__name__}: {error}")
    wrapped.__cause__ = error
    failure = FailureDetails.of(wrapped)
    for item in (instance.current, *instance.inbox):
        if item is not None:
            if isinstance(item.message, Request):
                refuse(instance.effects, item.message, failure)
            instance.finish(item)
    instance.inbox.clear()
    instance.current = None
    if instance.row is None or instance.row.terminal:
        return
    try:
        instance.record(events.ExecutionCompleted(FAILED, failure=failure))
        end(instance, Ended(FAILED, failure=failure), instance.outstanding)
    except Exception:
        log.exception("instance %s: it could not be ended properly", instance.id)
