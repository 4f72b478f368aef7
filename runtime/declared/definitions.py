"""What a user declares: activities, orchestrations, operations. Data about code, no behaviour.

The behaviour of these lives in ``entities`` and ``orchestrations``; a worker and the
client need only what is declared, and that is why it stands in the runtime.
"""

from __future__ import annotations

import datetime as dt
import functools
import inspect
from collections.abc import Callable, Container, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Generic, ParamSpec, TypeVar, get_args, get_origin, overload

from lungfish.runtime.amounts import check_flag
from lungfish.runtime.errors import NotRegistered, UsageError
from lungfish.runtime.ids import check_id
from lungfish.runtime.store.queues import DEFAULT_PRIORITY, check_priority

from .activity_resources import check_resources
from .retry import RetryPolicy
from .signatures import Signature

P = ParamSpec("P")
R = TypeVar("R")
#: Covariant, so that an activity made from ``async def`` fits wherever one that returns a Coroutine does.
R_co = TypeVar("R_co", covariant=True)
F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_QUEUE: Final = "default"
_SHARED: Final = "__lungfish_shared__"
_REENTRANT: Final = "__lungfish_reentrant__"


@dataclass(frozen=True, slots=True)
class ActivityOptions:
    """How an activity is run.

    Attributes:
        retry: policy for failed attempts; the default is one attempt.
        timeout: longest run of one attempt (Temporal: start-to-close); None is unlimited.
        schedule_to_close: longest time over all attempts, waiting included; None is unlimited.
        schedule_to_start: longest wait of an attempt in its queue; over it the activity fails, and is not
            tried again: it would only wait again. None is unlimited.
        heartbeat_timeout: longest time between two heartbeats of a running attempt (see
            ``ActivityInfo.heartbeat``); None is unlimited.
        queue: the queue whose workers run it.
        priority: 0 (first) to 9 (last) among what waits in the same queue.
        inline: run in the orchestration's turn itself: for tiny pure functions only, since
            it blocks the host's loop and is run again if the turn is not committed.
        resources: Ray resources of each attempt (``num_cpus``, ``num_gpus``, ``memory``,
            ``resources``); with any of them, an attempt is a Ray task of its own.
        id: the caller's own idempotency key for this activity; default: made from
            instance id and position.
    """

    retry: RetryPolicy = RetryPolicy()
    timeout: dt.timedelta | None = None
    schedule_to_close: dt.timedelta | None = None
    queue: str = DEFAULT_QUEUE
    inline: bool = False
    resources: Mapping[str, Any] = field(default_factory=dict)
    id: str | None = None
    schedule_to_start: dt.timedelta | None = None
    heartbeat_timeout: dt.timedelta | None = None
    priority: int = DEFAULT_PRIORITY

    def __post_init__(self) -> None:
        if not isinstance(self.retry, RetryPolicy):
            raise UsageError(f"retry is a RetryPolicy(max_attempts=…), not {self.retry!r}")
        if self.id is not None:
            check_id("activity id", self.id)
        check_id("queue", self.queue)
        check_priority(self.priority)
        check_flag("inline", self.inline)
        check_resources(self.resources)
        if self.inline and self.resources:
            raise UsageError(f"an inline activity runs in its host, without {', '.join(self.resources)}")
        for name in ("timeout", "schedule_to_close", "schedule_to_start", "heartbeat_timeout"):
            duration = getattr(self, name)
            if duration is not None and duration <= dt.timedelta(0):
                raise UsageError(f"{name} must be more than nothing, not {duration}")


class Activity(Generic[P, R_co]):
    """A registered activity. Calling it runs the plain function: unit tests need nothing else."""

    def __init__(self, function: Callable[P, R_co], name: str, options: ActivityOptions) -> None:
        if inspect.isclass(function):
            what = f"@app.activity takes a function, not the class {function.__name__}"
            raise UsageError(f"{what}: write one that makes it")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise UsageError(f"activity {name}: a generator has no result; return a list")
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name
        self.settings = options
        self.signature = Signature.of(function, name)
        self.is_async = inspect.iscoroutinefunction(function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        return self.function(*args, **kwargs)

    def options(
        self,
        *,
        retry: RetryPolicy | None = None,
        timeout: dt.timedelta | float | None = None,
        schedule_to_close: dt.timedelta | float | None = None,
        queue: str | None = None,
        id: str | None = None,
        schedule_to_start: dt.timedelta | float | None = None,
        heartbeat_timeout: dt.timedelta | float | None = None,
        priority: int | None = None,
    ) -> Activity[P, R_co]:
        """Return the same activity with other options, for one call; as in Ray.

        Args:
            retry: policy for failed attempts.
            timeout: longest run of one attempt (timedelta, or seconds).
            schedule_to_close: longest time over all attempts (timedelta, or seconds).
            queue: the queue whose workers run it.
            id: the caller's own idempotency key.
            schedule_to_start: longest wait of an attempt in its queue (timedelta, or seconds).
            heartbeat_timeout: longest silence of a running attempt (timedelta, or seconds).
            priority: 0 (first) to 9 (last) in its queue.

        Raises:
            UsageError: a value that makes no sense; nothing was scheduled.
        """
        given: dict[str, Any] = {
            "retry": retry,
            "timeout": as_duration(timeout, "timeout"),
            "schedule_to_close": as_duration(schedule_to_close, "schedule_to_close"),
            "queue": queue,
            "id": id,
            "schedule_to_start": as_duration(schedule_to_start, "schedule_to_start"),
            "heartbeat_timeout": as_duration(heartbeat_timeout, "heartbeat_timeout"),
            "priority": priority,
        }
        changed = {name: value for name, value in given.items() if value is not None}
        return Activity(self.function, self.name, replace(self.settings, **changed))

    def __repr__(self) -> str:
        return f"<activity {self.name}>"


class Orchestration(Generic[P, R_co]):
    """A registered orchestration: ``async def`` or generator, first parameter the context.

    Attributes:
        version: of this code; instances that were started with it are run by it alone. Empty: not versioned.
    """

    def __init__(self, function: Callable[..., Any], name: str, version: str = "") -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name
        self.version = version
        self.is_generator = inspect.isgeneratorfunction(function)
        self.signature = Signature.of(function, name, skip=1)
        if self.is_generator:
            self.signature = replace(self.signature, result=_returned(self.signature.result))
        if not self.is_generator and not inspect.iscoroutinefunction(function):
            raise UsageError(f"orchestration {name} must be 'async def' or a generator function")
        if not inspect.signature(function).parameters:
            raise UsageError(f"orchestration {name} must take the OrchestrationContext as first parameter")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        version = f" {self.version}" if self.version else ""
        return f"<orchestration {self.name}{version}>"


def _returned(annotation: Any) -> Any:
    """Return what a generator function returns, from its annotation: the R of ``Generator[Y, S, R]``."""
    arguments = get_args(annotation)
    return arguments[2] if get_origin(annotation) is Generator and len(arguments) == 3 else Any


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of an entity class.

    Attributes:
        built_in: every class has it, and this one does not say otherwise.
    """

    name: str
    function: Callable[..., Any]
    signature: Signature
    shared: bool
    is_async: bool
    reentrant: bool = False
    built_in: bool = False


@dataclass(frozen=True, slots=True)
class EntityDefinition:
    """A registered entity class and its operations by name."""

    name: str
    cls: type[Any]
    operations: Mapping[str, Operation]

    def find(self, operation: Callable[..., Any] | str) -> Operation:
        """Return an operation by name or by its method (``Counter.add``); raises ``NotRegistered``."""
        name = operation if isinstance(operation, str) else getattr(operation, "__name__", repr(operation))
        found = self.operations.get(name)
        if found is not None and (found.function is operation or operation is name):
            return found
        if not isinstance(operation, str):
            # A method of a base class, of a reloaded module, or under another name.
            found = next((o for o in self.operations.values() if o.function is operation), found)
        if found is None:
            listed = ", ".join(sorted(self.operations)) or "none"
            raise NotRegistered(f"no operation of {self.name} named {name!r}; there are: {listed}")
        return found


def shared(function: F) -> F:
    """Mark an operation as read-only: it may overlap other shared ones (Orleans: ``[ReadOnly]``).

    What it changes in the state is not kept; in ``lungfish.testing`` it fails with ``ReadOnly`` then.
    """
    setattr(function, _SHARED, True)
    return function


def reentrant(function: F) -> F:
    """Let a ``@shared`` operation be called back by those whom its entity waits for (Orleans: call chains).

    Without it such a call is a ``CallCycle``. It runs inside the operation that waits, on a copy of the state
    as that operation has left it so far: what it sees may yet be rolled back. Sync operations only.
    """
    setattr(function, _REENTRANT, True)
    return function


def _is_reentrant(raw: Any, what: str) -> bool:
    if not getattr(raw, _REENTRANT, False):
        return False
    if not getattr(raw, _SHARED, False) or inspect.iscoroutinefunction(raw):
        raise UsageError(
            f"{what} cannot be reentrant: only a @shared operation that is not async can. What a nested "
            "operation changed would be lost, or counted twice, when the one that waits is run again"
        )
    return True


def operations_of(
    cls: type[Any],
    name: str,
    base: type[Any],
    *,
    reserved: Container[str] = (),
    ignored: Container[str] = (),
) -> dict[str, Operation]:
    """Return the operations of an entity class: its public methods that are not ``base``'s own.

    Args:
        reserved: names of methods that mean something to the runtime and cannot be operations.
        ignored: names of methods that somebody else calls (validators, serializers, hooks).

    Raises:
        UsageError: a reserved name, or a method that cannot be an operation.
    """
    found: dict[str, Operation] = {}
    for attribute in dir(cls):
        if attribute.startswith("_") or attribute in ignored:
            continue
        raw = inspect.getattr_static(cls, attribute)
        if not inspect.isfunction(raw) or inspect.getattr_static(base, attribute, None) is raw:
            continue
        what = f"{name}.{attribute}"
        if attribute in reserved:
            raise UsageError(f"{what} cannot be an operation: the name belongs to the base class; rename it")
        if inspect.isgeneratorfunction(raw) or inspect.isasyncgenfunction(raw):
            raise UsageError(f"{what} cannot be an operation: a generator has no result; prefix it with '_'")
        if not inspect.signature(raw).parameters:
            raise UsageError(f"{what} cannot be an operation: it does not take self")
        found[attribute] = Operation(
            name=attribute,
            function=raw,
            signature=Signature.of(raw, what, skip=1),
            shared=bool(getattr(raw, _SHARED, False)),
            is_async=inspect.iscoroutinefunction(raw),
            reentrant=_is_reentrant(raw, what),
        )
    return found


def with_reentrant_reads(operations: Mapping[str, Operation], name: str) -> dict[str, Operation]:
    """Return the operations of a class that is reentrant: those that only read, and do not wait, are.

    Raises:
        UsageError: there are none.
    """
    made = {
        at: replace(operation, reentrant=operation.shared and not operation.is_async)
        for at, operation in operations.items()
    }
    if not any(operation.reentrant for operation in made.values()):
        raise UsageError(
            f"entity {name}: reentrant=True needs a @shared operation that is not async: no other can be "
            "called back by those whom the entity waits for"
        )
    return made


def name_of(function: Any, sort: str, name: str | None) -> str:
    """Return the stored name of what ``@app.<sort>`` takes; raises ``UsageError``."""
    if not callable(function):
        raise UsageError(f"@app.{sort} takes a function, not {function!r}; a name goes into name=")
    found = getattr(function, "__name__", None) if name is None else name
    if found is None:
        raise UsageError(f"@app.{sort}: {function!r} has no name of its own; give it one with name=")
    return check_id(f"{sort} name", found)


@overload
def as_duration(value: None, what: str = ...) -> None: ...
@overload
def as_duration(value: dt.timedelta | float, what: str = ...) -> dt.timedelta: ...
def as_duration(value: dt.timedelta | float | None, what: str = "a duration") -> dt.timedelta | None:
    """Return a timedelta for one, or for seconds; raises ``UsageError``, of ``what``, for anything else."""
    if value is None or isinstance(value, dt.timedelta):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{what} is a timedelta or a number of seconds, not {value!r}")
    try:
        return dt.timedelta(seconds=value)
    except (OverflowError, ValueError) as error:  # infinite, not a number, or over 2.7 million years
        raise UsageError(f"{what} is a timedelta or a number of seconds, not {value!r}") from error
