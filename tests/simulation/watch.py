"""A server that is watched: what the store lets through is checked against an account of our own.

It mirrors none of the store's logic: it keeps who may write (from the claims that were answered) and what was
taken (from what was really put), and says when an answer does not fit. A fence or a
dedupe that is broken is seen here at once, whether or not it does harm in this run.
"""

from __future__ import annotations

import copy
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from lungfish.orchestrations import events
from lungfish.runtime.messages import wire
from lungfish.runtime.store.layout import Layout, serves
from lungfish.runtime.store.store import Commit, CommitOutcome, Committed, PartitionImage, QueueEntry
from lungfish.runtime.testing.memory_server import Hub, MemoryServer, parse_id
from tests.simulation.repeats import Noted

#: A field of an activity's row id ends with this; see ``orchestrations.attempts``.
_SEPARATOR = "\x00"


class WatchedServer(MemoryServer):
    """See above."""

    #: Mutants are also judged without this, by what they do to users.
    watching = True

    def __init__(self, clock: Callable[[], int], report: Callable[[str], None], **options: Any) -> None:
        super().__init__(clock, **options)
        self._report = report
        self._owners: dict[int, str] = {}
        self._epochs: dict[int, int] = {}
        self._numbers: dict[int, int] = {}
        self._puts: dict[tuple[str, str], int] = {}
        #: Idempotency keys of activities whose own result is in a history.
        self.recorded: set[str] = set()
        #: Called when writes were lost, and with them what processes were told.
        self.when_rolled_back: Callable[[], None] = lambda: None
        #: The pools that each host serves: no other partition may ever be claimed by it.
        self.serves: dict[str, tuple[str, ...]] = {}
        self.claims = 0
        self.commits = 0
        self.refused: Counter[str] = Counter()
        #: What comes is kept here, while somebody wants to send it again.
        self.noted: Noted | None = None
        #: Of everything that was committed.
        self.checksum = 0

    def _violation(self, text: str) -> None:
        if self.watching:
            self._report(text)

    def rollback(self, checkpoint: dict[str, Hub], partitions: Collection[int] | None = None) -> None:
        super().rollback(checkpoint, partitions)
        for hub in self._hubs.values():
            self._owners = {number: row.token for number, row in hub.partitions.items()}
            self._epochs = {number: row.epoch for number, row in hub.partitions.items()}
            self._numbers = {number: row.number for number, row in hub.partitions.items()}
            self._puts = {
                (target, producer): last
                for target, producers in hub.producers.items()
                for producer, (last, _) in producers.items()
            }
        self.recorded.clear()
        self.when_rolled_back()

    # --- owners ------------------------------------------------------------------------

    def claim(self, hub: str, partition: int, host: str, token: str) -> PartitionImage:
        image = super().claim(hub, partition, host, token)
        meta = self.hub(hub).meta
        if meta is not None and host in self.serves:
            pool = Layout(meta).pool_of(partition)
            if not serves(self.serves[host], pool):
                self._violation(
                    f"pools: {host}, which serves {self.serves[host]}, claims {partition} of {pool!r}"
                )
        known, last = self._owners.get(partition, ""), self._epochs.get(partition, 0)
        if known != token and image.epoch != last + 1:
            self._violation(f"claim of {partition}: epoch {image.epoch} after {last}")
        self.claims += known != token
        self._owners[partition], self._epochs[partition] = token, image.epoch
        return image

    def release(self, hub: str, partition: int, token: str) -> bool:
        released = super().release(hub, partition, token)
        if released and self._owners.get(partition) == token:
            self._owners[partition] = ""
        return released

    # --- commits -----------------------------------------------------------------------

    def commit(self, hub: str, commit: Commit) -> CommitOutcome:
        if self.noted is not None:
            self.noted.add(hub, commit)
        number = self._numbers.get(commit.partition, 0)
        row = self.hub(hub).partition(commit.partition)
        fresh = commit.number == number + 1
        before = None if fresh else copy.deepcopy(row)
        position = row.position
        removed = [] if not fresh else [key for key, value in commit.activities.items() if value is None]
        known = [key for key in removed if key in row.activities]
        outcome = super().commit(hub, commit)
        if not isinstance(outcome, Committed):
            self.refused[type(outcome).__name__] += 1
            return outcome
        if self._owners.get(commit.partition) != commit.token:
            self._violation(f"fence: {commit.token} wrote {commit.partition}, which it does not own")
        if before is not None:
            if commit.number > number:
                self._violation(f"commit {commit.number} of {commit.partition} after {number}")
            elif row != before:
                self._violation(f"commit {commit.number} of {commit.partition} was applied twice")
            return outcome
        self._numbers[commit.partition] = commit.number
        self.commits += 1
        self.checksum = zlib.crc32(_bytes_of(commit), self.checksum)
        if parse_id(row.position) < parse_id(position):
            self._violation(f"the inbox position of {commit.partition} went back")
        if known:
            self._note_results(commit, known)
        if commit.forget_histories:
            self._note_rewinds(commit)
        return outcome

    def _note_rewinds(self, commit: Commit) -> None:
        """What had failed is run again in a rewound instance, under the same key."""
        for row_id, row in commit.activities.items():
            instance, execution, task = row_id.rsplit(_SEPARATOR, 2)
            if row is not None and instance in commit.forget_histories:
                self.recorded.discard(f"{instance}:{execution}:{task}")

    def _note_results(self, commit: Commit, removed: Sequence[str]) -> None:
        for row_id in removed:
            instance, execution, task = row_id.rsplit(_SEPARATOR, 2)
            for event in events.unpack_all(commit.histories.get(instance, ())):
                own = isinstance(event, events.TaskCompleted) or (
                    isinstance(event, events.TaskFailed) and not event.timed_out
                )
                if own and event.id == int(task):  # type: ignore[union-attr]
                    self.recorded.add(f"{instance}:{execution}:{task}")

    # --- streams -----------------------------------------------------------------------

    def _put(self, hub: str, target: str, producer: str, sequence: int, payloads: Sequence[bytes]) -> None:
        super()._put(hub, target, producer, sequence, payloads)
        if sequence:
            last = self._puts.get((target, producer), 0)
            if sequence <= last:
                self._violation(f"dedupe: {target} took {sequence} of {producer} again, after {last}")
            self._puts[target, producer] = max(last, sequence)

    def take(self, hub: str, worker: str, queues: Sequence[str], count: int) -> list[QueueEntry]:
        taken = super().take(hub, worker, queues, count)
        for entry in taken:
            task = wire.unpack_task(entry.payload)
            if task.idempotency_key in self.recorded:
                self._violation(
                    f"{worker} is given activity {task.idempotency_key}, whose result is recorded"
                )
        return taken


def _bytes_of(commit: Commit) -> bytes:
    changes: list[Mapping[Any, Any]] = [commit.snapshots, commit.instances, commit.histories]
    rows: list[Mapping[Any, Any]] = [commit.mailbox, commit.timers, commit.activities]
    where = (commit.partition, commit.number, commit.position, sorted(commit.forget_histories))
    return repr((where, changes, rows, commit.deliveries, commit.delivered)).encode()
