"""What an execution's code lets others ask and change: queries and updates.

Rules:

* The code registers handlers, so they see its local variables, and exist wherever the code was replayed.
* A query's handler and an update's validator only look: while one runs, everything that schedules, draws
  chance or registers raises ``ReadOnly``, and the loop takes no callback.
* An update is an event of the history; its handler is a task of the execution's loop beside the main one. The
  completion is recorded by that task itself: what its result wakes up comes later.
* An update of a known id is not accepted again. Outcomes are kept for the life of the execution; the newest
  go on to the next one.
* In replay an update whose handler is gone decides nothing; the comparison with the record tells.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgpack

from lungfish.runtime import codec
from lungfish.runtime.declared.plugged_in import RESERVED
from lungfish.runtime.declared.signatures import Signature
from lungfish.runtime.errors import FailureDetails, NotRegistered, UpdateFailed, UsageError
from lungfish.runtime.ids import check_id

from . import events
from .driving import context_of
from .loop import DeterministicLoop, LoopFuture

if TYPE_CHECKING:
    from .replay import Execution


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a query or an update: one of the two is there."""

    result: bytes | None = None
    failure: FailureDetails | None = None


@dataclass(frozen=True, slots=True)
class _Handler:
    function: Callable[..., Any]
    signature: Signature
    validator: Callable[..., Any] | None = None


#: Why an update that was cut off has no result.
_CUT_OFF: Final = (
    "the instance continued as new before the update's handler had ended; what it did until then stays done. "
    "Let the code wait for ctx.updates_finished() first."
)


class Handlers:
    """The handlers that one execution has registered, and the updates that it has taken."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._queries: dict[str, _Handler] = {}
        self._updates: dict[str, _Handler] = {}
        #: Updates that were accepted and have no outcome; their names.
        self.running: dict[str, str] = {}
        self.outcomes: dict[str, Outcome] = {}
        self._idle: list[LoopFuture[None]] = []

    def __bool__(self) -> bool:
        return bool(self._queries or self._updates or self.outcomes)

    # --- registering: by the code ---

    def on_query(self, name: str, function: Callable[..., Any]) -> None:
        """Register what answers a query; another one of that name is replaced."""
        self._execution.may_change("register a query")
        what = f"query {check_id('query name', name)!r}"
        if name.startswith(RESERVED):
            raise UsageError(f"{what}: names that begin with {RESERVED!r} are reserved")
        if _is_async(function):
            raise UsageError(f"{what} is answered by a plain function: it may not wait, only look")
        self._queries[name] = _Handler(function, Signature.of(function, what))

    def on_update(
        self, name: str, function: Callable[..., Any], validator: Callable[..., Any] | None = None
    ) -> None:
        """Register what does an update; another one of that name is replaced."""
        self._execution.may_change("register an update")
        what = f"update {check_id('update name', name)!r}"
        if inspect.isgeneratorfunction(function):
            raise UsageError(f"{what} is done by a function or an 'async def', not by a generator")
        _is_async(function)
        if validator is not None and _is_async(validator):
            raise UsageError(f"the validator of {what} is a plain function: it may not wait, only look")
        self._updates[name] = _Handler(function, Signature.of(function, what), validator)

    @property
    def updates(self) -> list[str]:
        """The updates that the code takes."""
        return sorted(self._updates)

    @property
    def awaited(self) -> bool:
        """Whether somebody's update may still move the code."""
        return bool(self._updates)

    # --- queries and validators: they look ---

    def query(self, loop: DeterministicLoop | None, name: str, args: bytes) -> bytes:
        """Answer a query.

        Raises:
            NotRegistered, InvalidArguments, ReadOnly: as they are.
            BaseException: whatever the handler raises.
        """
        handler = _find(self._queries, "query", name)
        result = self._look(loop, f"query {name!r}", handler.function, *handler.signature.decode(args))
        return codec.encode(result, f"result of query {name!r}")

    def validate(self, loop: DeterministicLoop | None, name: str, args: bytes) -> None:
        """Let an update's validator look at it; raises what the validator raises, ``NotRegistered``, ..."""
        handler = _find(self._updates, "update", name)
        positional, named = handler.signature.decode(args)
        if handler.validator is not None:
            self._look(loop, f"validator of update {name!r}", handler.validator, positional, named)

    def _look(
        self,
        loop: DeterministicLoop | None,
        what: str,
        function: Callable[..., Any],
        args: list[Any],
        named: dict[str, Any],
    ) -> Any:
        assert loop is not None, "it registered a handler, so it has begun"
        self._execution.looking = what
        try:
            with loop.frozen(what):
                return context_of(self._execution).run(function, *args, **named)
        finally:
            self._execution.looking = ""

    # --- updates: they are part of the history ---

    def accept(self, loop: DeterministicLoop | None, event: events.UpdateAccepted) -> None:
        """Begin an update's handler; the same live and in replay."""
        if loop is None or event.update in self.running or event.update in self.outcomes:
            return
        self.running[event.update] = event.name
        handler = self._updates.get(event.name)
        if handler is not None:
            name = f"update {event.name}"
            _ = loop.create_task(self._run(handler, event), name=name, context=context_of(self._execution))

    async def _run(self, handler: _Handler, event: events.UpdateAccepted) -> None:
        try:
            args, named = handler.signature.decode(event.args)
            result = handler.function(*args, **named)
            if inspect.isawaitable(result):
                result = await result
            outcome = Outcome(codec.encode(result, f"result of update {event.name!r}"))
        except GeneratorExit:
            raise  # the code is being dropped
        except BaseException as error:  # whatever the handler raises is the update's own affair
            outcome = Outcome(failure=FailureDetails.of(error))
        self._execution.decide(events.UpdateCompleted(event.update, outcome.result, outcome.failure))
        del self.running[event.update]
        self.outcomes[event.update] = outcome
        self._wake()

    def finished(self, loop: DeterministicLoop) -> LoopFuture[None]:
        """Return a future that is done when no update runs."""
        future: LoopFuture[None] = LoopFuture(loop=loop)
        self._idle.append(future)
        self._wake()
        return future

    def _wake(self) -> None:
        if not self.running:
            for future in self._idle:
                if not future.done():
                    future.set_result(None)
            self._idle.clear()

    def cut_off(self) -> None:
        """The execution continues as new: updates that run have failed, and stay so for their id."""
        failure = FailureDetails.of(UpdateFailed(_CUT_OFF))
        self.outcomes.update(dict.fromkeys(self.running, Outcome(failure=failure)))
        self.running.clear()

    def pack_outcomes(self, most: int) -> bytes:
        """Return the newest outcomes for the execution that follows; empty if there are none."""
        rows = [
            [id, outcome.result, None if outcome.failure is None else outcome.failure.to_wire()]
            for id, outcome in list(self.outcomes.items())[-most:]
        ]
        return msgpack.packb(rows) if rows else b""

    def remember(self, packed: bytes) -> None:
        """Take over what the execution before knew."""
        if packed:
            for id, result, failure in msgpack.unpackb(packed, use_list=True):
                read = None if failure is None else FailureDetails.from_wire(failure)
                self.outcomes[id] = Outcome(result, read)


def _is_async(function: Any) -> bool:
    if not callable(function):
        raise UsageError(f"a handler or validator is a function, not {function!r}")
    return inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function)


def _find(table: dict[str, _Handler], sort: str, name: str) -> _Handler:
    found = table.get(name)
    if found is None:
        listed = ", ".join(sorted(table)) or "none"
        raise NotRegistered(f"the orchestration has no {sort} named {name!r}; there are: {listed}")
    return found
