"""The simulation notices a missing safeguard: a suite that no bug can turn red is not to be trusted."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS, blind
from tests.simulation.run import simulate

pytestmark = pytest.mark.slow

#: Every mutant must be caught within so many runs.
SEEDS = 200


def first_red() -> tuple[int, list[str]] | None:
    """Return the first seed that goes wrong, and how."""
    for seed in range(1, SEEDS + 1):
        report = simulate(seed)
        if report.violations:
            return seed, report.violations
    return None


@pytest.mark.parametrize("name", MUTANTS)
def test_the_mutant_is_caught(name: str) -> None:
    with MUTANTS[name]():
        assert first_red() is not None


@pytest.mark.parametrize("name", list(MUTANTS)[:5])
def test_the_worst_mutants_are_caught_by_what_they_do_to_users(name: str) -> None:
    # Without the account of the watched server: by lost, doubled or changed results alone.
    with MUTANTS[name](), blind():
        found = first_red()
    assert found is not None
    assert not any(violation.startswith(("fence:", "dedupe:", "commit ")) for violation in found[1])
