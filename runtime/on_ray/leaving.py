"""SIGTERM of a process that another runtime has started: it leaves in good order before it ends.

Rules:

* The process ends when leaving is over, also after a failure, and at once by a second signal. It ends hard:
  all that counts is durable, and an exit by Ray's rules would wait for calls that never return.
* Python runs handlers in the main thread, so that is where one of these is made; what leaves runs on a loop
  that may be another thread's.
* Before there is something to leave, the handler that was there before is called: nothing is different.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from types import FrameType

logger = logging.getLogger(__name__)


class Sigterm:
    """The handler of SIGTERM of this process. See the rules of this module."""

    def __init__(self, end: Callable[[], object] = lambda: os._exit(0)) -> None:
        """Take the signal over; only in the main thread.

        Args:
            end: ends the process.
        """
        self._end = end
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._leave: Callable[[], Awaitable[None]]
        self._limit_s = 0.0
        self._told = False
        self._before = signal.signal(signal.SIGTERM, self._signalled)

    def leave_with(self, leave: Callable[[], Awaitable[None]], *, limit_s: float) -> None:
        """Have the signal run ``leave`` on the loop that runs now, for ``limit_s`` at most, and then end."""
        self._leave, self._limit_s = leave, limit_s
        self._loop = asyncio.get_running_loop()

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if self._told:
            self._end()
        elif self._loop is not None:
            self._told = True
            self._loop.call_soon_threadsafe(self._begin)
        elif callable(self._before):
            self._before(number, frame)
        else:
            signal.signal(number, self._before)
            signal.raise_signal(number)

    def _begin(self) -> None:
        self._leaving = asyncio.get_running_loop().create_task(self._leave_and_end(), name="lungfish leaving")

    async def _leave_and_end(self) -> None:
        logger.warning("SIGTERM: leaving within %.0f s", self._limit_s)
        try:
            async with asyncio.timeout(self._limit_s):
                await self._leave()
        except Exception as error:
            logger.warning("leaving: %r; nothing durable is lost by that", error)
        self._end()
