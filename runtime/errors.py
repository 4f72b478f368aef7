"""Every error of Lungfish, in one tree.

::

    LungfishError
    ├─ UsageError              the caller can fix it; nothing was changed
    │  ├─ NotRegistered        no such entity, operation, activity or orchestration
    │  │  └─ UnknownPool       no such pool of hosts
    │  ├─ InvalidId            a key, name or instance id that cannot be used
    │  ├─ InvalidArguments     arguments do not fit the signature or its types
    │  ├─ SerializationError   a value cannot be encoded, or stored bytes cannot be decoded
    │  │  └─ StateMismatch     a stored state does not fit the class that this process has
    │  ├─ PayloadTooLarge      a value is over the size limit
    │  ├─ InstanceExists       the instance id is taken
    │  ├─ InstanceNotFound     no such instance
    │  ├─ InstanceEnded        the instance has ended; it cannot be controlled any more
    │  ├─ InstanceRunning      the instance has not ended; so it cannot be purged or restarted
    │  ├─ NotDurable           an orchestration did what replay cannot repeat (I/O, threads, foreign futures)
    │  ├─ ReadOnly             what may only read tried to change something
    │  ├─ LimitExceeded        a bound on what one actor may do (history length, actions per turn)
    │  ├─ ScheduleExists       the schedule id is taken
    │  ├─ ScheduleNotFound     no such schedule
    │  ├─ HubMismatch          this process and the hub disagree on something fixed
    │  ├─ UnsafeStore          the store may drop data (evicting maxmemory-policy)
    │  ├─ Refused              a middleware of the app did not let it pass
    │  ├─ CallCycle            a call chain came back to an actor that waits for it
    │  └─ CriticalSectionError a rule of critical sections was broken
    ├─ ExecutionFailed         user code raised; ``details`` says what, where, and why
    │  ├─ EntityOperationFailed
    │  │  └─ ActivationFailed     on_activate raised; no operation was run
    │  ├─ ActivityFailed
    │  │  ├─ ActivityTimedOut
    │  │  └─ WorkersLost       an attempt was lost with its worker too often
    │  ├─ QueryFailed
    │  ├─ UpdateFailed
    │  │  └─ UpdateRejected    its validator refused it; nothing was recorded
    │  └─ OrchestrationFailed
    │     ├─ OrchestrationTerminated
    │     └─ OrchestrationCanceled
    ├─ RetryAfter              raised by an activity: try again, but not before some time
    ├─ NonRetryable            raised by an activity: trying again cannot help
    ├─ ActivityCancelled       raised in an activity whose attempt nobody waits for any more
    ├─ NonDeterminism          replay took another path than the history
    ├─ DeadlineExceeded        no answer in time; the outcome is unknown
    ├─ Unavailable             try again later
    │  ├─ StoreUnavailable     the store cannot be reached; the outcome may be unknown
    │  ├─ Overloaded           a bound was reached; nothing was accepted
    │  ├─ RuntimeNotFound      no runtime of this hub on the Ray cluster
    │  └─ HubNotFound          no host has made the hub yet
    └─ InternalError           a bug in Lungfish: please report it

``LeaseLost`` and ``StoreBehind`` are outcomes of a commit, not exceptions of users:
they live in ``store``.
"""

from __future__ import annotations

import math
import traceback
from dataclasses import dataclass, replace
from typing import Any


class LungfishError(Exception):
    """Base of every error that Lungfish raises on purpose."""


class UsageError(LungfishError):
    """The request cannot be served as made; nothing was changed by it."""


class NotRegistered(UsageError):
    """Nothing of that name is registered with the app that serves this hub."""


class UnknownPool(NotRegistered):
    """An entity of a pool of hosts that the hub does not have."""


class InvalidId(UsageError):
    """A key, name or instance id that cannot be used."""


class InvalidArguments(UsageError):
    """Arguments that do not fit the signature, or do not validate against its types."""


class SerializationError(UsageError):
    """A value that cannot be encoded, or stored bytes that cannot be decoded."""


class StateMismatch(SerializationError):
    """A stored state does not fit the class that this process has, and no migration leads to it.

    The message names the entity, its key and the fields. Nothing was changed: the state stays as it is
    stored, signals wait as mailbox rows, and a process whose class can read the state takes both up.
    """


class PayloadTooLarge(UsageError):
    """A value over the size limit. Store it elsewhere and send a reference."""


class InstanceExists(UsageError):
    """The instance id is taken and the reuse policy does not allow to replace it."""


class InstanceNotFound(UsageError):
    """No orchestration instance has that id."""


class InstanceEnded(UsageError):
    """The instance has ended, so it cannot be suspended, resumed or terminated."""


class InstanceRunning(UsageError):
    """The instance has not ended, so it cannot be purged, rewound or restarted. Cancel it first."""


class NotDurable(UsageError):
    """An orchestration did, or waits for, what replay cannot repeat. Put it into an activity."""


class ReadOnly(UsageError):
    """A query's handler, or an update's validator, tried to change something. It may only look."""


class LimitExceeded(UsageError):
    """One actor did more than a bound allows: history length, actions per turn, steps without waiting."""


class ScheduleExists(UsageError):
    """There is a schedule of that id already."""


class ScheduleNotFound(UsageError):
    """There is no schedule of that id."""


class HubMismatch(UsageError):
    """This process and the hub disagree on something that is fixed at the hub's creation."""


class UnsafeStore(UsageError):
    """The store is configured so that it may silently drop data."""


class Refused(UsageError):
    """A middleware of the app did not let it pass; nothing was changed by it.

    Raise it in a middleware (``App.operation_middleware`` and the others): whoever asked gets it, from
    wherever the middleware runs. It is not tried again.
    """


class CallCycle(UsageError):
    """A call chain came back to an actor that is waiting for it: it would never end."""


#: The same class, under the name by which it is looked for; histories and messages say ``CallCycle``.
CallCycleError = CallCycle


class CriticalSectionError(UsageError):
    """A rule of critical sections was broken: what was asked for could wait in a circle."""


class NonDeterminism(LungfishError):
    """Replay took another path than the recorded history.

    The message tells the expected and the actual action, the position in the
    history, the source line and the likely cause.
    """


class DeadlineExceeded(LungfishError, TimeoutError):
    """No answer arrived in time. Whether the request took effect is unknown."""


class Unavailable(LungfishError):
    """Something that is needed is not there now; trying again later is safe to consider."""


class StoreUnavailable(Unavailable):
    """The store cannot be reached, or broke the connection; the outcome may be unknown."""


class Overloaded(Unavailable):
    """A bound was reached (inbox, queue, in-flight requests); nothing was accepted."""


class RuntimeNotFound(Unavailable):
    """No runtime of this hub was found on the Ray cluster, and no store URL was given."""


class HubNotFound(Unavailable):
    """There is no such hub in the store: the first host of an app makes it, with its partition count."""

    @classmethod
    def of(cls, hub: str, where: str) -> HubNotFound:
        """Return the error of a process that needs a hub and may not make it; ``where``: in which store."""
        return cls(
            f"hub {hub!r} does not exist yet in {where}: start a host first (lungfish dev, lungfish up, "
            "lungfish.start), which makes the hub with its number of partitions"
        )


class InternalError(LungfishError):
    """A broken invariant: a bug in Lungfish. Please report it with the traceback."""


#: How many causes of a failure are kept; deeper ones are cut.
CAUSES_MAX = 10
#: How much of an exception's message is kept, of its beginning and its end (characters).
MESSAGE_CHARS_MAX = 16_000
#: How much of a traceback's text is kept, from its end (characters).
TRACEBACK_CHARS_MAX = 8_000


@dataclass(frozen=True, slots=True)
class FailureDetails:
    """What went wrong in user code, in a form that can be stored and sent.

    The shape follows Durable Functions' ``TaskFailureDetails``.

    Attributes:
        error_type: qualified name of the exception class, e.g. ``builtins.ValueError``.
        message: ``str()`` of the exception; the middle of one over ``MESSAGE_CHARS_MAX`` is left out.
        traceback: formatted traceback (its end, if long); empty where there is none.
        cause: the failure that led to this one, if any.
        non_retriable: a retry cannot help (for example unregistered, bad arguments).
        retry_after_ms: how long the error asks to wait before the next attempt; None: it does not say.
        bases: qualified names of the classes that ``error_type`` derives from, nearest first.
        timeout: which time-out it was (see ``ActivityTimedOut.timeout``); empty for other failures.
    """

    error_type: str
    message: str
    traceback: str = ""
    cause: FailureDetails | None = None
    non_retriable: bool = False
    retry_after_ms: int | None = None
    bases: tuple[str, ...] = ()
    timeout: str = ""

    @classmethod
    def of(cls, error: BaseException, depth: int = 0) -> FailureDetails:
        """Describe ``error`` and, up to ``CAUSES_MAX`` deep, what caused it."""
        details = error.details if isinstance(error, ExecutionFailed) else None
        if details is not None and depth:
            return details._cut(CAUSES_MAX - depth)
        cause: FailureDetails | None = None
        if depth < CAUSES_MAX:
            nested = error.__cause__
            if nested is None and not error.__suppress_context__:
                nested = error.__context__
            if details is not None:
                cause = details._cut(CAUSES_MAX - depth - 1)
            elif nested is not None:
                cause = cls.of(nested, depth + 1)
        return cls(
            error_type=qualified_name(type(error)),
            message=_message_of(error),
            traceback=_traceback_of(error),
            cause=cause,
            non_retriable=bool(getattr(error, "non_retriable", False)) or isinstance(error, UsageError),
            retry_after_ms=_retry_after_ms(error),
            bases=_bases_of(type(error)),
        )

    def _cut(self, causes: int) -> FailureDetails:
        """Return the same with at most so many causes: failures of failures would grow without a bound."""
        if self.cause is None:
            return self
        return replace(self, cause=self.cause._cut(causes - 1) if causes > 0 else None)

    def is_caused_by(self, error_type: type[BaseException] | str) -> bool:
        """Tell whether this failure or one of its causes is of ``error_type``.

        A class matches by its qualified name, and so do its subclasses; a str matches the qualified or the
        bare name.
        """
        here = self.is_a(error_type)
        return here or (self.cause is not None and self.cause.is_caused_by(error_type))

    def is_a(self, error_type: type[BaseException] | str) -> bool:
        """Tell whether the failure itself is of ``error_type`` or of a class derived from it."""
        wanted = error_type if isinstance(error_type, str) else qualified_name(error_type)
        return any(
            name == wanted or name.rpartition(".")[2] == wanted for name in (self.error_type, *self.bases)
        )

    def to_wire(self) -> list[Any]:
        """Return the form that is stored; ``from_wire`` reads it."""
        cause = self.cause.to_wire() if self.cause is not None else None
        row = [self.error_type, self.message, self.traceback, cause, self.non_retriable]
        return [*row, self.retry_after_ms, list(self.bases), self.timeout]

    @classmethod
    def from_wire(cls, row: list[Any]) -> FailureDetails:
        """Read what ``to_wire`` wrote; fields added by later versions are passed over.

        Raises:
            ValueError: something that ``to_wire`` never wrote.
        """
        return cls._from_wire(row, 0)

    @classmethod
    def _from_wire(cls, row: Any, depth: int) -> FailureDetails:
        match row:
            case [str(error_type), str(message), str(text), None | [*_] as cause, bool(non_retriable), *rest]:
                has_cause = cause is not None and depth < CAUSES_MAX
                nested = cls._from_wire(cause, depth + 1) if has_cause else None
                return cls(error_type, message, text, nested, non_retriable, *_read_rest(rest))
        raise ValueError(f"not a failure: {row!r:.200}")

    def __str__(self) -> str:
        own = f"{self.error_type.removeprefix('builtins.')}: {self.message}"
        return f"{own} (caused by {self.cause})" if self.cause is not None else own


class ExecutionFailed(LungfishError):
    """User code raised. ``details`` carries type, message, traceback and causes."""

    def __init__(self, message: str, details: FailureDetails | None = None) -> None:
        super().__init__(message)
        self.details = details

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.details)


class EntityOperationFailed(ExecutionFailed):
    """An entity's operation raised; its state and its outgoing messages were rolled back."""


class ActivationFailed(EntityOperationFailed):
    """An entity's ``on_activate`` raised: the operation was not run. The next message tries it again."""


def operation_failed(what: str, details: FailureDetails) -> EntityOperationFailed:
    """Return the error of a failed operation ``what``."""
    is_asleep = details.error_type == qualified_name(ActivationFailed)
    cls = ActivationFailed if is_asleep else EntityOperationFailed
    return cls(f"{what} failed: {details}", details)


class ActivityFailed(ExecutionFailed):
    """An activity failed, after all the retries that its policy allows."""


class ActivityTimedOut(ActivityFailed):
    """An activity did not begin, report or end in time; ``timeout`` says which of these."""

    @property
    def timeout(self) -> str:
        """Which time-out it was: the name of the option that set it.

        ``"timeout"`` (one attempt ran too long; Temporal: start-to-close), ``"heartbeat_timeout"``,
        ``"schedule_to_start"`` or ``"schedule_to_close"``.
        """
        return (self.details.timeout if self.details is not None else "") or "timeout"


class WorkersLost(ActivityFailed):
    """An attempt was lost with its worker too often: it may be what kills them."""


class RetryAfter(LungfishError):
    """Raise it in an activity that should be tried again, but not before ``seconds`` have passed.

    It replaces the policy's own wait (Temporal: ``next_retry_delay``; HTTP: ``Retry-After``). Whether
    there is another attempt at all is the policy's decision still. Any other exception does the same with an
    attribute ``lungfish_retry_after_s``.
    """

    def __init__(self, seconds: float, message: str = "") -> None:
        """Make the error; ``seconds`` must be a number that is not negative."""
        super().__init__(message or f"try again in {seconds:g} s")
        if not 0 <= seconds < math.inf:
            raise UsageError(f"RetryAfter takes a number of seconds that is not negative, not {seconds!r}")
        self.lungfish_retry_after_s = seconds

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.lungfish_retry_after_s, self.args[0])


class NonRetryable(LungfishError):
    """Raise it in an activity that must not be tried again, whatever its policy says.

    Any other exception does the same with an attribute ``non_retriable = True``.
    """

    non_retriable = True


class ActivityCancelled(LungfishError):
    """Nobody waits for this attempt any more: its time is up, or its orchestration goes on without it."""

    non_retriable = True


class QueryFailed(ExecutionFailed):
    """A query's handler raised; the instance is as it was."""


class UpdateFailed(ExecutionFailed):
    """An update's handler raised, or was cut off by the end of the execution; the instance goes on."""


class UpdateRejected(UpdateFailed):
    """An update's validator refused it: nothing was recorded, nothing has changed."""


class OrchestrationFailed(ExecutionFailed):
    """An orchestration failed; ``details`` has the chain of causes."""


class OrchestrationTerminated(OrchestrationFailed):
    """An orchestration was terminated from outside."""


class OrchestrationCanceled(OrchestrationFailed):
    """An orchestration was asked to end, and did."""


def qualified_name(cls: type) -> str:
    """Return ``module.QualName`` of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def _bases_of(cls: type[BaseException]) -> tuple[str, ...]:
    return tuple(qualified_name(base) for base in cls.__mro__[1:] if base not in (BaseException, object))


#: The longest wait that an error can ask for (ms): a century.
_RETRY_AFTER_MS_MAX = 100 * 365 * 86_400_000


def _retry_after_ms(error: BaseException) -> int | None:
    wanted = getattr(error, "lungfish_retry_after_s", None)
    if isinstance(wanted, bool) or not isinstance(wanted, int | float) or not wanted >= 0:
        return None  # also what is not a number: a user's odd attribute must not hide the failure itself
    return int(min(wanted * 1_000, _RETRY_AFTER_MS_MAX))


def _read_rest(rest: list[Any]) -> tuple[int | None, tuple[str, ...], str]:
    match rest:
        case [None | int() as after_ms, [*bases], str(timeout), *_] if all(isinstance(b, str) for b in bases):
            return after_ms, tuple(bases), timeout
        case []:
            return None, (), ""
    raise ValueError(f"not the rest of a failure: {rest!r:.200}")


def usage_error(details: FailureDetails) -> UsageError | None:
    """Return the ``UsageError`` that ``details`` describes, or None if it is not one.

    Lets a refusal that was made on a host (unknown operation, bad argument) reach the
    caller as the same class as a refusal made at the call site.
    """
    cls = _USAGE_ERRORS.get(details.error_type)
    return cls(details.message) if cls is not None else None


def _storable(text: str) -> str:
    """Return text that UTF-8 can hold: file names, and so messages, may have lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode()


def _bounded(message: str) -> str:
    """Return a message without its middle if it is long: some carry a whole response, or a document."""
    left_out = len(message) - MESSAGE_CHARS_MAX
    if left_out <= 0:
        return message
    half = MESSAGE_CHARS_MAX // 2
    return f"{message[:half]} [… {left_out:,} characters left out …] {message[-half:]}"


def _traceback_of(error: BaseException) -> str:
    """Return where an error came from, and what it is; the end of it, if it is long."""
    text = "".join(traceback.format_exception(error, chain=False))
    if len(text) > TRACEBACK_CHARS_MAX:
        # The lines of code must not be pushed out by a long message, which is kept by itself.
        said = "".join(traceback.format_exception_only(error))[: TRACEBACK_CHARS_MAX // 4]
        frames = "".join(traceback.format_tb(error.__traceback__))
        text = frames[len(said) - TRACEBACK_CHARS_MAX :] + said
    return _storable(text)


def _message_of(error: BaseException) -> str:
    try:
        return _storable(_bounded(str(error)))
    except Exception as broken:  # a user's __str__ may itself raise
        return f"<str() of {type(error).__name__} raised {type(broken).__name__}>"


def _usage_errors() -> dict[str, type[UsageError]]:
    found: dict[str, type[UsageError]] = {}
    todo: list[type[UsageError]] = [UsageError]
    while todo:
        cls = todo.pop()
        found[qualified_name(cls)] = cls
        todo.extend(cls.__subclasses__())
    return found


_USAGE_ERRORS = _usage_errors()
