"""Running attempts of activities: where a user's function is called, and what comes of it.

Rules:

* Every attempt that ends is reported exactly once, whatever the function did: a result, a failure
  (also for ``SystemExit`` and the like: a function cannot end the worker), or a time-out.
* An attempt that is *abandoned* reports nothing: its queue entry is given to another worker.
* A slot is free when the function has really ended. A time-out is reported at once, but a
  function in a thread cannot be interrupted and keeps its slot; freeing it would let
  functions that hang pile up without a bound.
* A failure takes the last heartbeat's details along, for the next attempt.
* An attempt that is silent for longer than it may is a failure, too. Silence is noticed late by at most a
  quarter of that.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Protocol

from lungfish.runtime import codec
from lungfish.runtime.declared.activity_info import ActivityInfo, Pulse, current_activity
from lungfish.runtime.declared.app import App
from lungfish.runtime.declared.definitions import Activity
from lungfish.runtime.declared.middleware import run_through, wait_through
from lungfish.runtime.errors import FailureDetails, LungfishError
from lungfish.runtime.messages.headers import adopt
from lungfish.runtime.messages.messages import ActivityResult, ActivityTask
from lungfish.runtime.messages.tracing import LiveSpan
from lungfish.runtime.store.queues import split_lane

from . import traced_attempts

logger = logging.getLogger(__name__)

#: How long functions that are cancelled may take to clean up.
CANCEL_S: Final = 1.0


class Launcher(Protocol):
    """Runs attempts elsewhere: as Ray tasks, with resources of their own."""

    async def run(
        self, activity: Activity[Any, Any], args: list[Any], kwargs: dict[str, Any], info: ActivityInfo
    ) -> Any:
        """Run one attempt and return the function's value; raise what it raised.

        Cancelled when the attempt's time is up or the worker stops: the run must end then, too.
        """
        ...


@dataclass(slots=True, eq=False)
class Attempt:
    """An attempt in this worker.

    Attributes:
        entry: (queue, id) of its queue entry.
        closed: its outcome was reported, or is not to be reported by this worker.
        kept: how many of its heartbeats were seen when its details were last stored.
        began_s: when it began (the loop's time).
        span: of the attempt, if it is traced.
    """

    entry: tuple[str, str]
    task: ActivityTask
    pulse: Pulse = field(default_factory=Pulse)
    closed: bool = False
    timer: asyncio.TimerHandle | None = None
    silence: asyncio.TimerHandle | None = None
    work: asyncio.Task[None] | None = None
    kept: int = 0
    began_s: float = 0.0
    span: LiveSpan | None = None

    @property
    def info(self) -> ActivityInfo:
        """What the activity sees of the attempt."""
        return ActivityInfo.of(self.task, split_lane(self.entry[0])[0], self.pulse)

    def stop_timers(self) -> None:
        """Time does not count any more."""
        for timer in (self.timer, self.silence):
            if timer is not None:
                timer.cancel()

    def trace(self, app: App) -> None:
        """Begin its span, if it is traced."""
        self.span = traced_attempts.begin(app, self.task, self.entry[0])
        if self.span is not None:
            self.task = traced_attempts.below(self.span, self.task)

    def enter(self, app: App) -> None:
        """Set what comes with it in the context that its function is called in; raises ``UsageError``."""
        current_activity.set(self.info)
        adopt(app.carried, self.task.headers)
        if app.tracing is not None:
            traced_attempts.enter(app, self.task, self.span)


class AttemptRunner:
    """Runs attempts and tells what comes of them; used from one event loop."""

    def __init__(
        self,
        app: App,
        *,
        executor: Executor | None,
        launcher: Launcher | None,
        report: Callable[[Attempt, ActivityResult], None],
        freed: Callable[[], None],
    ) -> None:
        """Make a runner.

        Args:
            executor: threads for sync functions, at least as many as attempts are started
                at once; None runs them on the loop (simulations).
            launcher: runs activities that ask for resources; None runs them like others.
            report: called once per attempt, with its outcome.
            freed: called when attempts have really ended: there is room for others.
        """
        self._app = app
        self._executor = executor
        self._launcher = launcher
        self._report = report
        self._freed = freed
        #: A dict for its order: a run is repeatable.
        self._running: dict[Attempt, None] = {}
        #: What threads have finished. A deque: its methods are atomic.
        self._ended: deque[tuple[Attempt, ActivityResult]] = deque()
        self._collecting = False

    def __len__(self) -> int:
        return len(self._running)

    @property
    def open(self) -> list[Attempt]:
        """The attempts that run and whose outcome somebody waits for."""
        return [attempt for attempt in self._running if not attempt.closed]

    def begin(self, attempt: Attempt) -> None:
        """Start an attempt; never raises."""
        self._running[attempt] = None
        if self._app.tracing is not None:
            attempt.trace(self._app)
        task = attempt.task
        loop = asyncio.get_running_loop()
        activity = self._app.activities.get(task.name)
        attempt.began_s = loop.time()
        if attempt.pulse.details is None:
            attempt.pulse.details = task.details
        if task.timeout_ms > 0:
            attempt.timer = loop.call_later(task.timeout_ms / 1000, self._time_out, attempt, _too_long)
        if task.heartbeat_ms > 0:
            self._listen(attempt, attempt.pulse.beats, attempt.began_s)
        if activity is None:
            loop.call_soon(self._refuse, attempt)
        elif activity.settings.resources and self._launcher is not None:
            attempt.work = loop.create_task(self._launch(attempt, activity, self._launcher))
        elif activity.is_async:
            attempt.work = loop.create_task(self._run_async(attempt, activity))
        elif self._executor is None:
            loop.call_soon(self._run_here, attempt, activity, context=copy_context())
        else:
            self._submit(attempt, activity, self._executor, loop)

    async def abandon(self) -> None:
        """Cancel what runs, and report nothing of it. Threads go on, unheard."""
        works = [attempt.work for attempt in self._running if attempt.work is not None]
        for attempt in self._running:
            attempt.closed = True
            attempt.pulse.cancelled = "its worker stops; another one runs it again"
            attempt.stop_timers()
        for work in works:
            work.cancel()
        if works:
            await asyncio.wait(works, timeout=CANCEL_S)

    def cancel(self, attempt: Attempt, why: str) -> None:
        """End an attempt whose outcome nobody waits for, and report nothing of it.

        A function in a thread is told, and keeps its slot until it looks and ends.
        """
        attempt.closed = True
        attempt.pulse.cancelled = why
        attempt.stop_timers()
        if attempt.span is not None:
            attempt.span.set({"lungfish.cancelled": why})
            attempt.span.end()
        if attempt.work is not None:
            attempt.work.cancel()

    # --- on the loop -------------------------------------------------------------------

    def _listen(self, attempt: Attempt, beats: int, since_s: float) -> None:
        """Look again and again whether there was a heartbeat; the last one came at ``since_s`` or before."""
        loop = asyncio.get_running_loop()
        now_s, longest_s = loop.time(), attempt.task.heartbeat_ms / 1000
        if attempt.pulse.beats != beats:
            beats, since_s = attempt.pulse.beats, now_s
        elif now_s >= since_s + longest_s:
            self._time_out(attempt, _silent)
            return
        wait_s = min(longest_s / 4, since_s + longest_s - now_s)
        attempt.silence = loop.call_later(wait_s, self._listen, attempt, beats, since_s)

    def _refuse(self, attempt: Attempt) -> None:
        try:
            self._app.find_activity(attempt.task.name)
        except LungfishError as error:
            self._end(attempt, _failed(attempt.task, error))

    def _run_here(self, attempt: Attempt, activity: Activity[Any, Any]) -> None:
        self._end(attempt, _run_sync(self._app, attempt, activity))

    async def _run_async(self, attempt: Attempt, activity: Activity[Any, Any]) -> None:
        task = attempt.task
        try:
            attempt.enter(self._app)
            args, kwargs = activity.signature.decode(task.args)
            work = partial(activity.function, *args, **kwargs)
            value = await wait_through(self._app.around_attempts, attempt.info, work)
            result = _succeeded(task, value, self._app.payloads.bytes_max)
        except (
            BaseException
        ) as error:  # also CancelledError: of ours (then it is closed) or of the user's making
            result = _failed(task, error)
        self._end(attempt, result)

    async def _launch(self, attempt: Attempt, activity: Activity[Any, Any], launcher: Launcher) -> None:
        task = attempt.task
        try:
            attempt.enter(self._app)  # for middleware; the function runs elsewhere
            args, kwargs = activity.signature.decode(task.args)
            work = partial(launcher.run, activity, args, kwargs, attempt.info)
            value = await wait_through(self._app.around_attempts, attempt.info, work)
            result = _succeeded(task, value, self._app.payloads.bytes_max)
        except BaseException as error:  # as in _run_async
            result = _failed(task, error)
        self._end(attempt, result)

    def _time_out(self, attempt: Attempt, describe: Callable[[ActivityTask], ActivityResult]) -> None:
        if attempt.closed:
            return
        self._close(attempt, describe(attempt.task))
        attempt.pulse.cancelled = "its time is up"
        if attempt.work is not None:
            attempt.work.cancel()
        else:
            logger.warning(
                "activity %s goes on in its thread after its time-out; it keeps a slot until it ends",
                attempt.task.name,
            )

    def _end(self, attempt: Attempt, result: ActivityResult) -> None:
        self._running.pop(attempt, None)
        if not attempt.closed:
            self._close(attempt, result)
        self._freed()

    def _close(self, attempt: Attempt, result: ActivityResult) -> None:
        attempt.closed = True
        attempt.stop_timers()
        if result.failure is not None and attempt.pulse.details is not attempt.task.details:
            result = replace(result, details=attempt.pulse.details)
        if attempt.span is not None:
            attempt.span.end(result.failure)
        self._report(attempt, result)

    # --- in threads --------------------------------------------------------------------

    def _submit(
        self,
        attempt: Attempt,
        activity: Activity[Any, Any],
        executor: Executor,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        try:
            executor.submit(copy_context().run, self._run_in_thread, attempt, activity, loop)
        except RuntimeError:
            # Shut down under us, as at the interpreter's exit: another worker will run it.
            logger.exception("activity %s could not be started", attempt.task.name)
            attempt.closed = True
            self._running.pop(attempt, None)

    def _run_in_thread(
        self, attempt: Attempt, activity: Activity[Any, Any], loop: asyncio.AbstractEventLoop
    ) -> None:
        # Not run_in_executor: its futures cost a wake-up of the loop each. Here many ends share one.
        # The order matters: append, then look at the flag; the loop clears the flag, then empties.
        self._ended.append((attempt, _run_sync(self._app, attempt, activity)))
        if not self._collecting:
            self._collecting = True
            try:
                loop.call_soon_threadsafe(self._collect)
            except RuntimeError:  # the loop is closed: the worker is gone, its entries are another's
                return

    def _collect(self) -> None:
        self._collecting = False
        while self._ended:
            attempt, result = self._ended.popleft()
            self._end(attempt, result)


def _run_sync(app: App, attempt: Attempt, activity: Activity[Any, Any]) -> ActivityResult:
    """Call a sync function in the current context, which is its own."""
    task = attempt.task
    try:
        attempt.enter(app)
        args, kwargs = activity.signature.decode(task.args)
        value = run_through(app.around_attempts, attempt.info, partial(activity.function, *args, **kwargs))
        return _succeeded(task, value, app.payloads.bytes_max)
    except BaseException as error:  # SystemExit, too: a function must not end the worker
        return _failed(task, error)


def _succeeded(task: ActivityTask, value: object, bytes_max: int) -> ActivityResult:
    result = codec.encode(value, f"result of activity {task.name}", bytes_max)
    return ActivityResult(task.owner, task.execution, task.task, task.attempt, result)


def _failed(task: ActivityTask, error: BaseException) -> ActivityResult:
    own_frame = error.__traceback__
    if own_frame is not None and own_frame.tb_next is not None:
        error = error.with_traceback(own_frame.tb_next)  # users need not see the line that calls them
    failure = FailureDetails.of(error)
    return ActivityResult(task.owner, task.execution, task.task, task.attempt, failure=failure)


def _too_long(task: ActivityTask) -> ActivityResult:
    return _timed_out(task, f"did not end within {task.timeout_ms / 1000:g} s (timeout)", "timeout")


def _silent(task: ActivityTask) -> ActivityResult:
    what = f"gave no heartbeat for {task.heartbeat_ms / 1000:g} s (heartbeat_timeout)"
    return _timed_out(task, what, "heartbeat_timeout")


def _timed_out(task: ActivityTask, what: str, timeout: str) -> ActivityResult:
    message = f"attempt {task.attempt} of activity {task.name} {what}"
    bases = ("builtins.OSError", "builtins.Exception")
    failure = FailureDetails("builtins.TimeoutError", message, bases=bases, timeout=timeout)
    return ActivityResult(
        task.owner, task.execution, task.task, task.attempt, failure=failure, timed_out=True
    )
