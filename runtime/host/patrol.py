"""Looking for activities that are waited for and that no queue has any more: a failover can lose them.

A row of an activity says that its result is missing. Then its queue has an entry for it, or the outbox has
one that is on its way there, or its result is on its way here. If none of that is so, nobody will ever
run it.

Rules:

* Only rows that have not changed since the last round are looked for: what is quick is never asked about.
* A worker removes an entry after its result is in the owner's inbox. So who finds no entry tells the instance
  *through the inbox*: the news comes behind a result that was there before, and is then no news.
* The news names the row by its checksum. An instance that has written the row since then passes it over.
* Looking costs the store time. A round that took long is followed by a longer pause.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from lungfish.runtime.errors import StoreUnavailable
from lungfish.runtime.ids import ORCHESTRATION, ActorId
from lungfish.runtime.messages.messages import TimerFired
from lungfish.runtime.partitions.partition import Partition
from lungfish.runtime.partitions.relay import Relay
from lungfish.runtime.session.sender import Sender
from lungfish.runtime.store.queues import split_lane
from lungfish.runtime.store.store import Store, partition_target

logger = logging.getLogger(__name__)

#: Activities that are looked for in one round; the others have their turn in the next.
LOOKED_FOR_MAX: Final = 1_000
#: A pause is at least this many times as long as the round before it.
PAUSE_FACTOR: Final = 50


@dataclass(frozen=True, slots=True)
class _Suspect:
    partition: int
    row_id: str
    checksum: int


class Patrol:
    """Looks after the activities of a host's partitions."""

    def __init__(
        self,
        store: Store,
        host: str,
        partitions: Callable[[], Sequence[Partition]],
        relay: Relay,
        *,
        interval_ms: int,
    ) -> None:
        self._store = store
        self._partitions = partitions
        self._relay = relay
        self._interval_s = interval_ms / 1_000
        self._sender = Sender(store, f"h:{host}")
        #: What was outstanding in the last round: (owner token, row id) → checksum.
        self._seen: dict[tuple[str, str], int] = {}
        self._told: set[_Suspect] = set()
        self._offset = 0
        self.found = 0

    async def run_forever(self) -> None:
        """Look around again and again, for as long as the host lives."""
        loop = asyncio.get_running_loop()
        pause_s = self._interval_s
        while True:
            await asyncio.sleep(pause_s)
            began_s = loop.time()
            try:
                await self.look()
            except StoreUnavailable as error:
                logger.warning("looking for lost activities: %s; later", error)
            pause_s = max(self._interval_s, PAUSE_FACTOR * (loop.time() - began_s))

    async def look(self) -> None:
        """One round."""
        suspects, queues = self._suspects()
        self._told.intersection_update(suspects)
        if len(suspects) > LOOKED_FOR_MAX:
            self._offset = (self._offset + LOOKED_FOR_MAX) % len(suspects)
            suspects = [*suspects[self._offset :], *suspects[: self._offset]][:LOOKED_FOR_MAX]
        missing = {suspect.row_id: suspect for suspect in suspects if suspect not in self._told}
        for queue in queues:
            if missing:
                for row_id in await self._store.queued_rows(queue, list(missing)):
                    missing.pop(row_id, None)
        for suspect in missing.values():
            self._tell(suspect)

    def _suspects(self) -> tuple[list[_Suspect], list[str]]:
        """Return rows that have not changed since the last round, and the queues that may have them."""
        seen: dict[tuple[str, str], int] = {}
        suspects: list[_Suspect] = []
        queues: dict[str, None] = {}
        for partition in self._partitions():
            is_sending = self._relay.has_tasks_of(partition)
            for row_id, row in partition.outstanding():
                name, checksum = (partition.token, row_id), zlib.crc32(row)
                seen[name] = checksum
                if self._seen.get(name) == checksum and not is_sending:
                    suspects.append(_Suspect(partition.number, row_id, checksum))
            queues.update((split_lane(lane)[0], None) for lane in partition.lanes)
        self._seen = seen
        return suspects, list(queues)

    def _tell(self, suspect: _Suspect) -> None:
        instance, execution, task = suspect.row_id.rsplit("\x00", 2)
        owner = ActorId(ORCHESTRATION, "", instance)
        news = TimerFired(owner, execution, int(task), suspect.checksum, "lost")
        sent = self._sender.put(partition_target(suspect.partition), [news])
        self._told.add(suspect)
        self.found += 1

        def ended(sent: asyncio.Future[None]) -> None:
            if not sent.cancelled() and sent.exception() is not None:
                self._told.discard(suspect)  # it is told again in the next round

        sent.add_done_callback(ended)

    async def close(self) -> None:
        """Stop sending."""
        await self._sender.close()
