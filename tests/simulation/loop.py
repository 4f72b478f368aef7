"""A deterministic event loop on a virtual clock, for many simulated processes in one thread.

Rules:

* Nothing but the order of calls decides what runs next: no selector, no threads, no real time. When
  nothing is ready, the clock jumps to the next timer. No timer either is a deadlock, and an error.
* Tasks and futures hash by a serial number: sets of them are walked in the same order in every run, in
  every process.
* Every callback belongs to the process in whose context it was made (``GATE``). A frozen process's callbacks
  and timers are held back and run, in order, when it thaws: that is what SIGSTOP looks like. A
  dead one's are dropped: not one more line of its code runs, no ``finally`` either. That is SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, Final, TypeVar

T = TypeVar("T")

#: Callbacks that run without the clock moving before that counts as a livelock.
STUCK_CALLBACKS: Final = 300_000
#: A whole run takes 3,000 to 30,000. Where messages breed (a store that takes repeats) there would be no end.
CALLBACKS_MAX: Final = 400_000


class Deadlock(Exception):
    """Nothing can ever run again, or the clock cannot move."""


class Gate:
    """A simulated process as the loop sees it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.frozen = False
        self.dead = False
        self.held: list[SimHandle] = []


#: The process that runs; not set: the world outside (network, nemesis, checks).
GATE: ContextVar[Gate | None] = ContextVar("simulated_process", default=None)


class SimHandle(asyncio.TimerHandle):
    """A callback, ready or at a time. Does without what asyncio's handles do for debugging."""

    __slots__ = ("gate",)

    def __init__(
        self, when: float, callback: Callable[..., Any], args: tuple[Any, ...], context: Context | None
    ) -> None:
        self._when = when
        self._callback = callback
        self._args = args
        self._context = copy_context() if context is None else context
        self._cancelled = False
        self._repr = None
        self._source_traceback = None
        self.gate = self._context.get(GATE)

    def cancel(self) -> None:
        self._cancelled = True

    def cancelled(self) -> bool:
        return self._cancelled

    def when(self) -> float:
        return self._when

    def run(self) -> None:
        self._context.run(self._callback, *self._args)

    def __repr__(self) -> str:
        return f"<handle {self._callback!r}>"


class SimFuture(asyncio.Future[T]):
    """A future that hashes by its number."""

    __slots__ = ("_serial",)

    def __init__(self, serial: int, *, loop: SimulationLoop) -> None:
        self._serial = serial
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._serial


class SimTask(asyncio.Task[T]):
    """A task that hashes by its number."""

    __slots__ = ("_serial", "gate")

    def __init__(self, serial: int, coroutine: Any, *, loop: SimulationLoop, **options: Any) -> None:
        # First: the constructor puts the task into a set.
        self._serial = serial
        context: Context | None = options.get("context")
        self.gate = GATE.get() if context is None else context.get(GATE)
        super().__init__(coroutine, loop=loop, **options)
        # Tasks of killed processes are never ended; that is the point, and nothing to complain about.
        self._log_destroy_pending = False

    def __hash__(self) -> int:
        return self._serial


class SimulationLoop(asyncio.AbstractEventLoop):
    """See the rules of this module."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.callbacks = 0
        #: What the loop was told of: exceptions that nobody looked at, callbacks that raised.
        self.errors: list[str] = []
        self._ready: deque[SimHandle] = deque()
        self._timers: list[tuple[float, int, SimHandle]] = []
        self._timer_serial = itertools.count()
        # Far from small integers, so that sets of tasks and of numbers do not collide by habit.
        self._serial = itertools.count(1_000_003)
        self._graves: list[asyncio.Task[Any]] = []
        self._closed = False
        self.outside = Context()

    # --- running -----------------------------------------------------------------------

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run until ``main`` ends and return its result.

        Raises:
            Deadlock: nothing is ready and there is no timer, the clock stands still for too long, or there is
            no end to it.
        """
        asyncio._set_running_loop(self)
        try:
            task = self.create_task(main, name="main", context=self.outside)
            self._run_until(task)
            result: T = task.result()
            return result
        finally:
            asyncio._set_running_loop(None)

    def _run_until(self, task: asyncio.Task[Any]) -> None:
        ready, timers = self._ready, self._timers
        stuck_at = STUCK_CALLBACKS
        while not task.done():
            if not ready:
                self._next_timers(timers)
                stuck_at = self.callbacks + STUCK_CALLBACKS
            handle = ready.popleft()
            if handle._cancelled:
                continue
            gate = handle.gate
            if gate is not None and (gate.dead or gate.frozen):
                if not gate.dead:
                    gate.held.append(handle)
                continue
            self.callbacks += 1
            try:
                handle.run()
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self.errors.append(f"{handle!r} raised {error!r}")
            if self.callbacks > CALLBACKS_MAX:
                raise Deadlock(f"no end after {CALLBACKS_MAX:,} callbacks, at {self.now_s} s")
            if self.callbacks > stuck_at:
                raise Deadlock(f"{STUCK_CALLBACKS} callbacks at {self.now_s} s\n{self.describe_tasks()}")

    def _next_timers(self, timers: list[tuple[float, int, SimHandle]]) -> None:
        """Move the clock to the next timers and make them ready."""
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if not timers:
            raise Deadlock(f"nothing can run any more at {self.now_s} s\n{self.describe_tasks()}")
        self.now_s = max(self.now_s, timers[0][0])
        while timers and timers[0][0] <= self.now_s:
            handle = heapq.heappop(timers)[2]
            if not handle._cancelled:
                self._ready.append(handle)
        if not self._ready:
            self._next_timers(timers)

    def describe_tasks(self) -> str:
        """Return what every task waits for."""
        lines = []
        for task in self._tasks():
            gate = gate_of(task)
            frames = task.get_stack(limit=4)
            where = " < ".join(f"{f.f_code.co_name}:{f.f_lineno}" for f in reversed(frames))
            lines.append(f"  {gate.name if gate else ''} {task.get_name()}: {where}")
        return "\n".join(lines)

    # --- processes ---------------------------------------------------------------------

    def start_process(self, gate: Gate, main: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a process: ``main`` and all that it starts belong to ``gate``."""
        context = self.outside.copy()
        context.run(GATE.set, gate)
        return self.create_task(main, name=f"{gate.name} main", context=context)

    def freeze(self, gate: Gate) -> None:
        """Stop a process in its tracks; its timers go on and are late."""
        gate.frozen = True

    def thaw(self, gate: Gate) -> None:
        """Let a frozen process go on."""
        gate.frozen = False
        if not gate.dead:
            self._ready.extend(gate.held)
        gate.held = []

    def kill(self, gate: Gate) -> None:
        """End a process between two of its instructions."""
        gate.dead = True
        gate.held = []
        # Kept: a task that nobody refers to would be closed, and run its ``finally`` blocks.
        self._graves += self.tasks_of(gate)

    def tasks_of(self, gate: Gate) -> list[asyncio.Task[Any]]:
        """Return the unfinished tasks of a process, oldest first."""
        return [task for task in self._tasks() if gate_of(task) is gate]

    def _tasks(self) -> list[asyncio.Task[Any]]:
        return sorted(asyncio.all_tasks(self), key=hash)

    def close(self) -> None:
        """End everything; nothing that code does while it is torn down has an effect."""
        self._closed = True
        # Code that is torn down finds a loop, or asyncio would make a real one for it.
        asyncio._set_running_loop(self)
        try:
            for task in sorted({*self._tasks(), *self._graves}, key=hash):
                coroutine = task.get_coro()
                if coroutine is not None:
                    with contextlib.suppress(BaseException):
                        coroutine.close()
        finally:
            asyncio._set_running_loop(None)
        self._ready.clear()
        self._timers.clear()
        self._graves.clear()

    # --- asyncio's side ------------------------------------------------------------------

    def time(self) -> float:
        return self.now_s

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> SimHandle:
        handle = SimHandle(self.now_s, callback, args, context)
        if not self._closed:
            self._ready.append(handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> SimHandle:
        handle = SimHandle(when, callback, args, context)
        if not self._closed:
            heapq.heappush(self._timers, (when, next(self._timer_serial), handle))
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> SimHandle:
        return self.call_at(self.now_s + max(0.0, delay), callback, *args, context=context)

    def create_future(self) -> SimFuture[Any]:
        return SimFuture(next(self._serial), loop=self)

    def create_task(self, coroutine: Any, **options: Any) -> SimTask[Any]:  # type: ignore[override]
        return SimTask(next(self._serial), coroutine, loop=self, **options)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._closed:
            self.errors.append(f"{context.get('message')}: {context.get('exception')!r}")

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self._closed

    def is_closed(self) -> bool:
        return self._closed


def gate_of(task: asyncio.Task[Any]) -> Gate | None:
    """Return the process that a task belongs to."""
    if isinstance(task, SimTask):
        return task.gate
    # Made without the loop's help (eager tasks, from Python 3.12 on; that is also what can tell its context).
    context: Context = task.get_context()  # type: ignore[attr-defined, unused-ignore]
    return context.get(GATE)


def new_loop() -> SimulationLoop:
    """Return a loop at time 0; it lacks what asyncio's have for I/O, on purpose."""
    return SimulationLoop()  # type: ignore[abstract]
