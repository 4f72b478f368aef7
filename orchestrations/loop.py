"""A deterministic event loop: asyncio without I/O, clocks and chance.

Rules:

* The loop runs *inside* a callback of the host's running loop: it makes itself the running loop, empties its
  ready queue, and puts the host's loop back. No thread, no nesting of ``run_until_complete``.
* First in, first out. Nothing else decides the order: no clock, no selector, no set of addresses.
* ``time()`` is the time of the turn. ``call_at`` beyond it is a durable timer; that makes ``asyncio.sleep``,
  ``timeout`` and ``wait_for`` durable.
* Whatever would do I/O, use threads or wait for the outside raises ``NotDurable``.
* A dropped orchestration is closed with ``dispose``: its coroutines get ``GeneratorExit``, and from then
  on nothing they do has an effect.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import math
import sys
import types
import weakref
from asyncio import events
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Generator, Iterator
from typing import Any, Final, NoReturn, Protocol, TypeVar, TypeVarTuple

from lungfish.runtime.errors import LimitExceeded, NotDurable, ReadOnly, UsageError

from . import ambient
from .limits import LATEST_MS
from .matching import user_line

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

log = logging.getLogger("lungfish.orchestrations")

#: How often a coroutine that answers ``GeneratorExit`` with another ``await`` is closed again.
_CLOSES_MAX: Final = 100
#: Coroutines that could not be closed. Were they collected, Python would complain at some later time.
_UNCLOSABLE: Final[list[Any]] = []


class DurableTimers(Protocol):
    """Where the loop gets its timers from."""

    def create_loop_timer(self, due_ms: int) -> int:
        """Create a durable timer and return its id."""
        ...

    def cancel_loop_timer(self, timer_id: int) -> None:
        """Cancel a timer that has not fired."""
        ...


class _Handle(asyncio.Handle):
    """A callback in the ready queue; unlike its base it does not ask the loop for debug mode each time."""

    __slots__ = ()

    def __init__(
        self,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
        loop: DeterministicLoop,
        context: contextvars.Context | None,
    ) -> None:
        self._context = contextvars.copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None


class _NoCallbacks(deque[asyncio.Handle]):
    """The ready queue while somebody may only look."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def append(self, _: asyncio.Handle) -> None:
        raise ReadOnly(f"the {self.what} may only look: it must not wake up, cancel or start anything")


class _TimerHandle(asyncio.TimerHandle):
    """A callback that waits for a durable timer."""

    __slots__ = ("timer_id",)

    timer_id: int


class LoopFuture(asyncio.Future[T]):
    """A future with a deterministic hash."""

    __slots__ = ("_number",)

    def __init__(self, *, loop: DeterministicLoop) -> None:
        super().__init__(loop=loop)
        self._number = loop.next_number()

    def __hash__(self) -> int:
        return self._number


class LoopTask(asyncio.Task[T]):
    """A task with a deterministic hash, which may be dropped while it is pending."""

    __slots__ = ("_number",)

    def __init__(self, coroutine: Any, *, loop: DeterministicLoop, **options: Any) -> None:
        # The number comes first: the constructor puts the task into sets.
        self._number = loop.next_number()
        super().__init__(coroutine, loop=loop, **options)
        self._log_destroy_pending = False

    def __hash__(self) -> int:
        return self._number


class DeterministicLoop(asyncio.AbstractEventLoop):
    """The event loop of one execution of an orchestration."""

    #: See ``ambient``.
    runs_orchestration = True

    def __init__(self, timers: DurableTimers, salt: int = 0, *, watched: bool = False) -> None:
        """Make an idle loop.

        Args:
            timers: makes durable timers.
            salt: differs between executions, so that the hashes of their tasks do, too: all tasks
                of a process meet in one set of asyncio's.
            watched: notice clocks and chance, slowly; see ``ambient``.
        """
        self._watched = watched
        self.now_ms = 0
        self._timers = timers
        self._ready: deque[asyncio.Handle] = deque()
        self._waiting: dict[int, _TimerHandle] = {}
        self._number = salt << 28
        self._first_number = self._number
        self._tasks: list[LoopTask[Any]] = []
        self._tasks_checked = 64
        self._generators: weakref.WeakSet[AsyncGenerator[Any, Any]] = weakref.WeakSet()
        self._ordered: dict[int, asyncio.Task[Any]] = {}
        self._disposed = False

    # --- run ---

    def run_until_idle(self, main: asyncio.Task[Any], steps_max: int) -> None:
        """Run callbacks until none is ready or ``main`` is done.

        Raises:
            LimitExceeded: more than ``steps_max`` callbacks: the code is busy waiting.
        """
        ready = self._ready
        outer = self._enter()
        profile = ambient.watch_calls() if self._watched else None
        try:
            for _ in range(steps_max):
                if not ready or main.done():
                    return
                handle = ready.popleft()
                if handle._cancelled:
                    continue
                try:
                    handle._context.run(handle._callback, *handle._args)  # type: ignore[attr-defined]
                except (SystemExit, KeyboardInterrupt):
                    # The task of the step has it as its exception; asyncio raises it again to stop the
                    # loop. User code must not stop the host.
                    continue
                except BaseException as error:
                    self.call_exception_handler({"message": f"exception in {handle!r}", "exception": error})
        finally:
            if self._watched:
                ambient.unwatch_calls(profile)
            self._leave(outer)
        raise LimitExceeded(
            f"the orchestration ran {steps_max:,} steps without waiting for anything durable: it is in a "
            "busy loop. Wait with ctx.sleep, a timer, an event or an activity."
        )

    def _enter(self) -> tuple[asyncio.AbstractEventLoop | None, Any]:
        outer = events._get_running_loop(), sys.get_asyncgen_hooks()
        events._set_running_loop(self)
        # Else the host's loop would finish abandoned async generators, as tasks of its own.
        sys.set_asyncgen_hooks(firstiter=self._generators.add, finalizer=self._finish_generator)
        return outer

    def _leave(self, outer: tuple[asyncio.AbstractEventLoop | None, Any]) -> None:
        events._set_running_loop(outer[0])
        sys.set_asyncgen_hooks(*outer[1])

    def fire(self, timer_id: int) -> bool:
        """Make the callback of a timer ready; False if it does not wait any more."""
        handle = self._waiting.pop(timer_id, None)
        if handle is not None:
            self._ready.append(handle)
        return handle is not None

    @contextlib.contextmanager
    def frozen(self, what: str) -> Iterator[None]:
        """Be the running loop of code that may only look: whatever it schedules raises ``ReadOnly``."""
        ready, self._ready = self._ready, _NoCallbacks(what)
        outer = self._enter()
        try:
            yield
        finally:
            self._leave(outer)
            self._ready = ready

    @property
    def waits(self) -> bool:
        """Whether a durable timer of this loop has not fired."""
        return bool(self._waiting)

    def next_number(self) -> int:
        """Return the next number, for a hash."""
        self._number += 1
        return self._number

    # --- what asyncio uses ---

    def time(self) -> float:
        """Return the time of the turn (Unix seconds): the same at every replay."""
        return self.now_ms / 1000

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Run a callback after those that are ready."""
        handle = _Handle(callback, args, self, context)
        if not self._disposed or self._ready.__class__ is _NoCallbacks:
            self._ready.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run a callback after ``delay`` seconds, by a durable timer."""
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run a callback at ``when`` (Unix seconds), by a durable timer."""
        handle = _TimerHandle(when, callback, args, self, context)
        handle.timer_id = 0
        # Rounded up: never early. Floats of this size are exact to a quarter of a microsecond only.
        due_ms = math.ceil(round(when * 1000, 2)) if when < LATEST_MS / 1000 else _latest_ms(when)
        if self._disposed and self._ready.__class__ is not _NoCallbacks:
            return handle
        if due_ms <= self.now_ms:
            self._ready.append(handle)
        else:
            handle.timer_id = self._timers.create_loop_timer(due_ms)
            self._waiting[handle.timer_id] = handle
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        assert isinstance(handle, _TimerHandle)
        if self._waiting.pop(handle.timer_id, None) is not None and not self._disposed:
            self._timers.cancel_loop_timer(handle.timer_id)

    def create_future(self) -> asyncio.Future[Any]:
        """Return a new future of this loop."""
        return LoopFuture(loop=self)

    def create_task(
        self,
        coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
        **_options: Any,
    ) -> asyncio.Task[T]:
        """Return a new task; it starts when those before it have run (never eagerly)."""
        if self._disposed or isinstance(self._ready, _NoCallbacks):
            coro.close()
            self.call_soon(_nothing)  # the refusal, if nothing may be started just now
            raise GeneratorExit
        if sys._getframe(1).f_code in _ENSURE_FUTURE:
            ordered = self._task_of_as_completed(coro)
            if ordered is not None:
                return ordered
        return self._new_task(coro, name, context)

    def _new_task(self, coro: Any, name: str | None, context: contextvars.Context | None) -> LoopTask[Any]:
        name = name or f"task-{self._number - self._first_number + 1}"
        task: LoopTask[Any] = LoopTask(coro, loop=self, name=name, context=context)
        # Kept: asyncio itself has weak references only, and when a forgotten task is collected is chance.
        self._tasks.append(task)
        if len(self._tasks) > self._tasks_checked:
            self._tasks = [task for task in self._tasks if not task.done()]
            self._tasks_checked = 64 + 2 * len(self._tasks)
        return task

    def _task_of_as_completed(self, coro: Any) -> asyncio.Task[Any] | None:
        """Return the task of a coroutine given to ``as_completed``, which makes them in the order of a set.

        Coroutines hash by address. So with the first, the tasks of all are made, in the caller's order.
        """
        if self._ordered:
            found = self._ordered.pop(id(coro), None)
            if found is not None:
                return found
        frame: types.FrameType | None = sys._getframe(2)
        for _ in range(4):
            if frame is None or frame.f_code in _AS_COMPLETED:
                break
            frame = frame.f_back
        if frame is None or frame.f_code not in _AS_COMPLETED:
            return None
        given = frame.f_locals.get("aws", frame.f_locals.get("fs"))
        if not isinstance(given, Collection) or isinstance(given, set | frozenset):
            for each in given if isinstance(given, Collection) else (coro,):
                close_quietly(each)  # or Python would complain later that it was never awaited
            raise UsageError(
                "asyncio.as_completed in an orchestration takes a list of coroutines: a set or a generator "
                f"({type(given).__name__}) has no order that replay could repeat"
            )
        self._ordered = {
            id(each): self._new_task(each, None, None)
            for each in dict.fromkeys(given)
            if asyncio.iscoroutine(each)
        }
        return self._ordered.pop(id(coro), None)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Log what asyncio cannot raise anywhere."""
        if not self._disposed:
            log.error("in an orchestration: %s", context.get("message"), exc_info=context.get("exception"))

    def is_running(self) -> bool:
        """Return True: whoever can ask runs in it."""
        return True

    def is_closed(self) -> bool:
        """Tell whether the execution was dropped."""
        return self._disposed

    def get_debug(self) -> bool:
        """Return False: asyncio's debug mode looks at clocks."""
        return False

    def get_task_factory(self) -> None:
        """Return None: tasks are this loop's own, and never eager."""

    def get_exception_handler(self) -> None:
        """Return None: exceptions are logged."""

    # --- drop ---

    def dispose(self) -> None:
        """Close every coroutine. What they do on the way out has no effect; they may not wait."""
        if self._disposed:
            return
        self._disposed = True
        self._ready.clear()
        outer = self._enter()
        try:
            for task in self._tasks:
                if not task.done():
                    close_quietly(task.get_coro())
            for generator in list(self._generators):
                close_quietly(generator.aclose())
        finally:
            self._leave(outer)
        self._ready.clear()
        self._waiting.clear()
        self._tasks.clear()
        self._ordered.clear()

    def _finish_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        if self._disposed:
            close_quietly(generator.aclose())
        else:
            _ = self._new_task(generator.aclose(), None, None)


def close_quietly(coroutine: Any) -> None:
    """Close a coroutine or generator that may answer with further awaits, and may raise anything."""
    for _ in range(_CLOSES_MAX):
        try:
            coroutine.close()
        except RuntimeError as error:
            if "ignored GeneratorExit" in str(error):
                continue  # it awaits something in a ``finally``: not any more
            return
        except BaseException:
            return
        return
    log.warning("an orchestration's coroutine cannot be closed, it ignores GeneratorExit: %r", coroutine)
    _UNCLOSABLE.append(coroutine)


def _nothing() -> None:
    return None


def running_loop(what: str) -> DeterministicLoop:
    """Return the running orchestration's loop; raises ``UsageError`` outside of one."""
    loop = events._get_running_loop()
    if not isinstance(loop, DeterministicLoop):
        raise UsageError(f"{what} works inside an orchestration only")
    return loop


def _codes(*functions: Any) -> frozenset[types.CodeType]:
    return frozenset(function.__code__ for function in functions if isinstance(function, types.FunctionType))


_ENSURE_FUTURE: Final = _codes(asyncio.ensure_future, getattr(asyncio.tasks, "_ensure_future", None))
_AS_COMPLETED: Final = _codes(
    asyncio.as_completed,
    getattr(getattr(asyncio.tasks, "_AsCompletedIterator", None), "__init__", None),
)


def _latest_ms(when: float) -> int:
    """Return when a wait without an end ends (``asyncio.sleep(math.inf)``), if it is given as a number."""
    if math.isnan(when):
        raise ValueError("a time is a number of seconds, not NaN")
    return LATEST_MS


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(_self: DeterministicLoop, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise NotDurable(
            f"loop.{name}() at {user_line()} cannot be used in an orchestration: replay would not "
            "repeat it. Put I/O, threads and waiting for the outside into an activity and await "
            "ctx.call_activity(...)."
        )

    refuse.__name__ = name
    return refuse


for _name in dir(asyncio.AbstractEventLoop):
    if not _name.startswith("_") and _name not in vars(DeterministicLoop):
        setattr(DeterministicLoop, _name, _refusal(_name))
