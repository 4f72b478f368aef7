"""Instances that go on from a history that is not quite theirs: rewound ones, and forks.

Rules:

* History, row, and everything that is asked for again are one commit.
* What the code waits for is asked for again, with the arguments that the code gives now; an activity keeps
  its idempotency key. A call of an entity is not, unless its failure was taken out: it is answered once,
  and an answer that came after the end is in the history.
* A sub-orchestration is adopted: it tells its outcome again, goes on, or is rewound itself.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from lungfish.runtime.declared.definitions import Orchestration
from lungfish.runtime.errors import InstanceExists, UsageError
from lungfish.runtime.messages import tags
from lungfish.runtime.messages.messages import Control, Message, Response, Start, TimerFired

from . import actions, events
from .forking import check_position, forked, started_of
from .instance import Instance
from .large import sent
from .outcomes import CANCELED_NAME, TERMINATED_NAME
from .outgoing import message_of, request_id, sequence_of
from .replay import Execution
from .rewinding import Rewinding, rewind
from .row import InstanceRow, Status
from .sections import chase
from .spans import rewound
from .turns import again, begin, close_turn, execution_of, resume, waits_for

logger = logging.getLogger("lungfish.orchestrations")

_OF_CHILDREN: Final = frozenset({TERMINATED_NAME, CANCELED_NAME})


def rewind_instance(instance: Instance, reason: str) -> None:
    """Let an instance that has ended go on from where it failed; its history is in memory.

    Raises:
        NotRegistered: this host's app does not have its code.
        UsageError: it failed within a critical section.
    """
    row = instance.known
    assert row.terminal
    assert instance.history.whole
    definition = instance.definition()
    history = instance.history.read()
    if not any(isinstance(event, events.ExecutionStarted) for event in history):
        _begin_anew(instance, row, definition)
        return
    found = rewind(
        history,
        lambda: execution_of(instance, definition),
        uncancel=row.status in {Status.CANCELED, Status.TERMINATED},
    )
    execution = execution_of(instance, definition)
    execution.replay(found.kept, ask=True)
    if execution.outstanding.locks:
        execution.close()
        raise UsageError(
            f"instance {instance.id!r} ended within a critical section, and its locks are gone: "
            "restart it, or fork it at a position before the section"
        )
    rewound(instance)
    _revive(row)
    if found.uncanceled:
        row.cancel, row.cancel_told = None, False
    instance.history.forget(instance.effects, row)
    instance.execution, instance.ended = execution, None
    instance.record(*found.kept)
    resume(instance, events.Rewound(found.sequence, reason, instance.effects.now_ms))
    again(instance, _asked(_open(execution), found))
    for event in found.again:
        sequence = getattr(event, "id", None)
        if instance.execution is execution and (sequence is None or execution.waits_for(sequence)):
            again(instance, (), event)
    close_turn(instance)


def _revive(row: InstanceRow) -> None:
    row.status, row.output, row.failure = Status.RUNNING, None, None


def _begin_anew(instance: Instance, row: InstanceRow, definition: Orchestration[Any, Any]) -> None:
    """It ended before it began: there is nothing to keep."""
    rewound(instance)
    _revive(row)
    row.begun, row.cancel, row.cancel_told = True, None, False
    instance.ended = None
    instance.history.forget(instance.effects, row)
    begin(instance, definition)


def _open(execution: Execution) -> list[actions.Action]:
    """Return what the code asked for and waits for now, in the order of asking."""
    asked, execution.asked_for = execution.asked_for or {}, None
    return [action for sequence, action in sorted(asked.items()) if execution.waits_for(sequence)]


def _asked(asked: Sequence[actions.Action], found: Rewinding) -> list[actions.Action]:
    answered = {getattr(event, "id", None) for event in found.again}
    return [
        replace(action, reuse="adopt") if isinstance(action, actions.StartOrchestration) else action
        for action in asked
        if action.id not in answered
        if not isinstance(action, actions.CallEntity) or action.id in found.failed
    ]


def adopt(instance: Instance, message: Start) -> None:
    """A rewound parent wants the outcome of its child again. The history of one that has ended is in memory.

    Raises:
        InstanceExists: the id is somebody else's.
        UsageError, NotRegistered: it cannot be rewound.
    """
    row = instance.known
    if not is_same(row, message):
        raise InstanceExists(f"instance {instance.id!r} exists already ({row.status})")
    if row.terminal and row.status is not Status.COMPLETED:
        rewind_instance(instance, "its parent was rewound")
    else:
        tell_again(instance, row)


def is_same(row: InstanceRow, message: Start) -> bool:
    """Tell whether an instance is what a start asks for: the same child, for the same call of its parent."""
    return (row.parent, row.parent_request) == (message.parent, message.parent_request)


def tell_again(instance: Instance, row: InstanceRow) -> None:
    """Tell the parent the outcome, if there is one: the store may have forgotten that it was told."""
    if row.terminal:
        assert row.parent is not None
        result = instance.large.value(row.output) if row.failure is None else None
        response = Response(row.parent, row.parent_request, result, row.failure)
        instance.effects.send(instance.large.sent(instance.effects, response))


def ask_again(instance: Instance, sequence: int) -> None:
    """Ask again for a sub-orchestration or a lock that the code waits for: it may be forgotten.

    Nothing is recorded: it is what was asked for before, under the same ids. The history is in memory.
    """
    row = instance.known
    if sequence in instance.outstanding.locks:
        chase(instance, request_id(row.execution, sequence))
        return
    execution = execution_of(instance, instance.definition())
    try:
        execution.replay(instance.history.read(), ask=True)
        asked = (execution.asked_for or {}).get(sequence)
    finally:
        execution.close()
    if not isinstance(asked, actions.StartOrchestration) or asked.detached:
        return
    if waits_for(instance, sequence):
        logger.warning("%s may be forgotten by the store; %s starts it again", asked.instance, instance.actor)
        message = message_of(replace(asked, reuse="again"), instance.actor, row.execution)
        instance.effects.send(sent(instance.effects, message, instance.app.payloads.offload_bytes))


def start_fork(
    instance: Instance, message: Start, row: InstanceRow, definition: Orchestration[Any, Any]
) -> None:
    """Begin an instance with a part of another one's history.

    Raises:
        NonDeterminism: today's code does not repeat it; nothing was created.
        UsageError: not a beginning; or within a critical section.
        MalformedBytes: not a history.
    """
    source, prefix = message.source, events.unpack(message.history)
    check_position(prefix, len(prefix))
    kept = forked(source, prefix, row.execution)
    started = started_of(kept)
    execution = execution_of(instance, definition)
    execution.replay(kept, ask=True)
    failed = execution.ended
    if failed is not None or execution.outstanding.locks:
        execution.close()
        why = failed.failure.message if failed is not None and failed.failure is not None else ""
        raise UsageError(
            f"the history of {source!r} cannot be forked there: " + (why or "it is within a critical section")
        )
    row.input, row.version = events.shown(started.input), started.version
    if instance.row is not None:
        instance.forget()
    instance.row = row
    instance.new_attempts()
    instance.execution = execution
    instance.record(*kept)
    resume(instance, events.Forked(source, row.execution, instance.effects.now_ms))
    again(instance, _open(execution))
    close_turn(instance)


def needs_history(instance: Instance, message: Message) -> bool:
    """Tell whether a message is about what may not be kept in memory of an instance."""
    row = instance.row
    if row is None:
        return False
    if not row.terminal:
        return isinstance(message, TimerFired) and message.purpose == "forgotten"
    match message:
        case Start(reuse="adopt"):
            return row.status is not Status.COMPLETED
        case Control(verb="rewind"):
            return row.status is Status.FAILED
        case Control(verb="restart"):
            return not row.input
        case _:
            return False


def keep_late_answer(instance: Instance, row: InstanceRow, message: Response) -> None:
    """Keep an answer that came after the end: rewound, the instance would wait for it in vain."""
    sequence = sequence_of(message.request, row.execution)
    if sequence is None or row.status is Status.COMPLETED:
        return
    if message.failure is not None and message.failure.error_type in _OF_CHILDREN:
        return  # of a sub-orchestration that ended with its parent
    instance.record(events.EntityResponded(sequence, message.result, message.failure))
    instance.write_row()


def restarted(instance: Instance) -> Start:
    """Return the start of an instance like this one, with the same input.

    Raises:
        NotRegistered, InvalidArguments: today's code does not take it.
    """
    row = instance.known
    given = instance.large.value(row.input) or started_of(instance.history.read()).input
    instance.app.code_to_start(row.name).signature.decode(given)
    return Start(instance.actor, row.name, given, reuse="restart", tags=tags.check_tags(row.tags))
