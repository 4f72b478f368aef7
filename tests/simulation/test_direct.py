"""Calls past the inbox: runs of little else, on a slow network, with hosts that freeze and die; mutants."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final
from unittest.mock import patch

import pytest

from lungfish.runtime.partitions.drafts import Drafting
from lungfish.runtime.partitions.partition import Partition as RunPartition
from lungfish.runtime.session.direct import DirectLanes, Handed
from lungfish.runtime.store.store import Commit, PartitionImage
from lungfish.runtime.testing.memory_server import MemoryServer, Partition
from tests.simulation.faults import Profile
from tests.simulation.mutants import blind
from tests.simulation.run import Report, simulate
from tests.simulation.shape import shape_of

pytestmark = pytest.mark.slow

#: Every mutant must be caught within so many runs.
SEEDS = 100


#: Hosts that freeze, while what they have sent is on its way; or that die, while others are slow to read.
FREEZES: Final = Profile(
    calls={"slow_before": 0.3}, nemeses={"host_pause": 0.5}, slow_s=0.6, until_s=8.0, latency_s=0.002
)
DEATHS: Final = Profile(
    calls={"slow_before": 0.3, "break_before": 0.02, "ghost": 0.02},
    nemeses={"host_pause": 0.5, "host_crash": 0.5},
    slow_s=0.6,
    until_s=8.0,
    latency_s=0.01,
)


def handing(seed: int) -> Report:
    """Calls, and signals between them, that take about as long as their sender waits for an answer."""
    shape = shape_of(seed)
    shape = replace(
        shape,
        in_place=True,
        settings=replace(shape.settings, idle_ms=200, read_entries_max=1),
        work={"call": 1.0, "register": 0.3, "slow": 0.2, "signal": 0.2},
        operations=60,
        clients=3,
        lanes=3,
        partitions=2,
        hosts=2,
        inbox_length_max=10_000,
        mailbox_length_max=10_000,
    )
    profile = replace(FREEZES if seed % 2 else DEATHS, last_failover=seed % 8 == 0)
    return simulate(seed, profile=profile, shape=shape)


@contextlib.contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count what commits take directly, and what of that is in the inbox, too."""
    found: Counter[str] = Counter()
    genuine = MemoryServer._apply_direct

    def apply(self: MemoryServer, hub: str, row: Partition, commit: Commit) -> None:
        before = dict(row.doubled)
        genuine(self, hub, row, commit)
        found["taken"] += len(commit.direct)
        found["doubled"] += bool(commit.direct) and row.doubled != before

    with patch.object(MemoryServer, "_apply_direct", apply):
        yield found


def test_runs_are_well_and_hand_over_much() -> None:
    with counted() as found:
        reports = [handing(seed) for seed in range(1, 21)]
    assert not {report.seed: report.violations[:3] for report in reports if report.violations}
    assert found["taken"] > 1_000
    assert found["doubled"] > 5


# --- mutants -----------------------------------------------------------------------------


def numbers_not_taken() -> Any:
    """A commit leaves the marks of lanes alone: what is appended later is taken as new."""
    return patch.object(MemoryServer, "_apply_direct", lambda *args: None)


def doubles_taken() -> Any:
    """An owner takes what it reads from the inbox, whatever it was handed before."""
    genuine = DirectLanes.read

    def read(self: DirectLanes, producer: str, sequence: int) -> bool:
        genuine(self, producer, sequence)
        return True

    return patch.object(DirectLanes, "read", read)


def doubles_forgotten() -> Any:
    """A new owner does not load what was taken although it is in the inbox."""
    genuine = MemoryServer.claim

    def claim(self: MemoryServer, hub: str, partition: int, host: str, token: str) -> PartitionImage:
        return replace(genuine(self, hub, partition, host, token), doubled={})

    return patch.object(MemoryServer, "claim", claim)


def unknown_lanes_taken() -> Any:
    """An owner takes what it is handed without knowing how far the lane has come."""
    genuine = DirectLanes.sift

    def sift(self: DirectLanes, accepted: str, now_ms: int) -> list[Handed]:
        for batch in self.waiting:
            if self._known(batch.producer) is None:
                self._last[batch.producer] = batch.sequence - 1
        return genuine(self, accepted, now_ms)

    return patch.object(DirectLanes, "sift", sift)


def gaps_taken() -> Any:
    """An owner takes what it is handed before what comes first on its lane."""
    genuine = DirectLanes.sift

    def sift(self: DirectLanes, accepted: str, now_ms: int) -> list[Handed]:
        for batch in self.waiting:
            last = self._known(batch.producer)
            if last is not None and batch.sequence > last:
                self._last[batch.producer] = batch.sequence - 1
        return genuine(self, accepted, now_ms)

    return patch.object(DirectLanes, "sift", sift)


def inbox_overtaken() -> Any:
    """An owner takes what it is handed before what was in the inbox when it was sent."""
    return patch("lungfish.runtime.session.direct._has_come", lambda accepted, end: True)


def refusals_forget() -> Any:
    """An owner that refuses a batch forgets what it took of that lane."""
    genuine = DirectLanes.refuse

    def refuse(self: DirectLanes, batch: Handed) -> None:
        self._last.pop(batch.producer, None)
        genuine(self, batch)

    return patch.object(DirectLanes, "refuse", refuse)


def not_in_the_commit() -> Any:
    """What was handed over and is not finished is nowhere in the commit that takes its number."""
    genuine = Drafting.take_commit

    def take_commit(self: Drafting) -> Commit:
        commit = genuine(self)
        return replace(commit, mailbox={}) if commit.direct else commit

    return patch.object(RunPartition, "take_commit", take_commit)


MUTANTS: dict[str, Callable[[], Any]] = {
    mutant.__name__: mutant
    for mutant in (
        numbers_not_taken,
        doubles_taken,
        doubles_forgotten,
        unknown_lanes_taken,
        gaps_taken,
        inbox_overtaken,
        refusals_forget,
        not_in_the_commit,
    )
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_mutant_is_caught_by_what_it_does_to_users(name: str) -> None:
    with MUTANTS[name](), blind():
        assert any(handing(seed).violations for seed in range(1, SEEDS + 1))
