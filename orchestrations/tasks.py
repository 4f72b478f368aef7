"""What a context's methods return, and how such tasks are combined.

Rules:

* A task is a future of the orchestration's own loop. ``await`` it, ``yield`` it from a generator, or give
  it to anything in asyncio.
* Sets of tasks iterate in the same order at every replay: a task's hash is its number in the execution, not
  its address. Without that, ``asyncio.wait`` and ``TaskGroup`` would not be deterministic.
* A cancelled task consumes nothing: what arrives for it later is passed over.
* A failure that nobody looks at is not reported as asyncio does: the losers of a race may fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar, overload

from lungfish.runtime.errors import LungfishError, UsageError

from .loop import DeterministicLoop, LoopFuture, running_loop

T = TypeVar("T")


class Task(LoopFuture[T]):
    """Something durable that an orchestration waits for.

    Attributes:
        id: sequence id in the history; 0 for what takes none (external events, combinations).
        what: names it in messages, e.g. ``activity 'ship'``.
        since_ms: since when it is waited for (the execution's time).
    """

    __slots__ = ("_decode", "_on_cancel", "id", "since_ms", "what")

    def __init__(
        self,
        loop: DeterministicLoop,
        what: str,
        *,
        id: int = 0,
        decode: Callable[[bytes | None], T] | None = None,
        on_cancel: Callable[[Task[Any]], None] | None = None,
    ) -> None:
        super().__init__(loop=loop)
        self.id = id
        self.what = what
        self.since_ms = loop.now_ms
        self._decode = decode
        self._on_cancel = on_cancel

    def cancel(self, msg: Any | None = None) -> bool:
        """Stop waiting for it; return False if it has ended already.

        A timer is cancelled in the store, and an activity is not tried again; an attempt, an entity's
        operation or a sub-orchestration that runs already goes on, and its outcome is passed over.
        """
        if not super().cancel(msg):
            return False
        if self._on_cancel is not None:
            self._on_cancel(self)
        return True

    def complete(self, payload: bytes | None) -> None:
        """Set the result from its stored form; what cannot be decoded becomes the failure."""
        assert self._decode is not None
        try:
            result = self._decode(payload)
        except LungfishError as error:
            self.fail(error)
        else:
            self.set_result(result)

    def fail(self, error: BaseException) -> None:
        """Set the failure."""
        self.set_exception(error)
        self._log_traceback = False

    def __repr__(self) -> str:
        state = "cancelled" if self.cancelled() else "done" if self.done() else "pending"
        return f"<{self.what} {state}>"


@overload
def when_all(*tasks: Awaitable[T]) -> Task[list[T]]: ...
@overload
def when_all(tasks: Iterable[Awaitable[T]], /) -> Task[list[T]]: ...
def when_all(*tasks: Any) -> Task[Any]:
    """Wait for all, also if some fail; then return the results in the order given.

    If any failed, the first failure (in time) is raised once all have ended. No tasks at all are complete at
    once. Cancelling it cancels the tasks, as with ``asyncio.gather``.
    """
    parts = _futures(tasks, "when_all")
    together: Task[Any] = Task(running_loop("when_all"), "when_all", on_cancel=lambda _: _cancel_all(parts))
    left = len(parts)
    first: BaseException | None = None

    def part_ended(part: asyncio.Future[Any]) -> None:
        nonlocal left, first
        left -= 1
        first = first or _failure_of(part)
        if left == 0 and not together.done():
            if first is None:
                together.set_result([each.result() for each in parts])
            else:
                together.fail(first)

    for part in parts:
        part.add_done_callback(part_ended)
    if not parts:
        together.set_result([])
    return together


@overload
def when_any(*tasks: asyncio.Future[T]) -> Task[asyncio.Future[T]]: ...
@overload
def when_any(tasks: Iterable[asyncio.Future[T]], /) -> Task[asyncio.Future[T]]: ...
@overload
def when_any(*tasks: Awaitable[Any]) -> Task[asyncio.Future[Any]]: ...
@overload
def when_any(tasks: Iterable[Awaitable[Any]], /) -> Task[asyncio.Future[Any]]: ...
def when_any(*tasks: Any) -> Task[Any]:
    """Wait for the first to end, well or badly, and return that task itself.

    The others keep running and do not delay the orchestration's end; cancel them if they are not needed.

    Raises:
        UsageError: no tasks: it would wait for ever.
    """
    parts = _futures(tasks, "when_any")
    if not parts:
        raise UsageError("when_any of no tasks would wait for ever")
    race: Task[Any] = Task(running_loop("when_any"), "when_any")

    def part_ended(part: asyncio.Future[Any]) -> None:
        _failure_of(part)
        if not race.done():
            race.set_result(part)

    # A task that has ended already wins at once: the first of them in the order given.
    ended = next((part for part in parts if part.done()), None)
    if ended is not None:
        race.set_result(ended)
    for part in parts:
        part.add_done_callback(part_ended)
    return race


def _futures(tasks: tuple[Any, ...], where: str) -> list[asyncio.Future[Any]]:
    if len(tasks) == 1 and not isinstance(tasks[0], Awaitable):
        tasks = tuple(tasks[0])
    loop = running_loop(where)
    futures: dict[Any, asyncio.Future[Any]] = {}
    for task in tasks:  # the same coroutine given twice must become one task
        if not isinstance(task, Awaitable):
            raise UsageError(f"{where} takes tasks, not {task!r}")
        if task not in futures:
            futures[task] = asyncio.ensure_future(task, loop=loop)
    return [futures[task] for task in tasks]


def _failure_of(part: asyncio.Future[Any]) -> BaseException | None:
    return asyncio.CancelledError() if part.cancelled() else part.exception()


def _cancel_all(parts: Iterable[asyncio.Future[Any]]) -> None:
    for part in parts:
        part.cancel()
