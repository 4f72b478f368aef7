"""What can go wrong between a process and the store, and how often: chosen by a seed.

Rules:

* All chance comes from generators seeded with the run's seed; each part of a run has its own, so that a
  change in one does not reshuffle the others.
* Swarm testing: every run has some sorts of faults and not others. Runs with everything at once
  never get to what only happens when most of the system is well.
* Every fault that was really injected is counted by its name.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Final, Literal

#: Faults of one store call, with the range of their chance when they are on.
CALL_FAULTS: Final = {
    #: The connection breaks on the way there: not applied, ``StoreUnavailable``.
    "break_before": (0.002, 0.08),
    #: It breaks on the way back: applied, ``StoreUnavailable``.
    "break_after": (0.002, 0.08),
    #: A client library's own retry: applied twice in a row, one answer.
    "twice": (0.005, 0.15),
    #: The caller was told that the connection broke; the request arrives nevertheless, late.
    "ghost": (0.002, 0.05),
    #: The caller dies with the request on its way; it is not applied, or it is.
    "crash_before": (0.0003, 0.004),
    "crash_after": (0.0003, 0.004),
    #: The caller freezes with the request on its way, which arrives when it thaws, or at once.
    "freeze_before": (0.001, 0.02),
    "freeze_after": (0.001, 0.02),
    #: A long delay on the way there, or on the way back: overtaken by others.
    "slow_before": (0.005, 0.1),
    "slow_after": (0.005, 0.1),
    #: Of a call for several servers of a Cluster, some do not answer; some of those have applied it.
    #: Few calls are for several, hence the high chance.
    "partial": (0.05, 0.4),
}
#: Faults of the whole picture, with the range of their mean distance (s).
NEMESES: Final = {
    "store_stop": (2.0, 8.0),
    #: Some servers of a Cluster are away.
    "shard_stop": (2.0, 8.0),
    "host_crash": (1.0, 6.0),
    "host_pause": (1.0, 6.0),
    "host_drain": (1.5, 6.0),
    "host_add": (1.5, 6.0),
    "worker_crash": (1.0, 6.0),
    "worker_pause": (1.0, 6.0),
    "worker_drain": (1.5, 6.0),
    "client_crash": (2.0, 8.0),
    "client_pause": (1.5, 6.0),
}
#: A host is told that another is dead (Ray's notice), right or wrong, and forgets its heartbeat.
HINTS: Final = ("wake_lost", "death_notice")


@dataclass(slots=True)
class Profile:
    """What goes wrong in one run.

    Attributes:
        calls: fault of a store call → its chance.
        nemeses: fault of the whole → mean distance between two (s).
        wake_lost: chance that a wake-up of a reader is lost.
        death_notice: chance that a crash of a host is announced.
        latency_s: mean latency of a store call, one way (s).
        slow_s: mean of a long delay (s).
        until_s: no fault begins after this time (s).
        failovers: mean distance of failovers to a replica that lacks the last writes (s); 0: none.
        last_failover: one more when everything is at rest: no message comes later that would show it.
        last_repeats: commits arrive once more when everything is at rest, and others are there: of the same
            owners, or of those after them.
        last_sleep: all hosts die when all else is at rest, while operations run and others wait.
        last_shard: a shard of a Cluster forgets when everything is at rest, and then the work goes on.
        script: number of a store call → the fault that it meets, whatever chance says.
    """

    calls: dict[str, float] = field(default_factory=dict)
    nemeses: dict[str, float] = field(default_factory=dict)
    wake_lost: float = 0.0
    death_notice: float = 0.0
    latency_s: float = 0.0005
    slow_s: float = 0.1
    until_s: float = 0.0
    failovers: float = 0.0
    last_failover: bool = False
    last_repeats: Literal["", "of the owners", "of earlier owners"] = ""
    last_sleep: bool = False
    last_shard: bool = False
    script: dict[int, str] = field(default_factory=dict)

    def describe(self) -> str:
        """Return the profile on one line."""
        return " ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self))


def is_calm(seed: int) -> bool:
    """Tell whether a run is without faults: one in sixteen, and those must be perfect."""
    return seed % 16 == 0


def profile_of(seed: int) -> Profile:
    """Return the faults of a run."""
    rng = random.Random(f"{seed}:profile")
    latency_s = _between(rng, 0.0001, 0.005)
    if is_calm(seed):
        return Profile(latency_s=latency_s)
    share = rng.choice((0.2, 0.4, 0.7))
    return Profile(
        calls={name: _between(rng, *span) for name, span in CALL_FAULTS.items() if rng.random() < share},
        nemeses={name: _between(rng, *span) for name, span in NEMESES.items() if rng.random() < share},
        wake_lost=rng.choice((0.0, 0.3)),
        death_notice=rng.choice((0.0, 0.5)),
        latency_s=latency_s,
        slow_s=_between(rng, 0.02, 1.0),
        until_s=rng.uniform(4.0, 10.0),
    )


def _between(rng: random.Random, low: float, high: float) -> float:
    """Draw evenly by order of magnitude."""
    return float(low * (high / low) ** rng.random())


class Trace:
    """What happened, line by line; equal seeds give equal bytes."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.fired: Counter[str] = Counter()

    def add(self, now_s: float, text: str) -> None:
        """Write down what happened."""
        self.lines.append(f"{now_s:.6f} {text}")

    def fault(self, now_s: float, name: str, text: str) -> None:
        """Write down and count a fault."""
        self.fired[name] += 1
        self.lines.append(f"{now_s:.6f} ! {name} {text}")
