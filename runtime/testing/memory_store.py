"""A ``Store`` in memory: the verified fake for fast tests and simulations.

Rules:

* A ``MemoryStore`` is one process's handle; handles on one ``MemoryServer`` see the
  same hub, as hosts and clients do. Faults are injected around a handle, not in it.
* A call takes effect at once and then yields to the loop once: callers meet the same
  interleavings as with a real store, and a cancelled call may have taken effect.
* Waiting is done on asyncio futures and the loop's time only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Final, TypeVar

from lungfish.runtime.errors import HubNotFound, InternalError, StoreUnavailable
from lungfish.runtime.messages.payloads import PENDING, Payload, key_of
from lungfish.runtime.on_redis.keys import WORKER_TTL_MS, Keys
from lungfish.runtime.store.hub_meta import check_meta, check_pools
from lungfish.runtime.store.index import Counted, Found, Scan
from lungfish.runtime.store.queues import QueueState, lanes_of
from lungfish.runtime.store.store import (
    Append,
    Appended,
    ClusterView,
    Commit,
    CommitOutcome,
    Entry,
    HostBeat,
    HubMeta,
    OwnerRow,
    PartitionImage,
    PartitionLoad,
    QueueEntry,
    StoredInstance,
    Take,
    Unknown,
    partition_target,
    queue_target,
)

from . import memory_queues
from .memory_index import find, walk
from .memory_server import Hub, MemoryServer, parse_id

__all__ = ["MemoryServer", "MemoryStore"]

T = TypeVar("T")

#: How often a reader asks again for what limits hold back (s).
LIMITED_POLL_S: Final = 0.02

_AWAY: Final = Unknown("the server of this partition is away")


class MemoryStore:
    """One handle on a hub in a ``MemoryServer``."""

    def __init__(self, server: MemoryServer, hub: str) -> None:
        """Make a handle; nothing is created before ``open``."""
        self.server = server
        self._name = Keys(hub).hub
        self._closed = False
        self._waiting: set[_Waiting] = set()

    @property
    def hub(self) -> str:
        """Name of the hub."""
        return self._name

    @property
    def hands_over(self) -> bool:
        """See ``Store.hands_over``."""
        return self.server.delivers_in_place

    async def open(self, wanted: HubMeta | None = None, *, create: bool = True) -> HubMeta:
        """See ``Store.open``."""
        self._closed = False
        hub = self._hub()
        if hub.meta is None:
            if not create:
                raise HubNotFound.of(self._name, "memory")
            hub.meta = wanted or HubMeta()
        return check_meta(self._name, hub.meta, wanted)

    async def add_pools(self, pools: Mapping[str, int]) -> HubMeta:
        """See ``Store.add_pools``."""
        hub = self._hub()
        if hub.meta is None:
            raise InternalError("add_pools() before open()")
        hub.meta = check_pools(self._name, hub.meta.with_pools(pools), pools)
        return await _soon(hub.meta)

    async def close(self) -> None:
        """See ``Store.close``."""
        self._closed = True
        for waiting in tuple(self._waiting):
            await waiting.close()

    def _hub(self) -> Hub:
        if self._closed:
            raise StoreUnavailable("this store is closed")
        return self.server.hub(self._name)

    # --- appending and committing ------------------------------------------------------

    async def append(self, appends: Sequence[Append]) -> list[Appended]:
        """See ``Store.append``."""
        self._hub()
        outcomes = [
            Appended.UNKNOWN if self._is_away(append.target) else self.server.append(self._name, append)
            for append in appends
        ]
        return await _soon(_some(outcomes, Appended.UNKNOWN))

    async def commit(self, commits: Sequence[Commit]) -> list[CommitOutcome]:
        """See ``Store.commit``."""
        self._hub()
        outcomes: list[CommitOutcome] = [
            _AWAY if commit.partition in self.server.away else self.server.commit(self._name, commit)
            for commit in commits
        ]
        return await _soon(_some(outcomes, _AWAY))

    async def hand(self, host: str, partitions: Sequence[int], payload: bytes) -> bool:
        """See ``Store.hand``."""
        self._hub()
        return await _soon(self.server.hand(self._name, host, partitions, payload))

    def listener(self, host: str) -> MemoryListener:
        """See ``Store.listener``."""
        return MemoryListener(self, host)

    def _is_away(self, target: str) -> bool:
        return target[:2] == "p:" and int(target[2:]) in self.server.away

    def _check_here(self, *partitions: int) -> None:
        if not self.server.away.isdisjoint(partitions):
            raise StoreUnavailable(_AWAY.reason)

    def reader(self) -> MemoryReader:
        """See ``Store.reader``."""
        return MemoryReader(self)

    async def claim(self, partition: int, host: str, token: str) -> PartitionImage:
        """See ``Store.claim``."""
        self._hub()
        self._check_here(partition)
        return await _soon(self.server.claim(self._name, partition, host, token))

    async def release(self, partition: int, token: str) -> bool:
        """See ``Store.release``."""
        self._hub()
        self._check_here(partition)
        return await _soon(self.server.release(self._name, partition, token))

    async def loads(self) -> list[PartitionLoad]:
        """See ``Store.loads``."""
        hub = self._hub()
        assert hub.meta is not None
        return await _soon([_load(hub, number) for number in range(hub.meta.total)])

    async def owners(self) -> list[OwnerRow]:
        """See ``Store.owners``."""
        hub = self._hub()
        if hub.meta is None:
            raise InternalError("owners() before open()")
        rows = [hub.partition(partition) for partition in range(hub.meta.total)]
        away, unknown = self.server.away, OwnerRow("", 0, known=False)
        owners = [OwnerRow(row.host, row.epoch, row.number) for row in rows]
        known = [unknown if partition in away else owner for partition, owner in enumerate(owners)]
        return await _soon(_some(known, unknown))

    # --- hosts -------------------------------------------------------------------------

    async def heartbeat(self, host: str, record: bytes, *, lease_ms: int, lead: bool = True) -> ClusterView:
        """See ``Store.heartbeat``."""
        hub, now_ms = self._hub(), self.server.now_ms()
        if host:
            hub.hosts[host] = (now_ms, record)
        if hub.leader_until_ms <= now_ms:
            hub.leader = ""
        if lead and hub.leader in ("", host):
            hub.leader, hub.leader_until_ms = host, now_ms + lease_ms
        hosts = _beats(hub.hosts, now_ms)
        placed = (hub.placement_version, hub.placement)
        view = ClusterView(now_ms, tuple(hosts), hub.leader, *placed, hub.meta)
        return await _soon(view)

    async def place(self, leader: str, version: int, placement: bytes) -> bool:
        """See ``Store.place``."""
        hub = self._hub()
        leads = hub.leader == leader and self.server.now_ms() < hub.leader_until_ms
        if leads and version == hub.placement_version + 1:
            hub.placement_version, hub.placement = version, placement
        placed = (hub.placement_version, hub.placement) == (version, placement)
        return await _soon(leads and placed)

    async def remove_host(self, host: str, seen_ms: int | None = None) -> bool:
        """See ``Store.remove_host``."""
        hub = self._hub()
        if seen_ms is not None and (host not in hub.hosts or hub.hosts[host][0] != seen_ms):
            return await _soon(False)
        hub.hosts.pop(host, None)
        if hub.leader == host:
            hub.leader = ""
        return await _soon(True)

    async def now_ms(self) -> int:
        """See ``Store.now_ms``."""
        self._hub()
        return await _soon(self.server.now_ms())

    # --- reading -----------------------------------------------------------------------

    async def snapshots(self, keys: Sequence[tuple[int, str, str]]) -> list[bytes | None]:
        """See ``Store.snapshots``."""
        hub = self._hub()
        self._check_here(*(partition for partition, _, _ in keys))
        return await _soon([hub.partition(p).snapshots.get((name, key)) for p, name, key in keys])

    async def instances(self, keys: Sequence[tuple[int, str]], *, history: bool) -> list[StoredInstance]:
        """See ``Store.instances``."""
        hub = self._hub()
        self._check_here(*(partition for partition, _ in keys))
        found = []
        for partition, instance in keys:
            row = hub.partition(partition)
            batches = list(row.histories.get(instance, ())) if history else []
            found.append(StoredInstance(row.instances.get(instance), batches))
        return await _soon(found)

    async def has_activities(self, keys: Sequence[tuple[int, str]]) -> list[bool]:
        """See ``Store.has_activities``."""
        hub = self._hub()
        return await _soon([row_id in hub.partition(p).activities for p, row_id in keys])

    async def activity_rows(self, keys: Sequence[tuple[int, str]]) -> list[bytes | None]:
        """See ``Store.activity_rows``."""
        hub = self._hub()
        return await _soon([hub.partition(p).activities.get(row_id) for p, row_id in keys])

    async def scan_index(self, scans: Sequence[Scan], *, count: int) -> list[Found]:
        """See ``Store.scan_index``."""
        self._check_here(*(scan.partition for scan in scans))
        hub = self._hub()
        return await _soon([find(hub.partition(scan.partition).indexes, scan, count) for scan in scans])

    async def count_index(self, scans: Sequence[Scan]) -> list[Counted]:
        """See ``Store.count_index``."""
        self._check_here(*(scan.partition for scan in scans))
        hub = self._hub()
        walks = [walk(hub.partition(scan.partition).indexes, scan, scan.indexes) for scan in scans]
        return await _soon([Counted(len(members), stopped) for members, stopped in walks])

    async def ended_before(self, ends: Sequence[tuple[int, str, int]], *, count: int) -> list[list[str]]:
        """See ``Store.ended_before``."""
        hub = self._hub()
        self._check_here(*(partition for partition, _, _ in ends))
        found = []
        for partition, index, before_ms in ends:
            scores = hub.partition(partition).indexes.get(index, {})
            old = sorted((score, name) for name, score in scores.items() if score < before_ms)
            found.append([name for _, name in old[:count]])
        return await _soon(found)

    async def dead(self, partition: int, after: str, count: int) -> list[Entry]:
        """See ``Store.dead``."""
        return await _soon(self._hub().partition(partition).dead.after(parse_id(after), count))

    async def remove_dead(self, partition: int, ids: Sequence[str]) -> None:
        """See ``Store.remove_dead``."""
        for entry_id in ids:
            self._hub().partition(partition).dead.remove(parse_id(entry_id))
        await _soon(None)

    async def put_payloads(self, payloads: Sequence[Payload]) -> None:
        """See ``Store.put_payloads``."""
        hub = self._hub()
        self._check_here(*(payload.partition for payload in payloads))
        for payload in payloads:
            rows = hub.partition(payload.partition)
            if payload.id not in rows.payloads:
                rows.payloads[payload.id] = payload.content
                rows.indexes.setdefault(PENDING, {})[payload.id] = self.server.now_ms()
        await _soon(None)

    async def payloads(self, tokens: Sequence[bytes]) -> dict[bytes, bytes]:
        """See ``Store.payloads``."""
        hub, found = self._hub(), dict[bytes, bytes]()
        keys = list(map(key_of, tokens))
        self._check_here(*(key.partition for key in keys))
        for token, key in zip(tokens, keys, strict=True):
            content = hub.partition(key.partition).payloads.get(key.id)
            if content is not None:
                found[token] = content
        return await _soon(found)

    async def sweep_payloads(self, partition: int, ids: Sequence[str], before_ms: int) -> int:
        """See ``Store.sweep_payloads``."""
        rows, swept = self._hub().partition(partition), 0
        self._check_here(partition)
        pending = rows.indexes.get(PENDING, {})
        for payload_id in ids:
            if pending.get(payload_id, before_ms) < before_ms:
                del pending[payload_id]
                rows.payloads.pop(payload_id, None)
                swept += 1
        return await _soon(swept)

    async def doubled(self, partition: int) -> dict[str, int]:
        """See ``Store.doubled``."""
        return await _soon(dict(self._hub().partition(partition).doubled))

    async def sweep_producers(self, partition: int, older_ms: int) -> int:
        """See ``Store.sweep_producers``."""
        self._hub()
        return await _soon(self.server.sweep_producers(self._name, partition, older_ms))

    async def marks(self, producer: str, partitions: Sequence[int]) -> list[int]:
        """See ``Store.marks``."""
        known = self._hub().producers
        found = [known.get(partition_target(partition), {}) for partition in partitions]
        return await _soon([marks.get(producer, (0, 0))[0] for marks in found])

    async def forget_producer(self, producer: str, partitions: Sequence[int]) -> None:
        """See ``Store.forget_producer``."""
        for partition in partitions:
            self._hub().producers.get(partition_target(partition), {}).pop(producer, None)
        await _soon(None)

    # --- queues and workers ------------------------------------------------------------

    def queue_reader(self, worker: str) -> MemoryQueueReader:
        """See ``Store.queue_reader``."""
        return MemoryQueueReader(self, worker)

    async def finish_entries(self, entries: Sequence[tuple[str, str]]) -> None:
        """See ``Store.finish_entries``."""
        self._hub()
        for queue, entry_id in entries:
            self.server.finish(self._name, queue, entry_id)
        await _soon(None)

    async def keep_details(self, details: Mapping[tuple[str, str], bytes]) -> None:
        """See ``Store.keep_details``."""
        self._hub()
        for (queue, entry_id), said in details.items():
            self.server.keep_details(self._name, queue, entry_id, said)
        await _soon(None)

    async def details_of(self, entries: Sequence[tuple[str, str]]) -> list[bytes | None]:
        """See ``Store.details_of``."""
        kept = self._hub().details
        return await _soon([kept.get(entry) for entry in entries])

    async def queue_state(self, queue: str) -> QueueState:
        """See ``Store.queue_state``."""
        return await _soon(memory_queues.state_of(self._hub(), queue))

    async def adjust_queue(self, queue: str, fields: Mapping[str, str | None]) -> None:
        """See ``Store.adjust_queue``."""
        memory_queues.adjust(self._hub(), queue, fields)
        await _soon(None)

    async def queued_rows(self, queue: str, rows: Sequence[str]) -> set[str]:
        """See ``Store.queued_rows``."""
        return await _soon(memory_queues.rows_in(self._hub(), queue).intersection(rows))

    async def claim_entries(
        self, worker: str, queues: Sequence[str], *, alive_ms: int, count: int
    ) -> list[QueueEntry]:
        """See ``Store.claim_entries``."""
        hub, limit_ms = self._hub(), self.server.now_ms() - alive_ms

        def is_dead(holder: str) -> bool:
            return holder != worker and (holder not in hub.workers or hub.workers[holder][0] < limit_ms)

        claimed: list[QueueEntry] = []
        for lane in (lane for queue in queues for lane in lanes_of(queue)):
            claimed += self.server.take_over(self._name, worker, lane, is_dead, count - len(claimed))
        self.server.prune_workers(self._name, queues, max(alive_ms, WORKER_TTL_MS))
        return await _soon(claimed)

    async def worker_beat(self, worker: str, record: bytes) -> None:
        """See ``Store.worker_beat``."""
        self._hub().workers[worker] = (self.server.now_ms(), record)
        await _soon(None)

    async def remove_worker(self, worker: str) -> None:
        """See ``Store.remove_worker``."""
        self._hub().workers.pop(worker, None)
        await _soon(None)

    async def workers(self) -> list[HostBeat]:
        """See ``Store.workers``."""
        return await _soon(_beats(self._hub().workers, self.server.now_ms()))


def _load(hub: Hub, number: int) -> PartitionLoad:
    rows, inbox = hub.partition(number), hub.streams.get(partition_target(number))
    return PartitionLoad(
        inbox=len(inbox.ids) if inbox is not None else 0,
        outbox=len(rows.outbox),
        dead=len(rows.dead.ids),
        mailbox=len(rows.mailbox),
        activities=len(rows.activities),
        timers=len(rows.timers),
    )


def _some(outcomes: list[T], unknown: T) -> list[T]:
    if outcomes and all(outcome == unknown for outcome in outcomes):
        raise StoreUnavailable(_AWAY.reason)
    return outcomes


async def _soon(result: T) -> T:
    await asyncio.sleep(0)
    return result


def _beats(rows: Mapping[str, tuple[int, bytes]], now_ms: int) -> list[HostBeat]:
    return [HostBeat(name, record, now_ms - beat_ms) for name, (beat_ms, record) in sorted(rows.items())]


class _Waiting:
    """A call that can wait for something to arrive, be woken and be closed."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._closed = False
        self._woken = False
        self._waiter: asyncio.Future[None] | None = None
        store._waiting.add(self)

    async def _poll(
        self,
        attempt: Callable[[], T],
        targets: Iterable[str],
        block_ms: int,
        pause_s: Callable[[], float | None] = lambda: None,
    ) -> T:
        """Return ``attempt()`` once it finds something, time is up or it is woken.

        Tries when something arrives and, where ``pause_s`` says so, again after a while.
        """
        server, hub, targets = self._store.server, self._store.hub, tuple(targets)
        loop = asyncio.get_running_loop()
        until = loop.time() + block_ms / 1000
        await asyncio.sleep(0)
        while True:
            self._check_open()
            found = attempt()
            left_s = until - loop.time()
            if found or left_s <= 0 or self._woken:
                self._woken = False
                return found
            self._waiter = server.wait_for(hub, targets)
            try:
                await asyncio.wait((self._waiter,), timeout=min(left_s, pause_s() or left_s))
            finally:
                self._waiter.cancel()  # also when cancelled: it must leave the server's lists

    def _check_open(self) -> None:
        self._store._hub()
        if self._closed:
            raise StoreUnavailable("this reader is closed")

    async def wake(self) -> None:
        """Make a call that waits return soon."""
        self._woken = True
        self._release_waiter()

    async def close(self) -> None:
        """Make a call that waits raise ``StoreUnavailable``."""
        self._closed = True
        self._store._waiting.discard(self)
        self._release_waiter()

    def _release_waiter(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class MemoryReader(_Waiting):
    """See ``Reader``."""

    away: Set[str] = frozenset()

    async def read(
        self, positions: Mapping[str, str], *, block_ms: int, count: int
    ) -> dict[str, list[Entry]]:
        """See ``Reader.read``."""
        server, hub = self._store.server, self._store.hub
        here = {target: at for target, at in positions.items() if not self._store._is_away(target)}
        if positions and not here:
            raise StoreUnavailable(_AWAY.reason)
        self.away = positions.keys() - here.keys()
        return await self._poll(lambda: server.read(hub, here, count), here, block_ms)


class MemoryListener(_Waiting):
    """See ``Listener``."""

    def __init__(self, store: MemoryStore, host: str) -> None:
        """Listen for ``host``."""
        super().__init__(store)
        self._host = host

    async def listen(self, take: Take) -> None:
        """See ``Listener.listen``."""
        at, listeners = (self._store.hub, self._host), self._store.server.listeners
        listeners[at] = take
        try:
            while True:
                await self._poll(lambda: None, (), 3_600_000)
        finally:
            if listeners.get(at) is take:
                del listeners[at]


class MemoryQueueReader(_Waiting):
    """See ``QueueReader``."""

    def __init__(self, store: MemoryStore, worker: str) -> None:
        """Read for ``worker``."""
        super().__init__(store)
        self._worker = worker
        self._turn = 0

    async def take(self, queues: Sequence[str], *, block_ms: int, count: int) -> list[QueueEntry]:
        """See ``QueueReader.take``."""
        server, hub = self._store.server, self._store.hub
        self._turn += 1  # a busy first queue must not starve the others
        start = self._turn % max(1, len(queues))
        order = [*queues[start:], *queues[:start]]
        targets = [queue_target(lane) for queue in queues for lane in lanes_of(queue)]
        return await self._poll(
            lambda: server.take(hub, self._worker, order, count),
            targets,
            block_ms,
            lambda: LIMITED_POLL_S if memory_queues.is_limited(server.hub(hub), queues) else None,
        )

    async def retake(self, queues: Sequence[str], *, count: int) -> list[QueueEntry]:
        """See ``QueueReader.retake``."""
        self._check_open()
        taken: list[QueueEntry] = []
        for lane in (lane for queue in queues for lane in lanes_of(queue)):
            taken += self._store.server.take_over(
                self._store.hub, self._worker, lane, self._worker.__eq__, count - len(taken)
            )
        return await _soon(taken)
