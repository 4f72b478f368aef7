"""Calls from an operation to another entity: sent once, answered once, however often the operation is re-run.

Rules:

* The request and the journal entry that tells of it go into the same commit: after a crash there
  are both or neither.
* A call is sent when it is made, not when it is awaited, so the order of calls is the order in
  which the code makes them, whatever ``gather`` does.
* A call waits no longer than whoever waits for the operation that makes it: deadlines are inherited.
* A call that nobody waits for any more is cancelled: if it was not started, it never is.
* A call that would come back to an entity that waits for it fails where it is made. The chain of waiting
  entities travels with the call; a signal's sender does not wait, so signals start a new chain. A
  ``@reentrant`` operation may be called back: it only reads.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import Any, Final

from lungfish.runtime.declared.definitions import Operation
from lungfish.runtime.errors import (
    CallCycle,
    CriticalSectionError,
    DeadlineExceeded,
    FailureDetails,
    LungfishError,
    UsageError,
    operation_failed,
    qualified_name,
    usage_error,
)
from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages.messages import Call, CancelCall

from .journal import CallEntry, CallOutcome
from .scope import Scope

#: How long an operation waits for another entity's answer.
CALL_DEADLINE_MS: Final = 30_000
#: How long a re-run waits at least: the answer may have come while nobody owned the partition.
ANSWER_GRACE_MS: Final = 1_000


def make_call(
    scope: Scope, target: ActorId, operation: Operation, args: bytes, timeout_ms: int = CALL_DEADLINE_MS
) -> CallEntry:
    """Send a call, or find it in the journal of the interrupted run.

    Raises:
        UsageError: the running operation is not async, or has ended.
        CallCycle: ``target`` waits for the running operation.
        CriticalSectionError: ``target`` is not in the critical section that the operation belongs to.
        NonDeterminism: the interrupted run did something else at this point.
    """
    scope.check_open()
    if not scope.operation.is_async:
        raise UsageError(f"{scope.operation.signature.what} must be 'async def' to call other entities")
    waiting = scope.waiting
    if str(target) in waiting and not operation.reentrant:
        raise CallCycle(
            f"{' → '.join((*waiting, str(target)))}: {target} waits for this call and would never answer it. "
            "Use a signal, an orchestration that calls both, or, to read only, a @reentrant operation."
        )
    if scope.section and target not in scope.section:
        raise CriticalSectionError(
            f"call of {target} from an operation in a critical section over "
            f"{', '.join(map(str, scope.section))}: it may wait for somebody who waits for this section. "
            "Lock that entity, too, or signal it"
        )
    effects, item = scope.effects, scope.item
    travelling = scope.headers("call", target.name, target.key, operation.name)
    deadline_ms = effects.now_ms + timeout_ms
    if scope.deadline_ms:
        deadline_ms = min(deadline_ms, scope.deadline_ms)
    entry = CallEntry(
        target, operation.name, effects.unique(), deadline_ms, branch=scope.branch(), digest=zlib.crc32(args)
    )
    recorded = scope.journal.call(entry)
    if recorded is not None:
        return recorded
    scope.journal.add(entry)
    effects.send(
        Call(target, operation.name, args, entry.request, scope.actor, deadline_ms, waiting, travelling)
    )
    effects.record(item, scope.journal.encode())
    return entry


async def outcome_of(scope: Scope, entry: CallEntry, operation: Operation) -> Any:
    """Wait for the answer to a call and return it.

    Raises:
        EntityOperationFailed: the operation raised.
        DeadlineExceeded: no answer in time; whether it took effect is unknown.
        UsageError: the call was refused (unknown operation, bad arguments).
    """
    if entry.outcome is None:
        await _wait(scope, entry)
    assert entry.outcome is not None
    if entry.outcome.failure is not None:
        raise error_of(entry.outcome.failure, f"{entry.target}.{entry.operation}")
    return operation.signature.decode_result(entry.outcome.result)


async def _wait(scope: Scope, entry: CallEntry) -> None:
    waiter = entry.waiter = asyncio.get_running_loop().create_future()
    # Abandoned before a crash: wait to be abandoned again, and not shorter than the first time.
    left_ms = max(ANSWER_GRACE_MS, entry.deadline_ms - scope.effects.now_ms)
    if entry.abandoned:
        left_ms = CALL_DEADLINE_MS
    deadline = asyncio.timeout(left_ms / 1000)
    try:
        async with deadline:
            await waiter
    except TimeoutError:
        if not deadline.expired():
            raise
        # A late answer is passed over from here on. It need not be recorded before the next call is: until
        # then nobody knows which way the operation went.
        late = DeadlineExceeded(f"{entry} was not answered within {left_ms / 1000:g} s")
        entry.abandoned = False
        entry.settle(CallOutcome(failure=refusal(late)))
    except asyncio.CancelledError:
        # Either the operation stopped waiting (its own time-out), or the host stops. Nothing is recorded
        # here: if it goes on, its next call records this one as abandoned; if the host stops, nothing is.
        entry.abandoned = entry.outcome is None
        if entry.abandoned and scope.open:
            scope.effects.send(CancelCall(entry.target, entry.request, scope.actor))
        raise


def refusal(error: LungfishError) -> FailureDetails:
    """Describe an error that has no traceback worth sending: it was not raised by user code."""
    return FailureDetails(
        qualified_name(type(error)), str(error), non_retriable=isinstance(error, UsageError)
    )


def error_of(details: FailureDetails, what: str) -> LungfishError:
    """Return the exception for a failed call of ``what``."""
    refused = usage_error(details)
    if refused is not None:
        return refused
    if details.error_type == qualified_name(DeadlineExceeded):
        return DeadlineExceeded(details.message)
    return operation_failed(what, details)
