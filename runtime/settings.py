"""What can be set about hosts and workers; every bound has its place here."""

from __future__ import annotations

from dataclasses import dataclass, fields

from .amounts import check_amount, check_whole
from .errors import UsageError


@dataclass(frozen=True, slots=True)
class HostSettings:
    """Settings of a host. Times in the unit that the name ends with.

    Attributes:
        heartbeat_ms: how often a host renews its heartbeat and looks at the placement.
        lease_ms: a host that has not beaten for this long is taken for dead; also the
            leader's lease. What it ran is taken over at that moment: between this less one heartbeat
            and this after its death, and a few round trips.
        release_grace_ms: how long a planned move waits for the old owner to let go.
        drain_s: how long a graceful stop waits for running operations.
        blocked_s_max: how long user code may keep the event loop before the host counts as dead (s).
        idle_ms: an activation not used for this long is passivated.
        activations_max: activations per host; over it the least recently used ones go first.
        read_entries_max: entries per inbox and read.
        buffer_entries_max: entries read ahead of the rounds; then reading pauses.
        round_messages_max: messages accepted per partition and round.
        round_runs_max: actors run per partition and round.
        commit_bytes_max: about the size of the commits sent in one call to the store (bytes).
        patrol_ms: how often a host looks whether the queues still have what its instances wait for: an
            activity that a failover lost begins again after one to two of these.
        retention_sweep_s: how often ended instances are looked for whose time to be kept is over (s).
        payload_sweep_s: how often large values are looked for that nobody refers to (s).
        payload_orphan_ms: a large value counts as such when no commit has taken it for so long after it was
            written. Longer than any message that carries one may be under way.
        producer_idle_ms: a producer's last sequence number is kept this long after its last message.
    """

    heartbeat_ms: int = 500
    lease_ms: int = 3_000
    release_grace_ms: int = 5_000
    drain_s: float = 10.0
    blocked_s_max: float = 60.0
    idle_ms: int = 15 * 60_000
    activations_max: int = 50_000
    read_entries_max: int = 64
    buffer_entries_max: int = 512
    round_messages_max: int = 4_000
    round_runs_max: int = 2_000
    commit_bytes_max: int = 8_000_000
    producer_idle_ms: int = 24 * 3_600_000
    patrol_ms: int = 10_000
    retention_sweep_s: float = 10.0
    payload_sweep_s: float = 600.0
    payload_orphan_ms: int = 24 * 3_600_000

    def __post_init__(self) -> None:
        _check(self)
        if self.lease_ms < 2 * self.heartbeat_ms:
            raise UsageError(
                f"lease_ms ({self.lease_ms}) must be at least twice heartbeat_ms ({self.heartbeat_ms}): "
                "one late heartbeat would be taken for a death"
            )


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Settings of a worker.

    Attributes:
        heartbeat_ms: how often a worker renews its heartbeat.
        alive_ms: a worker that has not beaten for this long is taken for dead; others take what it holds.
        sweep_ms: how often a worker looks for what dead ones hold.
        block_ms: how long one read of the queues waits.
        look_ms: how often a worker looks for tasks that it was given without its knowing.
        watch_ms: how often a worker looks whether attempts that have run for so long are still waited for.
        deliveries_max: an attempt that this many workers took and never reported counts as failed: it may be
            what kills them. High, because every worker that is replaced while it runs counts.
        unfinished_max: entries whose report or removal is under way; over it nothing more is taken.
    """

    heartbeat_ms: int = 500
    alive_ms: int = 3_000
    sweep_ms: int = 1_000
    block_ms: int = 1_000
    look_ms: int = 30_000
    unfinished_max: int = 4_096
    deliveries_max: int = 20
    watch_ms: int = 1_000

    def __post_init__(self) -> None:
        _check(self)
        if self.alive_ms < 2 * self.heartbeat_ms:
            raise UsageError(
                f"alive_ms ({self.alive_ms}) must be at least twice heartbeat_ms ({self.heartbeat_ms}): "
                "one late heartbeat would be taken for a death"
            )


def _check(settings: HostSettings | WorkerSettings) -> None:
    """Raise ``UsageError`` for a field that is no number of its unit."""
    for each in fields(settings):
        what, value = f"{type(settings).__name__}: {each.name}", getattr(settings, each.name)
        if each.name.endswith("_s") or "_s_" in each.name:
            check_amount(what, value)
        else:
            check_whole(what, value, least=1 if each.name == "heartbeat_ms" or "_max" in each.name else 0)
