"""Telling clients at once that a batch which they handed over was not taken: they append it then.

A hint: one that does not arrive costs its client the time after which it appends the batch anyway.
"""

from __future__ import annotations

import asyncio
import logging

from lungfish.runtime.errors import LungfishError
from lungfish.runtime.ids import CLIENT, ActorId
from lungfish.runtime.messages import wire
from lungfish.runtime.messages.messages import Response
from lungfish.runtime.session.direct import refused_note
from lungfish.runtime.store.store import Append, Store

logger = logging.getLogger(__name__)


class Notes:
    """Notes of one host to clients: those of a moment go together, in one call to the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[str, list[Response]] = {}
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def refused(self, partition: int, lane: str, sequence: int) -> None:
        """Have a client told that a batch was refused."""
        target = lane.rpartition(":")[0]
        if target[:2] != "c:" or self._closed:
            return  # what is on its way to a host when it ends still comes
        note = Response(ActorId(CLIENT, "", target[2:]), refused_note(partition, sequence))
        self._waiting.setdefault(target, []).append(note)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._send(), name="lungfish notes")

    async def _send(self) -> None:
        try:
            while self._waiting:
                notes, self._waiting = self._waiting, {}
                await self._store.append(
                    [Append(target, "", 0, (wire.pack(responses),)) for target, responses in notes.items()]
                )
        except LungfishError as error:
            logger.debug("notes to clients: %s", error)
        finally:
            self._task = None

    async def close(self) -> None:
        """Stop, whatever waits; what comes later is passed over."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
