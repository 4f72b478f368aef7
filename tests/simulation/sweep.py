"""Dying, freezing and losing answers at every store call of a small run, one after the other.

Chance finds what is likely; this finds what is possible: every instant between two calls at which a process
of a small hub can stop, and every answer that can be lost. ``pairs`` has a second fault in the recovery
from the first.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from lungfish.runtime.settings import HostSettings, WorkerSettings
from tests.simulation.faults import CALL_FAULTS, Profile
from tests.simulation.run import Report, simulate
from tests.simulation.shape import WORK, Shape

#: Until when faults may begin, and about how long clients work (virtual s).
UNTIL_S = 2.0
#: A slow call is no different from one that is slow anywhere.
FAULTS = tuple(name for name in CALL_FAULTS if not name.startswith("slow"))


def small_shape(seed: int) -> Shape:
    """Return the shape of a run with few calls, and yet a bit of everything."""
    return Shape(
        partitions=2,
        hosts=2,
        workers=1,
        clients=1,
        lanes=2,
        operations=8,
        logs=1,
        concurrency=2,
        pooled=False,
        in_place=seed % 2 == 0,
        always_replay=False,
        patience_s=3.0,
        give_up_s=30.0,
        inbox_length_max=10_000,
        mailbox_length_max=100_000,
        queue_length_max=10_000,
        settings=HostSettings(heartbeat_ms=300, lease_ms=900, release_grace_ms=500, drain_s=1.0),
        worker_settings=WorkerSettings(heartbeat_ms=300, alive_ms=900, sweep_ms=300, block_ms=500),
        work=dict(WORK),
    )


def run(seed: int, script: dict[int, str]) -> Report:
    """Run a small hub with faults at these calls."""
    profile = Profile(latency_s=0.002, slow_s=0.05, until_s=UNTIL_S, script=script)
    return simulate(seed, profile=profile, shape=small_shape(seed))


def points(seed: int) -> int:
    """Return how many store calls the run has in which faults can begin."""
    return run(seed, {}).calls


def singles(seed: int, *, every: int = 1) -> Iterator[tuple[dict[int, str], Report]]:
    """Yield runs with one fault: each sort at every ``every``-th call."""
    for number, fault in enumerate(FAULTS):
        for call in range(1 + number % every, points(seed) + 1, every):
            script = {call: fault}
            yield script, run(seed, script)


def pairs(seed: int, count: int) -> Iterator[tuple[dict[int, str], Report]]:
    """Yield runs with a crash or a freeze, and another fault within the calls that follow."""
    rng = random.Random(f"{seed}:pairs")
    stops = [name for name in FAULTS if name.startswith(("crash", "freeze"))]
    last = points(seed)
    for _ in range(count):
        first = rng.randint(1, last)
        script = {first: rng.choice(stops), first + rng.randint(1, 60): rng.choice(FAULTS)}
        yield script, run(seed, script)


def broken(runs: Iterator[tuple[dict[int, str], Report]]) -> tuple[int, dict[str, list[str]]]:
    """Return how many runs there were, and what is wrong with those that are."""
    count, found = 0, {}
    for script, report in runs:
        count += 1
        if report.violations:
            found[str(script)] = report.violations[:3]
    return count, found
