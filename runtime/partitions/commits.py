"""Committing: the drafts of a host's partitions to the store, one call at a time.

Rules:

* One call with new commits is under way at a time; what happens meanwhile collects in the next drafts.
* A partition whose commit has no outcome yet is *held*: it makes no further commit, and is not run, until
  the same commit was sent again and answered. Others go on meanwhile: their server may be another one.
* A draft in no hurry (an inbox position, an outbox trim) goes with the next call after ``LAZY_FLUSH_S``,
  also under steady load: otherwise inboxes would fill with entries that have long been processed.
* While the store cannot be reached the same commits are sent again. They are numbered, so nothing is
  applied twice.
* A call is bounded in bytes. If the store refuses one, its commits go one by one, so that only the one
  that is at fault is lost; a partition whose draft cannot even be built is lost alone, too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

from lungfish.runtime.errors import StoreUnavailable
from lungfish.runtime.ids import ActorId
from lungfish.runtime.store.store import Commit, Committed, LeaseLost, Store, StoreBehind, Unknown
from lungfish.runtime.telemetry.metrics import Distribution

from .partition import Partition
from .relay import Relay

logger = logging.getLogger(__name__)

BACKOFF_S: Final = (0.02, 1.0)
#: How long a draft in no hurry may wait (s).
LAZY_FLUSH_S: Final = 0.25
#: Most commits in one call to the store.
CALL_COMMITS_MAX: Final = 64

Pair = tuple[Partition, Commit]


class Lose(Protocol):
    """Drops a partition; says why, and which actor was at fault if one was."""

    def __call__(self, partition: Partition, why: str, broken: ActorId | None) -> None: ...


class Commits:
    """Takes drafts from partitions and brings them into the store."""

    def __init__(
        self,
        store: Store,
        relay: Relay,
        partitions: Callable[[], Sequence[Partition]],
        lose: Lose,
        wake: Callable[[], None],
        *,
        bytes_max: int,
    ) -> None:
        """Prepare.

        Args:
            partitions: the partitions that are run now.
            lose: called for a partition that may not, or cannot, be written any more.
            wake: called when partitions are held no longer.
            bytes_max: about the size of one call to the store.
        """
        self._store = store
        self._relay = relay
        self._partitions = partitions
        self._lose = lose
        self._bytes_max = bytes_max
        self._wake = wake
        self._task: asyncio.Task[None] | None = None
        self._retries: set[asyncio.Task[None]] = set()
        self.held: set[Partition] = set()
        self._lazy_s = 0.0
        self.idle = asyncio.Event()
        self.idle.set()
        self.count = 0
        self.errors = 0
        self.times_s = Distribution()

    def begin(self, *, lazily: bool) -> None:
        """Commit what waits, if no call is under way (then it goes with the next)."""
        if self.idle.is_set() and self._has_work(lazily):
            self.idle.clear()
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._flush(lazily), name="lungfish flush")

    async def lazily_forever(self) -> None:
        """Commit now and then what is in no hurry, where nothing else is committed."""
        while True:
            await asyncio.sleep(LAZY_FLUSH_S)
            self.begin(lazily=True)

    async def close(self) -> None:
        """Stop, whatever is under way."""
        tasks = [*self._retries, *([self._task] if self._task is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _has_work(self, lazily: bool) -> bool:
        held = self.held
        return any((p.stale if lazily else p.dirty) and p not in held for p in self._partitions())

    def _chosen(self, lazily: bool) -> list[Partition]:
        return [p for p in self._partitions() if (p.stale if lazily else p.dirty) and p not in self.held]

    async def _flush(self, lazily: bool) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                lazily = lazily or loop.time() - self._lazy_s >= LAZY_FLUSH_S
                partitions = self._chosen(lazily)
                if not partitions:
                    break
                if lazily:
                    self._lazy_s = loop.time()
                    lazily = False
                for pairs in self._calls(self._take(partitions)):
                    await self._commit(pairs)
        finally:
            self.idle.set()

    def _take(self, partitions: Sequence[Partition]) -> list[Pair]:
        pairs = []
        for partition in partitions:
            try:
                pairs.append((partition, partition.take_commit()))
            except Exception as error:  # a bug of ours: the others must not suffer for it
                logger.exception("partition %d: its draft cannot be committed", partition.number)
                self._lose(partition, f"its draft cannot be committed: {error!r}", None)
        return pairs

    def _calls(self, pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
        call: list[Pair] = []
        size = 0
        for pair in pairs:
            added = commit_bytes(pair[1])
            if call and (len(call) >= CALL_COMMITS_MAX or size + added > self._bytes_max):
                yield call
                call, size = [], 0
            call.append(pair)
            size += added
        if call:
            yield call

    async def _commit(self, pairs: list[Pair]) -> None:
        unknown = await self._try(pairs)
        if unknown:
            self.held.update(partition for partition, _ in unknown)
            work = self._until_known(unknown)
            task = asyncio.get_running_loop().create_task(work, name="lungfish commit again")
            self._retries.add(task)
            task.add_done_callback(self._retries.discard)

    async def _until_known(self, pairs: list[Pair]) -> None:
        wait_s = BACKOFF_S[0]
        while pairs:
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, BACKOFF_S[1])
            # One that was dropped has no use for its outcome: its next owner finds it.
            tried, pairs = pairs, await self._try([pair for pair in pairs if not pair[0].dropped])
            self.held.difference_update(partition for partition, _ in tried)
            self.held.update(partition for partition, _ in pairs)
            if len(pairs) < len(tried):
                self._wake()

    async def _try(self, pairs: list[Pair]) -> list[Pair]:
        """Commit and settle; return those whose outcome is unknown."""
        if any(commit.ahead for _, commit in pairs):
            late = [pair for pair in pairs if not await self._write_ahead(*pair)]
            ready = [pair for pair in pairs if pair not in late and not pair[0].dropped]
            return [*late, *(await self._try(ready) if ready else [])]
        now_s = asyncio.get_running_loop().time
        begun_s = now_s()
        try:
            outcomes = await self._store.commit([commit for _, commit in pairs])
            self.times_s.observe(now_s() - begun_s)
        except StoreUnavailable as error:
            self.errors += 1
            logger.warning("commit: %s; trying again", error)
            return pairs
        except Exception as error:
            if len(pairs) > 1:
                logger.exception("%d commits refused; now one by one", len(pairs))
                return [left for pair in pairs for left in await self._try([pair])]
            # What was taken from the draft cannot be written, so this memory must not run ahead any further.
            logger.exception("commit of partition %d refused", pairs[0][0].number)
            self._lose(pairs[0][0], f"commit refused: {error!r}", None)
            return []
        unknown: list[Pair] = []
        for (partition, commit), outcome in zip(pairs, outcomes, strict=True):
            if isinstance(outcome, Unknown):
                logger.warning("commit of partition %d: %s; trying again", partition.number, outcome.reason)
                unknown.append((partition, commit))
            else:
                self._settle(partition, commit, outcome)
        return unknown

    async def _write_ahead(self, partition: Partition, commit: Commit) -> bool:
        """Have in the store what a commit refers to; False: it is to be tried again.

        A payload that was written is never written again: then it would have to be told from a new one.
        """
        try:
            if commit.ahead:
                await self._store.put_payloads(commit.ahead)
        except StoreUnavailable as error:
            logger.warning("payloads of partition %d: %s; trying again", partition.number, error)
            return False
        except Exception as error:
            logger.exception("payloads of partition %d refused", partition.number)
            self._lose(partition, f"payloads refused: {error!r}", None)
        commit.ahead.clear()
        return True

    def _settle(
        self, partition: Partition, commit: Commit, outcome: Committed | LeaseLost | StoreBehind
    ) -> None:
        self.count += 1
        if partition.dropped:
            return  # released meanwhile: the next owner finds what was committed, its outbox, too
        match outcome:
            case Committed(outbox):
                partition.acknowledged(commit.number)
                # The output gate: only now may anything of this commit leave.
                if outbox:
                    self._relay.add(partition, outbox)
                for call in partition.take_gated():
                    try:
                        call()
                    except Exception:  # the outcomes of other partitions are still to be told
                        logger.exception("partition %d: what follows a commit failed", partition.number)
            case LeaseLost(owner):
                self._lose(partition, f"{owner or 'another host'} owns it", None)
            case StoreBehind(stored, expected):
                partition.store_is_behind = True
                self._lose(partition, f"the store lost writes: it has {stored}, not {expected}", None)


def commit_bytes(commit: Commit) -> int:
    """Return about how large a commit is on its way to the store."""
    total = sum(map(len, filter(None, commit.snapshots.values())))
    for delivery in commit.deliveries:
        total += sum(map(len, delivery.payloads))
    if commit.instances or commit.mailbox or commit.activities or commit.histories:
        for table in (commit.instances, commit.mailbox, commit.activities):
            total += sum(map(len, filter(None, table.values())))
        for batches in commit.histories.values():
            total += sum(map(len, batches))
    for timer in commit.timers.values():
        total += 0 if timer is None else len(timer[1])
    for index, member in commit.index:
        total += len(index) + len(member)
    return total + sum(map(len, commit.dead))
