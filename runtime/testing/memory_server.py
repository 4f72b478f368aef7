"""The state behind ``MemoryStore``: what a Redis would hold, as plain Python.

Rules:

* Every method is synchronous, so it is atomic like a Lua script: nothing can run in
  its middle. It checks everything first and then writes.
* It mirrors the Redis implementation decision by decision; one contract suite holds
  both to the same answers. What is only speed there (chunks, pipelines) is not here.
* Time is whatever ``clock`` says, so that a simulation can own it.
"""

from __future__ import annotations

import asyncio
import copy
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from lungfish.runtime.on_redis.keys import (
    CLIENT_LENGTH_MAX,
    CLIENT_TTL_MS,
    DEAD_LENGTH_MAX,
    INBOX_LENGTH_MAX,
    MAILBOX_LENGTH_MAX,
    QUEUE_LENGTH_MAX,
)
from lungfish.runtime.store.generations import CALM_MS, base_at
from lungfish.runtime.store.queues import Meter, lanes_of
from lungfish.runtime.store.store import (
    START,
    Append,
    Appended,
    Commit,
    CommitOutcome,
    Committed,
    Delivery,
    Entry,
    HubMeta,
    LeaseLost,
    OutboxEntry,
    PartitionImage,
    QueueEntry,
    StoreBehind,
    Take,
    partition_target,
)

from . import memory_queues

StreamId: TypeAlias = tuple[int, int]
_K = TypeVar("_K")
_V = TypeVar("_V")


def parse_id(text: str) -> StreamId:
    """Read ``<ms>-<n>``."""
    ms, _, number = text.partition("-")
    return int(ms), int(number)


def format_id(stream_id: StreamId) -> str:
    """Write ``<ms>-<n>``."""
    return f"{stream_id[0]}-{stream_id[1]}"


@dataclass(slots=True)
class Stream:
    """An append-only sequence whose ids only grow, also when the clock does not."""

    ids: list[StreamId] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    last: StreamId = (0, 0)
    expires_ms: int = 0

    def add(self, now_ms: int, payload: bytes) -> None:
        """Append a payload."""
        self.last = max((now_ms, 0), (self.last[0], self.last[1] + 1))
        self.ids.append(self.last)
        self.payloads.append(payload)

    def after(self, position: StreamId, count: int) -> list[Entry]:
        """Return up to ``count`` entries after ``position``."""
        first = bisect_right(self.ids, position)
        found = zip(self.ids[first : first + count], self.payloads[first : first + count], strict=True)
        return [Entry(format_id(stream_id), payload) for stream_id, payload in found]

    def trim(self, position: StreamId) -> None:
        """Remove everything up to and including ``position``."""
        self._cut(bisect_right(self.ids, position))

    def cap(self, length_max: int) -> None:
        """Remove the oldest until ``length_max`` are left."""
        self._cut(max(0, len(self.ids) - length_max))

    def _cut(self, count: int) -> None:
        del self.ids[:count], self.payloads[:count]

    def find(self, stream_id: StreamId) -> bytes | None:
        """Return the payload under an id."""
        at = bisect_left(self.ids, stream_id)
        return self.payloads[at] if at < len(self.ids) and self.ids[at] == stream_id else None

    def remove(self, stream_id: StreamId) -> None:
        """Remove one entry."""
        at = bisect_left(self.ids, stream_id)
        if at < len(self.ids) and self.ids[at] == stream_id:
            del self.ids[at], self.payloads[at]


@dataclass(slots=True)
class Group:
    """A queue's consumer group: what was taken by whom and is not finished."""

    last: StreamId = (0, 0)
    taken: dict[StreamId, tuple[str, int]] = field(default_factory=dict)


@dataclass(slots=True)
class Partition:
    """One partition's rows; the field names are those of ``keys``."""

    token: str = ""
    host: str = ""
    released: str = ""
    epoch: int = 0
    number: int = 0
    position: str = START
    sequences: dict[str, int] = field(default_factory=dict)
    snapshots: dict[tuple[str, str], bytes] = field(default_factory=dict)
    instances: dict[str, bytes] = field(default_factory=dict)
    histories: dict[str, list[bytes]] = field(default_factory=dict)
    mailbox: dict[str, bytes] = field(default_factory=dict)
    timers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    activities: dict[str, bytes] = field(default_factory=dict)
    outbox: dict[str, OutboxEntry] = field(default_factory=dict)
    dead: Stream = field(default_factory=Stream)
    indexes: dict[str, dict[str, int]] = field(default_factory=dict)
    payloads: dict[str, bytes] = field(default_factory=dict)
    doubled: dict[str, int] = field(default_factory=dict)
    claimed_ms: int = 0
    deaths: int = 0


@dataclass(slots=True)
class Hub:
    """Everything of one hub."""

    meta: HubMeta | None = None
    partitions: dict[int, Partition] = field(default_factory=dict)
    streams: dict[str, Stream] = field(default_factory=dict)
    producers: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    details: dict[tuple[str, str], bytes] = field(default_factory=dict)
    limits: dict[str, dict[str, str]] = field(default_factory=dict)
    meters: dict[str, Meter] = field(default_factory=dict)
    hosts: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    workers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    leader: str = ""
    leader_until_ms: int = 0
    placement_version: int = 0
    placement: bytes = b""

    def partition(self, partition: int) -> Partition:
        """Return a partition's rows."""
        return self.partitions.setdefault(partition, Partition())

    def forget(self, before: Hub, partitions: Iterable[int]) -> None:
        """Have some partitions as they were before; nothing else."""
        for number in partitions:
            target = partition_target(number)
            stream, last = before.streams.get(target, Stream()), self.streams.get(target, Stream()).last
            stream.last = max(stream.last, last)
            self.partitions[number] = before.partition(number)
            self.streams[target] = stream
            self.producers[target] = before.producers.get(target, {})

    def stream(self, target: str, now_ms: int) -> Stream:
        """Return a target's stream; an expired one is empty."""
        stream = self.streams.get(target)
        if stream is None or 0 < stream.expires_ms <= now_ms:
            stream = self.streams[target] = Stream()
        return stream


class MemoryServer:
    """What several ``MemoryStore`` handles share: the fake of one Redis server."""

    def __init__(
        self,
        clock: Callable[[], int] | None = None,
        *,
        delivers_in_place: bool = True,
        inbox_length_max: int = INBOX_LENGTH_MAX,
        queue_length_max: int = QUEUE_LENGTH_MAX,
        mailbox_length_max: int = MAILBOX_LENGTH_MAX,
    ) -> None:
        """Start empty.

        Args:
            clock: returns Unix ms; None is the system's clock.
            delivers_in_place: behave like a single server (a commit puts its deliveries
                straight into their targets) or like a Cluster (into the outbox).
            inbox_length_max: entries an inbox takes before it answers ``FULL``.
            queue_length_max: the same for queues.
            mailbox_length_max: rows of a mailbox before appends that yield get ``CROWDED``.
        """
        self.now_ms = clock or (lambda: time.time_ns() // 1_000_000)
        self.delivers_in_place = delivers_in_place
        self._lengths_max = {"p": inbox_length_max, "q": queue_length_max}
        self._mailbox_max = mailbox_length_max
        self._hubs: dict[str, Hub] = {}
        #: Partitions whose server is away, as a shard of a Cluster can be; for tests.
        self.away: set[int] = set()
        self._waiters: dict[tuple[str, str], set[asyncio.Future[None]]] = {}
        #: Who takes what is handed to a host, by hub and host. No part of the state: nothing of it is stored.
        self.listeners: dict[tuple[str, str], Take] = {}

    def hub(self, name: str) -> Hub:
        """Return the named hub's state, for the store and for tests that look inside."""
        return self._hubs.setdefault(name, Hub())

    # --- failover, for simulations -----------------------------------------------------

    def checkpoint(self) -> dict[str, Hub]:
        """Return a copy of everything, to ``rollback`` to."""
        return copy.deepcopy(self._hubs)

    def rollback(self, checkpoint: dict[str, Hub], partitions: Collection[int] | None = None) -> None:
        """Lose every write since ``checkpoint``: what a failover to a late replica does.

        It takes time, so ids that are given afterwards are later than those that were lost.

        Args:
            partitions: those that are on the shard that forgets; None: there is one server for everything.
        """
        lost, self._hubs = self._hubs, copy.deepcopy(checkpoint)
        for name, hub in lost.items():
            if partitions is not None:
                hub.forget(self.hub(name), partitions)
                self._hubs[name] = hub
                continue
            for target, stream in hub.streams.items():
                kept = self.hub(name).streams.setdefault(target, Stream())
                kept.last = max(kept.last, stream.last)

    # --- waiting -----------------------------------------------------------------------

    def wait_for(self, hub: str, targets: Iterable[str]) -> asyncio.Future[None]:
        """Return a future that ends when something is put into one of ``targets``."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        places = [self._waiters.setdefault((hub, target), set()) for target in targets]
        for place in places:
            place.add(waiter)

        def leave(done: asyncio.Future[None]) -> None:
            for place in places:
                place.discard(done)

        waiter.add_done_callback(leave)
        return waiter

    def _wake(self, hub: str, target: str) -> None:
        for waiter in tuple(self._waiters.get((hub, target), ())):
            if not waiter.done():
                waiter.set_result(None)

    # --- appending ---------------------------------------------------------------------

    def append(self, hub: str, append: Append) -> Appended:
        """Put one batch into its target, once."""
        at = (hub, append.target, append.producer, append.sequence)
        outcome = self._admit(*at, resync=append.resync, after=append.after)
        if outcome is Appended.FULL and not append.payloads:
            outcome = None
        if outcome is None and append.yields and append.payloads and self._is_crowded(hub, append.target):
            outcome = Appended.CROWDED
        if outcome is None:
            self._put(hub, append.target, append.producer, append.sequence, append.payloads)
            return Appended.OK
        return outcome

    def _is_crowded(self, hub: str, target: str) -> bool:
        return len(self.hub(hub).partition(int(target[2:])).mailbox) >= self._mailbox_max

    def _admit(
        self, hub: str, target: str, producer: str, sequence: int, *, resync: bool, after: int | None = None
    ) -> Appended | None:
        """Return why nothing is to be written, or None: write it."""
        if target.startswith("c:"):
            return None
        state = self.hub(hub)
        last, _ = state.producers.get(target, {}).get(producer, (0, 0))
        if 0 < sequence <= last:
            state.producers[target][producer] = (last, self.now_ms())
            return Appended.OK
        if after is not None and after != last:
            return Appended.GAP
        if sequence > last + 1 and not resync and after is None:
            return Appended.GAP
        length = len(state.stream(target, self.now_ms()).ids)
        return Appended.FULL if length >= self._lengths_max[target[0]] else None

    def _put(self, hub: str, target: str, producer: str, sequence: int, payloads: Sequence[bytes]) -> None:
        state, now_ms = self.hub(hub), self.now_ms()
        stream = state.stream(target, now_ms)
        for payload in payloads:
            stream.add(now_ms, payload)
        if target.startswith("c:"):
            stream.cap(CLIENT_LENGTH_MAX)
            stream.expires_ms = now_ms + CLIENT_TTL_MS
        elif sequence:
            state.producers.setdefault(target, {})[producer] = (sequence, now_ms)
        self._wake(hub, target)

    def read(self, hub: str, positions: Mapping[str, str], count: int) -> dict[str, list[Entry]]:
        """Return entries after the given positions."""
        state, now_ms = self.hub(hub), self.now_ms()
        found = {t: state.stream(t, now_ms).after(parse_id(at), count) for t, at in positions.items()}
        return {target: entries for target, entries in found.items() if entries}

    def hand(self, hub: str, host: str, partitions: Sequence[int], payload: bytes) -> bool:
        """Give batches to who listens for a host."""
        inboxes = [self.hub(hub).stream(partition_target(number), self.now_ms()) for number in partitions]
        take = self.listeners.get((hub, host))
        if take is not None:
            take([format_id(inbox.ids[-1]) if inbox.ids else "" for inbox in inboxes], payload)
        return take is not None

    def sweep_producers(self, hub: str, partition: int, older_ms: int) -> int:
        """Forget producers not seen lately, but never partitions and sinks: those count on for ever."""
        producers = self.hub(hub).producers.get(partition_target(partition), {})
        limit_ms = self.now_ms() - older_ms
        old = [
            name for name, (_, seen) in producers.items() if seen < limit_ms and name[:2] not in ("p:", "s:")
        ]
        for name in old:
            del producers[name]
            self.hub(hub).partition(partition).doubled.pop(name, None)
        return len(old)

    # --- owning and committing -----------------------------------------------------------

    def claim(self, hub: str, partition: int, host: str, token: str) -> PartitionImage:
        """Write the owner row and copy the partition."""
        row = self.hub(hub).partition(partition)
        if row.token != token:
            now_ms = self.now_ms()
            is_soon = now_ms - row.claimed_ms <= CALM_MS
            row.deaths = (row.deaths + 1 if is_soon else 1) if row.token else 0
            row.token, row.epoch, row.released = token, row.epoch + 1, ""
            row.claimed_ms = max(now_ms, row.claimed_ms + 1)
        row.host = host
        return PartitionImage(
            partition=partition,
            token=token,
            epoch=row.epoch,
            commit_number=row.number,
            position=row.position,
            sequences=dict(row.sequences),
            mailbox=dict(row.mailbox),
            timers=dict(row.timers),
            activities=dict(row.activities),
            outbox=list(row.outbox.values()),
            deaths=row.deaths,
            doubled=dict(row.doubled),
            base=0 if self.delivers_in_place else base_at(row.claimed_ms),
        )

    def release(self, hub: str, partition: int, token: str) -> bool:
        """Clear the owner row if ``token`` owns it; a repeat is True again."""
        row = self.hub(hub).partition(partition)
        if row.token == token:
            row.token, row.host, row.released = "", "", token
        return row.released == token

    def commit(self, hub: str, commit: Commit) -> CommitOutcome:
        """Apply a commit if the owner token and the number are right."""
        row = self.hub(hub).partition(commit.partition)
        if row.token != commit.token or not commit.token:
            return LeaseLost(row.host)
        if row.number + 1 < commit.number:
            return StoreBehind(row.number, commit.number - 1)
        if row.number + 1 == commit.number:
            if not (self._has_consumed(hub, commit) and self._follows(hub, commit)):
                return StoreBehind(row.number, commit.number - 1)
            self._apply_rows(row, commit)
            self._apply_direct(hub, row, commit)
            for index, delivery in enumerate(commit.deliveries):
                self._deliver(hub, row, commit, f"{commit.number}-{index}", delivery)
            self._apply_inbox(hub, row, commit)
        prefix = f"{commit.number}-"
        return Committed(tuple(entry for id_, entry in row.outbox.items() if id_.startswith(prefix)))

    def _has_consumed(self, hub: str, commit: Commit) -> bool:
        """Tell whether the inbox still has the last entry that a commit consumes: a failover may lose it."""
        if commit.position is None:
            return True
        inbox = self.hub(hub).stream(partition_target(commit.partition), self.now_ms())
        return inbox.find(parse_id(commit.position)) is not None

    def _follows(self, hub: str, commit: Commit) -> bool:
        """Tell whether what is taken directly comes next on its lanes, or is in the inbox, too."""
        marks = self.hub(hub).producers.get(partition_target(commit.partition), {})
        return all(marks.get(lane, (0, 0))[0] >= first - 1 for lane, (first, _) in commit.direct.items())

    def _apply_direct(self, hub: str, row: Partition, commit: Commit) -> None:
        target = partition_target(commit.partition)
        for lane, (first, last) in commit.direct.items():
            marks = self.hub(hub).producers.setdefault(target, {})
            mark = marks.get(lane, (0, 0))[0]
            if mark >= first:
                row.doubled[lane] = min(last, mark)
            marks[lane] = (max(last, mark), self.now_ms())
        for lane, number in commit.undoubled.items():
            if row.doubled.get(lane, number + 1) <= number:
                del row.doubled[lane]

    def _apply_rows(self, row: Partition, commit: Commit) -> None:
        row.number = commit.number
        _merge(row.snapshots, commit.snapshots)
        _merge(row.instances, commit.instances)
        _merge(row.mailbox, commit.mailbox)
        _merge(row.timers, commit.timers)
        _merge(row.activities, commit.activities)
        for instance in commit.forget_histories:
            row.histories.pop(instance, None)
        for instance, batches in commit.histories.items():
            row.histories.setdefault(instance, []).extend(batches)
        for (index, member), score in commit.index.items():
            _merge(row.indexes.setdefault(index, {}), {member: score})
        for payload in commit.forgotten:
            row.payloads.pop(payload, None)
        for outbox_id in commit.delivered:
            row.outbox.pop(outbox_id, None)

    def _apply_inbox(self, hub: str, row: Partition, commit: Commit) -> None:
        for payload in commit.dead:
            row.dead.add(self.now_ms(), payload)
        row.dead.cap(DEAD_LENGTH_MAX)
        if commit.position is not None:
            row.position = commit.position
            inbox = self.hub(hub).stream(partition_target(commit.partition), self.now_ms())
            inbox.trim(parse_id(commit.position))

    def _deliver(self, hub: str, row: Partition, commit: Commit, outbox_id: str, delivery: Delivery) -> None:
        """Put a delivery into its target, or into the outbox.

        Order per target holds, because while an earlier one waits in the outbox the
        target has not taken its sequence number, and so admits none after it.
        """
        target, sequence, producer = delivery.target, delivery.sequence, partition_target(commit.partition)
        if sequence:
            row.sequences[target] = sequence
        admitted = self._admit(hub, target, producer, sequence, resync=False) is None
        if self.delivers_in_place and admitted:
            self._put(hub, target, producer, sequence, delivery.payloads)
            return
        row.outbox[outbox_id] = OutboxEntry(outbox_id, target, sequence, delivery.payloads)

    # --- queues ------------------------------------------------------------------------

    def take(self, hub: str, worker: str, queues: Sequence[str], count: int) -> list[QueueEntry]:
        """Hand new entries to ``worker``."""
        state = self.hub(hub)

        def read(lane: str, count: int) -> list[QueueEntry]:
            group = state.groups.setdefault(lane, Group())
            entries = state.stream(f"q:{lane}", self.now_ms()).after(group.last, count)
            for entry in entries:
                group.last = parse_id(entry.id)
                group.taken[group.last] = (worker, 1)
            return [QueueEntry(lane, entry.id, entry.payload) for entry in entries]

        taken: list[QueueEntry] = []
        for queue in queues:
            taken += memory_queues.take(state, worker, queue, count - len(taken), read)
        return taken

    def take_over(
        self, hub: str, worker: str, queue: str, loses: Callable[[str], bool], count: int
    ) -> list[QueueEntry]:
        """Hand entries of holders that ``loses`` names to ``worker``."""
        group = self.hub(hub).groups.setdefault(queue, Group())
        stream = self.hub(hub).stream(f"q:{queue}", self.now_ms())
        held = sorted(stream_id for stream_id, (holder, _) in group.taken.items() if loses(holder))
        moved: list[QueueEntry] = []
        for stream_id in held[:count]:
            payload = stream.find(stream_id)
            holder, deliveries = group.taken[stream_id]
            assert payload is not None, "finish removes the entry together with who holds it"
            group.taken[stream_id] = (worker, deliveries + (holder != worker))
            moved.append(QueueEntry(queue, format_id(stream_id), payload, deliveries + 1))
        return moved

    def prune_workers(self, hub: str, queues: Sequence[str], older_ms: int) -> None:
        """Forget workers that have not beaten for so long and hold nothing of these queues."""
        state = self.hub(hub)
        limit_ms = self.now_ms() - older_ms
        old = [worker for worker, (beat_ms, _) in state.workers.items() if beat_ms < limit_ms]
        lanes = [lane for queue in queues for lane in lanes_of(queue)]
        groups = [state.groups[lane] for lane in lanes if lane in state.groups]
        holders = {holder for group in groups for holder, _ in group.taken.values()}
        for worker in old:
            if worker not in holders:
                del state.workers[worker]

    def finish(self, hub: str, queue: str, entry_id: str) -> None:
        """Remove a taken entry."""
        stream_id = parse_id(entry_id)
        self.hub(hub).stream(f"q:{queue}", self.now_ms()).remove(stream_id)
        self.hub(hub).groups.setdefault(queue, Group()).taken.pop(stream_id, None)
        self.hub(hub).details.pop((queue, entry_id), None)

    def keep_details(self, hub: str, queue: str, entry_id: str, details: bytes) -> None:
        """Keep details beside an entry that is still there."""
        if self.hub(hub).stream(f"q:{queue}", self.now_ms()).find(parse_id(entry_id)) is not None:
            self.hub(hub).details[queue, entry_id] = details


def _merge(rows: dict[_K, _V], changes: Mapping[_K, _V | None]) -> None:
    for key, value in changes.items():
        if value is None:
            rows.pop(key, None)
        else:
            rows[key] = value
