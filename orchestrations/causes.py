"""What may have led to a difference between history and code, in words for whoever changed the code.

Rules:

* It is a guess, from the steps that follow in the same turn, and says so; what is certain is the difference.
* Chance is always a suspect: code that was not changed takes another path only by what is not repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, assert_never

from .events import (
    ContinuedAsNew,
    Decided,
    EntityCalled,
    EntitySignaled,
    Event,
    EventSent,
    ExecutionCompleted,
    LockReleased,
    LockRequested,
    OrchestrationStarted,
    PatchMarked,
    SubOrchestrationCanceled,
    SubOrchestrationCreated,
    TaskCanceled,
    TaskScheduled,
    TimerCanceled,
    TimerCreated,
    UpdateCompleted,
)

_CANCELED: Final[dict[type[Event], str]] = {
    TaskCanceled: "activity",
    TimerCanceled: "timer",
    SubOrchestrationCanceled: "sub-orchestration",
}
_SINCE: Final = "since this instance ran"
_CHANCE: Final = (
    "or the code depends on what is not repeated (clock, random, environment, I/O, a set's order)"
)


def describe(event: Decided) -> str:  # noqa: PLR0911 - one line a kind
    """Name a decided event in words."""
    match event:
        case TaskScheduled():
            return f"activity {event.name!r} (#{event.id})"
        case TaskCanceled() | TimerCanceled() | SubOrchestrationCanceled():
            return f"cancellation of {_CANCELED[type(event)]} #{event.id}"
        case TimerCreated():
            return f"timer (#{event.id})"
        case SubOrchestrationCreated():
            return f"sub-orchestration {event.name!r} with id {event.instance!r} (#{event.id})"
        case OrchestrationStarted():
            return f"start of orchestration {event.name!r} with id {event.instance!r} (#{event.id})"
        case EntityCalled():
            return f"call of {event.operation!r} on entity {event.entity}/{event.key} (#{event.id})"
        case EntitySignaled():
            return f"signal {event.operation!r} to entity {event.entity}/{event.key} (#{event.id})"
        case EventSent():
            return f"event {event.name!r} to instance {event.instance!r} (#{event.id})"
        case LockRequested():
            return f"lock of {', '.join(map(str, event.entities))} (#{event.id})"
        case LockReleased():
            return f"release of lock #{event.id}"
        case PatchMarked():
            return f"patch marker {event.patch!r}"
        case UpdateCompleted():
            return f"the end of update {event.update!r}"
        case ContinuedAsNew():
            return "the end of the code, continuing as new"
        case ExecutionCompleted():
            return f"the end of the code, {event.status}"
        case _:
            assert_never(event)


def likely_cause(
    expected: Decided | None, actual: Decided | None, recorded: Sequence[Decided], made: Sequence[Decided]
) -> str:
    """Guess why the code did not do what the history has.

    Args:
        expected, actual: the first that differ; None: there is none on that side.
        recorded, made: what follows on either side in the same turn.
    """
    if expected is None or actual is None:
        verb = "added" if expected is None else "removed"
        what = actual if expected is None else expected
        assert what is not None
        return f"{describe(what)} was {verb} here {_SINCE}, {_CHANCE}"
    return f"{_moved(expected, actual, recorded, made) or _changed(expected, actual)}, {_CHANCE}"


def _moved(
    expected: Decided, actual: Decided, recorded: Sequence[Decided], made: Sequence[Decided]
) -> str | None:
    later, earlier = _any_same(actual, recorded), _any_same(expected, made)
    if later and earlier:
        return f"the two were swapped {_SINCE}"
    if earlier:
        return f"{describe(actual)} was added before {describe(expected)} {_SINCE}"
    if later:
        return f"{describe(expected)} was removed, or moved behind {describe(actual)}"
    return None


def _changed(expected: Decided, actual: Decided) -> str:
    match expected, actual:
        case _, ExecutionCompleted(failure=failure) if failure is not None:
            return f"the code raises here now ({failure.message[:200]}), where it went on"
        case _, ExecutionCompleted() | ContinuedAsNew():
            return (
                "the code ends here now, where it went on: a step was removed, or a condition or loop changed"
            )
        case ExecutionCompleted() | ContinuedAsNew(), _:
            return "the code goes on here, where it ended: a step was added, or a condition or loop changed"
        case ((EntityCalled() | EntitySignaled()), (EntityCalled() | EntitySignaled())) if (
            expected.operation == actual.operation and expected.entity == actual.entity
        ):
            return f"another entity of the same kind {_SINCE}: how its key is made was changed"
        case _ if type(expected) is type(actual):
            return f"renamed or replaced {_SINCE}"
        case _:
            return f"replaced by another kind of step {_SINCE}, or steps were added, removed or reordered"


def _same(one: Decided, other: Decided) -> bool:
    """Tell whether two decisions are the same but for their sequence ids."""
    return type(one) is type(other) and _target(one) == _target(other)


def _target(event: Decided) -> tuple[str, ...]:
    match event:
        case TaskScheduled() | SubOrchestrationCreated() | OrchestrationStarted():
            return (event.name,)
        case EntityCalled() | EntitySignaled():
            return event.entity, event.key, event.operation
        case EventSent():
            return event.instance, event.name
        case PatchMarked():
            return (event.patch,)
        case ExecutionCompleted():
            return (event.status,)
        case UpdateCompleted():
            return (event.update,)
        case LockRequested():
            return tuple(map(str, event.entities))
        case (
            TaskCanceled()
            | TimerCreated()
            | TimerCanceled()
            | LockReleased()
            | SubOrchestrationCanceled()
            | ContinuedAsNew()
        ):
            return ()
        case _:
            assert_never(event)


def _any_same(wanted: Decided, among: Sequence[Decided]) -> bool:
    return any(_same(wanted, other) for other in among)
