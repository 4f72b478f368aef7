"""How executions end, and what a turn came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, assert_never

from lungfish.runtime.declared.definitions import Orchestration
from lungfish.runtime.errors import (
    ActivityFailed,
    ActivityTimedOut,
    EntityOperationFailed,
    ExecutionFailed,
    FailureDetails,
    OrchestrationCanceled,
    OrchestrationFailed,
    OrchestrationTerminated,
    qualified_name,
)

from . import actions, events

COMPLETED: Final = "Completed"
FAILED: Final = "Failed"
TERMINATED: Final = "Terminated"
CANCELED: Final = "Canceled"
#: Ends after which nobody wants what was begun on behalf of the whole.
CANCELS_CHILDREN: Final = frozenset({FAILED, CANCELED})
CONTINUED: Final = "ContinuedAsNew"

TERMINATED_NAME: Final = qualified_name(OrchestrationTerminated)
CANCELED_NAME: Final = qualified_name(OrchestrationCanceled)
#: What a sub-orchestration's outcome is raised as, by the type that its failure names.
_CHILD_ERRORS: Final[dict[str, type[ExecutionFailed]]] = {
    TERMINATED_NAME: OrchestrationTerminated,
    CANCELED_NAME: OrchestrationCanceled,
}
_NO_EVENTS: Final[Sequence[events.EventRaised]] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    """How an execution ended.

    Attributes:
        result: encoded result of a completed one; encoded input of the next one if it continues as new.
        carried: external events that nobody consumed, for the next execution.
    """

    status: str
    result: bytes | None = None
    failure: FailureDetails | None = None
    carried: Sequence[events.EventRaised] = _NO_EVENTS


class Restart(NamedTuple):
    """An execution to begin, the events that the one before did not consume, and its updates' outcomes."""

    definition: Orchestration[Any, Any]
    carried: Sequence[events.EventRaised] = _NO_EVENTS
    updates: bytes = b""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a turn added to the history, what it wants done, and whether the execution ended."""

    events: list[events.Event]
    actions: list[actions.Action]
    ended: Ended | None


def terminated_failure(reason: str) -> FailureDetails:
    """Describe a termination, as the outcome that whoever waits for the instance gets."""
    return FailureDetails(TERMINATED_NAME, reason or "terminated", non_retriable=True)


def canceled_failure(reason: str) -> FailureDetails:
    """Describe a cancellation, as the outcome that whoever waits for the instance gets."""
    return FailureDetails(CANCELED_NAME, reason or "canceled", non_retriable=True)


def error_class(
    event: events.TaskFailed | events.SubOrchestrationFailed | events.EntityResponded,
) -> type[ExecutionFailed]:
    """Return what a failure is raised as where the code waits for it."""
    match event:
        case events.TaskFailed():
            return ActivityTimedOut if event.timed_out else ActivityFailed
        case events.SubOrchestrationFailed():
            return _CHILD_ERRORS.get(event.failure.error_type, OrchestrationFailed)
        case events.EntityResponded():
            return EntityOperationFailed
        case _:
            assert_never(event)
