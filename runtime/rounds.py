"""Rounds: read, run, commit, for all partitions of a host together.

Rules:

* One round takes everything that has arrived, for all partitions, runs it, and leaves it in the
  partitions' drafts. One commit call to the store is under way at a time and carries
  the drafts of all partitions; the next round runs meanwhile.
* A commit's outcome is made known before anything else happens to its partition. While the store
  cannot be reached the same commits are sent again: they are numbered, so nothing
  is applied twice.
* Whatever goes wrong with a partition ends in ``lost``: the partition object is dropped and ownership
  decides whether it is claimed and loaded again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from .errors import StoreUnavailable
from .ids import ENTITY, ActorId
from .kinds import Stored
from .partition import ActivationBroke, Partition
from .relay import Relay
from .settings import HostSettings
from .store import Commit, Committed, CommitOutcome, LeaseLost, Reader, Store, StoreBehind, partition_target

logger = logging.getLogger(__name__)

BACKOFF_S: Final = (0.02, 1.0)
#: Passes over the partitions within one round: local messages may wake further actors.
PASSES_MAX: Final = 8
#: A round that has kept the event loop for this long lets others run: heartbeats, commits, replies (s).
SLICE_S: Final = 0.02
#: How often drafts that are in no hurry (outbox trims, positions) are committed (s).
LAZY_FLUSH_S: Final = 0.25


class Rounds:
    """The loop of a host: reads inboxes, runs partitions, commits."""

    def __init__(
        self,
        store: Store,
        settings: HostSettings,
        now_ms: Callable[[], int],
        relay: Relay,
        lost: Callable[[Partition, str, ActorId | None], None],
    ) -> None:
        self._store = store
        self._settings = settings
        self._now_ms = now_ms
        self._relay = relay
        self._lost = lost
        self._reader: Reader = store.reader()
        self._partitions: dict[int, Partition] = {}
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._owned = asyncio.Event()
        self._flushed = asyncio.Event()
        self._flushed.set()
        self._flushing: asyncio.Task[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_ms = 0
        self._taking = frozenset[int]()
        self._slice_s = 0.0
        self.commits = 0
        self.messages = 0

    # --- partitions ----------------------------------------------------------------------

    def wake(self) -> None:
        """Make the loop look at its partitions soon."""
        self._wake.set()

    async def add(self, partition: Partition) -> None:
        """Run a partition that was just claimed."""
        self._partitions[partition.number] = partition
        self._owned.set()
        self._wake.set()
        await self._reader.wake()

    def remove(self, number: int) -> None:
        """Stop running a partition."""
        self._partitions.pop(number, None)

    def get(self, number: int) -> Partition | None:
        """Return an owned partition."""
        return self._partitions.get(number)

    @property
    def partitions(self) -> list[Partition]:
        """The partitions that are run now."""
        return list(self._partitions.values())

    def stop_reading(self, number: int) -> None:
        """Take no more entries for a partition that is about to be released."""
        self._taking |= {number}

    async def settle(self, partition: Partition, timeout_s: float) -> bool:
        """Wait until a partition has nothing running and nothing uncommitted; False on time-out."""
        try:
            async with asyncio.timeout(timeout_s):
                while not partition.dropped and (partition.busy or partition.running or partition.stale):
                    self._wake.set()
                    self._begin_flush(lazily=True)
                    await asyncio.sleep(0.002)
                await self._flushed.wait()
        except TimeoutError:
            return False
        return not partition.dropped

    # --- reading ---------------------------------------------------------------------------

    async def read_forever(self) -> None:
        """Move entries from the inboxes into the partitions' buffers."""
        wait_s = BACKOFF_S[0]
        while True:
            try:
                await self._read_once()
                wait_s = BACKOFF_S[0]
            except StoreUnavailable as error:
                logger.warning("reading inboxes: %s; again in %.2f s", error, wait_s)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, BACKOFF_S[1])

    async def _read_once(self) -> None:
        reading = {
            partition_target(number): partition
            for number, partition in self._partitions.items()
            if number not in self._taking
        }
        if not reading:
            self._owned.clear()
            if not self._partitions:
                await self._owned.wait()
            else:
                await asyncio.sleep(0.01)
            return
        while sum(partition.buffered for partition in reading.values()) > self._settings.buffer_entries_max:
            self._room.clear()
            await self._room.wait()
        positions = {target: partition.read_position for target, partition in reading.items()}
        found = await self._reader.read(
            positions, block_ms=self._settings.heartbeat_ms, count=self._settings.read_entries_max
        )
        for target, entries in found.items():
            partition = reading[target]
            if not partition.dropped:
                partition.buffer(entries)
        if found:
            self._wake.set()
            # First the round, then its commit; the next read, which is larger than both of a lone call, comes last.
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    # --- running ---------------------------------------------------------------------------

    async def run_forever(self) -> None:
        """Run rounds whenever something arrived, fell due or ended."""
        wait_s = BACKOFF_S[0]
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._round()
                wait_s = BACKOFF_S[0]
            except StoreUnavailable as error:
                logger.warning("loading state: %s; again in %.2f s", error, wait_s)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, BACKOFF_S[1])
                self._wake.set()

    async def _round(self) -> None:
        now_ms = self._now_ms()
        partitions = chosen = [p for p in self._partitions.values() if p.busy or p.is_due(now_ms)]
        self._slice_s = asyncio.get_running_loop().time()
        for partition in partitions:
            if not partition.dropped:
                partition.fire_timers()
                partition.receive(self._settings.round_messages_max)
            await self._let_others_run()
        self._room.set()
        for _ in range(PASSES_MAX):
            await self._load(partitions)
            for partition in partitions:
                self._run_partition(partition)
                await self._let_others_run()
            partitions = [partition for partition in partitions if partition.busy and not partition.dropped]
            if not partitions:
                break
        # What this round sent woke the loop, too, but that is committed below and needs no further round.
        self._wake.clear()
        if any(partition.busy for partition in self._partitions.values()):
            self._wake.set()
        self._set_alarm()
        # Two drafts at most: one under way, one that collects. Waiting here is the back-pressure.
        if not self._flushed.is_set() and self._behind(chosen):
            await self._flushed.wait()
        self._begin_flush(lazily=False)
        # The flush task sends before the next round takes the processor.
        await asyncio.sleep(0)

    async def _let_others_run(self) -> None:
        # Not after every partition: a turn of the loop costs more than most partitions have to do.
        loop = asyncio.get_running_loop()
        if loop.time() - self._slice_s > SLICE_S:
            await asyncio.sleep(0)
            self._slice_s = loop.time()

    def _behind(self, partitions: Sequence[Partition]) -> bool:
        limit = self._settings.round_messages_max
        return any(partition.uncommitted > limit for partition in partitions)

    def _run_partition(self, partition: Partition) -> None:
        if partition.dropped:
            return
        try:
            self.messages += partition.run(self._settings.round_runs_max)
        except ActivationBroke as error:
            logger.exception("%s: set aside until the host restarts", error)
            self._lose(partition, "an activation broke", error.actor)

    async def _load(self, partitions: Sequence[Partition]) -> None:
        wanted = [(partition, actor) for partition in partitions for actor in partition.wanted()]
        if not wanted:
            return
        entities = [(p, a) for p, a in wanted if a.kind == ENTITY]
        others = [(p, a) for p, a in wanted if a.kind != ENTITY]
        if entities:
            rows = await self._store.snapshots([(p.number, a.name, a.key) for p, a in entities])
            for (partition, actor), row in zip(entities, rows, strict=True):
                self._activate(partition, actor, Stored(row))
        if others:
            found = await self._store.instances([(p.number, a.key) for p, a in others], history=True)
            for (partition, actor), stored in zip(others, found, strict=True):
                self._activate(partition, actor, Stored(stored.row, tuple(stored.history)))

    def _activate(self, partition: Partition, actor: ActorId, stored: Stored) -> None:
        if partition.dropped:
            return  # lost while it was loading
        try:
            partition.activate(actor, stored)
        except Exception:  # a bug in a kind, see ActorKind.activate
            logger.exception("activating %s: set aside until the host restarts", actor)
            self._lose(partition, "an activation broke", actor)

    def _set_alarm(self) -> None:
        dues = [p.next_due_ms for p in self._partitions.values() if p.next_due_ms is not None]
        if not dues:
            return
        due_ms = min(dues)
        if self._alarm is not None:
            if self._alarm_ms <= due_ms and not self._alarm.cancelled():
                return
            self._alarm.cancel()
        delay_s = max(0, due_ms - self._now_ms()) / 1_000
        self._alarm_ms = due_ms
        self._alarm = asyncio.get_running_loop().call_later(delay_s, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._wake.set()

    # --- committing ------------------------------------------------------------------------

    async def flush_lazily_forever(self) -> None:
        """Commit now and then what is in no hurry: outbox trims and inbox positions."""
        while True:
            await asyncio.sleep(LAZY_FLUSH_S)
            self._begin_flush(lazily=True)

    def _begin_flush(self, *, lazily: bool) -> None:
        if self._flushed.is_set() and self._to_commit(lazily):
            self._flushed.clear()
            self._flushing = asyncio.get_running_loop().create_task(
                self._flush(lazily), name="lungfish flush"
            )

    def _to_commit(self, lazily: bool) -> list[Partition]:
        return [p for p in self._partitions.values() if (p.stale if lazily else p.dirty)]

    async def _flush(self, lazily: bool) -> None:
        try:
            while partitions := self._to_commit(lazily):
                pairs = [(partition, partition.take_commit()) for partition in partitions]
                for at in range(0, len(pairs), 64):
                    await self._commit(pairs[at : at + 64])
                lazily = False
        finally:
            self._flushed.set()

    async def _commit(self, pairs: Sequence[tuple[Partition, Commit]]) -> None:
        try:
            outcomes = await self._until_known([commit for _, commit in pairs])
        except Exception as error:
            # The store refuses the call itself, or we have a bug: what was taken from the drafts cannot be
            # written, so this memory must not run ahead any further.
            logger.exception("commit refused")
            for partition, _ in pairs:
                self._lose(partition, f"commit refused: {error}", None)
            return
        for (partition, commit), outcome in zip(pairs, outcomes, strict=True):
            self._settle_commit(partition, commit, outcome)

    async def _until_known(self, commits: list[Commit]) -> list[CommitOutcome]:
        wait_s = BACKOFF_S[0]
        while True:
            try:
                return await self._store.commit(commits)
            except StoreUnavailable as error:
                logger.warning("commit: %s; the same again in %.2f s", error, wait_s)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, BACKOFF_S[1])

    def _settle_commit(self, partition: Partition, commit: Commit, outcome: CommitOutcome) -> None:
        self.commits += 1
        if partition.dropped:
            return  # released meanwhile: the next owner finds what was committed, its outbox, too
        match outcome:
            case Committed(outbox):
                partition.acknowledged(commit.number)
                # The output gate: only now may anything of this commit leave.
                self._relay.add(partition, outbox)
            case LeaseLost(owner):
                self._lose(partition, f"{owner or 'another host'} owns it", None)
            case StoreBehind(stored, expected):
                self._lose(partition, f"the store lost writes: it has {stored}, not {expected}", None)

    def lose(self, partition: Partition, why: str) -> None:
        """Drop a partition that is not ours any more; nothing of it leaves."""
        self._lose(partition, why, None)

    def _lose(self, partition: Partition, why: str, broken: ActorId | None) -> None:
        if self._partitions.get(partition.number) is partition:
            del self._partitions[partition.number]
        if not partition.dropped:
            self._relay.forget(partition)
            partition.drop()
            self._lost(partition, why, broken)

    def forget(self, partition: Partition) -> None:
        """Drop a partition that was released."""
        if self._partitions.get(partition.number) is partition:
            del self._partitions[partition.number]
        self._taking -= {partition.number}
        self._relay.forget(partition)
        if not partition.dropped:
            partition.drop()

    async def close(self) -> None:
        """Drop all partitions and release the reader's connection."""
        if self._flushing is not None:
            self._flushing.cancel()
            await asyncio.gather(self._flushing, return_exceptions=True)
        if self._alarm is not None:
            self._alarm.cancel()
        for partition in self.partitions:
            self.forget(partition)
        await self._reader.close()
