"""Bugs on purpose: each takes one safeguard out of the product; the simulation must notice.

A suite that stays green without a fence does not test the fence. Every mutant is patched in from here,
for the time of a ``with`` block; the product has no switches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final
from unittest.mock import patch

from lungfish.entities.hooks import Step, Waking
from lungfish.entities.jobs import Job
from lungfish.entities.locking import Holding
from lungfish.entities.running import Running
from lungfish.orchestrations import context, outgoing, processor
from lungfish.runtime.client.sinks import _Writing
from lungfish.runtime.host import placement
from lungfish.runtime.host.ownership import Ownership
from lungfish.runtime.host.patrol import Patrol
from lungfish.runtime.host.recall import Recall
from lungfish.runtime.partitions.kinds import Effects
from lungfish.runtime.partitions.partition import Partition
from lungfish.runtime.partitions.relay import Relay
from lungfish.runtime.session.sender import Sender
from lungfish.runtime.store.store import (
    Append,
    Appended,
    Commit,
    CommitOutcome,
    Committed,
    LeaseLost,
    PartitionImage,
    QueueEntry,
    partition_target,
)
from lungfish.runtime.testing.memory_server import MemoryServer, Stream
from lungfish.runtime.testing.memory_store import MemoryStore
from lungfish.runtime.worker.worker import Worker
from tests.simulation.network import FaultyStore
from tests.simulation.watch import WatchedServer


@contextlib.contextmanager
def blind() -> Iterator[None]:
    """Switch the account of the watched server off: what is left is what users can see."""
    with patch.object(WatchedServer, "watching", False):
        yield


Mutant = Callable[[], contextlib.AbstractContextManager[Any]]


def no_fence() -> Any:
    """The store takes commits of anybody."""
    genuine = MemoryServer.commit

    def commit(self: MemoryServer, hub: str, commit: Commit) -> CommitOutcome:
        row = self.hub(hub).partition(commit.partition)
        row.token = row.token or commit.token
        return genuine(self, hub, replace(commit, token=row.token, number=row.number + 1))

    return patch.object(MemoryServer, "commit", commit)


def no_dedupe() -> Any:
    """The store takes every append, whatever its sequence number."""
    genuine = MemoryServer._admit

    def admit(
        self: MemoryServer, hub: str, target: str, producer: str, sequence: int, **_: Any
    ) -> Appended | None:
        outcome = genuine(self, hub, target, producer, 0, resync=True)
        return outcome if outcome is Appended.FULL else None

    return patch.object(MemoryServer, "_admit", admit)


def no_output_gate() -> Any:
    """A host sends replies and messages before their commit is acknowledged."""
    genuine = FaultyStore.commit

    async def commit(self: FaultyStore, commits: Sequence[Commit]) -> list[CommitOutcome]:
        early = [
            Append(delivery.target, partition_target(commit.partition), delivery.sequence, delivery.payloads)
            for commit in commits
            for delivery in commit.deliveries
        ]
        if early:
            await self.append(early)
        return await genuine(self, commits)

    return patch.object(FaultyStore, "commit", commit)


def commits_repeat() -> Any:
    """A commit whose number was applied before is applied again."""
    genuine = MemoryServer.commit

    def commit(self: MemoryServer, hub: str, commit: Commit) -> CommitOutcome:
        row = self.hub(hub).partition(commit.partition)
        if 0 < commit.number <= row.number:
            number, row.number = row.number, commit.number - 1
            outcome = genuine(self, hub, commit)
            row.number = number
            return outcome
        return genuine(self, hub, commit)

    return patch.object(MemoryServer, "commit", commit)


def no_mailbox_rows() -> Any:
    """Messages that are accepted and not finished are not in the commit."""
    genuine = Partition.take_commit

    def take_commit(self: Partition) -> Commit:
        commit = genuine(self)
        commit.mailbox = {row: value for row, value in commit.mailbox.items() if value is None}
        return commit

    return patch.object(Partition, "take_commit", take_commit)


def _image_without(**fields: Any) -> Any:
    genuine = MemoryServer.claim

    def claim(self: MemoryServer, hub: str, partition: int, host: str, token: str) -> PartitionImage:
        return replace(genuine(self, hub, partition, host, token), **fields)

    return patch.object(MemoryServer, "claim", claim)


def timers_forgotten() -> Any:
    """A new owner does not load the timers."""
    return _image_without(timers={})


def outbox_forgotten() -> Any:
    """A new owner does not go on with the outbox."""
    return _image_without(outbox=[])


def sequences_forgotten() -> Any:
    """A new owner counts its messages from 1 again."""
    return _image_without(sequences={})


def mailbox_forgotten() -> Any:
    """A new owner does not go on with accepted messages."""
    return _image_without(mailbox={})


def activities_forgotten() -> Any:
    """A new owner does not know which activities have no result."""
    return _image_without(activities={})


def position_stays() -> Any:
    """The inbox position is not in the commit that has the messages' effects."""
    genuine = Partition.take_commit

    def take_commit(self: Partition) -> Commit:
        commit = genuine(self)
        if commit.snapshots:
            commit.position = None
        return commit

    return patch.object(Partition, "take_commit", take_commit)


def trims_too_far() -> Any:
    """A commit trims the whole inbox, not only what it has taken."""

    def trim(self: Stream, position: tuple[int, int]) -> None:
        self._cut(len(self.ids))

    return patch.object(Stream, "trim", trim)


@contextlib.contextmanager
def lease_lost_ignored() -> Iterator[None]:
    """A host that lost a partition goes on as if its commit had been applied, and never looks who owns it.

    One of the two alone does no harm: nothing leaves but with a commit, and the store refuses those.
    """
    genuine = FaultyStore.commit

    async def commit(self: FaultyStore, commits: Sequence[Commit]) -> list[CommitOutcome]:
        outcomes = await genuine(self, commits)
        return [Committed() if isinstance(outcome, LeaseLost) else outcome for outcome in outcomes]

    with patch.object(FaultyStore, "commit", commit), ousted_unnoticed():
        yield


def numbers_used_again() -> Any:
    """On a Cluster, too, a new owner counts on from what its shard has not forgotten."""
    return _image_without(base=0)


def forgotten_for_ever() -> Any:
    """Nobody looks for what a shard has forgotten and others wait for."""

    async def look(self: Recall) -> None:
        return None

    return patch.object(Recall, "look", look)


def ousted_unnoticed() -> Any:
    """A host looks at who owns its partitions only when it commits."""

    return patch.object(Ownership, "_drop_lost", lambda *_: None)


def timers_early() -> Any:
    """Timers fire a little before they are due."""
    genuine = Partition.fire_timers

    def fire(self: Partition, until_ms: int | None = None) -> None:
        clock = self._clock
        self._clock = lambda: clock() + 40
        genuine(self, until_ms)
        self._clock = clock

    return patch.object(Partition, "fire_timers", fire)


def one_shot_recovery() -> Any:
    """What dead workers held is not taken over."""

    async def claim_entries(self: MemoryStore, *args: Any, **options: Any) -> list[QueueEntry]:
        return []

    return patch.object(MemoryStore, "claim_entries", claim_entries)


def lost_takes_forgotten() -> Any:
    """A worker does not look for entries whose take was not answered."""

    async def take_lost(self: Worker) -> None:
        self._looks = []

    return patch.object(Worker, "_take_lost", take_lost)


@contextlib.contextmanager
def finished_before_reported() -> Iterator[None]:
    """A worker removes a queue entry before the result is durable, and no host looks for what that loses."""
    genuine = Worker._put_off

    def put_off(self: Worker, target: str, outcomes: list[Any]) -> None:
        self._remove([entry for _, entry in outcomes])
        genuine(self, target, outcomes)

    async def look_away(self: Patrol) -> None:
        """See nothing."""

    with patch.object(Worker, "_put_off", put_off), patch.object(Patrol, "look", look_away):
        yield


def new_number_for_a_retry() -> Any:
    """A sender sends a batch again under a new number."""
    genuine = Sender._later

    def later(self: Sender, lane: Any, error: Any, **options: Any) -> None:
        genuine(self, lane, error, **options)
        if lane.append is not None:
            lane.sequence += 1
            lane.append = replace(lane.append, sequence=lane.sequence, resync=True)

    return patch.object(Sender, "_later", later)


def acknowledged_too_soon() -> Any:
    """A signal is acknowledged when it is put into the queue of the sender."""
    genuine = Sender.put

    def put(self: Sender, target: str, messages: Sequence[Any]) -> Any:
        accepted = genuine(self, target, messages)
        if not accepted.done():
            accepted.set_result(None)
        return accepted

    return patch.object(Sender, "put", put)


def gap_accepted() -> Any:
    """The relay goes on after a refused entry instead of sending it again."""
    genuine = Relay._settle

    def settle(self: Relay, key: Any, lane: Any, entry: Any, outcome: Appended) -> None:
        genuine(self, key, lane, entry, Appended.OK if outcome is Appended.FULL else outcome)

    return patch.object(Relay, "_settle", settle)


@contextlib.contextmanager
def locks_kept() -> Iterator[None]:
    """An orchestration that leaves a critical section, or ends in one, does not let go, asked or not."""
    kept = patch.object(outgoing, "release_lock", lambda *_, **__: None)
    with kept, patch.object(processor, "disclaim", lambda *_: None):
        yield


def locks_in_any_order() -> Any:
    """Everybody takes entities in the order of their own code."""
    return patch.object(context, "in_order", tuple)


def locks_keep_nobody_out() -> Any:
    """Operations run on an entity whoever holds it."""
    return patch.object(Holding, "admits", lambda self, entry: isinstance(entry, Job))


def operations_while_asleep() -> Any:
    """Operations do not wait for ``on_activate``."""
    genuine = Waking.step

    def step(self: Waking, effects: Effects) -> Step:
        genuine(self, effects)
        return Step.AWAKE

    return patch.object(Waking, "step", step)


def failed_hooks_speak() -> Any:
    """What ``on_activate`` sent leaves, though it failed."""
    genuine = Waking._settle

    def settle(self: Waking, effects: Effects, running: Running) -> Step:
        outcome = genuine(self, effects, running)
        if outcome is Step.FAILED:
            for message in running.scope.outgoing:
                effects.send(message)
        return outcome

    return patch.object(Waking, "_settle", settle)


def sinks_send_again() -> Any:
    """A sink that was overtaken sends what the other one has sent, too."""

    async def go_on(self: _Writing, partition: int) -> None:
        (self.marks[partition],) = await self._connection.store.marks(self._producer, [partition])

    return patch.object(_Writing, "_go_on_from_there", go_on)


def pools_ignored() -> Any:
    """Partitions of a pool go to any host."""
    return patch.object(placement, "serves", lambda _served, _pool: True)


#: The five without which nothing here is worth anything come first.
MUTANTS: Final[dict[str, Mutant]] = {
    mutant.__name__: mutant
    for mutant in (
        no_fence,
        no_dedupe,
        no_output_gate,
        commits_repeat,
        no_mailbox_rows,
        timers_forgotten,
        outbox_forgotten,
        sequences_forgotten,
        mailbox_forgotten,
        activities_forgotten,
        position_stays,
        trims_too_far,
        lease_lost_ignored,
        ousted_unnoticed,
        numbers_used_again,
        forgotten_for_ever,
        timers_early,
        one_shot_recovery,
        lost_takes_forgotten,
        finished_before_reported,
        new_number_for_a_retry,
        acknowledged_too_soon,
        gap_accepted,
        locks_kept,
        locks_in_any_order,
        locks_keep_nobody_out,
        operations_while_asleep,
        failed_hooks_speak,
        sinks_send_again,
        pools_ignored,
    )
}
