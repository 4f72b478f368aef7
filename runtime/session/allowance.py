"""The time that a caller gives for an answer, of which middleware around the request takes its part.

Rules:

* The time begins when the caller calls.
* While the request itself waits, it watches over what is left: middleware sees its ``DeadlineExceeded``, and
  may still do what does not wait.
* Before and after, middleware that waits when the time is over is cancelled there.
* Nothing is sent when the time is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from lungfish.runtime.errors import DeadlineExceeded

T = TypeVar("T")


class Allowance:
    """The time of one call. See the rules of this module."""

    def __init__(self, timeout_s: float, what: str) -> None:
        """Begin.

        Args:
            timeout_s: how long from now (s).
            what: names the call in errors.
        """
        self._loop = asyncio.get_running_loop()
        self._ends_s = self._loop.time() + timeout_s
        self._timer = asyncio.timeout_at(self._ends_s)
        self._text = f"{what}: no answer within {timeout_s:g} s: middleware waited "
        self._sent = False
        self._ended = False

    async def cover(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run middleware with what is inside.

        Raises:
            DeadlineExceeded: the time was over before it had ended.
        """
        try:
            async with self._timer:
                return await work()
        except TimeoutError as error:
            if not self._timer.expired():
                raise
            raise self._late() from error
        finally:
            self._ended = True

    async def lend(self, ask: Callable[[float], Awaitable[T]]) -> T:
        """Run the request with the time that is left (s).

        Raises:
            DeadlineExceeded: none is left; nothing was sent.
        """
        left_s = round(self._ends_s - self._loop.time(), 3)
        if left_s <= 0 or self._ended:
            raise self._late()
        self._sent = True
        self._timer.reschedule(None)
        try:
            return await ask(left_s)
        finally:
            if not self._ended:  # else middleware has left it behind, and has failed for it
                self._timer.reschedule(self._ends_s)

    def _late(self) -> DeadlineExceeded:
        when = "after it; the outcome is unknown" if self._sent else "before it; nothing was sent"
        return DeadlineExceeded(self._text + when)
