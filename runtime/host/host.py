"""A host: a process that owns partitions and runs their actors (Orleans: silo).

It is one asyncio object without Ray: ``on_ray.actors`` wraps it in a Ray actor, ``local`` runs it in any
process. All I/O goes through the ``Store`` it is given; time comes from the event loop and the
store's clock; so a simulation can run several hosts in one thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import uuid
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from lungfish.runtime.declared.app import App
from lungfish.runtime.errors import StoreUnavailable
from lungfish.runtime.ids import ActorId
from lungfish.runtime.partitions.caution import Trials
from lungfish.runtime.partitions.kinds import ActorKind, load_kinds
from lungfish.runtime.partitions.partition import Partition
from lungfish.runtime.partitions.relay import Relay
from lungfish.runtime.partitions.rounds import Rounds
from lungfish.runtime.partitions.walking import Walk
from lungfish.runtime.release import release
from lungfish.runtime.settings import HostSettings
from lungfish.runtime.store.host_record import HostRecord
from lungfish.runtime.store.layout import EVERY_POOL, HubMeta, Layout
from lungfish.runtime.store.store import PartitionImage, Store
from lungfish.runtime.telemetry import figures
from lungfish.runtime.telemetry.hot import Hottest, pack_hot
from lungfish.runtime.telemetry.metrics import Lately, Sample

from .clock import HubClock
from .declaring import declare
from .orphans import sweep_orphans_forever
from .ownership import Ownership
from .passivation import Shedding, read_memory, spread
from .patrol import Patrol
from .recall import Recall
from .sweeping import Sweeper

logger = logging.getLogger(__name__)

#: How often idle activations are looked for, and how often memory is looked at (s).
PASSIVATION_S: Final = 5.0
MEMORY_S: Final = 1.0
#: How soon after letting activations go more may go (s).
SHED_PAUSE_S: Final = 0.01
#: How often old producers are forgotten, one partition at a time (s).
PRODUCER_SWEEP_S: Final = 60.0
#: How many of these go by before clients that were idle meanwhile are forgotten by their hosts.
LANES_SWEEP: Final = 5


def new_id() -> str:
    """Return a globally unique id."""
    return uuid.uuid4().hex


def _nobody(_record: bytes) -> None:
    """Listen to heartbeats where nobody does."""


class Host:
    """Owns partitions of one hub and runs their actors, until it is stopped."""

    def __init__(
        self,
        store: Store,
        app: App,
        *,
        host_id: str = "",
        settings: HostSettings | None = None,
        node: str = "",
        unique: Callable[[], str] = new_id,
        beaten: Callable[[bytes], None] | None = None,
        clock: HubClock | None = None,
        kinds: dict[str, ActorKind] | None = None,
        code: str = "",
        pools: Collection[str] = (EVERY_POOL,),
    ) -> None:
        """Make a host; ``start`` makes it run.

        Args:
            store: the hub's store; the host opens and closes it.
            app: what the actors of this hub are.
            host_id: unique name of this incarnation; never used again after it ended.
            settings: bounds and times.
            node: where this is, for people.
            unique: makes unique ids (owner tokens).
            beaten: told of every heartbeat and its record (see ``keepalive``).
            clock: the store's clock as this host reads it; tests bring one that stands still.
            kinds: what runs the actors; default: the kinds of ``load_kinds``.
            code: fingerprint of the app's code, for people who look at heartbeats.
            pools: whose partitions it takes; ``DEFAULT_POOL`` are those of none. Default: of all.
        """
        self.app = app
        self.host_id = host_id or f"host-{unique()[:12]}"
        self.settings = settings or HostSettings()
        self._store = store
        self._node = node
        self._unique = unique
        self._beaten = beaten or _nobody
        self._clock = clock or HubClock()
        self._kinds = kinds or load_kinds(app)
        self._code = code
        self._loops: list[asyncio.Task[None]] = []
        self._quarantine: set[ActorId] = set()
        self._hottest = Hottest()
        self._shedding = Shedding(self.settings.activations_max)
        self._declaring: asyncio.Task[None] | None = None
        self._pools = tuple(pools)
        #: What pools wait for, as who places hosts says; told with every heartbeat.
        self.pool_notes: dict[str, str] = {}
        self._layout = Layout(HubMeta())
        self._trials = Trials()
        self.failed: asyncio.Future[None] | None = None
        self.lost = 0
        #: Times that user code kept the event loop; counted by the thread beside it (``keepalive``).
        self.stalls = 0

    async def start(self, wanted: HubMeta | None = None) -> None:
        """Open the store, join the hub and begin to run what the placement gives us.

        Raises:
            UsageError: an archive of the app's ``retention`` cannot be used.
            HubMismatch, UnsafeStore, StoreUnavailable: see ``Store.open``. The store is closed then.
        """
        sweeper = self._make_sweeper()
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self._store.close)
            self._layout.learn(await self._store.open(wanted))
            if self.app.pools:
                counts = {name: pool.partitions for name, pool in self.app.pools.items()}
                self._layout.learn(await self._store.add_pools(counts))
            self.failed = asyncio.get_running_loop().create_future()
            self._clock.sync(await self._store.now_ms())
            self._relay = Relay(self._store)
            self._walk = Walk(self._store, self._layout)
            self._rounds = Rounds(
                self._store,
                self.settings,
                self._clock.now_ms,
                self._relay,
                self._lost,
                host_id=self.host_id,
            )
            self._lately = Lately(self._rounds.commits.times_s)
            undo.push_async_callback(self._rounds.close)
            self._patrol = self._make_patrol(self._rounds)
            undo.push_async_callback(self._patrol.close)
            self._ownership = self._make_ownership(self._rounds)
            undo.push_async_callback(self._ownership.close)
            self._recall = self._make_recall(self._rounds, self._ownership)
            undo.push_async_callback(self._recall.close)
            await self._ownership.beat()
            undo.pop_all()
        self._begin(self._ownership.beat_forever, "heartbeat")
        self._begin(self._rounds.read_forever, "reader")
        if self._store.hands_over:
            self._begin(self._rounds.listen_forever, "listener")
        self._begin(self._rounds.run_forever, "rounds")
        self._begin(self._rounds.commits.lazily_forever, "lazy flush")
        self._begin(self._relay.run_forever, "relay")
        self._begin(self._patrol.run_forever, "patrol")
        self._begin(self._recall.run_forever, "recall")
        if sweeper is not None:
            self._begin(sweeper.run_forever, "retention")
        self._begin(self._passivate_forever, "passivation")
        self._begin(self._sweep_producers_forever, "producers")
        if self.app.schedules:
            self._declaring = asyncio.create_task(
                declare(self._store, f"h:{self.host_id}", self.app.schedules, self._layout.partitions),
                name="lungfish declare schedules",
            )
        self._begin(self._sweep_payloads_forever, "payloads")

    def _make_patrol(self, rounds: Rounds) -> Patrol:
        interval_ms = self.settings.patrol_ms
        return Patrol(
            self._store, self.host_id, lambda: rounds.partitions, self._relay, interval_ms=interval_ms
        )

    def _make_recall(self, rounds: Rounds, ownership: Ownership) -> Recall:
        return Recall(
            self._store,
            self.host_id,
            lambda: rounds.partitions,
            self._layout,
            lost_ms=lambda: ownership.lost_ms,
            now_ms=self._clock.now_ms,
            interval_ms=self.settings.patrol_ms,
        )

    def _make_ownership(self, rounds: Rounds) -> Ownership:
        return Ownership(
            self._store,
            self.host_id,
            self.settings,
            self._clock,
            rounds,
            layout=self._layout,
            pools=self._pools,
            record=self._record,
            make=self._make_partition,
            adopt=self._adopt,
            token=self._unique,
            beaten=self._beaten,
        )

    def _make_sweeper(self) -> Sweeper | None:
        retentions, general = self.app.find_retentions(), self.app.retentions.get("")
        if not retentions and general is None:
            return None
        return Sweeper(
            self._store,
            retentions,
            lambda: self.partitions,
            self._clock.now_ms,
            self.wake,
            sweep_s=self.settings.retention_sweep_s,
            general=general,
        )

    async def stop(self, *, drain: bool = True) -> None:
        """Leave the hub.

        With ``drain``, finish running operations, commit, release every partition (other hosts
        take them at once) and lose nothing. Without, just stop: as if the process had died.
        """
        if drain:
            await self._ownership.drain(self.settings.drain_s)
        ending = [*self._loops, *([self._declaring] if self._declaring is not None else [])]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        await self._ownership.close()
        await self._rounds.close()
        await self._patrol.close()
        await self._recall.close()
        if drain:
            await asyncio.gather(*(kind.settle() for kind in self._kinds.values()))
            await self._store.remove_host(self.host_id)
        await self._store.close()

    @property
    def partitions(self) -> list[Partition]:
        """The partitions that this host runs now."""
        return self._rounds.partitions

    def samples(self) -> Iterator[Sample]:
        """Yield the figures of this host, once it was started."""
        rounds, partitions = self._rounds, self.partitions
        yield figures.HOST_MESSAGES(rounds.messages)
        yield figures.HOST_COMMITS(rounds.commits.count)
        yield figures.HOST_COMMIT_S(rounds.commits.times_s)
        yield figures.HOST_ROUND_S(rounds.times_s)
        yield figures.HOST_PARTITIONS(len(partitions))
        yield figures.HOST_ACTIVATIONS(sum(partition.activations for partition in partitions))
        yield figures.HOST_BACKLOG(sum(partition.backlog for partition in partitions))
        yield figures.HOST_AHEAD(sum(partition.buffered for partition in partitions))
        yield figures.HOST_ERRORS(rounds.errors["read"], "read")
        yield figures.HOST_ERRORS(rounds.errors["load"], "load")
        yield figures.HOST_ERRORS(rounds.commits.errors, "commit")
        yield figures.HOST_ERRORS(self._ownership.errors, "heartbeat")
        yield figures.HOST_CLAIMS(self._ownership.takeovers)
        yield figures.HOST_LOST(self.lost)
        yield figures.HOST_STALLS(self.stalls)
        yield figures.HOST_REFUSED(sum(kind.refused for kind in self._kinds.values()))

    def wake(self) -> None:
        """Look for due timers now: the store's clock was moved."""
        self._rounds.wake()

    async def wait_settled(self) -> None:
        """Return when every partition has an owner and this host runs its own."""
        await self._ownership.wait_settled()

    def _begin(self, loop: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        task = asyncio.get_running_loop().create_task(loop(), name=f"lungfish {name}")
        task.add_done_callback(self._loop_ended)
        self._loops.append(task)

    def _loop_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        # A loop of ours never ends by itself: a host without it is worse than no host.
        error = task.exception() or RuntimeError(f"{task.get_name()} ended")
        logger.critical("host %s: %s failed", self.host_id, task.get_name(), exc_info=error)
        if self.failed is not None and not self.failed.done():
            self.failed.set_exception(error)
            self.failed.exception()

    def _make_partition(self, image: PartitionImage) -> Partition:
        partition = Partition(
            image,
            layout=self._layout,
            kinds=self._kinds,
            clock=self._clock.now_ms,
            wake=self._rounds.wake,
            quarantine=self._quarantine,
            hottest=self._hottest,
            trials=self._trials,
            fetch=self._store.payloads,
        )
        partition.walk = self._walk
        return partition

    def _adopt(self, partition: Partition, image: PartitionImage) -> None:
        self._relay.add(partition, image.outbox)

    def _lost(self, partition: Partition, why: str, broken: ActorId | None) -> None:
        if broken is not None:
            self._quarantine.add(broken)
        self.lost += 1
        self._ownership.lost(partition, why, broken)

    def _record(self, draining: bool) -> HostRecord:
        partitions = self._rounds.partitions
        p50_s, p99_s = self._lately.told(self._clock.now_ms(), 0.5, 0.99)
        return HostRecord(
            draining=draining,
            node=self._node,
            pid=os.getpid(),
            partitions=len(partitions),
            activations=sum(partition.activations for partition in partitions),
            commits=self._rounds.commits.count,
            hot=pack_hot(self._hottest.told(self._clock.now_ms())),
            release=release(),
            code=self._code,
            commit_p50_s=p50_s,
            commit_p99_s=p99_s,
            pools=self._pools,
            known_pools=len(self._layout.meta.pools),
            pool_notes=self.pool_notes,
            lost_ms=self._ownership.noticed_ms,
        )

    async def _passivate_forever(self) -> None:
        loop = asyncio.get_running_loop()
        idle_s = loop.time()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(PASSIVATION_S, MEMORY_S)):
                    await self._rounds.crowded.wait()
            self._rounds.crowded.clear()
            if loop.time() - idle_s >= PASSIVATION_S:
                idle_s = loop.time()
                self._passivate_idle()
            self._shed()
            # What was loaded just now may go only when its commit is acknowledged: not in a busy loop.
            await asyncio.sleep(SHED_PAUSE_S)

    def _passivate_idle(self) -> None:
        now_ms = self._clock.now_ms()
        for partition in self._rounds.partitions:
            partition.passivate(now_ms - self.settings.idle_ms, most=1_000_000)

    def _shed(self) -> None:
        partitions = self._rounds.partitions
        sizes = [partition.activations for partition in partitions]
        count = self._shedding.count(sum(sizes), read_memory())
        now_ms = self._clock.now_ms()
        for partition, most in zip(partitions, spread(count, sizes), strict=True):
            if most:
                partition.passivate(now_ms, most=most)

    async def _sweep_payloads_forever(self) -> None:
        await sweep_orphans_forever(
            self._store,
            lambda: self.partitions,
            self._clock.now_ms,
            sweep_s=self.settings.payload_sweep_s,
            orphan_ms=self.settings.payload_orphan_ms,
        )

    async def _sweep_producers_forever(self) -> None:
        at = 0
        while True:
            await asyncio.sleep(PRODUCER_SWEEP_S)
            partitions = self._rounds.partitions
            if partitions:
                at += 1
                chosen = partitions[at % len(partitions)]
                try:
                    if at % LANES_SWEEP == 0:
                        await self._forget_lanes(partitions)
                    await self._store.sweep_producers(chosen.number, self.settings.producer_idle_ms)
                except StoreUnavailable as error:
                    logger.warning("forgetting old producers: %s; later", error)

    async def _forget_lanes(self, partitions: Sequence[Partition]) -> None:
        for partition in partitions:
            if idle := partition.idle_lanes():
                partition.direct.forget(idle, await self._store.doubled(partition.number))
