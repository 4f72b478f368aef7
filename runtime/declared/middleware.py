"""Middleware: what users put around operations, around what is sent, and around attempts of activities.

Rules:

* In the order of registration, the first one outermost.
* Two forms. A generator function that yields once goes around anything and never waits. An ``async def``
  with ``call_next`` may wait, and sees the result.
* A success cannot be made of a failure: what failed was rolled back, or will be. What a middleware swallows
  is raised again. It may raise something else instead.
* What is inside runs at most once, and has ended when the middleware ends.
* Where there is none, nothing of this is in the way: see who calls it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Final, Literal, Protocol, TypeAlias, TypeVar

from lungfish.runtime.errors import UsageError

S = TypeVar("S")

#: What is sent.
Sort: TypeAlias = Literal["call", "signal", "start", "event"]


class CallNext(Protocol):
    """Runs what is inside of a middleware, once, and returns its result: ``await call_next()``."""

    def __call__(self) -> Awaitable[Any]:
        """Run it; raises ``UsageError`` the second time."""
        ...


#: ``async def middleware(subject, call_next)``: returns the result.
Waiting: TypeAlias = Callable[[S, CallNext], Coroutine[Any, Any, Any]]
#: ``def middleware(subject)``: yields once, where what is inside runs.
Yielding: TypeAlias = Callable[[S], Iterator[None]]


@dataclass(frozen=True, slots=True)
class Incoming:
    """An operation of an entity that is about to run; what ``App.operation_middleware`` is given.

    Attributes:
        kind: a ``"call"`` waits for the result; nobody waits for a ``"signal"`` or a ``"reminder"``.
        name, key: of the entity.
        operation: its name.
        args, kwargs: what it is called with.
        headers: what the message came with; nothing of it was checked by anybody.
        caller: who asked, as ``EntityContext.caller``: ``"Counter/hits"``, an instance id, ``"client …"``;
            None: a client's signal, or a reminder.
        is_shared: it only reads.
        entity: the entity as the operation sees it; its ``context`` may be used. What is changed here is a
            part of what the operation changes, and rolled back with it.
    """

    kind: Literal["call", "signal", "reminder"]
    name: str
    key: str
    operation: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    headers: Mapping[str, str]
    caller: str | None
    is_shared: bool
    entity: Any


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Something that is about to be sent; what ``App.sending_middleware`` is given.

    Attributes:
        kind: a ``"call"`` waits for the result, a ``"signal"`` does not; a ``"start"`` is of an
            orchestration, an ``"event"`` for one.
        name: of the entity, or of the orchestration; empty for an event.
        key: of the entity, or the id of the instance.
        operation: of the entity, or name of the event; empty for a start.
        headers: what it takes along. Set and delete what you like, before you let it go on.
        sender: the entity whose operation sends it (``"Counter/hits"``); None: a client.
    """

    kind: Sort
    name: str
    key: str
    operation: str
    headers: dict[str, str]
    sender: str | None = None


@dataclass(frozen=True, slots=True)
class Middleware:
    """A registered middleware, of one of the two forms."""

    function: Callable[..., Any]
    name: str
    is_async: bool

    @classmethod
    def of(cls, function: Any, *, may_wait: bool = True) -> Middleware:
        """Check a function that somebody wants to have as middleware.

        Raises:
            UsageError: it is neither of the two forms, or it may wait and must not.
        """
        name = getattr(function, "__qualname__", None) or repr(function)
        forms = (function, getattr(function, "__call__", None))  # noqa: B004 - an object may be one, too
        is_async = any(map(inspect.iscoroutinefunction, forms))
        if not is_async and not any(map(inspect.isgeneratorfunction, forms)):
            raise UsageError(
                f"middleware {name} is neither of: a generator function of one parameter, which yields once; "
                "an 'async def' of two, the second of which is call_next"
            )
        if is_async and not may_wait:
            raise UsageError(
                f"middleware {name} must not be async here, as an attempt may run in a thread: write a "
                "generator function, which yields once"
            )
        try:
            inspect.signature(function).bind(*([None] * (1 + is_async)))
        except TypeError as error:
            given = "the subject and call_next" if is_async else "the subject"
            raise UsageError(f"middleware {name} is called with {given}: {error}") from error
        return cls(function, name, is_async)


#: All middleware of one sort, outermost first.
Chain: TypeAlias = tuple[Middleware, ...]


def may_wait(chain: Chain) -> bool:
    """Tell whether one of them is async."""
    return any(each.is_async for each in chain)


def at_once(chain: Chain) -> Chain:
    """Return those that never wait."""
    return tuple(each for each in chain if not each.is_async)


def run_through(chain: Chain, subject: Any, work: Callable[[], Any], at: int = 0) -> Any:
    """Call ``work`` inside of middleware of which none is async, and return what it returned."""
    if at == len(chain):
        return work()
    with _Entered(chain[at], subject):
        return run_through(chain, subject, work, at + 1)


async def wait_through(chain: Chain, subject: Any, work: CallNext, at: int = 0) -> Any:
    """Call and await ``work`` inside of middleware, and return what the outermost one returns."""
    if at == len(chain):
        return await work()
    one, rest = chain[at], partial(wait_through, chain, subject, work, at + 1)
    if not one.is_async:
        with _Entered(one, subject):
            return await rest()
    following = _Following(one.name, rest)
    value = await one.function(subject, following)
    following.check()
    return value


_STOPPED: Final = object()


class _Entered:
    """A generator at its ``yield``."""

    __slots__ = ("_generator", "_name")

    def __init__(self, middleware: Middleware, subject: Any) -> None:
        self._generator = middleware.function(subject)
        self._name = middleware.name

    def __enter__(self) -> None:
        if next(self._generator, _STOPPED) is _STOPPED:
            raise UsageError(
                f"middleware {self._name} ended before its yield: to refuse, raise lungfish.Refused"
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            if next(self._generator, _STOPPED) is _STOPPED:
                return
        else:
            try:
                self._generator.throw(error)
            except StopIteration:
                return
            except BaseException as raised:
                if raised is error or (isinstance(error, StopIteration) and raised.__cause__ is error):
                    error.__traceback__ = trace  # without the way through the middleware
                    return
                raise
        self._generator.close()
        raise UsageError(f"middleware {self._name} yields more than once")


class _Following:
    """``call_next`` of one middleware."""

    __slots__ = ("_begun", "_ended", "_error", "_name", "_rest")

    def __init__(self, name: str, rest: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._name = name
        self._rest = rest
        self._begun: Coroutine[Any, Any, Any] | None = None
        self._ended = False
        self._error: BaseException | None = None

    def __call__(self) -> Coroutine[Any, Any, Any]:
        if self._begun is not None:
            raise UsageError(f"middleware {self._name} calls call_next twice: what is inside runs once")
        self._begun = self._run()
        return self._begun

    async def _run(self) -> Any:
        try:
            return await self._rest()
        except BaseException as error:
            self._error = error
            raise
        finally:
            self._ended = True

    def check(self) -> None:
        """Raise what was swallowed; and ``UsageError`` if what was begun goes on, or was stopped."""
        if isinstance(self._error, asyncio.CancelledError) and not _is_cancelled():
            # As it is, it would end a task that nobody has cancelled, and nobody would hear of it.
            raise UsageError(
                f"middleware {self._name} stopped what it called, and returned as if that had ended: "
                "after a time-out of its own it raises an error"
            ) from self._error
        if self._error is not None:
            raise self._error
        if self._begun is not None and not self._ended:
            if inspect.getcoroutinestate(self._begun) == inspect.CORO_CREATED:
                self._begun.close()
            raise UsageError(f"middleware {self._name} ended before what it called: await call_next()")


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
