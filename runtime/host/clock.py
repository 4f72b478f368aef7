"""The store's clock as a host knows it.

The store's ``TIME`` is the clock of a hub: hosts on several machines agree on it without their own
clocks being right. Between two readings it is carried forward by the local monotonic
clock (the event loop's, so that a simulation can drive it).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class HubClock:
    """Unix milliseconds on the store's clock; never goes back."""

    def __init__(self) -> None:
        self._base_ms = 0.0
        self._base_s = 0.0
        self._last_ms = 0
        #: The event loop's, once there is one; bound here because it is asked for every message.
        self._local_s: Callable[[], float] = time.monotonic

    def sync(self, now_ms: int) -> None:
        """Take a reading of the store's clock that has just been answered.

        It was taken a little before the answer arrived, so this clock is behind the store's by
        that much, and a timer never fires early.
        """
        self._base_ms = float(now_ms)
        self._local_s = asyncio.get_running_loop().time
        self._base_s = self._local_s()

    def now_ms(self) -> int:
        """Return the time; it stands still rather than go back after a new reading."""
        now_ms = int(self._base_ms + (self._local_s() - self._base_s) * 1_000)
        # max() would take longer than all the rest, and the clock is read several times per message.
        if now_ms > self._last_ms:  # noqa: PLR1730
            self._last_ms = now_ms
        return self._last_ms
