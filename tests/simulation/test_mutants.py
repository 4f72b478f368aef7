"""The simulation notices a missing safeguard: a suite that no bug can turn red is not to be trusted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from tests.simulation.faults import Profile
from tests.simulation.mutants import MUTANTS, blind
from tests.simulation.run import Report, simulate
from tests.simulation.shape import shape_of
from tests.simulation.test_failover import at_rest, one_shard

pytestmark = pytest.mark.slow

#: Every mutant must be caught within so many runs.
SEEDS = 200


def restless(seed: int) -> Report:
    """Hosts come, sleep and go: what only shows when a partition goes and comes back unnoticed."""
    nemeses = {"host_pause": 1.0, "host_drain": 1.5, "host_add": 1.5}
    return simulate(seed, profile=Profile(nemeses=nemeses, until_s=8.0))


def mortal(seed: int) -> Report:
    """Workers die again and again, while what they report waits for room in the inboxes."""
    shape = replace(shape_of(seed), work={"start": 1.0}, operations=12, clients=2, lanes=3)
    profile = Profile(calls={"slow_before": 0.1}, nemeses={"worker_crash": 0.2}, slow_s=0.5, until_s=6.0)
    return simulate(seed, profile=profile, shape=replace(shape, inbox_length_max=2))


def abrupt(seed: int) -> Report:
    """Clients die with signals on their way to a store that is hard to reach."""
    shape = replace(shape_of(seed), work={"signal": 1.0}, operations=30, clients=3, lanes=3)
    calls = {"break_before": 0.3, "slow_before": 0.2}
    profile = Profile(calls=calls, nemeses={"client_crash": 2.0}, slow_s=0.5, until_s=4.0)
    return simulate(seed, profile=profile, shape=shape)


def deaf(seed: int) -> Report:
    """Answers of the store get lost, and lost requests arrive."""
    return simulate(seed, profile=Profile(calls={"break_after": 0.1, "ghost": 0.1}, slow_s=0.5, until_s=8.0))


def cramped(seed: int) -> Report:
    """Hosts that may hold little, lose partitions while the store is slow."""
    shape = shape_of(seed)
    settings = replace(
        shape.settings,
        read_entries_max=2,
        buffer_entries_max=3,
        round_messages_max=3,
        round_runs_max=2,
        idle_ms=200,
    )
    profile = Profile(
        calls={"slow_before": 0.25}, nemeses={"host_pause": 0.8, "host_add": 3.0}, slow_s=1.5, until_s=10.0
    )
    shape = replace(shape, settings=settings, hosts=2, partitions=4, operations=60, clients=3, lanes=3)
    return simulate(seed, profile=profile, shape=shape)


def crowded(seed: int, operations: int = 40) -> Report:
    """Many orchestrations at once, a third of which want some of four purses for themselves."""
    shape = replace(shape_of(seed), work={"start": 1.0}, operations=operations, clients=3, lanes=3)
    return simulate(seed, shape=shape)


def poured(seed: int) -> Report:
    """Clients pour through one sink and look at what they fill, while hosts come and go."""
    nemeses = {"host_crash": 2.0, "host_pause": 2.0, "host_add": 2.0}
    shape = shape_of(seed)
    settings = replace(shape.settings, idle_ms=200)
    work = {"pour": 1.0, "gaze": 1.0}
    shape = replace(shape, settings=settings, work=work, operations=15, clients=3, lanes=2)
    profile = Profile(calls={"slow_before": 0.1, "slow_after": 0.1}, nemeses=nemeses, until_s=6.0)
    return simulate(seed, profile=profile, shape=shape)


def quiet(seed: int, profile: Profile) -> Report:
    """Nothing goes wrong but what a profile has happen at the end."""
    shape = replace(shape_of(seed), operations=2, work={"signal": 1.0})
    roomy = replace(shape, inbox_length_max=10_000, queue_length_max=10_000, mailbox_length_max=10_000)
    return simulate(seed, profile=replace(profile, until_s=0.5), shape=roomy)


def repeated(seed: int) -> Report:
    """Commits arrive again when later ones of the same owners are there."""
    return quiet(seed, Profile(last_repeats="of the owners"))


def outdated(seed: int) -> Report:
    """Commits arrive again when their owners are dead and others have written."""
    return quiet(seed, Profile(last_repeats="of earlier owners"))


def asleep(seed: int) -> Report:
    """Every host dies while operations run, and others wait behind them."""
    return quiet(seed, Profile(last_sleep=True))


def toilsome(seed: int) -> Report:
    """Orchestrations and their activities alone, while hosts and workers die."""
    shape = replace(shape_of(seed), work={"start": 1.0}, operations=25, clients=2, lanes=3)
    return simulate(
        seed, profile=Profile(nemeses={"worker_crash": 0.3, "host_crash": 1.0}, until_s=5.0), shape=shape
    )


def narrow(seed: int) -> Report:
    """Inboxes are full all the time, so that what partitions send to one another is refused."""
    work = {"signal": 1.0, "call": 1.0, "start": 0.5}
    shape = replace(shape_of(seed), in_place=False, inbox_length_max=3, work=work)
    profile = Profile(calls={"slow_before": 0.1}, nemeses={"host_pause": 1.0}, slow_s=0.3, until_s=5.0)
    return simulate(seed, profile=profile, shape=replace(shape, operations=30, clients=3, lanes=3))


#: Mutants that need runs of a certain sort to be caught soon.
RUNS: dict[str, Callable[[int], Report]] = {
    "commits_repeat": repeated,
    "no_fence": outdated,
    "no_mailbox_rows": asleep,
    "mailbox_forgotten": asleep,
    "activities_forgotten": toilsome,
    "one_shot_recovery": toilsome,
    "ousted_unnoticed": at_rest,
    "numbers_used_again": one_shard,
    "forgotten_for_ever": one_shard,
    "lease_lost_ignored": restless,
    "finished_before_reported": mortal,
    "lost_takes_forgotten": deaf,
    "new_number_for_a_retry": deaf,
    "acknowledged_too_soon": abrupt,
    "gap_accepted": narrow,
    "locks_kept": partial(crowded, operations=20),
    "locks_in_any_order": crowded,
    "locks_keep_nobody_out": crowded,
    "operations_while_asleep": poured,
    "failed_hooks_speak": poured,
    "sinks_send_again": poured,
}


def first_red(name: str) -> tuple[int, list[str]] | None:
    """Return the first seed that goes wrong, and how."""
    run = RUNS.get(name, simulate)
    for seed in range(1, SEEDS + 1):
        report = run(seed)
        if report.violations:
            return seed, report.violations
    return None


@pytest.mark.parametrize("name", MUTANTS)
def test_the_mutant_is_caught(name: str) -> None:
    with MUTANTS[name]():
        assert first_red(name) is not None


@pytest.mark.parametrize("run", [restless, mortal, abrupt, deaf, cramped, crowded, poured, toilsome, narrow])
def test_those_runs_are_well_without_a_mutant(run: Callable[[int], Report]) -> None:
    assert not {seed: report.violations[:3] for seed in range(1, 16) if (report := run(seed)).violations}


@pytest.mark.parametrize("run", [repeated, outdated, asleep])
def test_what_is_done_at_rest_is_done_and_harmless_without_a_mutant(run: Callable[[int], Report]) -> None:
    reports = [run(seed) for seed in range(1, 11)]
    assert not {report.seed: report.violations[:3] for report in reports if report.violations}
    assert all(report.fired["last_repeats"] or report.fired["last_sleep"] for report in reports)


@pytest.mark.parametrize("name", list(MUTANTS)[:5])
def test_the_worst_mutants_are_caught_by_what_they_do_to_users(name: str) -> None:
    # Without the account of the watched server: by lost, doubled or changed results alone.
    with MUTANTS[name](), blind():
        found = first_red(name)
    assert found is not None
    assert not any(violation.startswith(("fence:", "dedupe:", "commit ")) for violation in found[1])
