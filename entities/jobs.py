"""Accepted requests on their way through the mailbox, and what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from lungfish.runtime import codec
from lungfish.runtime.declared import middleware
from lungfish.runtime.declared.definitions import Operation
from lungfish.runtime.declared.reminders import Tick
from lungfish.runtime.errors import DeadlineExceeded, FailureDetails, LungfishError, SerializationError
from lungfish.runtime.messages.messages import Call, Message, Signal
from lungfish.runtime.partitions.kinds import Effects, Item

from .arguments import restore_one
from .calls import refusal
from .journal import Journal

if TYPE_CHECKING:
    from .spans import OperationSpan


_OURS: Final = (__package__ or "?", middleware.__name__)


@dataclass(slots=True, eq=False)
class Job:
    """An accepted call or signal, on its way through the mailbox.

    Attributes:
        journal: what of it is committed already.
        at: the next operation of the batch, in this turn; the journal follows when it is sent.
        is_tick: nobody asked for it but a due reminder.
        tick: that reminder, as it was found when its turn came.
        span: of the operation that runs, if it is traced.
    """

    item: Item
    operation: Operation
    message: Call | Signal
    journal: Journal
    at: int = 0
    is_tick: bool = False
    tick: Tick | None = None
    span: OperationSpan | None = None
    _decoded: Any = None

    def arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments of a call; raises a ``UsageError`` if they do not fit."""
        assert isinstance(self.message, Call)
        if self._decoded is None:
            self._decoded = self.operation.signature.decode(self.message.args)
        args, kwargs = self._decoded
        return args, kwargs

    def next_arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments of the next operation; raises a ``UsageError`` if they do not fit."""
        if isinstance(self.message, Call):
            return self.arguments()
        return restore_one(self.operation.signature, self.rows()[self.at])

    def is_empty(self) -> bool:
        """Tell whether it is a batch of nothing; raises ``SerializationError`` if it is no batch."""
        return isinstance(self.message, Signal) and not self.rows()

    def is_last(self) -> bool:
        """Tell whether the next operation is the last one."""
        return self._decoded is None or isinstance(self.message, Call) or self.at + 1 >= len(self._decoded)

    def rows(self) -> list[Any]:
        """Return the batch of a signal; raises ``SerializationError`` if it is none."""
        assert isinstance(self.message, Signal)
        if self._decoded is None:
            what = f"arguments of {self.operation.signature.what}"
            decoded = codec.decode(self.message.batch, what)
            if not isinstance(decoded, list):
                raise SerializationError(f"{what}: not a batch of signals")
            self._decoded = decoded
        found: list[Any] = self._decoded
        return found


@dataclass(slots=True, eq=False)
class Applied:
    """What became of a job, or of a part of its batch, in a turn.

    Attributes:
        finished: nothing of the job is left.
        messages: what its operations sent, in order.
        failed: how many operations failed; ``failure`` describes the first of them.
        refused: how many of these were refused by middleware.
        span: of this part alone, where a turn takes several parts of one batch.
    """

    job: Job
    taken: int = 1
    finished: bool = True
    messages: Sequence[Message] = ()
    result: bytes | None = None
    failure: FailureDetails | None = None
    failed: int = 0
    refused: int = 0
    span: OperationSpan | None = None

    def fail(self, failure: FailureDetails) -> None:
        """Turn it into a failure of its one operation."""
        self.messages, self.result = (), None
        self.failure, self.failed = failure, 1


def encode_result(operation: Operation, value: Any) -> bytes | None:
    """Return the wire form of a result; raises as ``codec.encode`` does."""
    return None if value is None else codec.encode(value, f"result of {operation.signature.what}")


def put_off(effects: Effects, item: Item, signal: Signal) -> bool:
    """Make a timer of a signal whose time has not come; negative: so long after it was accepted."""
    due_ms = signal.due_ms
    if due_ms < 0:
        due_ms = item.accepted_ms - due_ms
    if due_ms <= effects.now_ms:
        return False
    effects.timer(effects.unique(), due_ms, replace(signal, due_ms=0))
    effects.done(item)
    return True


def expiry(job: Job, now_ms: int) -> DeadlineExceeded | None:
    """Return why a job must not be started any more; None: it is in time, or has had effects elsewhere."""
    if job.journal.entries:
        return None  # interrupted behind its first call: what others did for it is done, so it goes on
    deadline_ms = job.message.deadline_ms if isinstance(job.message, Call) else 0
    if deadline_ms < 0:
        deadline_ms = job.item.accepted_ms - deadline_ms
    if not deadline_ms or now_ms <= deadline_ms:
        return None
    late_s = (now_ms - deadline_ms) / 1000
    return DeadlineExceeded(
        f"{job.operation.signature.what} was not started: its turn came {late_s:g} s too late"
    )


def refused(job: Job, error: LungfishError, *, finished: bool = True) -> Applied:
    """Return the outcome of an operation that was not run."""
    return Applied(job, finished=finished, failure=refusal(error), failed=1)


def describe(error: BaseException) -> FailureDetails:
    """Describe what user code raised, without the frames of the runtime, and of middleware, below it."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "").startswith(_OURS):
        frames = frames.tb_next
    return FailureDetails.of(error.with_traceback(frames or error.__traceback__))
