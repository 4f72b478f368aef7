"""A replica takes over that lacks the last writes: what was lost is lost, and everything goes on from there.

One server for all partitions (``in_place``): it forgets for all of them at the same instant. What the shards
of a Cluster do to one another when only one of them forgets is another matter.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.simulation.faults import Profile, is_calm, profile_of
from tests.simulation.mutants import ousted_unnoticed
from tests.simulation.run import Report, simulate
from tests.simulation.shape import shape_of

pytestmark = pytest.mark.slow

SEEDS = 40


def run(seed: int) -> Report:
    """Run a seed with failovers every now and then; every second one with its other faults, too."""
    profile = profile_of(seed) if seed % 2 and not is_calm(seed) else Profile(latency_s=0.002)
    shape = replace(shape_of(seed), in_place=True, inbox_length_max=10_000, queue_length_max=10_000)
    return simulate(seed, profile=replace(profile, failovers=1.5, until_s=8.0), shape=shape)


def test_nothing_is_doubled_or_stuck_after_a_failover() -> None:
    reports = [run(seed) for seed in range(SEEDS)]
    assert not {report.seed: report.violations[:3] for report in reports if report.violations}
    assert sum(report.fired["failover"] for report in reports) > 2 * SEEDS
    assert sum(report.refused["StoreBehind"] for report in reports) > SEEDS / 10


def test_a_host_that_does_not_look_whether_the_store_lost_writes_is_caught() -> None:
    with ousted_unnoticed():
        assert any(run(seed).violations for seed in range(5 * SEEDS))
