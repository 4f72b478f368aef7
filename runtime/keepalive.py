"""Keeps a host's heartbeat going while its event loop is blocked by user code.

A sync operation that runs for longer than the lease would otherwise cost the host its partitions; the
next host would run the same operation, lose them in turn, and so on for ever.
So a thread beats in the loop's place, for a bounded time: a loop that never comes back *is* dead.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable

from .errors import StoreUnavailable
from .store import Store

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
    ) -> None:
        """Prepare the thread.

        Args:
            open_store: makes a store handle for the thread's own loop.
            blocked_s_max: for how long a blocked loop is covered (s).
        """
        self._open_store = open_store
        self._host = host
        self._heartbeat_s = heartbeat_ms / 1_000
        self._lease_ms = lease_ms
        self._blocked_s_max = blocked_s_max
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
                if self._record and 2 * self._heartbeat_s < late_s < self._blocked_s_max:
                    await self._beat(store, late_s)
        finally:
            await store.close()

    async def _beat(self, store: Store, late_s: float) -> None:
        logger.warning("host %s: user code has kept the event loop for %.1f s", self._host, late_s)
        try:
            await store.open()
            await store.heartbeat(self._host, self._record, lease_ms=self._lease_ms, lead=False)
        except StoreUnavailable as error:
            logger.warning("host %s: heartbeat beside the loop: %s", self._host, error)
