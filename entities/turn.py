"""The turn: operations are applied to an entity's state, each of them wholly or not at all.

Pure: no I/O, no clock, no tasks. The processor decides what is applied when, and sends what comes out.

Rules:

* An operation that raises takes back its own state and its own messages, nothing else. That is
  also so within a batch of signals, and when the failure shows only as the state or the result
  is encoded.
* One snapshot is made per turn, however many operations it has.
* ``base`` is the last snapshot that was made. A turn begins clean: the state is what ``base`` says. So the
  first operation of a turn needs no image to be rolled back: ``base`` is one.
* Where an image is cheap (every field is immutable) each operation has one. Otherwise a turn runs
  without images until an operation raises, and is then *redone* from ``base`` with one per operation. If
  the snapshot cannot be made, it is redone operation by operation with a snapshot each, so
  that only the offender fails. Redoing runs user code again; nothing of the first try has left.
* Redoing starts from a new instance, as an activation does: private attributes that the first try
  changed (a cache, a set of seen ids) must not be met by the second.
* Ephemeral values are the activation's: every instance gets them, and nothing takes them back. So with such
  fields each operation has an image: an operation is not run again because another one failed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import InitVar, dataclass
from enum import Enum
from functools import partial
from types import MethodType
from typing import Any, Final

from lungfish.runtime import codec
from lungfish.runtime.declared.definitions import Operation
from lungfish.runtime.declared.reminders import NONE, Reminder, Reminders, without
from lungfish.runtime.errors import (
    FailureDetails,
    LungfishError,
    PayloadTooLarge,
    ReadOnly,
    SerializationError,
    UsageError,
)
from lungfish.runtime.messages.messages import Call
from lungfish.runtime.partitions.kinds import Effects

from .arguments import Batch, restore_batch
from .calls import refusal
from .context import EntityContext
from .ephemeral import give_held, held_of
from .jobs import Applied, Job, describe, encode_result, expiry, refused
from .scope import MESSAGES_MAX, Scope
from .spans import context_of
from .state import (
    CONTEXT_SLOT,
    EDITS,
    REMINDERS,
    Fields,
    StatePlan,
    beside_fields,
    decode_state,
    encode_state,
    fresh_state,
    restore,
    shell,
)

#: Operations in a turn that makes a snapshot after each of them.
CAREFUL_MAX: Final = 64
#: How much what is noted of a due reminder may add to a snapshot that is as large as one may be (bytes).
SLACK: Final = 1 << 20


class Touch(Enum):
    """What happened to the state since the last snapshot."""

    #: Nothing: it is what the snapshot says.
    NONE = "none"
    #: An operation succeeded on it.
    CHANGED = "changed"
    #: It was deleted; what is in memory are the defaults.
    DELETED = "deleted"


class _Unguarded(Exception):
    """An operation raised and there is no image to roll back to: the turn must be redone."""


@dataclass(slots=True, eq=False)
class Turns:
    """An entity's state in memory, and the turns on it. See the rules of this module.

    Attributes:
        base: the snapshot that the state is rolled back to; None: the defaults.
        written: the snapshot that was last given to the store.
        is_strict: a shared operation that changes the state fails; else what it changes is passed over.
    """

    plan: StatePlan
    scope: Scope
    base: bytes | None
    readable: InitVar[bool] = True
    state: Any = None
    written: bytes | None = None
    is_strict: bool = False
    _touch: Touch = Touch.NONE
    _guarded: bool = False
    _careful: bool = False
    #: What ``on_activate`` has left in private attributes; None: as the class says.
    _private: dict[str, Any] | None = None
    #: The ephemeral values; None: as the next instance has them.
    _held: dict[str, Any] | None = None

    def __post_init__(self, readable: bool) -> None:
        self.written = self.base
        self._guarded = self.plan.ephemeral
        if readable:
            self.reset()
            return
        # It stands in the place of a snapshot that cannot be read: it can be replaced or deleted, no more.
        self._adopt(fresh_state(self.plan))
        self.state.__dict__.update(beside_fields(self.base or b""))

    # --- the state ---------------------------------------------------------------------

    def reset(self) -> None:
        """Go back to ``base``, on a new instance."""
        base = self.base
        self._adopt(
            fresh_state(self.plan) if base is None else decode_state(self.plan, base, self.scope.actor.key)
        )
        self._touch = Touch.NONE

    def start_over(self) -> None:
        """Go back to ``base`` as a new activation would, with new ephemeral values."""
        self._held = None
        self.reset()

    def _adopt(self, state: Any) -> None:
        self.state = state
        if self.plan.ephemeral and self._held is None:
            self._held = held_of(state)
        elif self._held is not None:
            give_held(state, self._held)
        if self._private is not None:
            object.__setattr__(state, "__pydantic_private__", self._private.copy())
        give_context(state, self.scope)

    def succeeded(self, scope: Scope) -> None:
        """Note that an operation has succeeded on the state."""
        if not scope.deleted:
            self._touch = Touch.CHANGED
            return
        scope.deleted = False
        self._adopt(fresh_state(self.plan))
        self._touch = Touch.DELETED

    @property
    def reminders(self) -> Reminders:
        """The reminders as the state has them now."""
        found: Reminders = self.state.__dict__.get(REMINDERS, NONE)
        return found

    @property
    def edits(self) -> int:
        """How often the state was edited by hand."""
        found: int = self.state.__dict__.get(EDITS, 0)
        return found

    def set_reminders(self, reminders: Reminders) -> None:
        """Replace the reminders, as a part of the running operation's change."""
        self.state.__dict__[REMINDERS] = reminders

    def note(self, tick: Reminder, following: Reminder | None) -> None:
        """Write down what became of a due reminder, unless it was set anew or cancelled meanwhile."""
        reminders = self.reminders
        known = reminders.get(tick.name)
        if known is None or known.generation != tick.generation:
            return
        rest = without(reminders, tick.name)
        self.set_reminders(rest if following is None else {**rest, tick.name: following})
        self._touch = Touch.CHANGED
        self.snapshot(SLACK)

    def snapshot(self, slack: int = 0) -> None:
        """Make ``base`` the snapshot of what the state is now.

        Args:
            slack: how far it may pass the limit (bytes).

        Raises:
            SerializationError, PayloadTooLarge: it cannot be made; ``base`` is as before.
        """
        match self._touch:
            case Touch.NONE:
                return
            case Touch.CHANGED:
                self.base = encode_state(self.plan, self.state, slack)
            case Touch.DELETED:
                self.base = None
        self._touch = Touch.NONE

    def stored_form(self) -> bytes:
        """Return what a snapshot of the state would be; raises as ``snapshot`` does."""
        return encode_state(self.plan, self.state)

    def woke(self, before: bytes) -> None:
        """Take what ``on_activate`` has left, unless it is ``before``; raises as ``snapshot`` does.

        What is in private attributes now (connections, caches) is there again in every later instance.
        """
        if self.stored_form() != before:
            self._touch = Touch.CHANGED
            self.snapshot()
        private = self.state.__pydantic_private__
        self._private = None if private is None else private.copy()

    def take_change(self) -> bool:
        """Tell whether ``base`` must be given to the store, and take it as given."""
        if self.base == self.written:
            return False
        self.written = self.base
        return True

    def take_back(self) -> None:
        """Take the state back from ``writer``'s scope."""
        give_context(self.state, self.scope)

    def reader(self, scope: Scope) -> Any:
        """Return a copy for one shared operation: what it changes is not kept, and no other one sees it."""
        made = shell(self.plan, self.state, self.plan.capture()(self.state.__dict__))
        give_context(made, scope)
        return made

    def strict_image(self) -> Fields | None:
        """Return the fields as they are, in tests: an operation that waits may find others when it ends."""
        return self.plan.capture()(self.state.__dict__) if self.is_strict else None

    def check_unchanged(self, operation: Operation, subject: Any, image: Fields | None = None) -> None:
        """Raise ``ReadOnly`` if a shared operation has changed its copy of the state, in tests.

        Args:
            image: the fields when it began; default: they are as they were.
        """
        if not self.is_strict:
            return
        before, after = image or self.state.__dict__, subject.__dict__
        changed = [name for name in self.plan.names if _differ(before.get(name), after.get(name))]
        if changed:
            raise ReadOnly(
                f"{operation.signature.what} is @shared, which means read-only, and changed "
                f"{', '.join(changed)}: that is not kept. Make a local copy, or take @shared away"
            )

    def writer(self, scope: Scope) -> Any:
        """Return the state for one exclusive operation that has its own scope."""
        assert self._touch is Touch.NONE, "what was applied before must be sent before"
        give_context(self.state, scope)
        return self.state

    def replace(self, state: Any, edits: int) -> None:
        """Make ``state`` the state, in the place of one that was edited by hand; nothing may be running.

        Raises:
            SerializationError, PayloadTooLarge: it cannot be stored; the state is as before.
        """
        reminders = self.reminders
        self._adopt(state)
        if reminders:
            self.set_reminders(reminders)
        state.__dict__[EDITS] = edits
        self._touch = Touch.CHANGED
        try:
            self.snapshot()
        except LungfishError:
            self.reset()
            raise

    def delete(self) -> None:
        """Delete the state, as an operation that called ``context.delete`` would; nothing may be running."""
        self._adopt(fresh_state(self.plan))
        self._touch = Touch.DELETED
        self.snapshot()

    # --- a turn --------------------------------------------------------------------------

    def apply(self, jobs: Sequence[Job], limit: int, now_ms: int) -> list[Applied]:
        """Apply sync jobs in order, at most ``limit`` operations, and make the snapshot.

        Afterwards the state is what ``base`` says. The last job may be left in the middle of its batch.
        """
        assert self._touch is Touch.NONE, "a turn begins clean"
        if not self._careful:
            try:
                applied = self._attempt(jobs, limit, now_ms)
                self.snapshot()
            except (SerializationError, PayloadTooLarge):
                self._redo(jobs)
            else:
                return applied
        return self._apply_carefully(jobs, min(limit, CAREFUL_MAX), now_ms)

    @property
    def careful(self) -> bool:
        """True after a turn in which a snapshot could not be made: turns are short and slow now."""
        return self._careful

    def _attempt(self, jobs: Sequence[Job], limit: int, now_ms: int) -> list[Applied]:
        try:
            applied = self._pass(jobs, limit, now_ms)
        except _Unguarded:
            applied = None
        # Not in the handler: what fails again would name the first failure as its context.
        if applied is None:
            self._redo(jobs)
            self._guarded = True
            return self._pass(jobs, limit, now_ms)
        # Images are taken for as long as operations fail, and no longer.
        self._guarded = self.plan.ephemeral or (self._guarded and any(one.failed for one in applied))
        return applied

    def _redo(self, jobs: Sequence[Job]) -> None:
        self.reset()
        for job in jobs:
            job.at = job.journal.applied

    def _pass(self, jobs: Sequence[Job], limit: int, now_ms: int) -> list[Applied]:
        applied = []
        for job in jobs:
            if limit <= 0:
                break
            one = self._apply_job(job, limit, now_ms)
            limit -= one.taken
            applied.append(one)
        return applied

    def _apply_carefully(self, jobs: Sequence[Job], limit: int, now_ms: int) -> list[Applied]:
        applied: list[Applied] = []
        refused = False
        for job in jobs:
            while limit > 0 and not (applied and applied[-1].job is job and applied[-1].finished):
                one = self._apply_job(job, 1, now_ms)
                one.span, job.span = job.span, None
                try:
                    self.snapshot()
                except (SerializationError, PayloadTooLarge) as error:
                    refused = True
                    self.reset()
                    one.fail(refusal(error))
                limit -= 1
                applied.append(one)
        self._careful = refused
        return applied

    def _apply_job(self, job: Job, limit: int, now_ms: int) -> Applied:
        expired = expiry(job, now_ms)
        if expired is not None:
            return refused(job, expired)
        try:
            if not job.message.headers:
                return self._apply_request(job, limit)
            return self._apply_within(job, limit)
        finally:
            self.scope.end()

    def _apply_within(self, job: Job, limit: int) -> Applied:
        try:
            context = context_of(self.scope, job)
        except UsageError as error:
            return refused(job, error)
        return context.run(self._apply_request, job, limit)

    def _apply_request(self, job: Job, limit: int) -> Applied:
        return self._apply_call(job) if isinstance(job.message, Call) else self._apply_batch(job, limit)

    # --- one call --------------------------------------------------------------------------

    def _apply_call(self, job: Job) -> Applied:
        scope, operation = self.scope, job.operation
        try:
            args, kwargs = job.arguments()
        except LungfishError as error:
            return refused(job, error)
        scope.begin(job.item, operation, job.journal)
        image = None if operation.shared else self._image()
        try:
            subject = self.reader(scope) if operation.shared else self.state
            result = encode_result(operation, operation.function(subject, *args, **kwargs))
            if operation.shared:
                self.check_unchanged(operation, subject)
        except BaseException as error:  # also SystemExit: user code does not stop a host
            if not operation.shared:
                self._roll_back(image)
            return Applied(job, failure=describe(error), failed=1, refused=scope.refused)
        if not operation.shared:
            self.succeeded(scope)
        return Applied(job, messages=scope.outgoing, result=result)

    def _image(self) -> Fields | None:
        if self.plan.immutable or self._guarded:
            return self.plan.capture()(self.state.__dict__)
        return None

    def _roll_back(self, image: Fields | None) -> None:
        if image is not None:
            restore(self.state, image)
        elif self._touch is Touch.NONE:
            self.reset()
        else:
            raise _Unguarded

    def read_inside(self, job: Job, effects: Effects) -> Applied:
        """Run a reentrant call beside the operation that waits for it, on a copy of what the state is now."""
        expired = expiry(job, effects.now_ms)
        if expired is not None:
            return refused(job, expired)
        scope = Scope(self.scope.actor, self.scope.app)
        scope.effects, scope.turns = effects, self
        try:
            args, kwargs = job.arguments()
            scope.begin(job.item, job.operation, job.journal)
            subject = self.reader(scope)
            result = encode_result(job.operation, job.operation.function(subject, *args, **kwargs))
            self.check_unchanged(job.operation, subject)
        except BaseException as error:  # also SystemExit: user code does not stop a host
            return Applied(job, failure=describe(error), failed=1, refused=scope.refused)
        finally:
            scope.end()
        return Applied(job, messages=scope.outgoing, result=result)

    # --- a batch of signals ------------------------------------------------------------------

    def _apply_batch(self, job: Job, limit: int) -> Applied:
        try:
            rows = job.rows()
        except LungfishError as error:
            return refused(job, error)
        chunk = rows[job.at : job.at + limit]
        batch = restore_batch(job.operation.signature, chunk)
        self.scope.begin(job.item, job.operation, job.journal)
        failed, first = self._apply_rows(job, batch)
        if batch.refused:
            failed += len(batch.refused)
            first = first or refusal(batch.refused[0])
        job.at += len(chunk)
        ended, scope = job.at >= len(rows), self.scope
        return Applied(job, len(chunk), ended, scope.outgoing, None, first, failed, scope.refused)

    def _apply_rows(self, job: Job, batch: Batch) -> tuple[int, FailureDetails | None]:
        """Apply the calls of a batch: the hottest loop there is, so it allocates next to nothing."""
        scope, shared = self.scope, job.operation.shared
        capture = self.plan.capture() if self.plan.immutable or self._guarded else None
        failed, first, mark = 0, None, 0
        method, subject = self._bind(job, batch.named)
        outgoing = scope.outgoing
        for args in batch.calls:
            image = None if capture is None else capture(subject.__dict__)
            try:
                method(*args)
            except BaseException as error:  # also SystemExit: user code does not stop a host
                failed += 1
                scope.deleted = False
                del outgoing[mark:]
                if not shared:
                    self._roll_back(image)
                first = first or describe(error)
                method, subject = self._bind(job, batch.named)
                continue
            if shared:
                method, subject = self._bind(job, batch.named)
            elif scope.deleted:
                self.succeeded(scope)
                method, subject = self._bind(job, batch.named)
            else:
                self._touch = Touch.CHANGED
            if len(outgoing) != mark:
                mark = len(outgoing)
                scope.room = mark + MESSAGES_MAX
        return failed, first

    def _bind(self, job: Job, named: bool) -> tuple[Callable[..., Any], Any]:
        operation = job.operation
        subject = self.reader(self.scope) if operation.shared else self.state
        method = MethodType(operation.function, subject)
        bound: Callable[..., Any] = MethodType(_call_named, method) if named else method
        if operation.shared and self.is_strict:
            return partial(self._call_strictly, operation, subject, bound), subject
        return bound, subject

    def _call_strictly(
        self, operation: Operation, subject: Any, method: Callable[..., Any], *args: Any
    ) -> None:
        method(*args)
        self.check_unchanged(operation, subject)


def _call_named(method: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
    return method(*args, **kwargs)


def _differ(before: Any, after: Any) -> bool:
    if before == after:
        return False
    try:
        return codec.encode(before) != codec.encode(after)  # not a number differs from itself
    except SerializationError:
        return True


def give_context(state: Any, scope: Scope) -> None:
    """Make ``state.context`` the context of ``scope``."""
    object.__setattr__(state, CONTEXT_SLOT, EntityContext(scope))
