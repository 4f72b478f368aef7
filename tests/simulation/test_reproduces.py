"""A seed is all that is needed to see a run again: in this process, in any other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.run import simulate

ROOT = Path(__file__).parents[2]
SEEDS = range(1, 9)
PRINT_HASHES = f"""
from tests.simulation.run import simulate
print(*(simulate(seed).hash for seed in range({SEEDS.start}, {SEEDS.stop})))
"""


def test_a_seed_gives_the_same_run_byte_by_byte() -> None:
    first = simulate(9)
    simulate(10)
    again = simulate(9)
    assert len(first.trace) > 100
    assert again.trace == first.trace
    assert again.hash == first.hash


def test_other_seeds_give_other_runs() -> None:
    assert len({simulate(seed).hash for seed in SEEDS}) == len(SEEDS)


@pytest.mark.slow
@pytest.mark.parametrize("hash_seed", ["0", "4242"])
def test_another_process_sees_the_same_run(hash_seed: str) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", PRINT_HASHES],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.split() == [simulate(seed).hash for seed in SEEDS]
