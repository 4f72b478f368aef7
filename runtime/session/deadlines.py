"""Deadlines of many waits, with one timer of the event loop for all of them.

A timer of the loop (uvloop's as well) took 3 of the 15 µs that a call costs its caller, and nearly
every one is cancelled. Here a wait that ended in time leaves its entry behind, and the entries are looked
through when about half of them may be such.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Mapping
from typing import Any, Final

_ENTRIES_MIN: Final = 64


class Deadlines:
    """Fails futures whose time is over. Not shared between event loops."""

    def __init__(self, waits: Mapping[str, asyncio.Future[Any]]) -> None:
        """Watch over ``waits``: what is taken out of it is forgotten here, too, sooner or later."""
        self._waits = waits
        #: By name and not by future, which would keep what a call returned.
        self._entries: list[tuple[float, int, str, Callable[[], Exception]]] = []
        self._serial = itertools.count()
        self._look_at = _ENTRIES_MIN
        self._timer: asyncio.TimerHandle | None = None
        self._rings_s = 0.0

    def add(self, name: str, timeout_s: float, error: Callable[[], Exception]) -> None:
        """Give the future called ``name`` the exception that ``error`` makes, unless it is done in time.

        Args:
            timeout_s: how long from now (s).
        """
        loop = asyncio.get_running_loop()
        at_s = loop.time() + timeout_s
        heapq.heappush(self._entries, (at_s, next(self._serial), name, error))
        if len(self._entries) > self._look_at:
            self._forget_done()
        if self._timer is None or at_s < self._rings_s:
            self._set(loop, at_s)

    def close(self) -> None:
        """Forget everything."""
        self._entries.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, loop: asyncio.AbstractEventLoop, at_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_s = at_s
        self._timer = loop.call_at(at_s, self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        # The loop may ring a little early, by the resolution of its clock: what was set for now is due.
        now_s = max(loop.time(), self._rings_s)
        while self._entries and (self._entries[0][0] <= now_s or self._entries[0][2] not in self._waits):
            _, _, name, error = heapq.heappop(self._entries)
            future = self._waits.get(name)
            if future is not None and not future.done():
                future.set_exception(error())
        if self._entries:
            self._set(loop, self._entries[0][0])

    def _forget_done(self) -> None:
        self._entries = [entry for entry in self._entries if entry[2] in self._waits]
        heapq.heapify(self._entries)
        self._look_at = _ENTRIES_MIN + 2 * len(self._entries)
