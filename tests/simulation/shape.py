"""How large a run is and how its processes are set: chosen by a seed, small enough for thousands of runs."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from lungfish.runtime.settings import HostSettings, WorkerSettings
from tests.simulation.faults import is_calm


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a run.

    Attributes:
        in_place: commits reach other partitions at once (one server), or by the outbox (Cluster).
        always_replay: orchestrations are replayed at every turn.
        pooled: some hosts serve the pool and nothing else, the others all but the pool.
        patience_s: how long a client waits for an answer.
        give_up_s: how long a sender tries to deliver a batch.
        work: sort of operation → weight; some sorts are missing in some runs.
        lock_check_ms: how often a holder is asked whether it still is one, while others wait.
    """

    partitions: int
    hosts: int
    workers: int
    clients: int
    lanes: int
    operations: int
    logs: int
    concurrency: int
    in_place: bool
    always_replay: bool
    pooled: bool
    patience_s: float
    give_up_s: float
    inbox_length_max: int
    queue_length_max: int
    mailbox_length_max: int
    settings: HostSettings
    worker_settings: WorkerSettings
    work: dict[str, float] = field(default_factory=dict)
    lock_check_ms: int = 1_500


#: Sorts of work and how often they are done, where they are done at all.
WORK = {
    "signal": 4.0,
    "signal_many": 2.0,
    "call": 3.0,
    "fail": 1.0,
    "fail_signal": 0.5,
    "hop": 2.0,
    "later": 1.0,
    "ask": 1.5,
    "slow": 0.7,
    "launch": 0.5,
    "read": 1.0,
    "state": 0.5,
    "cell": 2.0,
    "register": 2.0,
    "bell": 1.0,
    "cry": 1.0,
    "pour": 1.0,
    "gaze": 0.5,
    "start": 3.0,
    "purge": 1.0,
}


def shape_of(seed: int) -> Shape:
    """Return the shape of a run."""
    rng = random.Random(f"{seed}:shape")
    heartbeat_ms = rng.choice((200, 300, 500))
    small = rng.random() < 0.2
    settings = HostSettings(
        heartbeat_ms=heartbeat_ms,
        lease_ms=heartbeat_ms * rng.choice((3, 4, 6)),
        release_grace_ms=rng.choice((500, 1_000, 3_000)),
        drain_s=rng.choice((1.0, 3.0)),
        idle_ms=rng.choice((200, 900_000)),
        producer_idle_ms=rng.choice((90_000, 24 * 3_600_000)),
        activations_max=rng.choice((2, 50_000)),
        read_entries_max=2 if small else 64,
        buffer_entries_max=3 if small else 512,
        round_messages_max=3 if small else 4_000,
        round_runs_max=2 if small else 2_000,
        retention_sweep_s=0.5,
    )
    dropped = rng.choice((0.0, 0.3, 0.6))
    work = {name: weight for name, weight in WORK.items() if rng.random() >= dropped}
    return Shape(
        partitions=rng.choice((1, 2, 3, 4, 6)),
        hosts=rng.choice((2, 2, 3, 4)),
        workers=rng.choice((1, 2, 3)),
        clients=rng.choice((1, 2, 3)),
        lanes=rng.choice((1, 2, 3)),
        operations=rng.choice((10, 20, 40)),
        logs=rng.choice((1, 2, 4)),
        concurrency=rng.choice((1, 2, 8)),
        in_place=rng.random() < 0.5,
        always_replay=rng.random() < 0.5,
        pooled=random.Random(f"{seed}:pooled").random() < 0.5,
        patience_s=12.0 if is_calm(seed) else rng.choice((0.5, 3.0, 12.0)),
        give_up_s=30.0 if is_calm(seed) else rng.choice((0.3, 2.0, 30.0)),
        inbox_length_max=rng.choice((3, 10_000, 10_000)),
        queue_length_max=rng.choice((2, 1_000_000, 1_000_000)),
        # Of a generator of its own: runs that were there before it stay what they were.
        mailbox_length_max=random.Random(f"{seed}:mailbox").choice((2, 10, 100_000, 100_000)),
        settings=settings,
        worker_settings=WorkerSettings(
            heartbeat_ms=heartbeat_ms,
            alive_ms=heartbeat_ms * rng.choice((3, 6)),
            sweep_ms=rng.choice((300, 1_000)),
            block_ms=rng.choice((200, 1_000)),
        ),
        work=work or dict(WORK),
    )
