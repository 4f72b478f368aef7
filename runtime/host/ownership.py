"""Owning partitions: heartbeat, leadership, placement, claims and releases of one host.

Rules:

* Who *should* own a partition is in the placement, which the leader writes. Who *may write* it is in its
  owner row, which a claim writes. The second is what safety stands on; the first
  only tells where to go.
* A host is taken for dead when its heartbeat is older than the lease, on the store's clock, and the leader
  may judge so (see ``liveness``): after a stop of the store every heartbeat is old, and nobody is dead.
* Every host looks again at the moment at which another one's lease ends, and then soon and ever later until
  all partitions have live owners: whoever leads then places them, the others see it at once.
* A planned move waits for the old owner to release (it finishes its turns); a move away from a dead or
  gone host does not wait for anything.
* This runs for ever and looks at the whole picture every time: a second crash in the middle
  of a takeover is just another picture.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, Final

from lungfish.runtime.errors import HubMismatch, SerializationError, StoreUnavailable
from lungfish.runtime.ids import ActorId
from lungfish.runtime.partitions.partition import Partition
from lungfish.runtime.partitions.rounds import Rounds
from lungfish.runtime.settings import HostSettings
from lungfish.runtime.store.host_record import HostRecord
from lungfish.runtime.store.layout import HubMeta, Layout, serves
from lungfish.runtime.store.store import ClusterView, OwnerRow, PartitionImage, Store

from .clock import HubClock
from .liveness import Hurry, Witness, find_silent, hear, next_look_s
from .placement import decode_placement, encode_placement, place_pools
from .recall import Losses

logger = logging.getLogger(__name__)

#: How often a host that waits for a partition's release looks again (s).
RELEASE_POLL_S: Final = 0.05


class Ownership:
    """Keeps the partitions that a host runs in line with the placement."""

    def __init__(
        self,
        store: Store,
        host: str,
        settings: HostSettings,
        clock: HubClock,
        rounds: Rounds,
        *,
        layout: Layout,
        pools: Collection[str],
        record: Callable[[bool], HostRecord],
        make: Callable[[PartitionImage], Partition],
        adopt: Callable[[Partition, PartitionImage], None],
        token: Callable[[], str],
        beaten: Callable[[bytes], None],
    ) -> None:
        self._store = store
        self._host = host
        self._settings = settings
        self._clock = clock
        self._rounds = rounds
        self._layout = layout
        self._pools = pools
        self._record = record
        self._make = make
        self._adopt = adopt
        self._token = token
        self._beaten = beaten
        self._view: ClusterView | None = None
        self._placement: dict[int, str] = {}
        self._live = frozenset[str]()
        self._witness: Witness | None = None
        self._hurry = Hurry()
        self._moving: dict[int, asyncio.Task[None]] = {}
        #: Moves that the store may know of already: they are seen through, never broken off.
        self._begun: set[int] = set()
        #: Tokens of partitions that were given up, and whose release is not known to have arrived.
        self._unreleased: dict[int, str] = {}
        self._changed = asyncio.Event()
        self._losses = Losses()
        self.draining = False
        #: When this host, and any, last noticed that the store had lost writes (Unix ms); 0: never.
        self.noticed_ms = self.lost_ms = 0
        self.takeovers = 0
        self.errors = 0

    # --- heartbeat -------------------------------------------------------------------------

    async def beat_forever(self) -> None:
        """Renew the heartbeat, lead if it falls to us, follow the placement."""
        while True:
            wait_s = self._settings.heartbeat_ms / 1_000
            try:
                await self.beat()
                wait_s = self._next_look_s()
            except StoreUnavailable as error:
                self.errors += 1
                logger.warning("heartbeat: %s", error)
            await asyncio.sleep(wait_s)

    def _next_look_s(self) -> float:
        assert self._view is not None
        assert self._witness is not None
        return next_look_s(self._host, self._view.hosts, self._witness, self._hurry, self._settings)

    async def beat(self) -> None:
        """One heartbeat and what follows from it."""
        lead = self._may_lead()
        view = await self._be_heard(lead=lead)
        if not lead and not view.leader and self._may_lead():
            view = await self._be_heard(lead=True)
        self.lost_ms = max(self.lost_ms, *(HostRecord.decode(beat.record).lost_ms for beat in view.hosts), 0)
        if view.meta is not None:
            await self._learn(view.meta)
        readable = self._read_placement(view)
        if view.leader == self._host:
            await self._lead(view, rewrite=not readable)
        self._follow(await self._compare(view))

    async def _be_heard(self, *, lead: bool) -> ClusterView:
        loop = asyncio.get_running_loop()
        steady = self._witness is not None and self._witness.is_steady(loop.time(), self._settings)
        record = self._record(self.draining)
        data = replace(record, steady=steady).encode()
        view = await self._store.heartbeat(self._host, data, lease_ms=self._settings.lease_ms, lead=lead)
        # A thread that beats for a blocked loop cannot lead: the others must not leave that to it.
        self._beaten(record.encode())
        self._clock.sync(view.now_ms)
        self._witness = hear(self._witness, loop.time(), view.now_ms, self._settings)
        self._view = view
        return view

    def _may_lead(self) -> bool:
        """False for a host that may not judge who is dead while there is one that may, or before it knows."""
        if self._view is None or self._witness is None:
            return False
        if self._witness.is_steady(asyncio.get_running_loop().time(), self._settings):
            return True
        silent = find_silent(self._view.hosts, self._settings)
        others = [beat for beat in self._view.hosts if beat.host not in {self._host, *silent}]
        return not any(HostRecord.decode(beat.record).steady for beat in others)

    async def _learn(self, meta: HubMeta) -> None:
        """Take over pools that were added, and add again those that the store has lost in a failover.

        Raises:
            HubMismatch: others were added in their place: this host knows the wrong partitions, and must end.
        """
        known = self._layout.meta.pools
        if len(meta.pools) < len(known) and known[: len(meta.pools)] == meta.pools:
            logger.warning("the store has lost pools of the hub; they are added again: %s", known)
            meta = await self._store.add_pools({pool.name: pool.count for pool in known})
        if meta.pools[: len(known)] != known:
            raise HubMismatch(f"the hub's pools are not what they were: {known}, now {meta.pools}")
        self._layout.learn(meta)

    def _read_placement(self, view: ClusterView) -> bool:
        """Take the stored placement over; False if it cannot be read: the last one that could be stays."""
        try:
            self._placement = decode_placement(view.placement)
        except SerializationError as error:
            logger.error("%s; the leader writes a new one", error)
            return False
        return True

    # --- leading ---------------------------------------------------------------------------

    def _alive(self, view: ClusterView) -> dict[str, HostRecord]:
        judges = self._witness is not None and not self._witness.judges_in_s(self._settings)
        dead = find_silent(view.hosts, self._settings) if judges else frozenset[str]()
        return {beat.host: HostRecord.decode(beat.record) for beat in view.hosts if beat.host not in dead}

    async def _lead(self, view: ClusterView, *, rewrite: bool) -> None:
        alive = self._alive(view)
        if not await self._place(view, alive, rewrite=rewrite):
            return
        # After the placement: who stood still meanwhile, and leads no more, must not bury the living.
        for beat in view.hosts:
            if beat.host in alive:
                continue
            # And not who was heard since: a leader stands still as any host does.
            if await self._store.remove_host(beat.host, view.now_ms - beat.age_ms):
                logger.warning("host %s is dead: silent for %d ms", beat.host, beat.age_ms)

    async def _place(self, view: ClusterView, alive: dict[str, HostRecord], *, rewrite: bool) -> bool:
        """Give the partitions to those who are there; False if another host leads by now."""
        takers = {host: record.pools for host, record in alive.items() if not record.draining}
        if not takers:
            return True
        known = min(record.known_pools for record in alive.values())
        wanted = place_pools(self._placement, takers, self._layout.by_pool(), known)
        if wanted == self._placement and not rewrite:
            return True
        placed = await self._store.place(self._host, view.placement_version + 1, encode_placement(wanted))
        if placed:
            logger.info("placement %d over %d hosts", view.placement_version + 1, len(takers))
            self._placement = wanted
        return placed

    # --- following ---------------------------------------------------------------------------

    async def _compare(self, view: ClusterView) -> Sequence[OwnerRow]:
        """Look who owns what, where that can matter: drop what is not ours, note what is nobody's."""
        live = frozenset(beat.host for beat in view.hosts) - find_silent(view.hosts, self._settings)
        # What we know before we ask: the answer cannot be older than that.
        running = [(partition, partition.committed) for partition in self._rounds.partitions]
        if not running and live == self._live and not self._hurry.orphans:
            return ()
        owners = await self._store.owners()
        self._live = live
        if back := self._losses.saw(owners):
            logger.warning("the store lost writes of partitions %s", back)
            self.notice()
        self._drop_lost(running, owners)
        # A stranger's partition is no less pressing: whoever leads must see that it is nobody's.
        orphans = [n for n, row in enumerate(owners) if row.known and row.host and row.host not in live]
        self._hurry = self._hurry.after(orphans, self._settings)
        return owners

    def _drop_lost(self, running: Sequence[tuple[Partition, int]], owners: Sequence[OwnerRow]) -> None:
        """Drop partitions that another host claimed, or whose last commits the store lost, behind our back.

        A commit would tell, but a partition without messages makes none: what waits in the
        store (timers, an outbox) would wait for ever while we run another picture of it. The placement does
        not tell either: after a pause of ours it may name us again.
        """
        for partition, committed in running:
            row = owners[partition.number]
            if not row.known:
                continue
            if (row.host, row.epoch) != (self._host, partition.epoch):
                self._rounds.lose(partition, f"{row.host or 'another host'} owns it")
            elif row.number < committed:
                partition.store_is_behind = True
                self._rounds.lose(partition, f"the store lost writes: it has {row.number}, not {committed}")

    def _follow(self, owners: Sequence[OwnerRow]) -> None:
        for number in range(self._layout.total):
            if number in self._moving:
                continue
            mine = self._placement.get(number) == self._host
            running = self._rounds.get(number) is not None
            # One that drains takes nothing, not even what it has just released.
            if mine and not running and not self.draining:
                free = number < len(owners) and self._is_free(owners[number])
                self._move(number, self._take(number, free=free))
            elif running and not mine and number in self._placement:
                self._move(number, self._give(number))
            elif number in self._unreleased and not running and not self.draining:
                # Without it the next owner would wait for us until its patience ends.
                self._move(number, self._release(number))

    def _move(self, number: int, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"lungfish move {number}")
        self._moving[number] = task

        def ended(task: asyncio.Task[None]) -> None:
            self._moving.pop(number, None)
            self._changed.set()
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.error("moving partition %d: %r; tried again", number, error)

        task.add_done_callback(ended)

    async def _take(self, number: int, *, free: bool) -> None:
        if not free:
            await self._await_release(number)
        if self.draining or self._placement.get(number) != self._host:
            return
        self._begun.add(number)
        try:
            image = await self._store.claim(number, self._host, self._token())
            partition = self._make(image)
            self.takeovers += 1
            self._unreleased.pop(number, None)
            self._adopt(partition, image)
            await self._rounds.add(partition)
        finally:
            self._begun.discard(number)

    async def _await_release(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._settings.release_grace_ms / 1_000
        while loop.time() < until_s and self._placement.get(number) == self._host and not self.draining:
            if self._is_free((await self._store.owners())[number]):
                return
            await asyncio.sleep(RELEASE_POLL_S)

    def _is_free(self, row: OwnerRow) -> bool:
        return row.known and (row.host in ("", self._host) or not self._is_alive(row.host))

    def _is_alive(self, host: str) -> bool:
        return self._view is not None and any(
            beat.host == host and beat.age_ms <= self._settings.lease_ms for beat in self._view.hosts
        )

    async def _give(self, number: int) -> None:
        partition = self._rounds.get(number)
        if partition is None:
            return
        self._begun.add(number)
        try:
            self._rounds.stop_reading(number)
            grace_s = self._settings.release_grace_ms / 1_000
            await self._rounds.settle(partition, grace_s / 2)
            if not partition.dropped:
                partition.passivate(partition.now_ms, most=partition.activations)
            self._rounds.forget(partition)
            self._unreleased[number] = partition.token
            await self._release(number)
        finally:
            self._begun.discard(number)

    async def _release(self, number: int) -> None:
        await self._store.release(number, self._unreleased[number])
        self._unreleased.pop(number, None)

    # --- losing and leaving ------------------------------------------------------------------

    def lost(self, partition: Partition, why: str, _broken: ActorId | None) -> None:
        """A partition was dropped; if the placement still says it is ours, it is claimed again."""
        if partition.store_is_behind:
            self.notice()
        logger.warning("host %s lost partition %d: %s", self._host, partition.number, why)

    def notice(self) -> None:
        """Note that the store has lost writes just now; other hosts hear of it with the next heartbeat."""
        self.noticed_ms = self.lost_ms = self._clock.now_ms()

    async def drain(self, timeout_s: float) -> None:
        """Let go of everything: to other hosts where there are any, otherwise to nobody."""
        self.draining = True
        try:
            async with asyncio.timeout(timeout_s):
                await self.beat()
                while self._rounds.partitions and self._others():
                    await asyncio.sleep(RELEASE_POLL_S)
                    await self.beat()
        except (TimeoutError, StoreUnavailable) as error:
            logger.warning("draining host %s: %r", self._host, error)
        # What is being given away is not in memory any more, but still ours in the store; what is being
        # claimed is not in memory yet, but may be ours in the store.
        begun = [task for number, task in self._moving.items() if number in self._begun]
        await asyncio.gather(*begun, return_exceptions=True)
        await self._stop_moving()
        await asyncio.gather(
            *(self._give(partition.number) for partition in self._rounds.partitions), return_exceptions=True
        )

    def _others(self) -> bool:
        """Return True if others may take some of what this host still runs."""
        pools = {self._layout.pool_of(partition.number) for partition in self._rounds.partitions}
        for beat in self._view.hosts if self._view is not None else ():
            if beat.host != self._host and beat.age_ms <= self._settings.lease_ms:
                record = HostRecord.decode(beat.record)
                if not record.draining and any(serves(record.pools, pool) for pool in pools):
                    return True
        return False

    async def _stop_moving(self) -> None:
        moving = list(self._moving.values())
        for task in moving:
            task.cancel()
        await asyncio.gather(*moving, return_exceptions=True)

    async def close(self) -> None:
        """Stop at once, without a word to anyone."""
        await self._stop_moving()

    async def _all_owned(self) -> bool:
        owners = await self._store.owners()
        return all(owners[number].host and self._is_alive(owners[number].host) for number in self._served())

    def _served(self) -> list[int]:
        """Return the partitions of the pools that this host serves, whoever of them owns which."""
        return [
            number
            for pool, numbers in self._layout.by_pool().items()
            if serves(self._pools, pool)
            for number in numbers
        ]

    @property
    def settled(self) -> bool:
        """True when this host runs exactly what the placement gives it, and all of its pools is given."""
        mine = {number for number, host in self._placement.items() if host == self._host}
        return (
            all(number in self._placement for number in self._served())
            and not self._moving
            and mine == {partition.number for partition in self._rounds.partitions}
        )

    async def wait_settled(self) -> None:
        """Return when ``settled`` is true and every other partition of its pools has a live owner."""
        await self.beat()
        while not self.settled or not await self._all_owned():
            self._changed.clear()
            try:
                async with asyncio.timeout(RELEASE_POLL_S):
                    await self._changed.wait()
            except TimeoutError:
                continue
