"""The activation of an entity: who may run when, and what leaves when.

Rules:

* Mailbox order; one operation at a time, also across ``await``. ``@shared`` operations overlap one another:
  an exclusive one waits for those that run, and whoever comes after it waits behind it.
* Sync operations at the head of the mailbox are one turn (``turn``). An async operation is a turn of its
  own; while it runs, what arrives waits, as mailbox rows of the runtime.
* What a turn sends, its snapshot and ``done`` are given to ``Effects`` in one step, so that they are
  in one commit. Calls that an operation makes to others are the exception: ``calls``.
* A run does a bounded number of operations. It is bounded by count and not by time, to be the
  same in every run of a test.
* Responses and scheduled signals do not queue: the first would wait for the operation that waits
  for them, the second only become timers.
* A due reminder queues like a signal; what it means is decided when its turn comes (``alarms``).
* Calls back from those whom an operation waits for run inside of it (``inside``).
* While an orchestration holds the entity, what must wait for that stands beside the mailbox (``mailbox``).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Final

from lungfish.runtime.declared.definitions import EntityDefinition
from lungfish.runtime.errors import FailureDetails, LungfishError, NotRegistered, Refused
from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages.messages import (
    Call,
    CancelCall,
    EntityControl,
    Inspect,
    LockRelease,
    LockRequest,
    ReminderDue,
    Response,
    Signal,
    TimerFired,
)
from lungfish.runtime.partitions.kinds import Effects, Item
from lungfish.runtime.store import index

from .alarms import Alarms
from .calls import refusal
from .controls import Controls
from .editing import EDITING, Edit, Trail
from .hooks import AGAIN, Step, Waking, hooks_of
from .inside import Place, place_of, until
from .inspecting import listed
from .jobs import Applied, Job, describe, encode_result, expiry, put_off, refused
from .journal import CallOutcome, Journal
from .locking import CHECK, Claim, Entry, Release
from .mailbox import Mailbox
from .running import Running
from .scope import Scope
from .sending import NEWS, news_signal
from .state import StatePlan
from .turn import Turns

if TYPE_CHECKING:
    from .kind import EntityKind

logger = logging.getLogger(__name__)

#: Most operations in one run (a batch of signals counts as many).
OPERATIONS_MAX: Final = 10_000
#: A turn of sync operations that holds up the host for longer is logged (s).
SLOW_S: Final = 1.0


class EntityActivation:
    """One entity in memory. See the rules of this module."""

    def __init__(
        self,
        actor: ActorId,
        kind: EntityKind,
        definition: EntityDefinition,
        plan: StatePlan,
        row: bytes | None,
        *,
        readable: bool = True,
    ) -> None:
        self._actor = actor
        self._kind = kind
        self._definition = definition
        self._effects: Effects
        self._scope = Scope(actor, kind.app)
        turns = Turns(plan, self._scope, row, readable=readable, is_strict=kind.is_strict)
        self._turns = self._scope.turns = turns
        self._alarms = Alarms(actor, definition, self._turns)
        # Lists: an empty deque takes 760 bytes, and most entities in memory are at rest.
        self._arrived: list[Item] = []
        self._box = Mailbox(actor)
        self._mailbox = self._box.entries
        #: Calls back from those whom an operation of this entity waits for.
        self._nested: list[Job] = []
        #: Unfinished jobs of an earlier activation, by row: answers to their calls may come before they run.
        self._interrupted: dict[int, Job] = {}
        self._writer: Running | None = None
        self._readers: set[Running] = set()
        self._ended: list[Running] = []
        self._controls = Controls(actor, self._turns)
        self._hooks = hooks_of(definition.cls, definition.name)
        #: None: operations may run.
        self._waking = Waking(actor, kind.app, self._hooks.on_activate, self._turns) if self._hooks else None
        #: Where the records of edits are, if there are any.
        self._trail = Trail(actor, self._turns.edits) if self._turns.edits else None
        self._ready = False
        self._is_listed = row is not None

    @property
    def snapshot(self) -> bytes | None:
        """The snapshot, as last given to the store."""
        return self._turns.written

    # --- Activation --------------------------------------------------------------------

    def accept(self, item: Item) -> None:
        """Queue an item."""
        self._arrived.append(item)

    def run(self, effects: Effects) -> None:
        """Do all that can be done now, up to a bounded number of operations."""
        self._effects = self._scope.effects = effects
        has_ended = bool(self._ended)
        self._take_arrived()
        while self._ended:
            self._settle(self._ended.pop(0))
        left = OPERATIONS_MAX
        while left > 0 and self._mailbox and self._may_start(self._mailbox[0]):
            head = self._mailbox[0]
            if self._waking is not None and self._needs_waking(head) and not self._wake(self._waking):
                break
            if head.is_tick and not self._begin_tick(head):
                left -= 1
            elif head.operation.is_async:
                self._start_or_step(self._mailbox.popleft())
                left -= 1
            else:
                left -= self._run_turn(left)
        if self._nested and self._waking is not None and not self._mailbox:
            self._wake(self._waking)
        if self._nested and self._waking is None:
            self._place_nested()
        self._ready = bool(self._mailbox) and self._waking is None and self._may_start(self._mailbox[0])
        if self._controls.expiry is not None and (has_ended or left < OPERATIONS_MAX):
            self._controls.used(effects)
        if self._controls.untold:
            self._controls.tell(effects)

    @property
    def ready(self) -> bool:
        """True when the last run left something that can be done at once."""
        return self._ready

    @property
    def passive(self) -> bool:
        """True when nothing is queued or running."""
        if self._box.is_held:
            return False
        if self._waking is not None and (self._waking.running or self._nested):
            return False
        return not (self._arrived or self._mailbox or self._writer or self._readers or self._ended)

    def passivate(self) -> None:
        """Run ``on_passivate``, and let go of everything."""
        hook = self._hooks.on_passivate
        if hook is not None and self._waking is None:
            self._kind.leaving.begin(self._actor, self._kind.app, hook, self._turns, self._effects)
        self.drop()

    def drop(self) -> None:
        """Let go of everything; running operations are cancelled and what they do is lost."""
        for running in (*self._readers, self._writer):
            if running is not None:
                running.drop()
        if self._waking is not None:
            self._waking.drop()
        self._arrived.clear()
        self._box.clear()
        self._nested.clear()
        self._ended.clear()
        # The state refers to its context, and through it to what holds the state: no cycle may outlive this.
        del self._scope.turns

    # --- arrivals ------------------------------------------------------------------------

    def _take_arrived(self) -> None:
        while self._arrived:  # one may send to itself
            arrived, self._arrived = self._arrived, []
            for item in arrived:
                match item.message:
                    case Call() | Signal() as message:
                        self._take_request(item, message)
                    case Response() as message if message.request.startswith(NEWS):
                        self._take_news(item, message)
                    case Response() as message:
                        self._take_response(item, message)
                    case ReminderDue() as message:
                        self._take_tick(item, message)
                    case EntityControl() as message if message.verb in EDITING:
                        self._box.admit(self._effects, Edit(item, message))
                    case EntityControl() as message:
                        self._controls.take(self._effects, item, message, is_idle=self.passive)
                        self._write_snapshot()
                    case LockRequest() | LockRelease() as message:
                        self._box.take_lock_message(self._effects, item, message)
                    case Inspect() as message:
                        told = self._box.told(self._turns, (self._writer, *self._readers))
                        self._effects.send(Response(message.reply_to, message.request, told))
                        self._effects.done(item)
                    case CancelCall() as message:
                        self._box.cancel(self._effects, message)
                        self._effects.done(item)
                    case TimerFired() as message if message.purpose == CHECK:
                        self._box.check(self._effects)
                        self._effects.done(item)
                    case TimerFired() as message if message.purpose == AGAIN:
                        self._effects.done(item)
                    case _:
                        logger.warning(
                            "%s: a %s is not for an entity", self._actor, type(item.message).__name__
                        )
                        self._effects.done(item)

    def _take_request(self, item: Item, message: Call | Signal) -> None:
        if isinstance(message, Signal) and message.due_ms and put_off(self._effects, item, message):
            return
        try:
            operation = self._definition.find(message.operation)
            journal = Journal.decode(item.record)
        except LungfishError as error:
            self._refuse(item, message, error)
            return
        job = Job(item, operation, message, journal, journal.applied)
        if item.record:
            self._interrupted[item.row] = job
        if operation.reentrant and isinstance(message, Call) and str(self._actor) in message.chain:
            self._nested.append(job)
            return
        if self._box.locks is None:
            self._mailbox.append(job)
        else:
            self._box.admit(self._effects, job)

    def _take_news(self, item: Item, answer: Response) -> None:
        """Make an operation of an answer that a built-in entity asked for (``sending``)."""
        signal = news_signal(self._actor, answer)
        try:
            operation = self._definition.find(signal.operation)
        except NotRegistered:
            self._effects.done(item)
            return
        self._box.admit(self._effects, Job(item, operation, signal, Journal()))

    def _take_tick(self, item: Item, message: ReminderDue) -> None:
        job = self._alarms.job(item, message)
        if job is None:
            self._effects.done(item)
            return
        if item.record:
            self._interrupted[item.row] = job
        self._box.admit(self._effects, job)

    def _begin_tick(self, job: Entry) -> bool:
        """Tell whether a due reminder, at the head of the mailbox, is to be run; else it is finished."""
        assert isinstance(job, Job)
        if self._alarms.begin(job, self._effects.now_ms):
            return True
        self._mailbox.popleft()
        self._interrupted.pop(job.item.row, None)
        self._effects.done(job.item)
        self._write_snapshot()
        return False

    def _refuse(self, item: Item, message: Call | Signal, error: LungfishError) -> None:
        if isinstance(message, Call):
            self._reply(message, None, refusal(error))
        else:
            # It was acknowledged: kept where it can be looked at, in case the other side is ahead of this
            # release.
            self._kind.counts.signals_dropped += message.count
            logger.error("%s: a signal is set aside: %s", self._actor, error)
            self._effects.set_aside(item, str(error))
            return
        self._effects.done(item)

    def _take_response(self, item: Item, message: Response) -> None:
        """Give an answer to the call that waits for it, running or interrupted; else pass it over."""
        for job in self._calling():
            for entry in job.journal.calls():
                if entry.request == message.request:
                    entry.settle(CallOutcome(message.result, message.failure))
                    self._effects.record(job.item, job.journal.encode())
        self._effects.done(item)

    def _calling(self) -> Iterator[Job]:
        for running in (*self._readers, self._writer):
            if running is not None and running.job.item.row not in self._interrupted:
                yield running.job
        yield from self._interrupted.values()

    def _start_or_step(self, entry: Entry) -> None:
        match entry:
            case Job():
                self._start(entry)
            case Claim():
                self._box.hold(self._effects, entry)
            case Edit():
                self._edit(entry)
            case Release():
                self._box.let_go(self._effects, entry)

    def _edit(self, edit: Edit) -> None:
        edit.run(self._turns, self._effects)
        if self._trail is None and self._turns.edits:
            self._trail = Trail(self._actor, self._turns.edits)
        self._write_snapshot()

    # --- on_activate ---------------------------------------------------------------------------

    def _wake(self, waking: Waking) -> bool:
        """Run ``on_activate``; True when operations may run."""
        match waking.step(self._effects):
            case Step.AWAKE:
                self._waking = None
                for message in waking.messages:
                    self._effects.send(message)
                self._write_snapshot()
                return True
            case Step.ASLEEP:
                return False
            case Step.FAILED:
                self._refuse_calls(waking)
                return False

    def _refuse_calls(self, waking: Waking) -> None:
        """Answer the calls that wait; what nobody would ask again stays, and so do those that had begun."""
        kept: deque[Entry] = deque()
        for entry in (*self._nested, *self._mailbox):
            if isinstance(entry, Job) and isinstance(entry.message, Call) and not entry.item.record:
                self._send(Applied(entry, failure=waking.failure, failed=1))
            else:
                kept.append(entry)
        self._nested.clear()
        self._box.replace(kept)
        if kept:
            waking.try_again(self._effects)

    # --- one at a time -----------------------------------------------------------------------

    def _needs_waking(self, entry: Entry) -> bool:
        # An edit needs no ``on_activate``, but cannot run beside it.
        return isinstance(entry, Job) or (
            isinstance(entry, Edit) and bool(self._waking and self._waking.running)
        )

    def _may_start(self, entry: Entry) -> bool:
        return self._writer is None and (entry.operation.shared or not self._readers)

    # --- sync operations -----------------------------------------------------------------

    def _run_turn(self, limit: int) -> int:
        """Run one turn and send what came of it; return how much of the run's bound it took."""
        began = time.monotonic()
        jobs = self._box.leading_sync_jobs(self._may_start, limit)
        applied = self._turns.apply(jobs, limit, self._effects.now_ms)
        took_s = time.monotonic() - began
        for one in applied:
            self._send(one)
            if one.finished:
                finished = self._mailbox.popleft()
                assert finished is one.job, "jobs are applied in the order of the mailbox"
        if applied and not applied[-1].finished:
            # In the same commit as the snapshot: a batch that is left in the middle is not applied twice.
            self._effects.record(applied[-1].job.item, applied[-1].job.journal.encode())
        self._write_snapshot()
        if took_s > SLOW_S:
            logger.warning("%s held up its host for %.1f s: %s", self._actor, took_s, listed(applied))
        if self._turns.careful:
            return limit
        return max(1, applied[0].taken if len(applied) == 1 else sum(one.taken for one in applied))

    # --- async operations ------------------------------------------------------------------

    def _start(self, job: Job) -> None:
        """Start the next operation of an async job that was taken from the mailbox."""
        expired = expiry(job, self._effects.now_ms)
        if expired is not None:
            self._finish(refused(job, expired))
            return
        try:
            if job.is_empty():
                self._finish(Applied(job, taken=0))
                return
            args, kwargs = job.next_arguments()
        except LungfishError as error:
            self._finish(refused(job, error, finished=job.is_last()))
            return
        running = self._begin(job)
        if job.operation.shared:
            running.subject = subject = self._turns.reader(running.scope)
            running.before = self._turns.strict_image()
            self._readers.add(running)
        else:
            subject = self._turns.writer(running.scope)
            self._writer = running
        if running.start(partial(job.operation.function, subject, *args, **kwargs)):
            self._settle(running)
        else:
            self._effects.spawn(self._actor, running.join())

    def _place_nested(self) -> None:
        writer, nested = self._writer, self._nested
        journal = None if writer is None else writer.job.journal
        self._nested = []
        for job in nested:
            assert isinstance(job.message, Call)
            match place_of(job.message, journal):
                case Place.INSIDE:
                    self._read_inside(job)
                case Place.NOT_YET:
                    self._nested.append(job)
                case Place.MAILBOX:
                    self._box.admit(self._effects, job)
        if self._nested and journal is not None and (journal.met is None or journal.met.done()):
            journal.met = asyncio.get_running_loop().create_future()
            self._effects.spawn(self._actor, until(journal.met))

    def _read_inside(self, job: Job) -> None:
        if job.operation.is_async:  # by middleware: itself it never is
            self._start(job)
        else:
            self._finish(self._turns.read_inside(job, self._effects))

    def _begin(self, job: Job) -> Running:
        scope = Scope(self._actor, self._kind.app)
        scope.effects, scope.turns = self._effects, self._turns
        scope.section = self._box.section_of(job)
        job.journal.begin()
        scope.begin(job.item, job.operation, job.journal)
        return Running(job, scope, self._ended.append)

    def _settle(self, running: Running) -> None:
        """Take the outcome of an async operation: commit it or roll it back, as one step."""
        job, scope = running.job, running.scope
        scope.end()
        error = job.journal.broken or running.error
        one = Applied(job, messages=scope.outgoing, finished=job.is_last(), refused=scope.refused)
        if error is None:
            try:
                job.journal.check_end()
                one.result = encode_result(job.operation, running.value)
                if job.operation.shared:
                    self._turns.check_unchanged(job.operation, running.subject, running.before)
                else:
                    self._turns.succeeded(scope)
                    self._turns.snapshot()
            except LungfishError as raised:
                error = raised
        if error is not None:
            one.fail(describe(error))
        self._release(running, failed=error is not None)
        self._finish(one)

    def _release(self, running: Running, *, failed: bool) -> None:
        if running.job.operation.shared:
            self._readers.discard(running)
            return
        assert self._writer is running
        self._writer = None
        running.job.journal.tell_met()
        if failed:
            self._turns.reset()
        else:
            self._turns.take_back()

    def _finish(self, one: Applied) -> None:
        self._send(one)
        if not one.finished:
            # The rest of its batch goes first: nothing may come between its operations.
            self._mailbox.appendleft(one.job)
            self._effects.record(one.job.item, one.job.journal.encode())
        self._write_snapshot()

    # --- what leaves -----------------------------------------------------------------------

    def _send(self, one: Applied) -> None:
        job, effects = one.job, self._effects
        counts = self._kind.counts
        counts.operations += one.taken
        counts.failed += one.failed
        counts.refused += one.refused
        for message in one.messages:
            effects.send(message)
        if isinstance(job.message, Call):
            self._reply(job.message, one.result, one.failure)
        elif one.failure is not None:
            trace = "" if one.failure.is_a(Refused) else f"\n{one.failure.traceback}"
            logger.warning(
                "%s: %d of %d signals failed and were rolled back; the first: %s%s",
                job.operation.signature.what, one.failed, one.taken, one.failure, trace,
            )  # fmt: skip
        span, job.span = one.span or job.span, None  # what is left of a batch is another one
        if span is not None:
            span.tell(effects, one)
        if job.is_tick:
            self._alarms.end(one, effects.now_ms)
        if one.finished:
            self._interrupted.pop(job.item.row, None)
            effects.done(job.item)
        else:
            job.journal.advance(one.taken)
            job.at = job.journal.applied

    def _reply(self, call: Call, result: bytes | None, failure: FailureDetails | None) -> None:
        self._effects.send(Response(call.reply_to, call.request, result, failure))

    def _write_snapshot(self) -> None:
        if self._turns.take_change():
            base = self._turns.base
            self._effects.snapshot(self._actor, base)
            if self._is_listed is not (base is not None):
                self._is_listed = base is not None
                at = index.by_entity(self._actor.name), self._actor.key
                self._effects.index(*at, 0 if self._is_listed else None)
            if self._trail is not None:
                self._trail.follow(self._effects, self._turns.edits)
            self._controls.changed()
            self._alarms.arm(self._effects)
