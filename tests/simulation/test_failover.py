"""A replica takes over that lacks the last writes: what was lost is lost, and everything goes on from there.

One server for all partitions (``in_place``): it forgets for all of them at the same instant. On a Cluster one
shard may forget what the others remember: see ``shards`` for what holds then.
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
#: Runs with a failover when everything is at rest.
AT_REST = 20
#: Runs in which one shard of a Cluster forgets.
SHARD_SEEDS = 12


def run(seed: int) -> Report:
    """Run a seed with failovers every now and then; every second one with its other faults, too."""
    profile = profile_of(seed) if seed % 2 and not is_calm(seed) else Profile(latency_s=0.002)
    shape = replace(shape_of(seed), in_place=True, inbox_length_max=10_000, queue_length_max=10_000)
    return simulate(seed, profile=replace(profile, failovers=1.5, until_s=8.0), shape=shape)


def at_rest(seed: int) -> Report:
    """Run a seed in which the store loses writes once, when nobody sends anything any more.

    The lease is longer than what is lost: hosts whose heartbeats are lost, too, would be taken for dead.
    """
    shape = shape_of(seed)
    settings = replace(shape.settings, heartbeat_ms=300, lease_ms=5_000)
    work = {"signal": 1.0, "call": 1.0}
    shape = replace(shape, in_place=True, operations=5, work=work, settings=settings)
    return simulate(seed, profile=Profile(until_s=1.0, last_failover=True), shape=shape)


def one_shard(seed: int) -> Report:
    """Run a seed on a Cluster of which a shard forgets while everything is at rest; then work goes on."""
    shape = shape_of(seed)
    settings = replace(shape.settings, heartbeat_ms=300, lease_ms=5_000)
    work = {"signal": 1.0, "call": 1.0}
    shape = replace(
        shape, in_place=False, operations=5, work=work, settings=settings, mailbox_length_max=10_000
    )
    return simulate(seed, profile=Profile(until_s=1.0, last_shard=True), shape=shape)


def test_nothing_is_doubled_or_stuck_after_a_failover() -> None:
    reports = [run(seed) for seed in range(SEEDS)]
    assert not {report.seed: report.violations[:3] for report in reports if report.violations}
    assert sum(report.fired["failover"] for report in reports) > 2 * SEEDS
    assert sum(report.refused["StoreBehind"] for report in reports) > SEEDS / 10


def test_all_is_well_after_a_failover_that_no_message_shows() -> None:
    reports = [at_rest(seed) for seed in range(AT_REST)]
    assert not {report.seed: report.violations[:3] for report in reports if report.violations}
    assert all(report.fired["last_failover"] for report in reports)


def test_a_host_that_does_not_look_whether_the_store_lost_writes_is_caught() -> None:
    # Under traffic a commit shows it sooner or later: hardly one seed in forty would catch it there.
    # A mutant's run waits long in vain: a few will do, as nearly every one shows it.
    with ousted_unnoticed():
        caught = [seed for seed in range(3) if at_rest(seed).violations]
    assert len(caught) >= 2


def test_nothing_new_is_lost_and_nobody_waits_for_ever_when_one_shard_forgets() -> None:
    reports = [one_shard(seed) for seed in range(SHARD_SEEDS)]
    assert not {report.seed: report.violations[:3] for report in reports if report.violations}
    assert all(report.fired["last_shard"] for report in reports)
