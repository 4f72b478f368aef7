"""The replay engine: history and new events in, decisions out. No I/O, no clock, no chance.

Rules:

* Live and replay are the same steps: an arrived event is applied, then the loop runs until it is idle. What
  the code decides on the way is recorded behind the event when live, and compared with the record in replay.
* A completion finds its task by sequence id; one whose id is unknown or finished (doubled, late, cancelled)
  is passed over. What the code decides, and under which id, is the business of ``decisions``.
* ``now`` is the time of the turn and never goes back.
* Whatever user code does, ``apply`` does not raise: the instance fails instead. An instance whose code
  waits for what no event can bring fails at once and does not hang.
* Nothing here is stored before a commit; if that is refused, the execution is thrown away.
"""

from __future__ import annotations

import asyncio
import inspect
import zlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from lungfish.runtime import codec
from lungfish.runtime.declared.definitions import Orchestration
from lungfish.runtime.errors import (
    DeadlineExceeded,
    EntityOperationFailed,
    ExecutionFailed,
    FailureDetails,
    InternalError,
    LimitExceeded,
    UsageError,
    qualified_name,
    usage_error,
)

from . import actions, events
from .context import OrchestrationContext, seed_of
from .decisions import Decisions
from .driving import context_of, coroutine_of, stuck, taught
from .handlers import Handlers
from .limits import Limits
from .loop import DeterministicLoop
from .matching import Outstanding, Place, compare, recorded_decisions
from .outcomes import (
    CANCELED,
    COMPLETED,
    CONTINUED,
    FAILED,
    TERMINATED,
    Ended,
    Turn,
    canceled_failure,
    error_class,
    terminated_failure,
)

if TYPE_CHECKING:
    from lungfish.runtime.declared.app import App

_LATE: Final = qualified_name(DeadlineExceeded)


class Execution(Decisions):
    """One execution of an orchestration: from its start, or the last continue-as-new, to its end."""

    def __init__(
        self,
        app: App,
        definition: Orchestration[Any, Any],
        instance: str,
        limits: Limits | None = None,
        *,
        watched: bool = False,
    ) -> None:
        """Make an execution that has not started.

        Args:
            watched: notice clocks, chance and blocking calls of the code, slowly; see ``ambient``.
        """
        super().__init__(app, definition, instance, limits)
        self._watched = watched
        self.outstanding = Outstanding()
        #: Set by the code in this execution; None if it never did, or ``(encoded value or None,)``.
        self.custom_status: tuple[bytes | None] | None = None
        #: The queries and updates that the code answers.
        self.handlers = Handlers(self)
        #: Why the code was asked to end; None: it was not.
        self._canceled: str | None = None
        self._turn: list[events.Event] = []
        self._main: asyncio.Task[Any] | None = None

    # --- drive ---

    def replay(self, history: Sequence[events.Event], *, ask: bool = False) -> None:
        """Take the code to where the history ends.

        Args:
            ask: keep what the code asks for on the way, in ``asked_for``.

        If it takes another path, ``ended`` tells so (``Failed``, with a ``NonDeterminism``) and
        ``close_turn`` of the next turn has the event for the history.
        """
        self.replaying = True
        self.asked_for = {} if ask else None
        self._marked = {event.patch for event in history if type(event) is events.PatchMarked}
        self.outstanding = Outstanding(history)
        at = 0
        while at < len(history) and self.ended is None:
            self._step(history[at])
            recorded = recorded_decisions(history, at + 1)
            difference = compare(recorded, self._made, self._lines, at + 1, len(history))
            self._made.clear()
            self._lines.clear()
            at += 1 + len(recorded)
            if difference is not None:
                self._end(Ended(FAILED, failure=FailureDetails.of(difference)))
                self._turn.append(events.ExecutionCompleted(FAILED, failure=FailureDetails.of(difference)))
        self.replaying = False

    def expect(self, decided: Iterable[events.Decided]) -> None:
        """Prepare for ``repeat`` over a past in which the code decided this."""
        self._marked = {event.patch for event in decided if type(event) is events.PatchMarked}

    def repeat(self, event: events.Arrived) -> list[events.Decided]:
        """Apply an event of the past; return what the code decides now. Nothing is recorded."""
        self.replaying = True
        self.outstanding.see(event)
        self._step(event)
        self.replaying = False
        made = self._made.copy()
        for decided in made:
            self.outstanding.see(decided)
        self._made.clear()
        self._lines.clear()
        return made

    def open_turn(self, now_ms: int) -> None:
        """Begin a turn."""
        started = events.TurnStarted(max(now_ms, self.now_ms))
        self._turn.insert(0, started)  # before what replay may have found
        self._actions_left = self.limits.actions_max
        self._set_now(started.now_ms)

    def apply(self, event: events.Arrived) -> None:
        """Apply an event and run the code until it waits again."""
        if self.ended is not None:
            return
        self._turn.append(event)
        self.outstanding.see(event)
        self._step(event)
        for decided in self._made:
            self.outstanding.see(decided)
        self._turn += self._made
        self._made.clear()
        self._lines.clear()

    def take_actions(self) -> list[actions.Action]:
        """Return the actions that were decided since this was last asked."""
        taken, self._actions = self._actions, []
        return taken

    def close_turn(self) -> list[events.Event]:
        """End the turn; return what it adds to the history."""
        turn, self._turn = self._turn, []
        return turn

    def turn(self, now_ms: int, arrived: Sequence[events.Arrived]) -> Turn:
        """Do a whole turn: open it, apply events, close it."""
        self.open_turn(now_ms)
        for event in arrived:
            self.apply(event)
        return Turn(self.close_turn(), self.take_actions(), self.ended)

    def waits_for(self, sequence: int) -> bool:
        """Tell whether a completion of this id would find a task."""
        return sequence in self._open or sequence in self.outstanding.timers

    def query(self, name: str, args: bytes) -> bytes:
        """Answer a query, live or after the end; see ``Handlers.query``."""
        return self.handlers.query(self._loop, name, args)

    def validate(self, name: str, args: bytes) -> None:
        """Let an update's validator look at it; see ``Handlers.validate``."""
        self.handlers.validate(self._loop, name, args)

    def updates_finished(self) -> asyncio.Future[None]:
        """Return a future that is done when no update runs."""
        assert self._loop is not None
        return self.handlers.finished(self._loop)

    def close(self) -> None:
        """Drop the code. Nothing that it does on its way out has an effect."""
        self._end(self.ended or Ended(TERMINATED))

    # --- arrived events ---

    def _step(self, event: events.Event) -> None:
        """Apply one event; the same live and in replay."""
        match event:
            case events.TurnStarted():
                self._set_now(event.now_ms)
                return
            case events.ExecutionStarted():
                self._start(event)
            case events.TaskCompleted() | events.SubOrchestrationCompleted():
                self._complete(event.id, event.result)
            case events.LockGranted():
                self._grant(event.id)
            case events.EntityResponded(failure=None):
                self._complete(event.id, event.result)
            case events.TaskFailed() | events.SubOrchestrationFailed() | events.EntityResponded():
                assert event.failure is not None
                self._fail(event.id, event.failure, error_class(event))
            case events.TimerFired():
                self._fire(event.id)
            case events.EventRaised():
                self.external.arrive(event)
            case events.ExecutionTerminated():
                self._end(Ended(TERMINATED, failure=terminated_failure(event.reason)))
            case events.CancelRequested():
                self._cancel(event)
            case events.UpdateAccepted():
                self.handlers.accept(self._loop, event)
            case events.Suspended() | events.Resumed() | events.Rewound() | events.Forked():
                self._pass_mark(event)
                return
            case _:
                self._refuse(event)
        self._run()

    def _set_now(self, now_ms: int) -> None:
        self.now_ms = now_ms
        if self._loop is not None:
            self._loop.now_ms = now_ms

    def _pass_mark(self, event: events.Suspended | events.Resumed | events.Rewound | events.Forked) -> None:
        """Pass what the code does not see."""
        if isinstance(event, events.Rewound):
            self._sequence = max(self._sequence, event.sequence)
        elif isinstance(event, events.Forked):
            self.context.reseed(event.execution)

    def _refuse(self, event: events.Decided) -> None:
        """A decision stands where only arrived events can: the code decided less than the record has."""
        error = InternalError(f"history is out of order: {event!r}")
        self._decide_end(Ended(FAILED, failure=FailureDetails.of(error)))

    def _start(self, event: events.ExecutionStarted) -> None:
        self.started = event
        salt = zlib.crc32(seed_of(self.instance, event).encode())
        # What is abstract is set below the class, one refusal for each method.
        self._loop = DeterministicLoop(self, salt, watched=self._watched)  # type: ignore[abstract]
        self._loop.now_ms = self.now_ms
        self.context = OrchestrationContext(self, event)
        self.handlers.remember(event.updates)
        try:
            (args, kwargs), context = self.definition.signature.decode(event.input), context_of(self)
            code = coroutine_of(self.definition, self.context, args, kwargs)
        except BaseException as error:
            self._decide_end(Ended(FAILED, failure=FailureDetails.of(error)))
            return
        # A context of its own: what the host's context variables hold is not repeated in replay.
        self._main = self._loop.create_task(code, name="main", context=context)

    def _cancel(self, event: events.CancelRequested) -> None:
        if self._canceled is None and self._main is not None:
            self._canceled = event.reason
            self._main.cancel()

    def _complete(self, sequence: int, result: bytes | None) -> None:
        task = self._open.pop(sequence, None)
        if task is not None:
            task.complete(result)

    def _fail(self, sequence: int, failure: FailureDetails, kind: type[ExecutionFailed]) -> None:
        task = self._open.pop(sequence, None)
        if task is not None:
            # A refusal by the runtime (not registered, id taken) is raised as what it is.
            late = kind is EntityOperationFailed and failure.error_type == _LATE
            error = DeadlineExceeded(failure.message) if late else usage_error(failure)
            task.fail(error or kind(f"{task.what} failed: {failure}", failure))

    def _grant(self, sequence: int) -> None:
        if self._section is not None and self._section.id == sequence:
            self._section.granted = True
        self._complete(sequence, None)

    def _fire(self, sequence: int) -> None:
        task = self._open.pop(sequence, None)
        if task is not None:
            task.complete(None)
        elif self._loop is not None:
            self._loop.fire(sequence)

    # --- run ---

    def _run(self) -> None:
        if self.ended is not None or self._main is None or self._loop is None:
            return
        try:
            self._loop.run_until_idle(self._main, self.limits.steps_max)
        except LimitExceeded as error:
            self._overrun = error
        if self._overrun is not None:
            self._made.clear()
            self._lines.clear()
            self._actions.clear()
            self._decide_end(Ended(FAILED, failure=FailureDetails.of(self._overrun)))
        elif self._main.done():
            self._decide_end(self._outcome(self._main))
        elif not (self._open or self._loop.waits or self.external.awaited or self.handlers.awaited):
            self._decide_end(Ended(FAILED, failure=FailureDetails.of(stuck(self._main))))

    def _outcome(self, main: asyncio.Task[Any]) -> Ended:
        if main.cancelled() and self._canceled is not None:
            return Ended(CANCELED, failure=canceled_failure(self._canceled))
        if main.cancelled():
            return Ended(
                FAILED,
                failure=FailureDetails.of(asyncio.CancelledError("the orchestration cancelled itself")),
            )
        error = main.exception()
        if error is not None:
            return Ended(FAILED, failure=FailureDetails.of(taught(error)))
        if self._next_input is not None:
            return Ended(CONTINUED, self._next_input, carried=self.external.unconsumed())
        try:
            limit = self.app.payloads.bytes_max
            result = codec.encode(main.result(), f"result of {self.definition.name}", limit)
        except UsageError as unstorable:
            return Ended(FAILED, failure=FailureDetails.of(unstorable))
        return Ended(COMPLETED, result)

    def _decide_end(self, ended: Ended) -> None:
        if ended.status == CONTINUED:
            assert ended.result is not None
            self._made.append(events.ContinuedAsNew(ended.result))
        else:
            self._made.append(events.ExecutionCompleted(ended.status, ended.result, ended.failure))
        code = inspect.unwrap(self.definition.function).__code__
        where = f"{code.co_filename}:{code.co_firstlineno} ({self.definition.name})"
        self._lines.append(Place(None, words=where))
        self._end(ended)

    def _end(self, ended: Ended) -> None:
        self.ended = ended
        if self._loop is not None:
            self._loop.dispose()
        self._open.clear()
        self.external.clear()
        self._main = None
