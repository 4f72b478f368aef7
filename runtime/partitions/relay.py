"""The outbox relay: brings committed messages to targets that the commit could not reach itself.

Rules:

* Entries of one (partition, target) go in order, by sequence number; an entry is sent until its
  outcome is known. The target drops repeats, so the old owner and the new one may both send.
* An entry is reported as delivered to its partition, whose next commit trims it.
* A full target holds up its own entries only.
* The first number of a generation follows on no other: it goes when all before it have arrived.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from lungfish.runtime.errors import StoreUnavailable
from lungfish.runtime.store.generations import opens
from lungfish.runtime.store.store import Append, Appended, OutboxEntry, Store, partition_target

from .partition import Partition

logger = logging.getLogger(__name__)

BACKOFF_S: Final = (0.005, 0.5)
#: Entries of one lane sent in one call.
LANE_ENTRIES_MAX: Final = 64


@dataclass(slots=True, eq=False)
class _Lane:
    partition: Partition
    entries: deque[OutboxEntry] = field(default_factory=deque)
    resync: bool = False
    not_before_s: float = 0.0
    wait_s: float = BACKOFF_S[0]


class Relay:
    """Sends the outboxes of a host's partitions."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lanes: dict[tuple[int, str], _Lane] = {}
        self._more = asyncio.Event()

    def add(self, partition: Partition, entries: Sequence[OutboxEntry]) -> None:
        """Send entries of a partition's outbox, after those added before."""
        for entry in entries:
            key = (partition.number, entry.target)
            lane = self._lanes.get(key)
            if lane is None or lane.partition is not partition:
                lane = self._lanes[key] = _Lane(partition)
            lane.entries.append(entry)
        if entries:
            self._more.set()

    def forget(self, partition: Partition) -> None:
        """Stop sending for a partition that is not ours any more; its new owner goes on."""
        for key in [key for key, lane in self._lanes.items() if lane.partition is partition]:
            del self._lanes[key]

    def has_tasks_of(self, partition: Partition) -> bool:
        """Tell whether activities of a partition are still on their way to a queue."""
        return any(number == partition.number and target[:2] == "q:" for number, target in self._lanes)

    @property
    def backlog(self) -> int:
        """How many outbox entries wait to be delivered."""
        return sum(len(lane.entries) for lane in self._lanes.values())

    async def run_forever(self) -> None:
        """Send whatever waits, for as long as the host lives."""
        while True:
            now_s = asyncio.get_running_loop().time()
            due = {key: lane for key, lane in self._lanes.items() if lane.not_before_s <= now_s}
            if due:
                await self._send(due)
                continue
            await self._wait(now_s)

    async def _wait(self, now_s: float) -> None:
        self._more.clear()
        delays = [lane.not_before_s - now_s for lane in self._lanes.values()]
        try:
            async with asyncio.timeout(min(delays) if delays else None):
                await self._more.wait()
        except TimeoutError:
            return

    async def _send(self, lanes: dict[tuple[int, str], _Lane]) -> None:
        appends: list[Append] = []
        owners: list[tuple[tuple[int, str], _Lane, OutboxEntry]] = []
        for key, lane in lanes.items():
            producer = partition_target(lane.partition.number)
            for at, entry in enumerate(islice(lane.entries, LANE_ENTRIES_MAX)):
                is_opening = opens(entry.sequence)
                if at and is_opening:
                    break
                # The first one only: if that is refused, no later one may take its place.
                resync = at == 0 and (lane.resync or is_opening)
                appends.append(Append(entry.target, producer, entry.sequence, entry.payloads, resync=resync))
                owners.append((key, lane, entry))
        try:
            outcomes = await self._store.append(appends)
        except StoreUnavailable:
            for lane in lanes.values():
                self._later(lane)
            return
        for (key, lane, entry), outcome in zip(owners, outcomes, strict=True):
            self._settle(key, lane, entry, outcome)

    def _settle(self, key: tuple[int, str], lane: _Lane, entry: OutboxEntry, outcome: Appended) -> None:
        if not lane.entries or lane.entries[0] is not entry:
            return  # an entry before it was refused: it goes again, in order
        match outcome:
            case Appended.OK:
                lane.entries.popleft()
                lane.resync = False
                lane.wait_s = BACKOFF_S[0]
                if not lane.partition.dropped:
                    lane.partition.delivered(entry.id)
                if not lane.entries and self._lanes.get(key) is lane:
                    del self._lanes[key]
            case Appended.FULL | Appended.UNKNOWN:
                self._later(lane)
            case Appended.GAP:
                # What came before had been acknowledged and trimmed: the target lost it in a failover.
                logger.warning("%s lost acknowledged messages of partition %d", *reversed(key))
                lane.resync = True

    def _later(self, lane: _Lane) -> None:
        lane.not_before_s = asyncio.get_running_loop().time() + lane.wait_s
        lane.wait_s = min(lane.wait_s * 2, BACKOFF_S[1])
