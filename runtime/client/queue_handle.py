"""A queue of activities as an operator sees it: what it does, and its limits."""

from __future__ import annotations

from types import EllipsisType
from typing import TYPE_CHECKING

from lungfish.runtime.store.queues import QueueInfo, check_limit, to_text
from lungfish.runtime.why.facts import QueueName
from lungfish.runtime.why.reasons import Why
from lungfish.runtime.why.walk import why

if TYPE_CHECKING:
    from lungfish.runtime.session.connection import Connection


class QueueHandle:
    """A local address of an activity queue; made by ``client.queue(name)``."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self._store = connection.store
        self.name = name

    async def info(self) -> QueueInfo:
        """Return backlog, running and limits: a picture that may be old when it arrives.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """
        return QueueInfo.of(self.name, await self._store.queue_state(self.name))

    async def why(self) -> Why:
        """Say what holds the queue up: no live worker, a pause, a limit; see ``Client.why``."""
        return await why(self._connection, QueueName(self.name))

    async def set(
        self,
        *,
        concurrency: int | EllipsisType | None = ...,
        worker_concurrency: int | EllipsisType | None = ...,
        rate: float | EllipsisType | None = ...,
    ) -> QueueInfo:
        """Change limits for good, whatever ``app.queue`` declares; durable when this returns.

        Workers follow within about a second. What runs over a lower limit goes on; nothing new begins until
        there is room. What is not given stays as it is.

        Args:
            concurrency: how many attempts may run at once, over all workers; None is unlimited.
            worker_concurrency: the same for each worker.
            rate: how many attempts may begin per second, over all workers; None is unlimited.

        Raises:
            UsageError: a limit that makes no sense; nothing was changed.
            StoreUnavailable: the outcome is unknown; set it again.
        """
        given = {"concurrency": concurrency, "worker_concurrency": worker_concurrency, "rate": rate}
        fields: dict[str, str | None] = {}
        for limit, value in given.items():
            if not isinstance(value, EllipsisType):
                check_limit(limit, value)
                fields[f"s:{limit}"] = to_text(value) or ""  # empty: unlimited, whatever is declared
        return await self._adjust(fields)

    async def reset(self) -> QueueInfo:
        """Forget what was ``set``: what the app declares counts again."""
        return await self._adjust({"s:concurrency": None, "s:worker_concurrency": None, "s:rate": None})

    async def pause(self) -> QueueInfo:
        """Begin nothing more from this queue until ``resume``; what runs goes on."""
        return await self._adjust({"paused": "1"})

    async def resume(self) -> QueueInfo:
        """End a ``pause``."""
        return await self._adjust({"paused": None})

    async def _adjust(self, fields: dict[str, str | None]) -> QueueInfo:
        await self._store.adjust_queue(self.name, fields)
        return await self.info()

    def __repr__(self) -> str:
        return f"<queue {self.name}>"
