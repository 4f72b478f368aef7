"""Keeps a host's heartbeat going while its event loop is blocked by user code.

A sync operation that runs for longer than the lease would otherwise cost the host its partitions; the
next host would run the same operation, lose them in turn, and so on for ever.
So a thread beats in the loop's place, for a bounded time: a loop that never comes back *is* dead.

It also tells who keeps the loop, with the stack: once, and again after each doubling of the time. The record
that is logged has ``host``, ``blocked_s``, ``where``, ``actor`` and ``stack`` as fields (see ``stalls``).
Nothing is killed.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable

from lungfish.runtime.errors import Unavailable
from lungfish.runtime.store.store import Store

from .stalls import stall_of

logger = logging.getLogger(__name__)


class Keepalive:
    """A thread that beats for a host whose loop is late. It never leads and never looks at anything."""

    def __init__(
        self,
        open_store: Callable[[], Store],
        host: str,
        *,
        heartbeat_ms: int,
        lease_ms: int,
        blocked_s_max: float,
        stalled: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare the thread.

        Args:
            open_store: makes a store handle for the thread's own loop.
            blocked_s_max: for how long a blocked loop is covered (s).
            stalled: called once for each time that the loop is kept for two heartbeats and longer.
        """
        self._open_store = open_store
        self._host = host
        self._heartbeat_s = heartbeat_ms / 1_000
        self._lease_ms = lease_ms
        self._blocked_s_max = blocked_s_max
        self._stalled = stalled
        #: The next look at the stack comes when the loop is late by this (s); 0: it was not late before.
        self._look_s = 0.0
        self._loops_thread = 0
        self._record = b""
        self._beat_s = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lungfish keepalive", daemon=True)

    def start(self) -> None:
        """Begin to watch the loop."""
        self._thread.start()

    def beaten(self, record: bytes) -> None:
        """The loop says that it has just beaten by itself, and with what record."""
        self._record = record
        self._loops_thread = threading.get_ident()
        self._beat_s = time.monotonic()

    def stop(self) -> None:
        """Stop watching; returns at once."""
        self._stopped.set()

    def _run(self) -> None:
        asyncio.run(self._watch())

    async def _watch(self) -> None:
        store = self._open_store()
        try:
            while not self._stopped.wait(self._heartbeat_s):
                late_s = time.monotonic() - self._beat_s
                if not self._record or late_s <= 2 * self._heartbeat_s:
                    self._look_s = 0.0
                    continue
                self._tell(late_s)
                if late_s < self._blocked_s_max:
                    await self._beat(store)
        finally:
            await store.close()

    def _tell(self, late_s: float) -> None:
        """Tell who keeps the loop, if the time for it has come."""
        if late_s < self._look_s:
            return
        stall = stall_of(self._loops_thread)
        if stall is None:
            return
        if not self._look_s:
            self._stalled()
        self._look_s = 2 * late_s
        logger.warning(
            "host %s: %s has kept the event loop for %.1f s at %s; put slow work into an activity\n%s",
            self._host,
            stall.actor or "user code",
            late_s,
            stall.where,
            stall.stack,
            extra={
                "host": self._host,
                "blocked_s": late_s,
                "where": stall.where,
                "actor": stall.actor,
                "stack": stall.stack,
            },
        )

    async def _beat(self, store: Store) -> None:
        try:
            await store.open(create=False)
            await store.heartbeat(self._host, self._record, lease_ms=self._lease_ms, lead=False)
        except Unavailable as error:
            logger.warning("host %s: heartbeat beside the loop: %s", self._host, error)
