"""Sub-orchestrations that are started again when they have failed.

Rules:

* The waits between attempts are durable timers; the policy is asked with the time of the turn, so replay
  repeats its answers.
* A refusal (unknown name, id taken by somebody else) is the caller's mistake and is not tried again;
  neither is an end that somebody asked for (terminated, cancelled).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from lungfish.runtime.declared.retry import RetryPolicy
from lungfish.runtime.errors import (
    OrchestrationCanceled,
    OrchestrationFailed,
    OrchestrationTerminated,
    UsageError,
)

from .loop import running_loop
from .tasks import Task

if TYPE_CHECKING:
    from .decisions import Decisions


def retried(
    execution: Decisions, begin: Callable[[int], Task[Any]], policy: RetryPolicy, name: str
) -> Task[Any]:
    """Return a task for the outcome of the last attempt; ``begin`` is given the attempt's number, from 1."""
    if not isinstance(policy, RetryPolicy):
        raise UsageError(f"retry is a RetryPolicy, not {policy!r}")
    # The first attempt is asked for now, like everything that is called on a context.
    work = _attempts(execution, begin(1), begin, policy)
    made: Any = running_loop("call_orchestration").create_task(work, name=f"retried {name}")
    return cast("Task[Any]", made)


async def _attempts(
    execution: Decisions, first: Task[Any], begin: Callable[[int], Task[Any]], policy: RetryPolicy
) -> Any:
    attempt, running = 1, first
    first_ms = execution.now_ms
    while True:
        try:
            return await running
        except (OrchestrationTerminated, OrchestrationCanceled):
            raise
        except OrchestrationFailed as error:
            if error.details is None:
                raise
            due_ms = policy.next_attempt_ms(attempt, error.details, first_ms, execution.now_ms)
            if due_ms is None:
                raise
        await execution.create_timer(due_ms)
        attempt += 1
        running = begin(attempt)
