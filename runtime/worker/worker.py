"""The activity worker: takes tasks from queues, runs them, reports to their owners.

Rules:

* An entry is finished (removed from its queue) only after its outcome is durable in the
  owner's inbox. Dying anywhere before leaves the entry to another worker: at least once.
* An entry that was delivered before is run again only if its owner still has no result.
* The store may be away for any time: everything that is held is kept and tried again.
* Nothing here knows Ray: attempts with resources go through a ``Launcher``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Final

import msgpack

from lungfish.runtime.declared.app import App
from lungfish.runtime.errors import FailureDetails, StoreUnavailable, WorkersLost, qualified_name
from lungfish.runtime.ids import partition_of
from lungfish.runtime.messages import wire
from lungfish.runtime.messages.messages import ActivityResult, ActivityTask
from lungfish.runtime.messages.payloads import is_token
from lungfish.runtime.session.sender import Sender
from lungfish.runtime.settings import WorkerSettings
from lungfish.runtime.store.existing import open_existing
from lungfish.runtime.store.queues import QueueLimits
from lungfish.runtime.store.store import QueueEntry, Store, partition_target
from lungfish.runtime.telemetry import figures
from lungfish.runtime.telemetry.metrics import Sample

from .attempts import Attempt, AttemptRunner, Launcher
from .payloads import WorkerPayloads
from .pulses import PulseWatch

logger = logging.getLogger(__name__)

#: Waits after a failure of the store (s): doubled from the first to the second.
BACKOFF_S: Final = (0.05, 1.0)
#: How long an entry whose result is reported may stay in its queue (s).
FINISH_AFTER_S: Final = 0.02


@dataclass(slots=True)
class WorkerCounts:
    """What a worker has done since it started."""

    taken: int = 0
    claimed: int = 0
    succeeded: int = 0
    failed: int = 0
    timed_out: int = 0
    malformed: int = 0
    #: Delivered before, and found to have a result already.
    repeated: int = 0
    #: Nobody waited for them any more.
    cancelled: int = 0


class Worker:
    """Executes activities from queues, up to ``concurrency`` at a time."""

    def __init__(
        self,
        store: Store,
        app: App,
        *,
        worker_id: str,
        queues: Sequence[str] | None = None,
        concurrency: int = 64,
        executor: Executor | None = None,
        launcher: Launcher | None = None,
        settings: WorkerSettings | None = None,
    ) -> None:
        """Make a worker; nothing happens before ``start``.

        Args:
            store: a handle of its own; opened by ``start``, closed at the end.
            app: where activities are looked up.
            worker_id: unique for ever: a restarted worker needs a new one.
            queues: what to take from; default: all queues that the app names.
            concurrency: how many attempts may run at once, sync and async together.
            executor: threads for sync functions, at least ``concurrency`` of them (the worker
                does not shut it down); None runs them on the loop (simulations).
            launcher: runs activities that ask for resources.
            settings: bounds and times.
        """
        self.worker_id = worker_id
        self.queues = tuple(app.queues() if queues is None else queues)
        self.concurrency = concurrency
        self.counts = WorkerCounts()
        self._ended = figures.AttemptFigures(app.activities)
        self._settings = settings or WorkerSettings()
        self._store = store
        self._app = app
        self._runner = AttemptRunner(
            app, executor=executor, launcher=launcher, report=self._report, freed=self._fill
        )
        self._pulses = PulseWatch(store, self._runner, self._settings, self._partition, self._cancelled)
        self._large = WorkerPayloads(store, worker_id, begin=self._begin, report=self._report_stored)
        self._partitions = 0
        self._reader = store.queue_reader(worker_id)
        self._sender = Sender(store, f"w:{worker_id}")
        #: Every entry that is this worker's, from taking it to its removal.
        self._held: set[tuple[str, str]] = set()
        self._backlog: deque[Attempt] = deque()
        #: Per inbox: outcomes to report, and the entries that they finish.
        self._outcomes: dict[str, list[tuple[ActivityResult, tuple[str, str]]]] = {}
        self._finished: list[tuple[str, str]] = []
        #: When to look for entries that are ours without our knowing (the loop's time), first to last.
        self._looks: list[float] = []
        self._stopped = False
        self._loops: list[asyncio.Task[None]] = []
        self._taking: list[asyncio.Task[None]] = []
        self._room = asyncio.Event()
        self._beaten = asyncio.Event()
        self._to_finish = asyncio.Event()
        self._drained = asyncio.Event()

    async def start(self) -> None:
        """Open the store and start taking tasks.

        Raises:
            HubNotFound: no host has made the hub, and none does for a while.
            StoreUnavailable: it cannot be reached. From then on its absence only delays.
        """
        self._partitions = (await open_existing(self._store)).partitions
        for queue in self.queues:
            limits = self._app.queue_limits.get(queue, QueueLimits())
            await self._store.adjust_queue(queue, limits.to_fields("d"))
        self._look_later()
        self._taking = [self._every(self._take), self._every(self._sweep)]
        self._loops = [
            *self._taking,
            self._every(self._beat),
            self._every(self._finish),
            self._every(self._attend),
        ]

    async def stop(self, drain_s: float = 10.0) -> None:
        """Take nothing more, finish what runs, report it, leave.

        Args:
            drain_s: what has not ended by then is cancelled and left to other workers.
        """
        await _cancel(self._taking)
        self._held.difference_update(attempt.entry for attempt in self._backlog)
        self._backlog.clear()
        if self._held:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(drain_s):
                    await self._drained.wait()
        with contextlib.suppress(StoreUnavailable):  # then who runs it next finds a little less
            await self._pulses.keep_details()
        await self._halt()
        with contextlib.suppress(StoreUnavailable):  # then it is missed soon, and no harm is done
            await self._store.remove_worker(self.worker_id)
        await self._store.close()

    async def kill(self) -> None:
        """Stop at once and tell nobody, as a crash would: what is held is claimed by others in time."""
        await self._halt()
        await self._store.close()

    async def _halt(self) -> None:
        self._stopped = True
        self._backlog.clear()
        await _cancel(self._loops)
        await self._large.close()
        await self._runner.abandon()
        await self._sender.close()
        await self._reader.close()

    @property
    def running(self) -> int:
        """How many attempts run now."""
        return len(self._runner)

    def samples(self) -> Iterator[Sample]:
        """Yield the figures of this worker."""
        yield figures.WORKER_SLOTS(self.concurrency)
        yield figures.WORKER_RUNNING(self.running)
        yield figures.WORKER_TAKEN(self.counts.taken)
        yield figures.WORKER_CLAIMED(self.counts.claimed)
        yield figures.WORKER_REPEATED(self.counts.repeated)
        yield figures.WORKER_MALFORMED(self.counts.malformed)
        yield from self._ended.samples()

    # --- loops -------------------------------------------------------------------------

    def _every(self, step: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        name = f"lungfish worker {step.__name__.strip('_')}"
        return asyncio.create_task(self._repeat(step), name=name)

    async def _repeat(self, step: Callable[[], Awaitable[None]]) -> None:
        """Run ``step`` for ever. What it has in hand when the store is away, it must keep."""
        wait_s = BACKOFF_S[0]
        while True:
            try:
                await step()
                wait_s = BACKOFF_S[0]
                continue
            except StoreUnavailable as error:
                if wait_s == BACKOFF_S[0]:
                    logger.warning("worker %s: %s; trying again", self.worker_id, error)
            except Exception:  # a bug, here or in the store: a worker that stops silently is worse
                logger.exception("worker %s: unexpected failure; trying again", self.worker_id)
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, BACKOFF_S[1])

    async def _beat(self) -> None:
        # The first one comes before anything is taken: who has no heartbeat counts as dead.
        await self._store.worker_beat(self.worker_id, self._record())
        self._beaten.set()
        await asyncio.sleep(self._settings.heartbeat_ms / 1_000)

    async def _attend(self) -> None:
        await asyncio.sleep(self._settings.heartbeat_ms / 1_000)
        await self._pulses.attend()

    async def _take(self) -> None:
        await self._beaten.wait()
        await self._wait_for_room()
        if self._looks and self._looks[0] <= asyncio.get_running_loop().time():
            await self._take_lost()
            return
        try:
            entries = await self._reader.take(self.queues, block_ms=self._settings.block_ms, count=self._free)
        except Exception:
            self._lost_an_answer()
            raise
        self.counts.taken += len(entries)
        await self._accept(entries)

    def _lost_an_answer(self) -> None:
        """Entries may have been given to us without our hearing of it; nobody else gets them while we live.

        A read that lost its connection may go on waiting at the server and be given entries
        later: so look at once, and again when it must have ended.
        """
        now_s = asyncio.get_running_loop().time()
        self._looks = [now_s, now_s + 2 * self._settings.block_ms / 1_000]

    def _look_later(self) -> None:
        """Look now and then for no reason, too: a lost read may wait at the server for longer than we think.

        A connection that is broken at our end only is given entries for as long as the server does not know.
        """
        if not self._looks:
            self._looks = [asyncio.get_running_loop().time() + self._settings.look_ms / 1_000]

    async def _take_lost(self) -> None:
        """Look for entries that are ours and that we do not know of."""
        # Known is also what is finished while we ask.
        known = set(self._held)
        entries = await self._reader.retake(self.queues, count=len(known) + self._free)
        known |= self._held
        new = [entry for entry in entries if (entry.queue, entry.id) not in known]
        if not new:
            self._looks.pop(0)
            self._look_later()
        self.counts.taken += len(new)
        await self._accept(new)

    async def _sweep(self) -> None:
        await asyncio.sleep(self._settings.sweep_ms / 1_000)
        await self._beaten.wait()
        free = self._free
        if free <= 0:
            return
        try:
            entries = await self._store.claim_entries(
                self.worker_id, self.queues, alive_ms=self._settings.alive_ms, count=free
            )
        except Exception:
            self._lost_an_answer()
            raise
        new = [entry for entry in entries if (entry.queue, entry.id) not in self._held]
        self.counts.claimed += len(new)
        await self._accept(new, claimed=True)

    async def _finish(self) -> None:
        await self._to_finish.wait()
        if len(self._held) < self._settings.unfinished_max:
            # Many together, and not while somebody waits for what they have led to: each call is a sync of
            # the store's disk. If we die meanwhile, others find that these have their results.
            await asyncio.sleep(FINISH_AFTER_S)
        batch = self._finished[: self._settings.unfinished_max]
        await self._store.finish_entries(batch)
        del self._finished[: len(batch)]
        if not self._finished:
            self._to_finish.clear()
        self._held.difference_update(batch)
        if not self._held:
            self._drained.set()
        self._room.set()

    # --- from entry to attempt ---------------------------------------------------------

    @property
    def _free(self) -> int:
        if len(self._held) >= self._settings.unfinished_max:
            return 0
        return self.concurrency - len(self._runner) - len(self._backlog) - self._large.fetching

    async def _wait_for_room(self) -> None:
        while self._free <= 0:
            self._room.clear()
            await self._room.wait()

    async def _accept(self, entries: Sequence[QueueEntry], *, claimed: bool = False) -> None:
        fresh: list[Attempt] = []
        doubtful: list[Attempt] = []
        for entry in entries:
            name = (entry.queue, entry.id)
            self._held.add(name)
            try:
                attempt = Attempt(name, wire.unpack_task(entry.payload))
            except wire.MalformedBytes as error:
                # Nobody can be told, and if it stayed it would come back for ever.
                logger.error("queue %s, entry %s is dropped: %s", entry.queue, entry.id, error)
                self.counts.malformed += 1
                self._remove([name])
                continue
            if entry.deliveries > self._settings.deliveries_max:
                self._give_up(attempt, entry.deliveries)
                continue
            late = attempt.task.begin_by_ms > 0  # its time to begin may be over, and nobody waits any more
            repeated = (claimed or late or entry.deliveries > 1) and attempt.task.row
            (doubtful if repeated else fresh).append(attempt)
        self._drained.clear()
        self._backlog += fresh
        self._fill()
        if doubtful:
            await self._accept_doubtful(doubtful)

    def _give_up(self, attempt: Attempt, deliveries: int) -> None:
        """Report an attempt as failed that nobody has lived to report: it may be what kills the workers."""
        task = attempt.task
        text = f"activity {task.name}: {deliveries - 1} workers had attempt {task.attempt} and never reported"
        logger.error("worker %s: %s", self.worker_id, text)
        # Not tried again, whatever the policy says: the next attempt would kill as many workers.
        failure = FailureDetails(qualified_name(WorkersLost), text, non_retriable=True)
        result = ActivityResult(task.owner, task.execution, task.task, task.attempt, failure=failure)
        self._report(attempt, result)

    async def _accept_doubtful(self, attempts: list[Attempt]) -> None:
        """Run those whose result is not yet recorded; the others were run by who had them before."""
        keys = [(self._partition(attempt), attempt.task.row) for attempt in attempts]
        try:
            missing = await self._store.has_activities(keys)
        except asyncio.CancelledError:
            self._held.difference_update(attempt.entry for attempt in attempts)
            raise
        except Exception as error:  # the store is away, or worse
            # Running again is allowed; asking again would hold up what else could be taken.
            logger.warning("worker %s: cannot ask which tasks have a result: %s", self.worker_id, error)
            missing = [True] * len(attempts)
        wanted = [a for a, needed in zip(attempts, missing, strict=True) if needed]
        await self._recall_details(wanted)
        self._backlog.extend(wanted)
        done = [a.entry for a, needed in zip(attempts, missing, strict=True) if not needed]
        self.counts.repeated += len(done)
        self._remove(done)
        self._fill()

    async def _recall_details(self, attempts: list[Attempt]) -> None:
        """Find what the heartbeats said of those who had these attempts before."""
        if not attempts:
            return
        try:
            found = await self._store.details_of([attempt.entry for attempt in attempts])
        except asyncio.CancelledError:
            self._held.difference_update(attempt.entry for attempt in attempts)
            raise
        except Exception as error:  # running from the start is allowed, too
            logger.warning("worker %s: cannot ask for heartbeat details: %s", self.worker_id, error)
            return
        for attempt, details in zip(attempts, found, strict=True):
            attempt.pulse.details = details

    def _fill(self) -> None:
        while self._backlog and len(self._runner) + self._large.fetching < self.concurrency:
            attempt = self._backlog.popleft()
            if is_token(attempt.task.args):
                self._large.fetch(attempt)
            else:
                self._begin(attempt)
        self._room.set()

    def _begin(self, attempt: Attempt) -> None:
        self._runner.begin(attempt)
        if attempt.task.begin_by_ms:
            self._tell_begun(attempt.task, self._partition(attempt))

    def _tell_begun(self, task: ActivityTask, partition: int) -> None:
        begun = ActivityResult(task.owner, task.execution, task.task, task.attempt, begun=True)
        with contextlib.suppress(StoreUnavailable):  # the sender is closed: another worker begins it
            sent = self._sender.put(partition_target(partition), [begun])
            sent.add_done_callback(lambda sent: sent.cancelled() or sent.exception())

    def _cancelled(self, attempt: Attempt) -> None:
        self.counts.cancelled += 1
        self._count(attempt, "cancelled")
        self._remove([attempt.entry])

    def _partition(self, attempt: Attempt) -> int:
        return partition_of(attempt.task.owner, self._partitions)

    # --- from outcome to a finished entry ----------------------------------------------

    def _report(self, attempt: Attempt, result: ActivityResult) -> None:
        if result.failure is None:
            outcome = "succeeded"
            self.counts.succeeded += 1
        elif result.timed_out:
            outcome = "timed_out"
            self.counts.timed_out += 1
        else:
            outcome = "failed"
            self.counts.failed += 1
        self._count(attempt, outcome)
        if result.result is not None and len(result.result) > self._app.payloads.offload_bytes:
            self._large.put(self._partition(attempt), attempt, result)
        else:
            self._report_stored(attempt, result)

    def _report_stored(self, attempt: Attempt, result: ActivityResult) -> None:
        self._put_off(partition_target(self._partition(attempt)), [(result, attempt.entry)])

    def _count(self, attempt: Attempt, outcome: str) -> None:
        now_s = asyncio.get_running_loop().time()
        # One that was given up here has not begun here.
        seconds = now_s - attempt.began_s if attempt.began_s else 0.0
        self._ended.ended(attempt.task.name, outcome, attempt.task.attempt, seconds)

    def _put_off(self, target: str, outcomes: list[tuple[ActivityResult, tuple[str, str]]]) -> None:
        """Report with everything else that ends in this turn of the loop."""
        if not self._outcomes:
            asyncio.get_running_loop().call_soon(self._send)
        self._outcomes.setdefault(target, []).extend(outcomes)

    def _send(self) -> None:
        outcomes, self._outcomes = self._outcomes, {}
        for target, reports in outcomes.items():
            try:
                sent = self._sender.put(target, [result for result, _ in reports])
            except StoreUnavailable:  # the sender is closed: we have stopped, others run these again
                return
            sent.add_done_callback(partial(self._sent, target, reports))

    def _sent(
        self, target: str, reports: list[tuple[ActivityResult, tuple[str, str]]], sent: asyncio.Future[None]
    ) -> None:
        if sent.cancelled() or self._stopped:
            return
        error = sent.exception()
        if error is None:
            self._remove([entry for _, entry in reports])
            return
        # It may have arrived; the owner drops a second one. Losing it is what must not be.
        logger.warning("worker %s: %d results for %s: %s", self.worker_id, len(reports), target, error)
        asyncio.get_running_loop().call_later(BACKOFF_S[1], self._put_off, target, reports)

    def _remove(self, entries: list[tuple[str, str]]) -> None:
        if entries:
            self._finished += entries
            self._to_finish.set()

    def _record(self) -> bytes:
        record = {
            "queues": self.queues,
            "concurrency": self.concurrency,
            "running": len(self._runner),
            **asdict(self.counts),
        }
        packed: bytes = msgpack.packb(record)
        return packed


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
