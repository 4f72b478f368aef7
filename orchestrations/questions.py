"""Queries and updates of an instance: from the message to the answer.

Rules:

* A query changes nothing: no history, no row, not even the end of an instance that cannot be replayed. Its
  answer leaves with the commit of what it saw.
* Code that is not in memory is replayed. It stays there if the instance runs; what has ended keeps it for the
  next query, until the activation is passivated.
* An update is validated, recorded and begun in one turn. Who waits for its outcome is in the row, so that no
  crash forgets them. One of a known id only adds somebody who waits.
"""

from __future__ import annotations

from lungfish.runtime import codec
from lungfish.runtime.errors import (
    FailureDetails,
    InstanceEnded,
    InstanceNotFound,
    LungfishError,
    NonDeterminism,
    Overloaded,
    QueryFailed,
    UpdateRejected,
    UsageError,
)
from lungfish.runtime.messages.messages import Query, Response, Update
from lungfish.runtime.why.facts import WAITS

from . import events
from .instance import Instance
from .replay import Execution
from .replies import add_update_waiter
from .turns import execution_of, feed, ready
from .waiting import waiting_now


def answer_query(instance: Instance, message: Query) -> None:
    """Answer a query, or say why not."""
    try:
        execution = _to_look_at(instance)
        if message.name == WAITS:
            result = codec.encode(waiting_now(execution, message.args), message.name)
        else:
            result = execution.query(message.name, message.args)
    except UsageError as error:
        instance.refuse(message, error)
    except BaseException as error:  # whatever the handler raises, SystemExit too
        instance.refuse(message, _failed(QueryFailed, f"query {message.name!r}", error))
    else:
        instance.effects.send(Response(message.reply_to, message.request, result))


def take_update(instance: Instance, message: Update) -> None:
    """Begin an update, join one that runs, or tell the outcome of one that has ended."""
    row = instance.row
    try:
        if row is None or row.terminal:
            _answer_late(instance, message)
            return
        execution = ready(instance)
        if execution is None:
            raise InstanceEnded(f"instance {instance.id!r} cannot be replayed and has failed")
        outcome = execution.handlers.outcomes.get(message.id)
        if outcome is not None:
            instance.effects.send(
                Response(message.reply_to, message.request, outcome.result, outcome.failure)
            )
            return
        known = message.id in execution.handlers.running
        if not known:
            _validate(execution, message)
        if not add_update_waiter(row, message, instance.limits.watchers_max):
            raise Overloaded(f"too many requests wait for updates of instance {instance.id!r} already")
    except LungfishError as error:
        instance.refuse(message, error)
        return
    if known:
        instance.write_row()
    else:
        feed(instance, events.UpdateAccepted(message.id, message.name, message.args, instance.effects.now_ms))


def _validate(execution: Execution, message: Update) -> None:
    try:
        execution.validate(message.name, message.args)
    except UsageError:
        raise
    except BaseException as error:
        raise _failed(UpdateRejected, f"update {message.name!r}", error) from None


def _answer_late(instance: Instance, message: Update) -> None:
    """Answer an update of an instance that has ended: its outcome, if it was done in time."""
    if instance.row is None:
        raise InstanceNotFound(f"no instance {instance.id!r}")
    outcome = _to_look_at(instance).handlers.outcomes.get(message.id)
    if outcome is None:
        raise InstanceEnded(f"instance {instance.id!r} has ended ({instance.row.status})")
    instance.effects.send(Response(message.reply_to, message.request, outcome.result, outcome.failure))


def _to_look_at(instance: Instance) -> Execution:
    """Return the instance's code where its committed history, and this turn, have brought it.

    Raises:
        InstanceNotFound, NotRegistered: there is no such instance, or not its code.
        UsageError: it has not begun.
        NonDeterminism: the code cannot be replayed.
    """
    row = instance.row
    if row is None:
        raise InstanceNotFound(f"no instance {instance.id!r}")
    if not row.begun:
        raise UsageError(
            f"instance {instance.id!r} has not begun ({row.status}): there is nothing to look at yet"
        )
    if instance.always_replay and not instance.turn_open and instance.history:
        instance.drop_code()
    found = instance.ended if row.terminal else instance.execution
    if found is None:
        found = _replayed(instance)
        if row.terminal:
            instance.ended = found
        else:
            instance.execution = found
        instance.forget_batches()
    return found


def _replayed(instance: Instance) -> Execution:
    execution = execution_of(instance, instance.definition())
    execution.replay(instance.history.read())
    ended = execution.ended
    # What replay itself adds to a history is the end of an instance that took another path.
    if execution.close_turn() and ended is not None and ended.failure is not None:
        execution.close()
        raise NonDeterminism(ended.failure.message)
    return execution


def _failed(
    kind: type[QueryFailed] | type[UpdateRejected], what: str, error: BaseException
) -> QueryFailed | UpdateRejected:
    details = FailureDetails.of(error)
    return kind(f"{what}: {details}", details)
