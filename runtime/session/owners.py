"""Who owns which partition, as far as a client knows: where to hand its batches.

A guess that may be out of date: who is asked for a partition that it does not run refuses. Looked up when
somebody wants to know, in the background; until then everything takes the way through the inbox.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from lungfish.runtime.errors import LungfishError
from lungfish.runtime.store.store import Store

logger = logging.getLogger(__name__)

#: How soon after a look there may be another one (s), at first and while looking does not help.
LOOK_AGAIN_S: Final = (0.1, 5.0)
#: How long a host that did not listen is left alone (s).
DEAF_S: Final = 2.0


class Owners:
    """The owners of a hub's partitions, for one client. Not shared between event loops."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._hosts: dict[int, str] = {}
        self._deaf: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None
        self._next_look_s = 0.0
        self._wait_s = LOOK_AGAIN_S[0]
        self._closed = False

    def of(self, partition: int) -> str:
        """Return the host that owns a partition, and listens; empty: nobody known, it is looked for."""
        host = self._hosts.get(partition)
        if host is None:
            self._look()
            return ""
        if self._deaf and host in self._deaf:
            if asyncio.get_running_loop().time() < self._deaf[host]:
                return ""
            del self._deaf[host]
        return host

    def answered(self) -> None:
        """Note that what is known here is of use: the next look may come soon."""
        self._wait_s = LOOK_AGAIN_S[0]

    def forget(self, partition: int) -> None:
        """Look again for the owner of a partition: the one that was known refused, or was silent."""
        self._hosts.pop(partition, None)

    def deaf(self, host: str) -> None:
        """Note that a host does not listen."""
        self._deaf[host] = asyncio.get_running_loop().time() + DEAF_S
        for partition in [partition for partition, owner in self._hosts.items() if owner == host]:
            del self._hosts[partition]

    async def close(self) -> None:
        """Stop looking."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        if self._task is not None or self._closed or loop.time() < self._next_look_s:
            return
        self._next_look_s = loop.time() + self._wait_s
        self._wait_s = min(2 * self._wait_s, LOOK_AGAIN_S[1])
        self._task = loop.create_task(self._learn(), name="lungfish owners")

    async def _learn(self) -> None:
        try:
            rows = await self._store.owners()
            self._hosts = {number: row.host for number, row in enumerate(rows) if row.host}
            self._deaf = {
                host: until_s for host, until_s in self._deaf.items() if host in self._hosts.values()
            }
        except LungfishError as error:
            logger.debug("who owns what: %s", error)
        finally:
            self._task = None
