"""Ray's death notices as hints: what Ray knows to be dead need not wait for its lease to end.

A hint is never more than that. A host that is told dead and lives beats again half a second later; one
that is dead and not told is found by its lease. Safety is the owner token's business.

Who watches knows, too, which hosts do not run yet, or not again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

import ray
import ray.exceptions

from lungfish.runtime.errors import Unavailable
from lungfish.runtime.store.store import Store

logger = logging.getLogger(__name__)

#: Wait before looking for a host again that was lost or cannot be found (s).
AGAIN_S: Final = 0.2


class DeathWatch:
    """Holds one call open on every host; Ray ends it with an error when the process dies."""

    def __init__(self, open_store: Callable[[], Store], namespace: str) -> None:
        self._store = open_store()
        self._namespace = namespace
        self._watches: dict[str, asyncio.Task[None]] = {}
        #: Hosts that do not answer, by name, since when (the loop's time).
        self._silent_since_s: dict[str, float] = {}

    def follow(self, names: Iterable[str]) -> None:
        """Watch exactly the host actors of these names."""
        wanted = set(names)
        for name in wanted.difference(self._watches):
            loop = asyncio.get_running_loop()
            self._silent_since_s[name] = loop.time()
            self._watches[name] = loop.create_task(self._watch(name), name=f"lungfish watch {name}")
        for name in set(self._watches).difference(wanted):
            self._watches.pop(name).cancel()
            self._silent_since_s.pop(name, None)

    def silent(self) -> dict[str, float]:
        """Return the hosts that were made and do not run (yet, or again), by name, and for how long (s)."""
        now_s = asyncio.get_running_loop().time()
        return {name: now_s - since_s for name, since_s in self._silent_since_s.items()}

    async def _watch(self, name: str) -> None:
        host_id = ""
        while True:
            try:
                handle: Any = ray.get_actor(name, self._namespace)
                host_id, _pid = await handle.ping.remote()
                self._silent_since_s.pop(name, None)
                await handle.run.remote()
            except ray.exceptions.RayActorError:
                await self._report(host_id)
            except (ValueError, ray.exceptions.RayError):
                pass  # not there yet, or its constructor failed: the reconciliation's business
            self._silent_since_s.setdefault(name, asyncio.get_running_loop().time())
            await asyncio.sleep(AGAIN_S)

    async def _report(self, host_id: str) -> None:
        if not host_id:
            return
        logger.warning("Ray says that host %s is gone", host_id)
        try:
            await self._store.open(create=False)
            await self._store.remove_host(host_id)
        except Unavailable as error:
            logger.warning("telling so: %s; its lease will", error)
