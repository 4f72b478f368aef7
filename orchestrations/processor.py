"""Orchestrations as a kind of actor: messages to events, actions to effects.

Rules:

* The messages of one round make one turn, and one turn one commit: history batch, metadata row and
  everything the code asked for are effects of the same round.
* A message that cannot count any more (late, doubled, for an older execution) is finished without a trace.
* While an instance is suspended, or its start time has not come, messages for its code stay in the mailbox,
  in order. Watching and controlling always work.
* A live instance is not replayed. It is, once, when it comes back from the store; with ``always_replay``
  at every turn.
* An instance that ends leaves nothing behind: no timer, no activity row.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from typing import TYPE_CHECKING, Any, assert_never

from lungfish.runtime import codec
from lungfish.runtime.definitions import Orchestration
from lungfish.runtime.errors import (
    FailureDetails,
    InstanceEnded,
    InstanceExists,
    InstanceNotFound,
    InternalError,
    LimitExceeded,
    LungfishError,
    Overloaded,
    UsageError,
)
from lungfish.runtime.ids import ORCHESTRATION, ActorId
from lungfish.runtime.kinds import Effects, Item, Stored
from lungfish.runtime.messages import (
    ActivityResult,
    Call,
    Control,
    RaiseEvent,
    Response,
    Signal,
    Start,
    TimerFired,
    Watch,
)
from lungfish.runtime.wire import MalformedBytes

from . import events, reading
from .attempts import Attempts, timer_id
from .history import History
from .inline import outcome_at_once
from .limits import Limits
from .matching import Outstanding
from .outgoing import Outgoing, sequence_of
from .replay import CONTINUED, FAILED, TERMINATED, Ended, Execution, Restart, terminated_failure
from .replies import accept, add_watcher, announce, lacks_code, refuse
from .row import InstanceRow, Status

if TYPE_CHECKING:
    from lungfish.runtime.app import App

log = logging.getLogger("lungfish.orchestrations")


class OrchestrationKind:
    """Makes the activations of orchestration instances.

    Attributes:
        always_replay: rebuild the code from the whole history at every turn: slow, and finds non-determinism
            at once. Default: the environment variable ``LUNGFISH_ALWAYS_REPLAY``.
        limits: bounds of each instance.
    """

    #: How the client reads what is stored here; see ``kinds.kind_class``.
    read_status = staticmethod(reading.read_status)
    read_history = staticmethod(reading.read_history)

    def __init__(self, app: App) -> None:
        self.app = app
        self.always_replay = os.environ.get("LUNGFISH_ALWAYS_REPLAY", "0") not in ("", "0")
        self.limits = Limits()

    def activate(self, actor: ActorId, stored: Stored) -> OrchestrationActivation:
        """Return the activation of an instance; nothing is decoded or replayed yet."""
        return OrchestrationActivation(self, actor, stored)


class OrchestrationActivation:
    """One instance in memory."""

    def __init__(self, kind: OrchestrationKind, actor: ActorId, stored: Stored) -> None:
        self._kind = kind
        self._app = kind.app
        self._limits = kind.limits
        self._actor = actor
        self._id = actor.key
        self._row: InstanceRow | None = None
        self._stored_row = stored.row
        self._history = History(actor, stored.history, kind.limits)
        self._execution: Execution | None = None
        self._turn_open = False
        self._inbox: deque[Item] = deque()
        self._current: Item | None = None
        self._held: list[Item] = []
        self._outgoing = Outgoing()
        self._attempts: Attempts | None = None
        self._continues = 0
        self._restart: Restart | None = None
        self._effects: Effects

    # --- the contract with the host ---

    def accept(self, item: Item) -> None:
        """Queue an item; ``run`` follows."""
        self._inbox.append(item)

    def run(self, effects: Effects) -> None:
        """Process all queued items in one turn."""
        self._effects = effects
        self._continues = 0
        began_s = time.perf_counter()
        try:
            if self._readable():
                self._process_all()
        except Exception as error:
            self._broken(error)
        finally:
            # The host may hold the activation and the effects in one cycle; do not be a part of it.
            del self._effects
        took_s = time.perf_counter() - began_s
        if took_s > self._limits.slow_turn_s:
            name = self._row.name if self._row is not None else "?"
            text = (
                "a turn of %s, instance %s, kept the host's loop for %.1f s; put slow work into an activity"
            )
            log.warning(text, name, self._id, took_s)

    def _process_all(self) -> None:
        while self._inbox:
            self._current = self._inbox.popleft()
            if self._process(self._current):
                self._effects.done(self._current)
        self._current = None
        self._close_turn()

    @property
    def passive(self) -> bool:
        """True when no item is queued or held back; code that waits can be replayed."""
        return not self._inbox and not self._held

    @property
    def ready(self) -> bool:
        """False: a run leaves nothing that could be done at once."""
        return False

    def drop(self) -> None:
        """Drop the code, if any, without effect."""
        if self._execution is not None:
            self._execution.close()
            self._execution = None

    def __del__(self) -> None:
        # Before the collector gets to the coroutines: it would close them with their context still alive.
        execution = getattr(self, "_execution", None)
        if execution is not None:
            execution.close()

    # --- messages ---

    def _process(self, item: Item) -> bool:
        """Process one item; return False if it stays in the mailbox."""
        message = item.message
        match message:
            case Start():
                self._on_start(message)
            case Control():
                self._on_control(message)
            case Watch():
                self._on_watch(message)
            case RaiseEvent() | ActivityResult() | Response() | TimerFired():
                return self._on_news(item, message)
            case Signal() | Call():
                log.error(
                    "%s is for an entity but came to orchestration %s", type(message).__name__, self._id
                )
            case _:
                assert_never(message)
        return True

    def _on_news(self, item: Item, message: RaiseEvent | ActivityResult | Response | TimerFired) -> bool:
        row = self._row
        if row is None or row.terminal:
            if isinstance(message, RaiseEvent):
                state = "does not exist" if row is None else f"has ended ({row.status})"
                log.info("event %r for instance %s dropped: it %s", message.name, self._id, state)
            return True
        starts = isinstance(message, TimerFired) and message.purpose == "start"
        if (
            row.status is Status.SUSPENDED
            or not (row.begun or starts)
            or lacks_code(self._app, row, self._id)
        ):
            self._held.append(item)
            return False
        match message:
            case RaiseEvent():
                self._feed(events.EventRaised(message.name, message.payload))
            case ActivityResult():
                if message.execution == row.execution:
                    self._feed_if(self._attempts_of(row).report(self._effects, message))
            case Response():
                self._on_response(message)
            case TimerFired():
                self._on_timer(message)
            case _:
                assert_never(message)
        return True

    def _on_start(self, message: Start) -> None:
        try:
            if self._row is not None:
                raise InstanceExists(f"instance {self._id!r} exists already ({self._row.status})")
            definition = self._app.find_orchestration(message.name)
            definition.signature.decode(message.input)
        except LungfishError as error:
            self._refuse(message, error)
            return
        effects = self._effects
        now_ms = effects.now_ms
        later = message.due_ms > now_ms
        self._row = row = InstanceRow(
            name=message.name,
            status=Status.PENDING if later else Status.RUNNING,
            created_ms=now_ms,
            updated_ms=now_ms,
            execution=effects.unique(),
            input=message.input,
            parent=message.parent,
            parent_request=message.parent_request,
            version=message.version or getattr(self._app, "version", ""),
            begun=not later,
        )
        accept(effects, message, codec.encode(row.execution))
        if later:
            fires = TimerFired(self._actor, row.execution, 0, message.due_ms, "start")
            effects.timer(timer_id(self._actor, row.execution, 0, "start"), message.due_ms, fires)
            self._write_row()
        else:
            self._begin(definition)

    def _on_watch(self, message: Watch) -> None:
        row = self._row
        if row is None:
            self._refuse(message, InstanceNotFound(f"no instance {self._id!r}"))
        elif row.terminal:
            self._effects.send(Response(message.reply_to, message.request, row.output, row.failure))
        elif add_watcher(row, message, self._limits.watchers_max):
            self._write_row()
        else:
            text = f"{self._limits.watchers_max:,} requests wait for instance {self._id!r} already"
            self._refuse(message, Overloaded(text))

    def _on_control(self, message: Control) -> None:
        row = self._row
        if row is None:
            self._refuse(message, InstanceNotFound(f"no instance {self._id!r}"))
            return
        if row.terminal:
            self._refuse(message, InstanceEnded(f"instance {self._id!r} has ended ({row.status})"))
            return
        match message.verb:
            case "terminate":
                self._terminate(message.reason)
            case "suspend":
                self._suspend(row, message.reason)
            case "resume":
                self._resume(row, message.reason)
            case _:
                self._refuse(message, UsageError(f"unknown control verb {message.verb!r}"))
                return
        accept(self._effects, message)

    def _refuse(self, message: Start | Control | Watch, error: LungfishError) -> None:
        refuse(self._effects, message, FailureDetails.of(error))

    def _on_response(self, message: Response) -> None:
        """A called entity, or a sub-orchestration, has answered: ``request`` is execution and sequence id."""
        task = sequence_of(message.request, self._row.execution) if self._row is not None else None
        if task is None or not self._waits_for(task):
            return
        assert self._execution is not None
        if task not in self._execution.outstanding.children:
            self._feed(events.EntityResponded(task, message.result, message.failure))
        elif message.failure is not None:
            self._feed(events.SubOrchestrationFailed(task, message.failure))
        else:
            self._feed(events.SubOrchestrationCompleted(task, message.result))

    def _on_timer(self, message: TimerFired) -> None:
        row = self._row
        if row is None or message.execution != row.execution:
            return
        match message.purpose:
            case "timer":
                if self._waits_for(message.task):
                    self._feed(events.TimerFired(message.task))
            case "start":
                if not row.begun:
                    self._begin_stored(row)
            case "retry":
                self._attempts_of(row).retry(self._effects, message.task, message.attempt)
            case "timeout":
                self._feed_if(self._attempts_of(row).time_out(self._effects, message.task))
            case _:
                log.error("instance %s: timer of unknown purpose %r", self._id, message.purpose)

    # --- turns ---

    def _begin_stored(self, row: InstanceRow) -> None:
        """Begin an instance whose start was delayed. What came meanwhile follows."""
        row.begun, row.status = True, Status.RUNNING
        try:
            definition = self._app.find_orchestration(row.name)
        except LungfishError as error:
            self._end(Ended(FAILED, failure=FailureDetails.of(error)), Outstanding())
            return
        self._begin(definition)
        self._release_held()

    def _begin(self, definition: Orchestration[Any, Any]) -> None:
        self._restart = Restart(definition, ())
        self._begin_pending()

    def _begin_pending(self) -> None:
        """Begin an execution, and again while the code continues as new: a loop, as recursion has a limit."""
        while self._restart is not None:
            restart, self._restart = self._restart, None
            self._begin_execution(restart)

    def _begin_execution(self, restart: Restart) -> None:
        row = self._row
        assert row is not None
        assert self._execution is None
        self._attempts = Attempts(self._actor, row.execution, recovered=False)
        self._execution = Execution(self._app, restart.definition, self._id, self._limits)
        # Before the start: the code may continue once more without waiting, and nothing must be lost then.
        for event in restart.carried:
            self._apply(event)
        started = events.ExecutionStarted(
            execution=row.execution,
            name=row.name,
            input=row.input,
            at_ms=self._effects.now_ms,
            version=row.version,
            parent=row.parent,
            parent_request=row.parent_request,
        )
        # The history has it from here on: rows are written at every turn.
        row.input = events.shown(row.input)
        self._apply(started)

    def _waits_for(self, sequence: int) -> bool:
        execution = self._ready()
        return execution is not None and execution.waits_for(sequence)

    def _attempts_of(self, row: InstanceRow) -> Attempts:
        if self._attempts is None:
            self._attempts = Attempts(self._actor, row.execution, recovered=True)
        return self._attempts

    def _feed_if(self, event: events.Arrived | None) -> None:
        if event is not None:
            self._feed(event)

    def _feed(self, event: events.Arrived) -> None:
        """Apply an event in the turn of this round; begin again while the code continues as new."""
        self._apply(event)
        self._begin_pending()

    def _apply(self, event: events.Arrived) -> None:
        """Apply an event, and do at once what needs no commit first."""
        execution = self._ready()
        if execution is None:
            return
        todo = deque([event])
        while todo and execution.ended is None:
            execution.apply(todo.popleft())
            for action in execution.take_actions():
                outcome = outcome_at_once(self._app, action)
                if outcome is None:
                    self._outgoing.keep(action)
                else:
                    todo.append(outcome)
        if execution.ended is not None:
            self._close_turn()

    def _ready(self) -> Execution | None:
        """Return the execution with a turn open; None if there is none, or it has just ended."""
        if not self._turn_open:
            if self._kind.always_replay and self._history:
                self.drop()
            if self._execution is None:
                self._load()
            if self._execution is not None:
                self._turn_open = True
                self._execution.open_turn(self._effects.now_ms)
                if self._execution.ended is not None:
                    self._close_turn()
        return self._execution

    def _load(self) -> None:
        """Replay the stored history. What cannot be replayed ends the instance."""
        row = self._row
        assert row is not None
        try:
            definition = self._app.find_orchestration(row.name)
            history = self._history.read()
        except LungfishError as error:
            self._fail_unloaded(error)
            return
        self._execution = Execution(self._app, definition, self._id, self._limits)
        self._execution.replay(history)
        if not self._kind.always_replay:
            self._history.clear()

    def _fail_unloaded(self, error: LungfishError) -> None:
        failure = FailureDetails.of(error)
        turn = events.TurnStarted(self._effects.now_ms), events.ExecutionCompleted(FAILED, failure=failure)
        outstanding = self._outstanding()
        self._record(*turn)
        self._end(Ended(FAILED, failure=failure), outstanding)

    def _close_turn(self) -> None:
        """Give the turn's history, actions and row to the commit."""
        execution, row = self._execution, self._row
        if not self._turn_open or execution is None or row is None:
            return
        self._turn_open = False
        turn = execution.close_turn()
        if execution.ended is None and len(turn) == 1:
            return  # nothing but its start: what came was late or doubled
        if execution.ended is None or execution.ended.status != CONTINUED:
            self._record(*turn)  # else there will be a new history
        if execution.custom_status is not None:
            (row.custom_status,) = execution.custom_status
        ended = execution.ended
        too_long = self._history.too_long(row) if ended is None else None
        if too_long is not None:
            self._record(events.ExecutionCompleted(FAILED, failure=too_long))
            ended = Ended(FAILED, failure=too_long)
        self._outgoing.perform(
            self._effects, self._actor, row.execution, self._attempts_of(row), ended=ended is not None
        )
        if ended is None:
            self._write_row()
        elif ended.status == CONTINUED:
            self._continue_as_new(execution, ended)
        else:
            self._end(ended, execution.outstanding)

    def _record(self, *turn: events.Event) -> None:
        """Append to the history."""
        assert self._row is not None
        # Needed again only by who replays: an execution that is not in memory, or one that always does.
        keep = self._kind.always_replay or self._execution is None
        self._history.append(self._effects, self._row, turn, keep=keep)

    # --- suspend, resume, end ---

    def _suspend(self, row: InstanceRow, reason: str) -> None:
        if row.status is Status.SUSPENDED:
            return
        self._close_turn()
        if row.terminal:
            return
        row.status = Status.SUSPENDED
        self._record(events.Suspended(reason, self._effects.now_ms))
        self._write_row()

    def _resume(self, row: InstanceRow, reason: str) -> None:
        if row.status is not Status.SUSPENDED:
            return
        row.status = Status.RUNNING if row.begun else Status.PENDING
        self._record(events.Resumed(reason, self._effects.now_ms))
        self._write_row()
        self._release_held()

    def _release_held(self) -> None:
        """Process what was held back before anything newer."""
        self._inbox.extendleft(reversed(self._held))
        self._held.clear()

    def _terminate(self, reason: str) -> None:
        self._close_turn()
        if self._row is None or self._row.terminal:
            return
        outstanding = self._outstanding()
        now_ms = self._effects.now_ms
        self._record(events.TurnStarted(now_ms), events.ExecutionTerminated(reason, now_ms))
        self._end(Ended(TERMINATED, failure=terminated_failure(reason)), outstanding)
        for child in outstanding.children.values():
            self._effects.send(Control(ActorId(ORCHESTRATION, "", child), "terminate", reason))

    def _outstanding(self) -> Outstanding:
        return self._execution.outstanding if self._execution is not None else self._history.outstanding()

    def _end(self, ended: Ended, outstanding: Outstanding) -> None:
        """Make the instance terminal and tell everyone who waits for it."""
        row = self._row
        assert row is not None
        assert not row.terminal
        if not row.begun:
            self._effects.cancel_timer(timer_id(self._actor, row.execution, 0, "start"))
        self._clean_up(outstanding)
        row.status = Status(ended.status)
        row.output, row.failure = ended.result, ended.failure
        announce(self._effects, row)
        self._write_row()
        for item in self._held:
            self._effects.done(item)
        self._held.clear()
        self._history.clear()

    def _clean_up(self, outstanding: Outstanding) -> None:
        """Forget the execution, its timers and its activities."""
        assert self._row is not None
        self._attempts_of(self._row).cancel_all(self._effects)
        for timer in outstanding.timers:
            self._effects.cancel_timer(timer_id(self._actor, self._row.execution, timer, "timer"))
        self._turn_open = False
        self._outgoing.clear()
        self.drop()

    def _continue_as_new(self, execution: Execution, ended: Ended) -> None:
        row = self._row
        assert row is not None
        assert ended.result is not None
        self._clean_up(execution.outstanding)
        self._continues += 1
        if self._continues > self._limits.continues_max:
            error = LimitExceeded(
                f"it continued as new {self._limits.continues_max:,} times without waiting for anything"
            )
            self._end(Ended(FAILED, failure=FailureDetails.of(error)), Outstanding())
            return
        self._history.clear()
        self._effects.forget_history(self._actor)
        row.execution, row.input, row.length = self._effects.unique(), ended.result, 0
        self._restart = Restart(execution.definition, ended.carried)

    def _broken(self, error: Exception) -> None:
        """End the instance after an error of ours: worse than a failed instance is one that never answers."""
        log.error("instance %s: internal error", self._id, exc_info=error)
        for item in (self._current, *self._inbox):
            if item is not None:
                self._effects.done(item)
        self._inbox.clear()
        self._current = None
        if self._row is None or self._row.terminal:
            return
        wrapped = InternalError(f"{type(error).__name__}: {error}")
        wrapped.__cause__ = error
        failure = FailureDetails.of(wrapped)
        try:
            self._record(events.ExecutionCompleted(FAILED, failure=failure))
            self._end(Ended(FAILED, failure=failure), self._outstanding())
        except Exception:
            log.exception("instance %s: it could not be ended properly", self._id)

    def _readable(self) -> bool:
        """Read the stored row. If that cannot be done, say so to who asks.

        What is meant for the code stays in the mailbox: the release that wrote the row may read it again.
        """
        if self._stored_row is None:
            return True
        try:
            self._row, self._stored_row = InstanceRow.unpack(self._stored_row), None
        except MalformedBytes as error:
            log.error("instance %s: %s", self._id, error)
            failure = error
        else:
            return True
        while self._inbox:
            item = self._inbox.popleft()
            if isinstance(item.message, Start | Control | Watch):
                self._refuse(item.message, failure)
                self._effects.done(item)
            else:
                self._held.append(item)
        return False

    def _write_row(self) -> None:
        row = self._row
        assert row is not None
        row.updated_ms = self._effects.now_ms
        self._effects.instance(self._actor, row.pack())
