"""Looking for what instances wait for and the store has forgotten, after it lost writes.

On a Cluster one shard may go back in time. Then an instance that remembers would wait for ever for a
sub-orchestration that is forgotten, or whose outcome is, or for a lock that nobody knows it has asked for.

Rules:

* Nothing is looked for unless writes were lost: a host found memory ahead of the store, or saw the commit
  number of a partition go back. It says so with its heartbeat, and each host looks into what it runs.
* What instances wait for is read from their histories, page by page, with pauses; no code runs for it.
* An instance is told through its inbox, behind answers that are there, and asks again. Asking again does
  nothing where the child runs, so an instance that is told in vain takes no harm.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from lungfish.runtime.declared import plugged_in
from lungfish.runtime.errors import Unavailable
from lungfish.runtime.ids import ORCHESTRATION, ActorId
from lungfish.runtime.messages.messages import TimerFired
from lungfish.runtime.messages.status import RuntimeStatus
from lungfish.runtime.messages.wire import MalformedBytes
from lungfish.runtime.partitions.partition import Partition
from lungfish.runtime.session.sender import Sender
from lungfish.runtime.store.index import Scan, by_status, instance_of
from lungfish.runtime.store.layout import Layout
from lungfish.runtime.store.store import OwnerRow, Store, StoredInstance, partition_target
from lungfish.runtime.why.facts import ChildWait, LockWait

logger = logging.getLogger(__name__)

#: Instances whose histories are read in one call.
PAGE: Final = 50
#: A pause between two pages is this many times as long as a page took.
PAUSE_FACTOR: Final = 5
#: What was lost longer ago has been looked after: a host that starts later does not look again (ms).
RECENT_MS: Final = 600_000

_OPEN: Final = tuple(by_status(status.value) for status in (RuntimeStatus.RUNNING, RuntimeStatus.SUSPENDED))


class Losses:
    """Notices that a partition went back in time, from its owner row as it was seen before."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, int]] = {}

    def saw(self, rows: Sequence[OwnerRow]) -> list[int]:
        """Return the partitions that have gone back since the last look."""
        back = []
        for number, row in enumerate(rows):
            if not row.known:
                continue
            epoch, commits = self._seen.get(number, (0, 0))
            if row.epoch < epoch or row.number < commits:
                back.append(number)
            self._seen[number] = row.epoch, row.number
        return back


class Recall:
    """Looks after the instances of a host's partitions."""

    def __init__(
        self,
        store: Store,
        host: str,
        partitions: Callable[[], Sequence[Partition]],
        layout: Layout,
        *,
        lost_ms: Callable[[], int],
        now_ms: Callable[[], int],
        interval_ms: int,
    ) -> None:
        """Prepare.

        Args:
            partitions: those that the host runs now.
            lost_ms: when it was last noticed that writes were lost (Unix ms); 0: never.
            interval_ms: how often that is asked, and how long what was under way then may take to arrive.
        """
        self._store = store
        self._partitions = partitions
        self._layout = layout
        self._lost_ms = lost_ms
        self._now_ms = now_ms
        self._interval_ms = interval_ms
        self._sender = Sender(store, f"h:{host}:recall")
        #: Owner token → the loss that the partition was looked into for, under that owner.
        self._looked: dict[str, int] = {}
        self.told = 0

    async def run_forever(self) -> None:
        """Look when there is reason to, for as long as the host lives."""
        while True:
            await asyncio.sleep(self._interval_ms / 1_000)
            try:
                await self.look()
            except Unavailable as error:  # also of an inbox that stays full: its host must not die of that
                logger.warning("looking for what the store has forgotten: %s; later", error)

    async def look(self) -> None:
        """Look into the partitions that were not looked into since the last loss."""
        lost_ms = self._lost_ms()
        if not lost_ms or not self._interval_ms <= self._now_ms() - lost_ms <= RECENT_MS:
            return
        partitions = self._partitions()
        looked = self._looked
        self._looked = {p.token: looked[p.token] for p in partitions if p.token in looked}
        for partition in partitions:
            if self._looked.get(partition.token, 0) < lost_ms:
                await self._look_into(partition)
                self._looked[partition.token] = lost_ms

    async def _look_into(self, partition: Partition) -> None:
        loop = asyncio.get_running_loop()
        after = ""
        while not partition.dropped:
            began_s = loop.time()
            scan = Scan(partition.number, (), any_of=_OPEN, after=after)
            (found,) = await self._store.scan_index([scan], count=PAGE)
            await self._look_at(partition, [instance_of(member) for member in found.members])
            after = found.stopped
            if not after:
                return
            await asyncio.sleep(PAUSE_FACTOR * (loop.time() - began_s))

    async def _look_at(self, partition: Partition, ids: Sequence[str]) -> None:
        if not ids:
            return
        stored = await self._store.instances([(partition.number, each) for each in ids], history=True)
        waits = [wait for id, instance in zip(ids, stored, strict=True) for wait in _waits(id, instance)]
        children = [(news, wait.instance) for news, wait in waits if isinstance(wait, ChildWait)]
        places = [(self._layout.of(ActorId(ORCHESTRATION, "", child)), child) for _, child in children]
        rows = await self._store.instances(places, history=False) if places else []
        runs = {n for (n, child), row in zip(children, rows, strict=True) if _is_child(child, row, n.target)}
        news = [each for each, _ in waits if each not in runs]
        if news and not partition.dropped:
            await self._sender.send(partition_target(partition.number), news)
            self.told += len(news)

    async def close(self) -> None:
        """Stop sending."""
        await self._sender.close()


def _waits(instance_id: str, stored: StoredInstance) -> list[tuple[TimerFired, ChildWait | LockWait]]:
    """Return what an instance waits for and may have been forgotten, and how it is told so."""
    if stored.row is None:
        return []
    kind: Any = plugged_in.kind_class(ORCHESTRATION)
    actor = ActorId(ORCHESTRATION, "", instance_id)
    try:
        execution = kind.read_status(instance_id, stored.row).execution_id
        waits = kind.read_waits(actor, stored.row, stored.history).waits
    except MalformedBytes:
        return []  # a later release wrote it, and its hosts read it
    return [
        (TimerFired(actor, execution, wait.id, 0, "forgotten"), wait)
        for wait in waits
        if isinstance(wait, ChildWait | LockWait)
    ]


def _is_child(instance_id: str, stored: StoredInstance, parent: ActorId) -> bool:
    """Tell whether an instance runs for a parent, which will hear its outcome."""
    kind: Any = plugged_in.kind_class(ORCHESTRATION)
    try:
        status = kind.read_status(instance_id, stored.row) if stored.row is not None else None
    except MalformedBytes:
        return True  # a later release runs it
    return status is not None and status.parent_id == parent.key and not status.runtime_status.is_terminal
