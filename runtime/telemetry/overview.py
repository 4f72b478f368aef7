"""A hub at a glance: its hosts, workers and partitions, as anyone may see them. Data, and how it is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack

from lungfish.runtime.settings import HostSettings, WorkerSettings
from lungfish.runtime.store.host_record import HostRecord
from lungfish.runtime.store.layout import DEFAULT_POOL, HubMeta, Layout, serves
from lungfish.runtime.store.store import HostBeat, OwnerRow, PartitionLoad, Store

_LEASE_MS: Final = HostSettings().lease_ms
_WORKER_ALIVE_MS: Final = WorkerSettings().alive_ms


@dataclass(frozen=True, slots=True)
class HostStatus:
    """A host, as its last heartbeat tells.

    Attributes:
        alive: it has beaten within its lease.
        age_ms: since its last heartbeat.
        partitions: how many it owns; commits: since it began; activations: actors in memory.
        commit_p50_s, commit_p99_s: half, and 99 of 100, of its commits of the last seconds took less.
        release: of Lungfish; code: fingerprint of the app's code, where it was deployed on Ray.
        pools: that it serves; ``""`` are the partitions of no pool, ``"*"`` is every pool.
    """

    id: str
    alive: bool
    age_ms: int
    node: str
    pid: int
    draining: bool
    partitions: int
    activations: int
    commits: int
    release: str = ""
    code: str = ""
    commit_p50_s: float = 0.0
    commit_p99_s: float = 0.0
    pools: tuple[str, ...] = (DEFAULT_POOL,)

    def serves(self, pool: str) -> bool:
        """Return True if it takes partitions of a pool (``""``: of none)."""
        return serves(self.pools, pool)


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker, as its last heartbeat tells.

    Attributes:
        concurrency: most activities at once; running: now.
        counts: since it began, by outcome.
    """

    id: str
    alive: bool
    age_ms: int
    queues: tuple[str, ...]
    concurrency: int
    running: int
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """A partition: who owns it, and what waits there.

    Attributes:
        host: id of the owner; empty: nobody, or one that is dead.
        commits: number of its last commit.
        pool: whose it is; empty: it is of none.
    """

    number: int
    host: str
    epoch: int
    commits: int
    load: PartitionLoad
    pool: str = DEFAULT_POOL


@dataclass(frozen=True, slots=True)
class HubStatus:
    """A hub at a glance.

    Attributes:
        now_ms: the store's clock (Unix ms).
        leader: the host that places partitions.
        pool_notes: what pools wait for that have not all their hosts, by name, in words (on Ray).
    """

    hub: str
    now_ms: int
    leader: str
    hosts: tuple[HostStatus, ...]
    workers: tuple[WorkerStatus, ...]
    partitions: tuple[PartitionStatus, ...]
    pool_notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def load(self) -> PartitionLoad:
        """What waits in all partitions together."""
        return sum((partition.load for partition in self.partitions), PartitionLoad())

    @property
    def unowned(self) -> tuple[int, ...]:
        """The partitions that no live host runs."""
        return tuple(partition.number for partition in self.partitions if not partition.host)

    @property
    def pools(self) -> tuple[str, ...]:
        """The names of the hub's pools, in the order of their partitions."""
        return tuple(dict.fromkeys(partition.pool for partition in self.partitions if partition.pool))

    def hosts_of(self, pool: str) -> tuple[HostStatus, ...]:
        """Return the live hosts that serve a pool (``""``: partitions of none)."""
        return tuple(host for host in self.hosts if host.alive and host.serves(pool))

    def load_of(self, pool: str) -> PartitionLoad:
        """Return what waits in the partitions of a pool."""
        return sum((each.load for each in self.partitions if each.pool == pool), PartitionLoad())


async def read_hub(store: Store) -> HubStatus:
    """Return a hub at a glance; not of one instant. Creates nothing and beats for nobody."""
    view = await store.heartbeat("", b"", lease_ms=1, lead=False)
    owners, loads, workers = await store.owners(), await store.loads(), await store.workers()
    alive = {beat.host for beat in view.hosts if beat.age_ms <= _LEASE_MS}
    pools = _pools(view.meta, len(loads))
    hosts = [row.host if row.host in alive else "" for row in owners]
    return HubStatus(
        hub=store.hub,
        now_ms=view.now_ms,
        leader=view.leader if view.leader in alive else "",
        hosts=tuple(_host(beat, hosts) for beat in view.hosts),
        workers=tuple(map(_worker, workers)),
        partitions=tuple(map(_partition, range(len(loads)), owners, hosts, loads, pools)),
        pool_notes=pool_notes(beat for beat in view.hosts if beat.host in alive),
    )


def pool_notes(live: Iterable[HostBeat]) -> dict[str, str]:
    """Return what pools wait for, as live hosts tell."""
    return {pool: note for beat in live for pool, note in HostRecord.decode(beat.record).pool_notes.items()}


def _host(beat: HostBeat, hosts: Sequence[str]) -> HostStatus:
    record = HostRecord.decode(beat.record)
    return HostStatus(
        id=beat.host,
        alive=beat.age_ms <= _LEASE_MS,
        age_ms=beat.age_ms,
        node=record.node,
        pid=record.pid,
        draining=record.draining,
        partitions=hosts.count(beat.host),
        activations=record.activations,
        commits=record.commits,
        release=record.release,
        code=record.code,
        commit_p50_s=record.commit_p50_s,
        commit_p99_s=record.commit_p99_s,
        pools=record.pools,
    )


def _worker(beat: HostBeat) -> WorkerStatus:
    record = _decoded(beat.record)
    counts = {name: value for name, value in record.items() if isinstance(value, int)}
    return WorkerStatus(
        id=beat.host,
        alive=beat.age_ms <= _WORKER_ALIVE_MS,
        age_ms=beat.age_ms,
        queues=tuple(map(str, record.get("queues", ()))),
        concurrency=counts.pop("concurrency", 0),
        running=counts.pop("running", 0),
        counts=counts,
    )


def _decoded(record: bytes) -> dict[str, Any]:
    try:
        found = msgpack.unpackb(record)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _partition(number: int, row: OwnerRow, host: str, load: PartitionLoad, pool: str) -> PartitionStatus:
    return PartitionStatus(number, host, row.epoch, row.number, load, pool)


def _pools(meta: HubMeta | None, partitions: int) -> list[str]:
    """Return the pool of each partition."""
    layout = Layout(meta or HubMeta(partitions))
    return [layout.pool_of(number) for number in range(partitions)]
