"""The figures that Lungfish tells of itself: the catalogue, and how a hub, a host and a worker are read.

Rules:

* Those of a *hub* are read from the store, by anyone, and are the same wherever they are read. Those of a
  *process* are its own, and begin again with it; its labels say which one.
* Counters of a hub are sums of what the store itself counts, so they go on over the death of every process.
* Names here are public: dashboards stand on them. They are added to, not renamed (docs/telemetry.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final

from lungfish.runtime.store.queues import QueueInfo

from .metrics import RUN_S, Distribution, Kind, Metric, Sample
from .overview import HubStatus, WorkerStatus

_COUNTER: Final = Kind.COUNTER
_GAUGE: Final = Kind.GAUGE
_HISTOGRAM: Final = Kind.HISTOGRAM

# --- of a hub -----------------------------------------------------------------------------

HUB_HOSTS: Final = Metric("lungfish_hub_hosts", _GAUGE, "Hosts by state: live, draining, dead.", ("state",))
HUB_WORKERS: Final = Metric("lungfish_hub_workers", _GAUGE, "Workers by state: live, dead.", ("state",))
HUB_PARTITIONS: Final = Metric("lungfish_hub_partitions", _GAUGE, "Partitions of the hub.")
HUB_UNOWNED: Final = Metric(
    "lungfish_hub_partitions_unowned", _GAUGE, "Partitions that no live host runs: what is sent there waits."
)
HUB_ACTIVATIONS: Final = Metric("lungfish_hub_activations", _GAUGE, "Actors in the memory of live hosts.")
HUB_COMMITS: Final = Metric(
    "lungfish_hub_commits_total", _COUNTER, "Commits of all partitions since the hub began."
)
HUB_CLAIMS: Final = Metric(
    "lungfish_hub_claims_total", _COUNTER, "Times that a host took a partition, planned or after a death."
)
HUB_INBOX: Final = Metric("lungfish_hub_inbox_batches", _GAUGE, "Batches sent and not yet part of any state.")
HUB_OUTBOX: Final = Metric("lungfish_hub_outbox_batches", _GAUGE, "Batches not yet known to be delivered.")
HUB_MAILBOX: Final = Metric("lungfish_hub_mailbox_messages", _GAUGE, "Messages accepted and not finished.")
HUB_ACTIVITIES: Final = Metric(
    "lungfish_hub_activities_pending", _GAUGE, "Activities scheduled and without a result."
)
HUB_TIMERS: Final = Metric("lungfish_hub_timers_pending", _GAUGE, "Timers that have not fired.")
HUB_DEAD: Final = Metric(
    "lungfish_hub_dead_letters", _GAUGE, "Payloads set aside because nobody can read them."
)
HUB_SLOTS: Final = Metric(
    "lungfish_hub_worker_slots", _GAUGE, "Activities that live workers can run at once."
)
HUB_RUNNING: Final = Metric("lungfish_hub_activities_running", _GAUGE, "Activities that live workers run.")
HUB_INSTANCES: Final = Metric(
    "lungfish_hub_instances", _GAUGE, "Orchestration instances by status.", ("status",)
)
HUB_QUEUED: Final = Metric(
    "lungfish_hub_queue_backlog", _GAUGE, "Activities that wait in a queue.", ("queue",)
)
HUB_PAUSED: Final = Metric(
    "lungfish_hub_queue_paused", _GAUGE, "1 while a queue hands nothing out.", ("queue",)
)

# --- of a host ----------------------------------------------------------------------------

HOST_MESSAGES: Final = Metric(
    "lungfish_host_messages_total", _COUNTER, "Messages that actors have processed."
)
HOST_COMMITS: Final = Metric("lungfish_host_commits_total", _COUNTER, "Commits that the store has answered.")
HOST_COMMIT_S: Final = Metric("lungfish_host_commit_seconds", _HISTOGRAM, "Time of one call that commits.")
HOST_ROUND_S: Final = Metric(
    "lungfish_host_round_seconds", _HISTOGRAM, "Time of one round: messages taken, actors loaded and run."
)
HOST_PARTITIONS: Final = Metric("lungfish_host_partitions", _GAUGE, "Partitions that the host runs.")
HOST_ACTIVATIONS: Final = Metric("lungfish_host_activations", _GAUGE, "Actors in memory.")
HOST_BACKLOG: Final = Metric("lungfish_host_backlog_messages", _GAUGE, "Messages accepted and not finished.")
HOST_AHEAD: Final = Metric("lungfish_host_read_ahead_batches", _GAUGE, "Batches read and not yet looked at.")
HOST_ERRORS: Final = Metric(
    "lungfish_host_store_errors_total",
    _COUNTER,
    "Calls to the store that failed, by what they were for: read, load, commit, heartbeat.",
    ("operation",),
)
HOST_CLAIMS: Final = Metric("lungfish_host_claims_total", _COUNTER, "Partitions that the host has taken.")
HOST_LOST: Final = Metric(
    "lungfish_host_partitions_lost_total",
    _COUNTER,
    "Partitions dropped without a release: memory and store disagreed.",
)
HOST_STALLS: Final = Metric(
    "lungfish_host_stalls_total",
    _COUNTER,
    "Times that user code kept the host's event loop for two heartbeats and longer; the log has the stack.",
)

HOST_REFUSED: Final = Metric(
    "lungfish_host_refused_total", _COUNTER, "Operations of entities that middleware refused."
)

# --- of a worker --------------------------------------------------------------------------

WORKER_SLOTS: Final = Metric("lungfish_worker_slots", _GAUGE, "Activities that the worker can run at once.")
WORKER_RUNNING: Final = Metric("lungfish_worker_running", _GAUGE, "Activities that it runs.")
WORKER_TAKEN: Final = Metric("lungfish_worker_taken_total", _COUNTER, "Attempts taken from queues.")
WORKER_CLAIMED: Final = Metric(
    "lungfish_worker_claimed_total", _COUNTER, "Attempts taken over from dead workers."
)
WORKER_REPEATED: Final = Metric(
    "lungfish_worker_repeated_total", _COUNTER, "Attempts found to have a result already, and not run again."
)
WORKER_MALFORMED: Final = Metric(
    "lungfish_worker_malformed_total", _COUNTER, "Queue entries that could not be read, and were dropped."
)
WORKER_OUTCOMES: Final = Metric(
    "lungfish_worker_attempts_total",
    _COUNTER,
    "Attempts that ended, by outcome: succeeded, failed, timed_out, cancelled.",
    ("activity", "outcome"),
)
WORKER_RETRIES: Final = Metric(
    "lungfish_worker_retries_total", _COUNTER, "Attempts that ended and were not the first.", ("activity",)
)
WORKER_RUN_S: Final = Metric(
    "lungfish_worker_attempt_seconds",
    _HISTOGRAM,
    "Time from an attempt's begin to its outcome.",
    ("activity",),
)

#: Everything that is told.
CATALOGUE: Final = tuple(value for value in list(globals().values()) if isinstance(value, Metric))

#: What stands in the place of a name that the app does not register: such names are without bound.
UNKNOWN: Final = "(unknown)"


class AttemptFigures:
    """How the attempts of a worker ended, by activity."""

    __slots__ = ("_known", "outcomes", "retries", "times")

    def __init__(self, known: Collection[str]) -> None:
        """Begin at zero.

        Args:
            known: the names that become labels; all others are one.
        """
        self._known = known
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.retries: Counter[str] = Counter()
        self.times: dict[str, Distribution] = {}

    def ended(self, activity: str, outcome: str, attempt: int, seconds: float) -> None:
        """Count an attempt."""
        name = activity if activity in self._known else UNKNOWN
        self.outcomes[name, outcome] += 1
        if attempt > 1:
            self.retries[name] += 1
        if name not in self.times:
            self.times[name] = Distribution(RUN_S)
        self.times[name].observe(seconds)

    def samples(self) -> Iterator[Sample]:
        """Yield what was counted."""
        for (name, outcome), count in self.outcomes.items():
            yield WORKER_OUTCOMES(count, name, outcome)
        for name, count in self.retries.items():
            yield WORKER_RETRIES(count, name)
        for name, times in self.times.items():
            yield WORKER_RUN_S(times, name)


#: Reads the figures of a process.
Sampler = Callable[[], Iterator[Sample]]


def hub_samples(
    status: HubStatus, instances: Mapping[str, int], queues: Collection[QueueInfo] = ()
) -> Iterator[Sample]:
    """Yield the figures of a hub.

    Args:
        instances: how many orchestration instances there are, by status.
        queues: those that workers take from.
    """
    live = [host for host in status.hosts if host.alive]
    draining = sum(host.draining for host in live)
    yield HUB_HOSTS(len(live) - draining, "live")
    yield HUB_HOSTS(draining, "draining")
    yield HUB_HOSTS(len(status.hosts) - len(live), "dead")
    yield HUB_PARTITIONS(len(status.partitions))
    yield HUB_UNOWNED(len(status.unowned))
    yield HUB_ACTIVATIONS(sum(host.activations for host in live))
    yield HUB_COMMITS(sum(partition.commits for partition in status.partitions))
    yield HUB_CLAIMS(sum(partition.epoch for partition in status.partitions))
    load = status.load
    yield from (HUB_INBOX(load.inbox), HUB_OUTBOX(load.outbox), HUB_MAILBOX(load.mailbox))
    yield from (HUB_ACTIVITIES(load.activities), HUB_TIMERS(load.timers), HUB_DEAD(load.dead))
    yield from _workers(status.workers)
    for name, count in instances.items():
        yield HUB_INSTANCES(count, name)
    for queue in queues:
        yield HUB_QUEUED(queue.backlog, queue.name)
        yield HUB_PAUSED(int(queue.paused), queue.name)


def _workers(workers: Collection[WorkerStatus]) -> Iterator[Sample]:
    live = [worker for worker in workers if worker.alive]
    yield HUB_WORKERS(len(live), "live")
    yield HUB_WORKERS(len(workers) - len(live), "dead")
    yield HUB_SLOTS(sum(worker.concurrency for worker in live))
    yield HUB_RUNNING(sum(worker.running for worker in live))
