"""Activities with resources: each attempt is a Ray task of its own.

Its heartbeats go to the worker that started it, a Ray actor, every ``PERIOD_S``; from there on they are like
any other attempt's. When the worker gives an attempt up, Ray ends the task's process.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from dataclasses import dataclass, replace
from typing import Any, Final

import ray
import ray.exceptions

from lungfish.runtime.declared.activity_info import ActivityInfo, Pulse, current_activity
from lungfish.runtime.declared.definitions import Activity
from lungfish.runtime.messages.headers import adopt

#: A task tells its worker of heartbeats at most so often (s).
PERIOD_S: Final = 0.25
#: How long a task waits until its worker has its heartbeats (s).
ANSWER_S: Final = 5.0


class RayLauncher:
    """Runs attempts as Ray tasks with the resources that the activity asks for."""

    def __init__(self) -> None:
        """Nothing runs yet."""
        self._pulses: dict[str, Pulse] = {}

    async def run(
        self, activity: Activity[Any, Any], args: list[Any], kwargs: dict[str, Any], info: ActivityInfo
    ) -> Any:
        """Run one attempt as a Ray task; cancelled together with the caller.

        Ray's own retries are off: attempts are counted by the orchestration.
        """
        options = {"num_cpus": 1, **activity.settings.resources}
        task = ray.remote(_attempt).options(max_retries=0, **options)
        name = uuid.uuid4().hex
        self._pulses[name] = info.pulse
        ref = task.remote(activity.function, args, kwargs, info, _Line(_this_worker(), name))
        try:
            return await ref
        except asyncio.CancelledError:
            ray.cancel(ref, force=True)
            raise
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from error
        finally:
            del self._pulses[name]

    def beat(self, name: str, beats: int, details: bytes | None) -> str:
        """Take heartbeats of the task called ``name``; return why it is not waited for, or nothing."""
        pulse = self._pulses.get(name)
        if pulse is None:
            return "its worker does not wait for it any more"
        if details is not None:
            pulse.details = details
        pulse.beats += beats
        return pulse.cancelled


def _this_worker() -> Any:
    """Return a handle to the actor that this runs in; None outside of one: heartbeats go nowhere then."""
    try:
        return ray.get_runtime_context().current_actor
    except RuntimeError:
        return None


class FarPulse(Pulse):
    """A pulse whose worker is in another process: a thread sends on what is new."""

    def __init__(self, details: bytes | None, worker: Any, name: str) -> None:
        super().__init__(details=details)
        self._worker = worker
        self._name = name
        self._sent = 0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._sending = threading.Lock()

    def beat(self, details: bytes | None) -> None:
        """Take a heartbeat."""
        super().beat(details)
        if self._thread is None:
            self._thread = threading.Thread(target=self._send_on, name="lungfish heartbeats", daemon=True)
            self._thread.start()

    def _send_on(self) -> None:
        while not self._ended.is_set():
            self._send()
            self._ended.wait(PERIOD_S)

    def _send(self) -> None:
        with self._sending:
            beats, sent = self.beats, self._sent
            if beats == sent:
                return
            self._sent = beats
            try:
                answer = self._worker.beat.remote(self._name, beats - sent, self.details)
                self.cancelled = ray.get(answer, timeout=ANSWER_S)
            except ray.exceptions.GetTimeoutError:
                return  # a busy worker: it has them some time
            except ray.exceptions.RayError:
                self.cancelled = "its worker is gone"

    def end(self, *, failed: bool) -> None:
        """Send no more; but an attempt that has failed leaves its last details to the next one."""
        self._ended.set()
        if failed:
            self._send()


@dataclass(frozen=True, slots=True)
class _Line:
    """How a task reaches the worker that started it; no worker: not at all."""

    worker: Any
    name: str

    def pulse(self, info: ActivityInfo) -> Pulse:
        """Return the pulse of a task."""
        details = info.pulse.details
        return Pulse(details=details) if self.worker is None else FarPulse(details, self.worker, self.name)


def _attempt(function: Any, args: list[Any], kwargs: dict[str, Any], info: ActivityInfo, line: _Line) -> Any:
    pulse = line.pulse(info)
    current_activity.set(replace(info, pulse=pulse))
    adopt((), info.headers)
    failed = True
    try:
        value = function(*args, **kwargs)
        result = asyncio.run(value) if asyncio.iscoroutine(value) else value
        failed = False
        return result
    finally:
        if isinstance(pulse, FarPulse):
            pulse.end(failed=failed)
