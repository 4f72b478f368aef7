"""Turns of an instance: its code begins, goes on, continues as new.

Rules:

* A turn is opened by the first event of a run that finds the code, and closed once, at the end of the run or
  where the code ends: history batch, row and everything the code asked for are effects of that round.
* An event is applied to the execution only; what the code then asks for is kept until the turn closes.
* What needs no commit first (inline activities, unknown names) is answered within the turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from lungfish.runtime.declared.definitions import Orchestration
from lungfish.runtime.errors import FailureDetails, LimitExceeded, LungfishError

from . import actions, events, spans
from .endings import clean_up, end, fail
from .inline import outcome_at_once
from .instance import Instance
from .matching import Outstanding
from .outcomes import CONTINUED, FAILED, TERMINATED, Ended, Restart, terminated_failure
from .replay import Execution
from .replies import answer_updates
from .row import InstanceRow, Status


def begin_stored(instance: Instance, row: InstanceRow) -> None:
    """Begin an instance whose start was delayed. What came meanwhile follows."""
    row.begun, row.status = True, Status.RUNNING
    try:
        definition = instance.definition()
    except LungfishError as error:
        end(instance, Ended(FAILED, failure=FailureDetails.of(error)), Outstanding())
        return
    begin(instance, definition)
    instance.release_held()


def begin(instance: Instance, definition: Orchestration[Any, Any]) -> None:
    """Begin the first execution."""
    instance.restart = Restart(definition)
    _begin_pending(instance)


def _begin_pending(instance: Instance) -> None:
    """Begin an execution, and again while the code continues as new: a loop, as recursion has a limit."""
    while instance.restart is not None:
        restart, instance.restart = instance.restart, None
        _begin_execution(instance, restart)


def _begin_execution(instance: Instance, restart: Restart) -> None:
    row = instance.known
    assert instance.execution is None
    instance.new_attempts()
    instance.execution = execution_of(instance, restart.definition)
    # Before the start: the code may continue once more without waiting, and nothing must be lost then.
    for event in restart.carried:
        _apply(instance, event)
    started = events.ExecutionStarted(
        execution=row.execution,
        name=row.name,
        input=instance.large.value(row.input) or b"",
        at_ms=instance.effects.now_ms,
        version=row.version,
        parent=row.parent,
        parent_request=row.parent_request,
        pinned=row.pinned,
        updates=restart.updates,
        headers=spans.headers_of(instance),
    )
    # The history has it from here on: rows are written at every turn.
    row.input = events.shown(started.input)
    _apply(instance, started)


def waits_for(instance: Instance, sequence: int) -> bool:
    """Tell whether a completion of this id would find a task; opens the turn."""
    execution = ready(instance)
    return execution is not None and execution.waits_for(sequence)


def feed(instance: Instance, event: events.Arrived | None) -> None:
    """Apply an event, if there is one, in the turn of this round; begin again while it continues as new."""
    if event is not None:
        _apply(instance, event)
        _begin_pending(instance)


def _apply(instance: Instance, event: events.Arrived) -> None:
    """Apply an event, and do at once what needs no commit first."""
    execution = ready(instance)
    if execution is None:
        return
    todo = deque([event])
    while todo and execution.ended is None:
        execution.apply(todo.popleft())
        for action in execution.take_actions():
            outcome = outcome_at_once(instance.app, action)
            if outcome is None:
                instance.outgoing.keep(action)
            else:
                todo.append(outcome)
    if execution.ended is not None:
        close_turn(instance)


def resume(instance: Instance, mark: events.Rewound | events.Forked) -> None:
    """Open a turn of an execution that was replayed by the caller, and put a mark into its history."""
    assert instance.execution is not None
    assert instance.execution.ended is None
    _open_turn(instance, instance.execution)
    _apply(instance, mark)


def again(instance: Instance, asked: Iterable[actions.Action], event: events.Arrived | None = None) -> None:
    """In the open turn, ask again for what the code waits for, and deliver an event anew; until it ends."""
    execution = instance.execution
    for action in asked:
        if instance.execution is not execution:
            break
        outcome = outcome_at_once(instance.app, action)
        if outcome is None:
            instance.outgoing.keep(action)
        else:
            _apply(instance, outcome)
    if event is not None and instance.execution is execution:
        _apply(instance, event)
    _begin_pending(instance)


def ready(instance: Instance) -> Execution | None:
    """Return the execution with a turn open; None if there is none, or it has just ended."""
    if not instance.turn_open:
        if instance.always_replay and instance.history:
            instance.drop_code()
        if instance.execution is None:
            _load(instance)
        if instance.execution is not None:
            _open_turn(instance, instance.execution)
            if instance.execution.ended is not None:
                close_turn(instance)
    return instance.execution


def _open_turn(instance: Instance, execution: Execution) -> None:
    instance.turn_open = True
    execution.open_turn(instance.effects.now_ms)
    execution.outstanding.now_ms = execution.now_ms


def _load(instance: Instance) -> None:
    """Replay the stored history. What cannot be replayed ends the instance."""
    try:
        definition = instance.definition()
        history = instance.history.read()
    except LungfishError as error:
        fail(instance, error)
        return
    instance.execution = execution_of(instance, definition)
    instance.execution.replay(history)
    instance.forget_batches()


def execution_of(instance: Instance, definition: Orchestration[Any, Any]) -> Execution:
    """Return an execution that has not started."""
    watched = instance.always_replay
    return Execution(instance.app, definition, instance.id, instance.limits, watched=watched)


def close_turn(instance: Instance) -> None:
    """Give the turn's history, actions and row to the commit."""
    execution, row = instance.execution, instance.row
    if not instance.turn_open or execution is None or row is None:
        return
    instance.turn_open = False
    turn = execution.close_turn()
    if execution.ended is None and len(turn) == 1:
        return  # nothing but its start: what came was late or doubled
    if execution.ended is None or execution.ended.status != CONTINUED:
        instance.record(*turn)  # else there will be a new history
    if execution.custom_status is not None:
        (row.custom_status,) = execution.custom_status
    ended = execution.ended
    if ended is not None and ended.status == CONTINUED:
        execution.handlers.cut_off()
    if row.updates:
        answer_updates(instance.effects, row, execution.handlers.outcomes)
    too_long = instance.history.too_long(row) if ended is None else None
    if too_long is not None:
        instance.record(events.ExecutionCompleted(FAILED, failure=too_long))
        ended = Ended(FAILED, failure=too_long)
    instance.outgoing.perform(
        instance.effects,
        instance.actor,
        row.execution,
        instance.attempts,
        ended=ended.status if ended is not None else None,
        over=instance.app.payloads.offload_bytes,
    )
    if ended is None:
        instance.write_row()
    elif ended.status == CONTINUED:
        _continue_as_new(instance, execution, ended)
    else:
        end(instance, ended, execution.outstanding)


def _continue_as_new(instance: Instance, execution: Execution, ended: Ended) -> None:
    row = instance.known
    assert ended.result is not None
    clean_up(instance, execution.outstanding)
    instance.continues += 1
    if instance.continues > instance.limits.continues_max:
        error = LimitExceeded(
            f"it continued as new {instance.limits.continues_max:,} times without waiting for anything"
        )
        end(instance, Ended(FAILED, failure=FailureDetails.of(error)), Outstanding())
        return
    instance.history.forget(instance.effects, row)
    spans.tell_end(instance, execution, CONTINUED, None)
    row.execution, row.input = instance.effects.unique(), ended.result
    row.cancel, row.cancel_told = None, False
    updates = execution.handlers.pack_outcomes(instance.limits.updates_remembered)
    instance.restart = Restart(execution.definition, ended.carried, updates)


def terminate(instance: Instance, row: InstanceRow, reason: str) -> None:
    """End the instance now, and its sub-orchestrations."""
    close_turn(instance)
    if row.terminal:
        return
    outstanding = instance.outstanding
    now_ms = instance.effects.now_ms
    instance.record(events.TurnStarted(now_ms), events.ExecutionTerminated(reason, now_ms))
    end(instance, Ended(TERMINATED, failure=terminated_failure(reason)), outstanding)
