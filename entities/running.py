"""An async operation while it runs.

Rules:

* User code runs in a task of its own, and a task of the host (``Effects.spawn``) waits for it. So the two
  cancellations can be told apart: if the host's task is cancelled, the host stops and the
  operation is neither done nor failed; if only the inner one is, user code did that, and it is a failure.
* From Python 3.12 on the inner task starts eagerly: an operation that never waits ends within
  the turn and needs no task of the host's. (Stepping the coroutine by hand would do that on 3.11,
  too, but ``asyncio.timeout`` and ``current_task`` in it would see the host's task.)
* Whatever user code raises ends here, also ``SystemExit``: a task that ends with that stops the loop.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from lungfish.runtime.errors import UsageError

from .jobs import Job
from .scope import Scope
from .spans import context_of

T = TypeVar("T")


class Running:
    """One async operation, from its start to its outcome.

    Attributes:
        value: what it returned; error: what it raised.
        subject: the state that it works on.
        before: its fields before, where that is to be checked.
    """

    __slots__ = ("_ended", "_inner", "before", "error", "job", "scope", "subject", "value")

    def __init__(self, job: Job, scope: Scope, ended: Callable[[Running], None]) -> None:
        self.job = job
        self.scope = scope
        self.value: Any = None
        self.subject: Any = None
        self.before: dict[str, Any] | None = None
        self.error: BaseException | None = None
        self._ended = ended
        self._inner: asyncio.Task[None] | None = None

    def start(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> bool:
        """Start the operation; True if it has ended already."""
        try:
            start = context_of(self.scope, self.job).run if self.job.message.headers else _call
        except UsageError as error:  # its headers cannot be read
            self.error = error
            return True
        self._inner = start(_start_task, self._run(work), f"{self.scope.actor}.{self.job.operation.name}")
        if not self._inner.done():
            return False
        self._note_cancellation()
        return True

    async def join(self) -> None:
        """Wait for the end and report it; a host that stops cancels this, and nothing is reported."""
        assert self._inner is not None
        try:
            await self._inner
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
        self._note_cancellation()
        self._ended(self)

    def drop(self) -> None:
        """Stop the operation; its outcome is of no interest."""
        self.scope.end()  # what it does on its way out has no effect
        self.job.journal.tell_met()
        if self._inner is not None:
            self._inner.cancel()

    async def _run(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        # Called here and not before: a task may be cancelled before its first step.
        self.scope.task = asyncio.current_task()
        try:
            self.value = await work()
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:
            self.error = error

    def _note_cancellation(self) -> None:
        if self._inner is not None and self._inner.cancelled():
            self.error = asyncio.CancelledError("the operation was cancelled from inside")


def _call(function: Callable[..., T], *args: Any) -> T:
    return function(*args)


def _start_task(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12):
        return asyncio.Task(work, loop=loop, name=name, eager_start=True)
    return loop.create_task(work, name=name)
