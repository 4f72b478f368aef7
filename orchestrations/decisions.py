"""What the code of an execution decides: each becomes an event of the history and, live, an action.

Rules:

* Called by the context and the loop, on behalf of the code, between two arrived events.
* Sequence ids come from one counter, in the order of the code's calls. What is awaited is ``_open`` under
  its id until its completion comes, or the code cancels it.
* In replay the events are made for comparison and the actions are not taken: they were, long ago.
* A mistake of the code's is raised where it made it, before anything is recorded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from lungfish.runtime.declared.definitions import ActivityOptions, Orchestration
from lungfish.runtime.errors import LimitExceeded, ReadOnly
from lungfish.runtime.ids import ENTITY, ActorId

from . import actions, events
from .external import ExternalEvents
from .limits import LATEST_MS, Limits
from .loop import DeterministicLoop
from .matching import Place, user_place
from .outcomes import Ended
from .sections import Section, check_entry, outside
from .tasks import Task

if TYPE_CHECKING:
    from lungfish.runtime.declared.app import App

T = TypeVar("T")


class Decisions:
    """The decisions of one execution: those of this step, and what is still open of all before.

    Attributes:
        now_ms: the time of the turn (Unix ms).
        looking: what looks at the execution just now and must not change it: a query, a validator; or empty.
        asked_for: what the code asks for in replay, by sequence id: who goes on from it asks again. None: not
            kept.
    """

    def __init__(
        self, app: App, definition: Orchestration[Any, Any], instance: str, limits: Limits | None
    ) -> None:
        self.app = app
        self.instance = instance
        self.definition = definition
        self.limits = limits or Limits()
        self.started: events.ExecutionStarted | None = None
        self.ended: Ended | None = None
        self.replaying = False
        self.now_ms = 0
        self.looking = ""
        self.external = ExternalEvents()
        self.asked_for: dict[int, actions.Action] | None = None
        self._loop: DeterministicLoop | None = None
        self._sequence = 0
        self._open: dict[int, Task[Any]] = {}
        #: Calls of entities and sub-orchestrations, by sequence id: whoever waits for one must hold nothing.
        self._asked: set[int] = set()
        self._section: Section | None = None
        self._marked: set[str] = set()
        self._patched: dict[str, bool] = {}
        self._next_input: bytes | None = None
        self._made: list[events.Decided] = []
        self._lines: list[Place] = []
        self._actions: list[actions.Action] = []
        self._actions_left = self.limits.actions_max
        self._overrun: LimitExceeded | None = None

    def decide(self, event: events.Decided, action: actions.Action | None = None) -> None:
        """Record a decision of the code; in replay its action was taken long ago.

        Raises:
            GeneratorExit: the code is being dropped; it must not decide anything any more.
            LimitExceeded: more actions than a turn may have; the instance fails.
        """
        if self.ended is not None:
            raise GeneratorExit
        if self._actions_left <= 0 and not self.replaying:
            self._overrun = self._overrun or LimitExceeded(
                f"more than {self.limits.actions_max:,} actions in one turn; wait for some before the next"
            )
            raise self._overrun
        action = action and actions.with_headers(action, self.app)
        self._made.append(event)
        if self.asked_for is not None and action is not None:
            self.asked_for[action.id] = action
        if self.replaying:
            self._lines.append(user_place())
        elif action is not None:
            self._actions.append(action)
            self._actions_left -= 1

    def may_change(self, what: str) -> None:
        """Raise ``ReadOnly`` if a query or a validator runs, which must not do ``what``."""
        if self.looking:
            raise ReadOnly(f"the {self.looking} may only look: it must not {what}")

    def next_sequence(self) -> int:
        """Return the next sequence id."""
        self.may_change("schedule anything")
        self._sequence += 1
        return self._sequence

    def _task(
        self,
        sequence: int,
        what: str,
        decode: Callable[[bytes | None], T],
        on_cancel: Callable[[Task[Any]], None],
    ) -> Task[T]:
        assert self._loop is not None
        task: Task[T] = Task(self._loop, what, id=sequence, decode=decode, on_cancel=on_cancel)
        self._open[sequence] = task
        return task

    def schedule_activity(
        self, name: str, args: bytes, options: ActivityOptions, decode: Callable[[bytes | None], T]
    ) -> Task[T]:
        """Decide to run an activity."""
        sequence = self.next_sequence()
        action = actions.ScheduleActivity(sequence, name, args, options)
        self.decide(events.TaskScheduled(sequence, name, events.shown(args)), action)
        return self._task(sequence, f"activity {name!r}", decode, self._cancel_activity)

    def create_timer(self, due_ms: int) -> Task[None]:
        """Decide to wait until a time."""
        sequence = self.next_sequence()
        due_ms = min(due_ms, LATEST_MS)
        self.decide(events.TimerCreated(sequence, due_ms), actions.CreateTimer(sequence, due_ms))
        return self._task(sequence, "timer", _nothing, self._cancel_timer)

    def create_loop_timer(self, due_ms: int) -> int:
        """Decide to wait until a time, on behalf of the event loop."""
        sequence = self.next_sequence()
        self.decide(events.TimerCreated(sequence, due_ms), actions.CreateTimer(sequence, due_ms))
        return sequence

    def cancel_loop_timer(self, timer_id: int) -> None:
        """Decide not to wait for a timer any more."""
        if self.ended is None:
            self.decide(events.TimerCanceled(timer_id), actions.CancelTimer(timer_id))

    def start_child(
        self,
        name: str,
        instance: str | None,
        args: bytes,
        decode: Callable[[bytes | None], T],
        version: str = "",
        *,
        reuse: str = "",
    ) -> Task[T]:
        """Decide to start a sub-orchestration."""
        if self._section is not None:
            raise outside(self._section, f"sub-orchestration {name!r}")
        sequence = self.next_sequence()
        self._asked.add(sequence)
        instance = instance or self._default_id(sequence)
        action = actions.StartOrchestration(sequence, name, instance, args, reuse=reuse, version=version)
        self.decide(events.SubOrchestrationCreated(sequence, name, instance, events.shown(args)), action)
        cancel = functools.partial(self._cancel_child, instance)
        return self._task(sequence, f"sub-orchestration {name!r}", decode, cancel)

    def start_other(self, name: str, instance: str | None, args: bytes, version: str = "") -> str:
        """Decide to start an orchestration that lives by itself; return its id."""
        sequence = self.next_sequence()
        instance = instance or self._default_id(sequence)
        action = actions.StartOrchestration(sequence, name, instance, args, detached=True, version=version)
        self.decide(events.OrchestrationStarted(sequence, name, instance, events.shown(args)), action)
        return instance

    def _default_id(self, sequence: int) -> str:
        # The execution is in the id because sequence ids begin again after continue-as-new.
        assert self.started is not None
        return f"{self.started.execution}:{sequence}"

    def call_entity(
        self,
        target: ActorId,
        operation: str,
        args: bytes,
        decode: Callable[[bytes | None], T],
        deadline_ms: int = 0,
    ) -> Task[T]:
        """Decide to call an entity."""
        _, entity, key = target
        if self._section is not None and target not in self._section.entities:
            raise outside(self._section, f"call of {target}")
        sequence = self.next_sequence()
        self._asked.add(sequence)
        action = actions.CallEntity(sequence, target, operation, args, deadline_ms)
        self.decide(events.EntityCalled(sequence, entity, key, operation, events.shown(args)), action)
        cancel = functools.partial(self._cancel_call, target)
        return self._task(sequence, f"{entity}.{operation} of {entity}/{key}", decode, cancel)

    def signal_entity(self, entity: str, key: str, operation: str, batch: bytes, due_ms: int) -> None:
        """Decide to signal an entity."""
        sequence = self.next_sequence()
        action = actions.SignalEntity(sequence, ActorId(ENTITY, entity, key), operation, batch, due_ms)
        self.decide(events.EntitySignaled(sequence, entity, key, operation, due_ms), action)

    def request_lock(self, entities: tuple[ActorId, ...]) -> tuple[Section, Task[None]]:
        """Decide to hold entities; the task ends when all are held."""
        self._asked &= self._open.keys()
        check_entry(self._section, [self._open[sequence].what for sequence in sorted(self._asked)])
        sequence = self.next_sequence()
        action = actions.RequestLock(sequence, entities)
        self.decide(events.LockRequested(sequence, entities), action)
        section = self._section = Section(sequence, entities)
        return section, self._task(sequence, f"lock of {section}", _nothing, self._forget)

    def release_lock(self, section: Section) -> None:
        """Decide to let go, or not to wait any more; harmless if that was decided already."""
        if self.ended is not None or self._section is not section:
            return
        self._section = None
        action = actions.ReleaseLock(section.id, section.entities, section.granted)
        self.decide(events.LockReleased(section.id), action)

    def send_event(self, instance: str, name: str, payload: bytes) -> None:
        """Decide to raise an event for another instance."""
        sequence = self.next_sequence()
        action = actions.SendEvent(sequence, instance, name, payload)
        self.decide(events.EventSent(sequence, instance, name), action)

    def wait_for_event(self, name: str, decode: Callable[[bytes | None], T]) -> Task[T]:
        """Return a task for the next external event of that name. It takes no sequence id."""
        self.may_change("wait for events")
        if self.ended is not None:
            raise GeneratorExit
        assert self._loop is not None
        return self.external.wait(self._loop, name, decode)

    def patched(self, patch: str) -> bool:
        """Tell whether this execution takes the changed path; one answer for its whole life."""
        answer = self._patched.get(patch)
        if answer is None:
            self.may_change("take a patch")
            answer = self._patched[patch] = not self.replaying or patch in self._marked
            if answer:
                self.decide(events.PatchMarked(patch))
        return answer

    def continue_as_new(self, args: bytes) -> None:
        """Note the input of the next execution; it begins when the code returns."""
        self.may_change("continue as new")
        if self.ended is not None:
            raise GeneratorExit
        self._next_input = args

    def _cancel_activity(self, task: Task[Any]) -> None:
        if self.ended is None and self._open.pop(task.id, None) is not None:
            self.decide(events.TaskCanceled(task.id), actions.CancelActivity(task.id))

    def _cancel_timer(self, task: Task[Any]) -> None:
        if self.ended is None and self._open.pop(task.id, None) is not None:
            self.decide(events.TimerCanceled(task.id), actions.CancelTimer(task.id))

    def _cancel_child(self, instance: str, task: Task[Any]) -> None:
        if self.ended is None and self._open.pop(task.id, None) is not None:
            self.decide(
                events.SubOrchestrationCanceled(task.id), actions.CancelOrchestration(task.id, instance)
            )

    def _cancel_call(self, target: ActorId, task: Task[Any]) -> None:
        # A courtesy and no decision: what the code does next does not depend on it, so it is not recorded.
        if self.ended is None and self._open.pop(task.id, None) is not None and not self.replaying:
            self._actions.append(actions.CancelCall(task.id, target))

    def _forget(self, task: Task[Any]) -> None:
        self._open.pop(task.id, None)


def _nothing(_: bytes | None) -> None:
    return None
