"""The simulation notices a missing safeguard: a suite that no bug can turn red is not to be trusted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.simulation.faults import Profile
from tests.simulation.mutants import MUTANTS, blind
from tests.simulation.run import simulate

pytestmark = pytest.mark.slow

#: Every mutant must be caught within so many runs.
SEEDS = 200


#: Hosts that come, sleep and go: what only shows when a partition goes and comes back unnoticed.
RESTLESS = Profile(nemeses={"host_pause": 1.0, "host_drain": 1.5, "host_add": 1.5}, until_s=8.0)
#: Workers that die while the store is hard to reach.
MORTAL = Profile(
    calls={"break_before": 0.1, "slow_before": 0.1}, nemeses={"worker_crash": 0.5}, slow_s=0.5, until_s=8.0
)
PROFILES = {
    "ousted_unnoticed": RESTLESS,
    "lease_lost_ignored": RESTLESS,
    "finished_before_reported": MORTAL,
    "lost_takes_forgotten": replace(MORTAL, calls={"break_after": 0.1, "ghost": 0.1}, nemeses={}),
}


def first_red(name: str) -> tuple[int, list[str]] | None:
    """Return the first seed that goes wrong, and how."""
    for seed in range(1, SEEDS + 1):
        report = simulate(seed, profile=PROFILES.get(name))
        if report.violations:
            return seed, report.violations
    return None


@pytest.mark.parametrize("name", MUTANTS)
def test_the_mutant_is_caught(name: str) -> None:
    with MUTANTS[name]():
        assert first_red(name) is not None


@pytest.mark.parametrize("name", list(MUTANTS)[:5])
def test_the_worst_mutants_are_caught_by_what_they_do_to_users(name: str) -> None:
    # Without the account of the watched server: by lost, doubled or changed results alone.
    with MUTANTS[name](), blind():
        found = first_red(name)
    assert found is not None
    assert not any(violation.startswith(("fence:", "dedupe:", "commit ")) for violation in found[1])
