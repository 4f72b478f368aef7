"""An entity's reminders while it is in memory: its timers, and the jobs that due ones become.

Rules:

* What is set is in the snapshot (``runtime.reminders``); timers follow it, in the same commit.
* A due reminder waits its turn in the mailbox like any message, and is a turn of its own. Whether it still
  counts is looked at when its turn comes: what ran before it may have cancelled it.
* What follows from it is noted when its operation has ended. Until then its mailbox row stays, so a crash
  makes it due again, and nothing else.
"""

from __future__ import annotations

from typing import Any

from lungfish.runtime.declared.definitions import EntityDefinition, Operation
from lungfish.runtime.declared.reminders import Reminder, after, tick
from lungfish.runtime.declared.signatures import Signature
from lungfish.runtime.errors import LungfishError, NotRegistered
from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages.messages import ReminderDue, Signal
from lungfish.runtime.partitions.kinds import Effects, Item

from .jobs import Applied, Job
from .journal import Journal
from .turn import Turns


class Alarms:
    """The reminders of one activation. See the rules of this module."""

    __slots__ = ("_actor", "_armed", "_definition", "_turns")

    def __init__(self, actor: ActorId, definition: EntityDefinition, turns: Turns) -> None:
        self._actor = actor
        self._definition = definition
        self._turns = turns
        #: What the timers are set for; they are as durable as the snapshot.
        self._armed = turns.reminders

    def job(self, item: Item, message: ReminderDue) -> Job | None:
        """Return what a due reminder asks for; None: it is no more, so it asks for nothing.

        Raises:
            SerializationError: what was kept with it cannot be read.
        """
        reminder = self._find(message)
        if reminder is None:
            return None
        request = Signal(self._actor, reminder.operation, reminder.batch)
        return Job(item, self._operation(reminder), request, Journal.decode(item.record), is_tick=True)

    def begin(self, job: Job, now_ms: int) -> bool:
        """Find what a job's turn is about; False: there is nothing to run, and what is to be noted is."""
        assert isinstance(job.item.message, ReminderDue)
        reminder = self._find(job.item.message)
        if reminder is None:
            return False
        # Interrupted in the middle: what it did so far must be gone through again, however late it is.
        job.tick = tick(reminder, now_ms)
        if job.tick.fires or job.item.record:
            return True
        self._turns.note(reminder, after(job.tick, None, now_ms))
        return False

    def end(self, one: Applied, now_ms: int) -> None:
        """Note how a due reminder's operation went."""
        assert one.job.tick is not None
        failure = None if one.failure is None else str(one.failure)
        self._turns.note(one.job.tick.reminder, after(one.job.tick, failure, now_ms))

    def arm(self, effects: Effects) -> None:
        """Set timers as the snapshot has them; costs nothing where nothing changed."""
        reminders, armed = self._turns.reminders, self._armed
        if reminders is armed:
            return
        self._armed = reminders
        for name in armed:
            if name not in reminders:
                effects.cancel_timer(timer_id(self._actor, name))
        for name, reminder in reminders.items():
            if reminder != armed.get(name):
                alarm = ReminderDue(self._actor, name, reminder.generation, reminder.due_ms)
                effects.timer(timer_id(self._actor, name), reminder.due_ms, alarm)

    def _find(self, message: ReminderDue) -> Reminder | None:
        found = self._turns.reminders.get(message.name)
        wanted = (message.generation, message.due_ms)
        return found if found is not None and (found.generation, found.due_ms) == wanted else None

    def _operation(self, reminder: Reminder) -> Operation:
        try:
            return self._definition.find(reminder.operation)
        except NotRegistered as error:
            return _refusing(reminder.operation, error)


def timer_id(actor: ActorId, name: str) -> str:
    """Return the id of a reminder's timer."""
    return f"reminder\x00{actor.name}\x00{actor.key}\x00{name}"


def _refusing(name: str, error: LungfishError) -> Operation:
    """Return an operation that this release does not have: the reminder fails, and stays."""

    def refuse(_self: Any, *_args: Any, **_kwargs: Any) -> None:
        raise error

    return Operation(name, refuse, Signature.of(refuse, name, skip=1), shared=False, is_async=False)
