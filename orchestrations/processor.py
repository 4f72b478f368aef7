"""Orchestrations as a kind of actor: messages to events, actions to effects.

Rules:

* The messages of one round make one turn (``turns``), and one turn one commit.
* A message that cannot count any more (late, doubled, for an older execution) is finished without a trace.
* While an instance is suspended, or its start time has not come, messages for its code stay in the mailbox,
  in order. Watching and controlling always work.
* A live instance is not replayed. It is, once, when it comes back from the store; with ``always_replay``
  at every turn.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, assert_never

from lungfish.runtime.errors import InstanceNotFound, Overloaded
from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages.messages import (
    ActivityResult,
    Call,
    CancelCall,
    Control,
    EntityControl,
    Inspect,
    LockGranted,
    LockQuery,
    LockRelease,
    LockRequest,
    Query,
    RaiseEvent,
    ReminderDue,
    Response,
    Signal,
    Start,
    TimerFired,
    Update,
    Watch,
)
from lungfish.runtime.messages.wire import MalformedBytes
from lungfish.runtime.partitions.kinds import Effects, Item, Stored

from . import archiving, events, purging, reading, shown, waiting
from .ambient import watch_io
from .control import control
from .endings import end_broken
from .instance import Instance
from .limits import Limits
from .outgoing import sequence_of
from .questions import answer_query, take_update
from .replies import Request, add_watcher, lacks_code
from .resuming import ask_again, keep_late_answer, needs_history
from .row import InstanceRow, Status
from .sections import chase, disclaim, wants_lock
from .spans import tell_event, tell_timer
from .starting import start
from .turns import begin_stored, close_turn, feed, waits_for

if TYPE_CHECKING:
    from lungfish.runtime.declared.app import App

log = logging.getLogger("lungfish.orchestrations")


class OrchestrationKind:
    """Makes the activations of orchestration instances.

    Attributes:
        always_replay: rebuild the code from the whole history at every turn: slow, and finds non-determinism
            at once. Default: the environment variable ``LUNGFISH_ALWAYS_REPLAY``.
        limits: bounds of each instance.
    """

    #: How the client reads what is stored here; see ``plugged_in.kind_class``.
    read_status = staticmethod(reading.read_status)
    #: Instances have no middleware: their code is replayed.
    refused = 0
    edition_of = staticmethod(purging.edition_of)
    name_of = staticmethod(reading.read_name)
    write_record = staticmethod(archiving.write_record)
    read_record = staticmethod(archiving.read_record)
    read_history = staticmethod(reading.read_history)
    read_waits = staticmethod(waiting.read_waits)
    read_attempt = staticmethod(waiting.read_attempt)
    with_answer = staticmethod(waiting.with_answer)
    management_history = staticmethod(shown.management_history)
    restart_of = staticmethod(reading.restart_of)
    fork_of = staticmethod(reading.fork_of)

    def __init__(self, app: App) -> None:
        self.app = app
        self.always_replay = os.environ.get("LUNGFISH_ALWAYS_REPLAY", "0") not in ("", "0")
        self.limits = Limits()
        watch_io()

    def activate(self, actor: ActorId, stored: Stored) -> OrchestrationActivation:
        """Return the activation of an instance; nothing is decoded or replayed yet."""
        return OrchestrationActivation(self, actor, stored)

    async def settle(self) -> None:
        """Return at once: an instance that was let go does nothing."""


class OrchestrationActivation:
    """One instance in memory, as the host drives it."""

    def __init__(self, kind: OrchestrationKind, actor: ActorId, stored: Stored) -> None:
        self._stored_row = stored.row
        self._instance = Instance(kind.app, actor, stored, kind.limits, always_replay=kind.always_replay)

    # --- the contract with the host ---

    def accept(self, item: Item) -> None:
        """Queue an item; ``run`` follows."""
        self._instance.inbox.append(item)

    def run(self, effects: Effects) -> None:
        """Process all queued items in one turn."""
        instance = self._instance
        instance.effects = effects
        instance.continues = 0
        began_s = time.perf_counter()
        try:
            if self._readable() and not self._fetches(effects):
                self._process_all()
                instance.large.settle(effects)
        except Exception as error:
            end_broken(instance, error)
            instance.large.settle(effects)
        finally:
            # The host may hold the activation and the effects in one cycle; do not be a part of it.
            del instance.effects
        took_s = time.perf_counter() - began_s
        if took_s > instance.limits.slow_turn_s:
            name = instance.row.name if instance.row is not None else "?"
            text = (
                "a turn of %s, instance %s, kept the host's loop for %.1f s; put slow work into an activity"
            )
            log.warning(text, name, instance.id, took_s)

    def _fetches(self, effects: Effects) -> bool:
        """Tell whether large values must come first; ``run`` is called again when they are here."""
        instance = self._instance
        if not instance.large.fetching:
            missing = instance.large.missing(instance)
            if not missing:
                return False
            instance.large.fetching = True
            effects.spawn(instance.actor, instance.large.fetch(effects, missing))
        return True

    def _process_all(self) -> None:
        instance = self._instance
        while instance.inbox and not instance.reloading:
            instance.current = instance.inbox.popleft()
            if self._process(instance.current):
                instance.finish(instance.current)
        instance.current = None
        close_turn(instance)

    @property
    def passive(self) -> bool:
        """True when no item is queued or held back; code that waits can be replayed."""
        return not self._instance.inbox and not self._instance.held

    @property
    def ready(self) -> bool:
        """False: a run leaves nothing that could be done at once."""
        return False

    def passivate(self) -> None:
        """Drop the code, if any, without effect: it is replayed."""
        self.drop()

    def drop(self) -> None:
        """Drop the code, if any, without effect."""
        self._instance.drop_code()

    def __del__(self) -> None:
        # Before the collector gets to the coroutines: it would close them with their context still alive.
        instance = getattr(self, "_instance", None)
        if instance is not None and instance.execution is not None:
            instance.execution.close()

    # --- messages ---

    def _process(self, item: Item) -> bool:
        """Process one item; return False if it stays in the mailbox."""
        message = self._instance.large.resolved(item.message)
        if needs_history(self._instance, message) and self._instance.lacks_history():
            return False
        match message:
            case Start():
                start(self._instance, message)
            case Control():
                return control(self._instance, item, message)
            case Watch():
                self._on_watch(message)
            case RaiseEvent() | ActivityResult() | Response() | TimerFired():
                return self._on_news(item, message)
            case Query():
                answer_query(self._instance, message)
            case Update():
                return self._on_update(item, message)
            case LockGranted() | LockQuery():
                if not wants_lock(self._instance, message.lock):
                    disclaim(self._instance.effects, message)
                elif isinstance(message, LockGranted):
                    return self._on_news(item, message)
                else:
                    chase(self._instance, message.lock)
            case (
                Signal()
                | Call()
                | ReminderDue()
                | LockRequest()
                | LockRelease()
                | Inspect()
                | CancelCall()
                | EntityControl()
            ):
                kind = type(message).__name__
                log.error("%s is for an entity but came to orchestration %s", kind, self._instance.id)
            case _:
                assert_never(message)
        return True

    def _on_watch(self, message: Watch) -> None:
        instance = self._instance
        row = instance.row
        if row is None:
            instance.refuse(message, InstanceNotFound(f"no instance {instance.id!r}"))
        elif row.terminal:
            instance.effects.send(Response(message.reply_to, message.request, row.output, row.failure))
        elif add_watcher(row, message, instance.limits.watchers_max):
            instance.write_row()
        else:
            most = instance.limits.watchers_max
            instance.refuse(
                message, Overloaded(f"{most:,} requests wait for instance {instance.id!r} already")
            )

    # --- news for the code ---

    def _on_update(self, item: Item, message: Update) -> bool:
        """Take an update now, or when the instance goes on."""
        instance = self._instance
        row = instance.row
        if row is not None and not row.terminal and (row.status is Status.SUSPENDED or self._waits(row)):
            instance.hold(item)
            return False
        take_update(instance, message)
        return True

    def _waits(self, row: InstanceRow) -> bool:
        return not row.begun or lacks_code(self._instance.app, row, self._instance.id)

    def _on_news(
        self, item: Item, message: RaiseEvent | ActivityResult | Response | TimerFired | LockGranted
    ) -> bool:
        instance = self._instance
        row = instance.row
        if row is None or row.terminal:
            if row is not None and isinstance(message, Response):
                keep_late_answer(instance, row, message)
            if isinstance(message, RaiseEvent):
                state = "does not exist" if row is None else f"has ended ({row.status})"
                log.info("event %r for instance %s dropped: it %s", message.name, instance.id, state)
            return True
        starts = isinstance(message, TimerFired) and message.purpose == "start"
        if (
            row.status is Status.SUSPENDED
            or not (row.begun or starts)
            or lacks_code(instance.app, row, instance.id)
        ):
            instance.hold(item)
            return False
        match message:
            case RaiseEvent():
                tell_event(instance, item, message)
                feed(instance, events.EventRaised(message.name, message.payload))
            case ActivityResult():
                if message.execution == row.execution:
                    feed(instance, instance.attempts.report(instance.effects, message))
            case Response():
                self._on_response(row, message)
            case TimerFired():
                self._on_timer(row, message)
            case LockGranted():
                task = sequence_of(message.lock, row.execution)
                if task is not None and waits_for(instance, task):
                    feed(instance, events.LockGranted(task))
            case _:
                assert_never(message)
        return True

    def _on_response(self, row: InstanceRow, message: Response) -> None:
        """A called entity, or a sub-orchestration, has answered: ``request`` is execution and sequence id."""
        instance = self._instance
        task = sequence_of(message.request, row.execution)
        if task is None or not waits_for(instance, task):
            return
        assert instance.execution is not None
        if task not in instance.execution.outstanding.children:
            feed(instance, events.EntityResponded(task, message.result, message.failure))
        elif message.failure is not None:
            feed(instance, events.SubOrchestrationFailed(task, message.failure))
        else:
            feed(instance, events.SubOrchestrationCompleted(task, message.result))

    def _on_timer(self, row: InstanceRow, message: TimerFired) -> None:
        instance = self._instance
        if message.execution != row.execution:
            return
        match message.purpose:
            case "timer":
                if waits_for(instance, message.task):
                    tell_timer(instance, message.task)
                    feed(instance, events.TimerFired(message.task))
            case "start":
                if not row.begun:
                    begin_stored(instance, row)
            case "forgotten":
                ask_again(instance, message.task)
            case _:
                feed(instance, instance.attempts.fired(instance.effects, message))

    # --- the stored row ---

    def _readable(self) -> bool:
        """Read the stored row. If that cannot be done, say so to who asks.

        What is meant for the code stays in the mailbox: the release that wrote the row may read it again.
        """
        if self._stored_row is None:
            return True
        instance = self._instance
        try:
            row = InstanceRow.unpack(self._stored_row)
        except MalformedBytes as error:
            log.error("instance %s: %s", instance.id, error)
            failure = error
        else:
            instance.row, self._stored_row = row, None
            instance.listing.found(row)
            return True
        while instance.inbox:
            item = instance.inbox.popleft()
            if isinstance(item.message, Request):
                instance.refuse(item.message, failure)
                instance.finish(item)
            else:
                instance.hold(item)
        return False
