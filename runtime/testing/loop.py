"""An event loop on which nothing is left to chance: for runs that must go the same way every time.

Time is virtual: when nothing is ready, the clock jumps to the next timer. Tasks and futures hash by a
serial number, so that sets of them are walked in the same order in every run.
"""

from __future__ import annotations

import asyncio
import itertools
import selectors
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, TypeVar

from lungfish.runtime.errors import UsageError

T = TypeVar("T")

#: Every turn takes a little time: a sleep too short for a float to show must end, too (s).
_TURN_S: Final = 1e-9


class _JumpingSelector(selectors.DefaultSelector):
    """Never waits: it moves the clock instead."""

    now_s = 1_000.0

    def select(self, timeout: float | None = None) -> list[Any]:
        self.now_s += max(timeout or 0.0, _TURN_S)
        return super().select(0.0 if timeout is not None else None)


class _NumberedFuture(asyncio.Future[T]):
    """A future that hashes by its number."""

    def __init__(self, serial: int, loop: asyncio.AbstractEventLoop) -> None:
        self._serial = serial
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._serial


class _NumberedTask(asyncio.Task[T]):
    """A task that hashes by its number."""

    def __init__(self, serial: int, coroutine: Any, loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        self._serial = serial  # first: the constructor puts the task into a set
        super().__init__(coroutine, loop=loop, **options)

    def __hash__(self) -> int:
        return self._serial


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the top of this module. Real I/O and threads are served, but time does not wait for them."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        # Far from small integers, so that sets of tasks and of numbers do not collide by habit.
        self._serial = itertools.count(1_000_003)
        super().__init__(self._jumping)
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        """Return virtual time (s)."""
        return self._jumping.now_s

    def create_future(self) -> asyncio.Future[Any]:
        """Return a numbered future."""
        return _NumberedFuture(next(self._serial), self)

    def _make_task(
        self,
        loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, T] | Generator[Any, None, T],
        /,
        **options: Any,
    ) -> asyncio.Task[T]:
        return _NumberedTask(next(self._serial), coroutine, loop, **options)


def run_virtually(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine function on a virtual loop of its own, and return its result.

    Raises:
        UsageError: an event loop runs here already.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise UsageError("this runs event loops of its own: call it from a plain test, not from an async one")
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())
