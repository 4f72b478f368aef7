"""Whatever stops, and at whichever store call: the end is the same as without."""

from __future__ import annotations

import pytest

from tests.simulation.sweep import broken, pairs, points, singles

pytestmark = pytest.mark.slow


def test_a_fault_at_any_call() -> None:
    # Every fifth call per sort of fault; `python -m tests.simulation --sweep 1` takes all.
    count, found = broken(singles(3, every=5))
    assert not found
    assert count >= points(3)


def test_a_second_fault_during_the_recovery_from_the_first() -> None:
    count, found = broken(pairs(1, 100))
    assert not found
    assert count == 100
