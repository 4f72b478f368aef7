"""Rounds: read and run, for all partitions of a host together.

Rules:

* One round takes everything that has arrived, for all partitions, runs it, and leaves it in the
  partitions' drafts, which ``commits`` brings into the store; the next round runs meanwhile.
* A partition whose server does not answer, for a commit or for loading state, is left out of rounds until it
  does: the servers of the others may be well.
* A round is bounded in messages, in runs and in the bytes of its drafts. What is left goes on in the next.
* What clients hand over goes to its partition at once, and into a round like what was read; what is for a
  partition that is not run here is refused.
* Whatever goes wrong with a partition ends in ``lost``: the partition object is dropped and ownership
  decides whether it is claimed and loaded again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from lungfish.runtime.errors import StoreUnavailable
from lungfish.runtime.ids import ENTITY, ActorId
from lungfish.runtime.messages import wire
from lungfish.runtime.session.direct import Handed, read_end
from lungfish.runtime.settings import HostSettings
from lungfish.runtime.store.store import Listener, Reader, Store
from lungfish.runtime.telemetry.metrics import Distribution

from .commits import Commits
from .kinds import Stored
from .notes import Notes
from .partition import Partition
from .relay import Relay
from .slots import ActivationBroke

logger = logging.getLogger(__name__)

BACKOFF_S: Final = (0.02, 1.0)
#: Passes over the partitions within one round: local messages may wake further actors.
PASSES_MAX: Final = 8
#: An activation that breaks so often is left alone, its messages stay in the mailbox.
BREAKS_MAX: Final = 50
#: A round that has kept the event loop for this long lets others run: heartbeats, commits, replies (s).
SLICE_S: Final = 0.02


class Rounds:
    """The loop of a host: reads inboxes, runs partitions, commits."""

    def __init__(
        self,
        store: Store,
        settings: HostSettings,
        now_ms: Callable[[], int],
        relay: Relay,
        lost: Callable[[Partition, str, ActorId | None], None],
        *,
        host_id: str = "",
    ) -> None:
        self._store = store
        self._settings = settings
        self._now_ms = now_ms
        self._relay = relay
        self._lost = lost
        self._reader: Reader = store.reader()
        self._listener: Listener = store.listener(host_id)
        self._notes = Notes(store)
        self._partitions: dict[int, Partition] = {}
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._owned = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_ms = 0
        self._taking = frozenset[int]()
        self._slice_s = 0.0
        #: An actor is run: what it sends is committed with the round, and needs no further one.
        self._in_run = False
        #: At least as many entries as are read ahead: the true number is counted only when this is too high.
        self._ahead = 0
        #: Partitions whose state could not be loaded; each is tried by a task of its own.
        self._loading: dict[Partition, asyncio.Task[None]] = {}
        #: Partitions with late timers, which wait for what a read that begins now finds.
        self._looking: set[Partition] = set()
        self._breaks: Counter[ActorId] = Counter()
        self.messages = 0
        self.times_s = Distribution()
        self.errors: Counter[str] = Counter()
        #: Set when there are more activations than there should be.
        self.crowded = asyncio.Event()
        self.commits = Commits(
            store,
            relay,
            lambda: list(self._partitions.values()),
            self._lose,
            self.wake,
            bytes_max=settings.commit_bytes_max,
        )

    # --- partitions ----------------------------------------------------------------------

    def wake(self) -> None:
        """Make the loop look at its partitions soon."""
        if not self._in_run:
            self._wake.set()

    async def add(self, partition: Partition) -> None:
        """Run a partition that was just claimed."""
        self._partitions[partition.number] = partition
        self._owned.set()
        self._wake.set()
        await self._reader.wake()

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
                    self.commits.begin(lazily=True)
                    await asyncio.sleep(0.002)
                # Its own last commit, not the end of all committing: under load that never comes.
                while not partition.dropped and partition.committing:
                    await asyncio.sleep(0.002)
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
                self.errors["read"] += 1
                logger.warning("reading inboxes: %s; again in %.2f s", error, wait_s)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, BACKOFF_S[1])

    async def listen_forever(self) -> None:
        """Take what clients hand over, past the inboxes."""
        wait_s = BACKOFF_S[0]
        while True:
            began_s = asyncio.get_running_loop().time()
            try:
                await self._listener.listen(self._hand)
            except StoreUnavailable as error:
                if asyncio.get_running_loop().time() - began_s > BACKOFF_S[1]:
                    wait_s = BACKOFF_S[0]
                logger.warning("listening to clients: %s; again in %.2f s", error, wait_s)
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, BACKOFF_S[1])

    def _hand(self, ends: list[str], payload: bytes) -> None:
        try:
            producer, batches = wire.unpack_handed(payload)
            pairs = list(zip(batches, map(read_end, ends), strict=True))
        except (wire.MalformedBytes, ValueError) as error:
            logger.warning("passed over: %s", error)
            return
        for (number, sequence, rows), end in pairs:
            partition = self._partitions.get(number)
            if partition is None or number in self._taking:
                self._notes.refused(number, producer, sequence)
            else:
                partition.hand(Handed(producer, sequence, rows, end, self._now_ms()))
                self._tell_refused(partition)
        self._wake.set()

    def _tell_refused(self, partition: Partition) -> None:
        if partition.direct.refused:
            for lane, sequence in partition.direct.take_refused():
                self._notes.refused(partition.number, lane, sequence)

    async def _read_once(self) -> None:
        waiting = self.commits.held or self._loading
        reading = {
            partition.target: partition
            for number, partition in self._partitions.items()
            if number not in self._taking and not (waiting and self._is_full(partition))
        }
        if not reading:
            self._owned.clear()
            if not self._partitions:
                await self._owned.wait()
            else:
                await asyncio.sleep(0.01)
            return
        while self._ahead > self._settings.buffer_entries_max and not self._has_room():
            self._room.clear()
            await self._room.wait()
        positions = {target: partition.read_position for target, partition in reading.items()}
        looking = [each for each in self._looking if reading.get(each.target) is each]
        # Asked again and again, a server that is away answers no sooner.
        away = self._reader.away
        found = await self._reader.read(
            positions,
            block_ms=0 if any(each.target not in away for each in looking) else self._settings.heartbeat_ms,
            count=self._settings.read_entries_max,
        )
        for partition in looking:
            if partition.target not in found and partition.target not in self._reader.away:
                self._looking.discard(partition)
                partition.looked()
                self._wake.set()
        for target, entries in found.items():
            partition = reading[target]
            self._ahead += len(entries)
            if not partition.dropped:
                partition.buffer(entries)
        if found:
            self._wake.set()
            # First the round, then its commit; the next read, which is larger than both of a lone call,
            # comes last.
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    def _has_room(self) -> bool:
        self._ahead = sum(partition.buffered for partition in self._partitions.values())
        return sum(partition.buffered for partition in self._running()) <= self._settings.buffer_entries_max

    def _is_full(self, partition: Partition) -> bool:
        """True for a partition that is left out of rounds and has read ahead enough."""
        waits = partition in self.commits.held or partition in self._loading
        return waits and partition.buffered > self._settings.buffer_entries_max

    # --- running ---------------------------------------------------------------------------

    async def run_forever(self) -> None:
        """Run rounds whenever something arrived, fell due or ended."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._round()

    def _running(self) -> list[Partition]:
        """Return the partitions that can be run: those whose server answers, as far as is known."""
        if not (self.commits.held or self._loading):
            return list(self._partitions.values())
        left_out = self.commits.held | self._loading.keys()
        return [partition for partition in self._partitions.values() if partition not in left_out]

    async def _round(self) -> None:
        now_ms = self._now_ms()
        partitions = chosen = [p for p in self._running() if p.busy or p.is_due(now_ms)]
        now_s = asyncio.get_running_loop().time
        begun_s = self._slice_s = now_s()
        has_late = False
        for partition in partitions:
            if not partition.dropped:
                if partition.is_due(now_ms):
                    if partition.must_look(now_ms):
                        self._looking.add(partition)
                        has_late = True
                    else:
                        partition.fire_timers()
                partition.receive(self._settings.round_messages_max)
                self._tell_refused(partition)
            if now_s() - self._slice_s > SLICE_S:
                await self._let_others_run()
        self._room.set()
        if has_late:
            await self._look()
        for _ in range(PASSES_MAX):
            await self._load(partitions)
            partitions = [partition for partition in partitions if partition not in self._loading]
            for partition in partitions:
                self._run_partition(partition)
                if now_s() - self._slice_s > SLICE_S:
                    await self._let_others_run()
            partitions = [partition for partition in partitions if partition.busy and not partition.dropped]
            if not partitions:
                break
        if partitions:
            self._wake.set()
        self._set_alarm()
        self.times_s.observe(now_s() - begun_s)
        # Two drafts at most: one under way, one that collects. Waiting here is the back-pressure.
        while not self.commits.idle.is_set() and self._behind(chosen):
            await asyncio.sleep(0.001)
        self.commits.begin(lazily=False)
        # The flush task sends before the next round takes the processor.
        await asyncio.sleep(0)

    async def _look(self) -> None:
        # A read that waits began too early to tell. If it cannot be woken, it fails, too.
        with contextlib.suppress(StoreUnavailable):
            await self._reader.wake()

    async def _let_others_run(self) -> None:
        # Not after every partition: a turn of the loop costs more than most partitions have to do.
        await asyncio.sleep(0)
        self._slice_s = asyncio.get_running_loop().time()

    def _behind(self, partitions: Sequence[Partition]) -> bool:
        messages, size = self._settings.round_messages_max, self._settings.commit_bytes_max
        return any(p.uncommitted > messages or p.draft_bytes > size for p in partitions)

    def _run_partition(self, partition: Partition) -> None:
        if partition.dropped:
            return
        self._in_run = True
        try:
            self.messages += partition.run(self._settings.round_runs_max, self._settings.commit_bytes_max)
        except ActivationBroke as error:
            # It is loaded again; if it breaks again and again, the message at fault is found (``caution``).
            # An actor that breaks whatever it is given is left alone.
            self._breaks[error.actor] += 1
            is_hopeless = self._breaks[error.actor] >= BREAKS_MAX
            logger.exception("%s%s", error, ": left alone until the host restarts" if is_hopeless else "")
            self._lose(partition, "an activation broke", error.actor if is_hopeless else None)
        finally:
            self._in_run = False

    async def _load(self, partitions: Sequence[Partition]) -> None:
        """Load the actors that are wanted; what cannot be had now is loaded beside the rounds."""
        wanted = [partition for partition in partitions if partition.wanted()]
        if not wanted:
            return
        try:
            await self._load_all(wanted)
        except StoreUnavailable as error:
            self.errors["load"] += 1
            logger.warning("loading state: %s; trying again", error)
            for partition in wanted:
                work = self._load_until_done(partition)
                name = f"lungfish load {partition.number}"
                self._loading[partition] = asyncio.get_running_loop().create_task(work, name=name)

    async def _load_until_done(self, partition: Partition) -> None:
        wait_s = BACKOFF_S[0]
        try:
            while not partition.dropped:
                try:
                    await self._load_all([partition])
                except StoreUnavailable:
                    await asyncio.sleep(wait_s)
                    wait_s = min(wait_s * 2, BACKOFF_S[1])
                else:
                    return
        finally:
            del self._loading[partition]
            self._wake.set()

    async def _load_all(self, partitions: Sequence[Partition]) -> None:
        wanted = [(partition, actor) for partition in partitions for actor in partition.wanted()]
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
        if sum(partition.activations for partition in self.partitions) > self._settings.activations_max:
            self.crowded.set()

    def _activate(self, partition: Partition, actor: ActorId, stored: Stored) -> None:
        if partition.dropped:
            return  # lost while it was loading
        try:
            partition.activate(actor, stored)
        except Exception:  # a bug in a kind, see ActorKind.activate
            logger.exception("activating %s: set aside until the host restarts", actor)
            self._lose(partition, "an activation broke", actor)

    def _set_alarm(self) -> None:
        dues = [p.next_due_ms for p in self._running() if p.next_due_ms is not None]
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

    # --- losing ------------------------------------------------------------------------------

    def lose(self, partition: Partition, why: str) -> None:
        """Drop a partition that is not ours any more; nothing of it leaves."""
        self._lose(partition, why, None)

    def _lose(self, partition: Partition, why: str, broken: ActorId | None) -> None:
        self._remove(partition)
        if not partition.dropped:
            self._relay.forget(partition)
            partition.drop()
            self._lost(partition, why, broken)

    def forget(self, partition: Partition) -> None:
        """Drop a partition that was released."""
        self._remove(partition)
        self._taking -= {partition.number}
        self._relay.forget(partition)
        if not partition.dropped:
            partition.drop()

    def _remove(self, partition: Partition) -> None:
        if self._partitions.get(partition.number) is partition:
            del self._partitions[partition.number]
        self._looking.discard(partition)
        # The reader may be waiting for this one to make room, and no round of it will follow; other cautious
        # partitions may be waiting for the message that it tried.
        self._room.set()
        self._wake.set()

    async def close(self) -> None:
        """Drop all partitions and release the reader's connection."""
        await self.commits.close()
        tasks = list(self._loading.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._alarm is not None:
            self._alarm.cancel()
        for partition in self.partitions:
            self.forget(partition)
        await self._listener.close()
        await self._notes.close()
        await self._reader.close()
