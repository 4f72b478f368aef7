"""What is wrong with a deployment, and what to do about it: facts in, findings out. Pure.

Rules:

* A finding says what is so, what can come of it, and what to do. What cannot be known is not guessed.
* An *error* stops work, or loses it; a *warning* is for whoever has the time. All is well: no findings.
* Each finding has a code that stays: scripts may stand on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from lungfish.runtime.on_redis.persistence import Durability, Persistence
from lungfish.runtime.store.queues import QueueInfo

from .overview import HubStatus

#: Oldest releases that Lungfish works with: those of the package's own requirements, and of the server.
PACKAGES: Final[Mapping[str, tuple[int, ...]]] = {
    "click": (8, 1),
    "hiredis": (),
    "msgpack": (1, 0, 5),
    "pydantic": (2, 11),
    "ray": (2, 40),
    "redis": (5, 2),
    "rich": (13,),
}
SERVER_MIN: Final = (6, 2)
#: A durable write that takes longer is felt in every call (ms).
WRITE_SLOW_MS: Final = 20.0
#: Times that users give are their machine's, timers fire by the store's (ms).
SKEW_MAX_MS: Final = 1_000
#: Share of its memory limit that a store should stay under.
MEMORY_MAX: Final = 0.8


class Severity(StrEnum):
    """How bad a finding is."""

    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        code: names what was found; stays the same over releases.
        text: what is so, and what can come of it.
        advice: what to do.
    """

    severity: Severity
    code: str
    text: str
    advice: str


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """This machine: release of Lungfish, and of the packages that it stands on; empty: not installed."""

    release: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """A server of the store.

    Attributes:
        version: as Redis counts; Valkey tells the Redis release that it is compatible with.
        replicas: that are connected.
        aof_failing: its last write to disk failed.
        used_bytes, limit_bytes: of memory; a limit of 0 is none.
    """

    name: str
    version: str = ""
    persistence: Persistence = field(default_factory=Persistence)
    replicas: int = 0
    aof_failing: bool = False
    used_bytes: int = 0
    limit_bytes: int = 0


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """The store.

    Attributes:
        error: why it cannot be used; empty: it can.
        replicas: how many must confirm each write; 0 is none.
        write_ms: median time of a durable write; None: not measured.
        skew_ms: its clock minus this machine's.
    """

    where: str
    error: str = ""
    servers: tuple[ServerFacts, ...] = ()
    replicas: int = 0
    write_ms: float | None = None
    skew_ms: int = 0


@dataclass(frozen=True, slots=True)
class HubFacts:
    """The hub.

    Attributes:
        error: why it cannot be read; empty: it can.
        status: at a glance.
        wanted: queues that the app names, where an app was given.
        queues: those that live workers take from.
        stuck: partitions whose outbox did not move while it was looked at.
    """

    name: str
    error: str = ""
    status: HubStatus | None = None
    wanted: tuple[str, ...] = ()
    queues: tuple[QueueInfo, ...] = ()
    stuck: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class RayFacts:
    """The Ray cluster, where one was named.

    Attributes:
        error: why it cannot be joined; empty: it can.
        nodes: how many machines it has.
        tells_metrics: the packages of ``ray[default]`` are there.
        runs_hub: the hub's controller is up on it.
    """

    where: str
    error: str = ""
    nodes: int = 0
    tells_metrics: bool = True
    runs_hub: bool = True


@dataclass(frozen=True, slots=True)
class HttpFacts:
    """The HTTP server that is to be.

    Attributes:
        keys: how many API keys are set.
        error: what is wrong with them.
    """

    host: str
    is_loopback: bool
    keys: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that was looked at; None: not looked at."""

    machine: MachineFacts
    store: StoreFacts
    hub: HubFacts | None = None
    ray: RayFacts | None = None
    http: HttpFacts | None = None


def diagnose(facts: Facts) -> list[Finding]:
    """Return what is wrong, errors first, otherwise in the order of what stands on what."""
    found = [*_machine(facts.machine), *_store(facts.store)]
    if facts.ray is not None:
        found += _ray(facts.ray)
    if facts.hub is not None:
        found += _hub(facts.hub, facts.machine)
    if facts.http is not None:
        found += _http(facts.http)
    return sorted(found, key=lambda finding: finding.severity is not Severity.ERROR)


def exit_code(findings: list[Finding]) -> int:
    """Return 0 for none, 1 for warnings only, 2 where there is an error."""
    if not findings:
        return 0
    return 2 if any(finding.severity is Severity.ERROR for finding in findings) else 1


def _error(code: str, text: str, advice: str) -> Finding:
    return Finding(Severity.ERROR, code, text, advice)


def _warning(code: str, text: str, advice: str) -> Finding:
    return Finding(Severity.WARNING, code, text, advice)


def parse_version(text: str) -> tuple[int, ...]:
    """Return the numbers at the begin of a version: those of ``5.2.0rc1`` are 5, 2, 0."""
    numbers = []
    for part in text.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    return tuple(numbers)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _machine(machine: MachineFacts) -> Iterator[Finding]:
    for name, version in machine.packages.items():
        oldest = PACKAGES.get(name, ())
        if not version:
            code, text = "package-missing", f"the package {name} is not installed here"
        elif parse_version(version) < oldest:
            code = "package-old"
            text = f"the package {name} is {version} here; at least {_dotted(oldest)} is needed"
        else:
            continue
        yield _error(code, text, "pip install --upgrade lungfish")


# --- the store ----------------------------------------------------------------------------


def _store(store: StoreFacts) -> Iterator[Finding]:
    if store.error:
        advice = "check the address, the network, the password and that the server runs"
        yield _error("store-unreachable", store.error, advice)
        return
    for server in store.servers:
        yield from _server(server, store.replicas)
    if store.write_ms is not None and store.write_ms > WRITE_SLOW_MS:
        text = f"a durable write takes {store.write_ms:.1f} ms (median): no call is faster than that"
        advice = "use a disk that syncs fast (local NVMe, not a network volume), and a store near the hosts"
        yield _warning("store-slow", text, advice)
    if abs(store.skew_ms) > SKEW_MAX_MS:
        text = (
            f"the store's clock is {store.skew_ms / 1000:+.1f} s off this machine's; timers and deadlines "
            "follow the store's, times that this machine gives mean others there"
        )
        yield _warning("clock-skew", text, "synchronise the clocks of all machines (NTP, chrony)")


def _server(server: ServerFacts, replicas: int) -> Iterator[Finding]:
    name, settings = server.name, server.persistence
    if server.version and parse_version(server.version) < SERVER_MIN:
        text = f"{name} speaks Redis {server.version}; at least {_dotted(SERVER_MIN)} is needed"
        yield _error("store-old", text, "upgrade it: Valkey 8 or later, Redis 7 or later")
    if settings.maxmemory_policy is None:
        text = f"{name} does not tell its maxmemory-policy; one that evicts would drop acknowledged state"
        yield _warning("store-policy-unknown", text, "make sure that it is noeviction")
    elif settings.maxmemory_policy != "noeviction":
        text = f"{name} has maxmemory-policy {settings.maxmemory_policy}: it would drop acknowledged state"
        advice = "CONFIG SET maxmemory-policy noeviction, and in its configuration file"
        yield _error("store-evicts", text, advice)
    yield from _durability(server, replicas)
    if server.aof_failing:
        text = f"{name} could not write its append-only file last time: it refuses writes, or soon will"
        yield _error("store-disk", text, "look at its log and at its disk: full, read-only or broken")
    if server.replicas < replicas:
        text = f"{name} has {server.replicas} replicas, and {replicas} must confirm: nothing is committed"
        yield _error("store-replicas", text, "start the replicas, or ask for fewer")
    if server.limit_bytes and server.used_bytes > MEMORY_MAX * server.limit_bytes:
        share = server.used_bytes / server.limit_bytes
        text = f"{name} uses {share:.0%} of its maxmemory; when that is full, writes are refused"
        yield _warning("store-memory", text, "give it more memory, or forget ended instances (retention)")


def _durability(server: ServerFacts, replicas: int) -> Iterator[Finding]:
    window = server.persistence.loss_window()
    if window is None or replicas:
        return
    code = "store-not-durable"
    if server.persistence.durability is Durability.UNKNOWN:
        code = "store-durability-unknown"
    advice = "appendonly yes and appendfsync always; or replicas that confirm (docs/deploy.md)"
    yield _warning(code, f"{server.name} can lose {window}", advice)


# --- Ray and HTTP -------------------------------------------------------------------------


def _ray(ray: RayFacts) -> Iterator[Finding]:
    if ray.error:
        yield _error("ray-unreachable", ray.error, "ray start --head, or name another cluster with --address")
        return
    if not ray.tells_metrics:
        text = "Ray is installed here without its dashboard: it tells no metrics"
        yield _warning("ray-metrics", text, "pip install 'ray[default]' on all nodes")
    if not ray.runs_hub:
        text = f"the hub is not deployed on the Ray cluster at {ray.where}"
        yield _warning("ray-hub", text, "lungfish up MODULE:APP")


def _http(http: HttpFacts) -> Iterator[Finding]:
    if http.error:
        yield _error("http-keys", http.error, "name:scope:secret, separated by commas")
    elif not http.is_loopback and not http.keys:
        text = f"an HTTP server on {http.host} without API keys would let anyone in, so it refuses to start"
        yield _error("http-open", text, "set LUNGFISH_HTTP_KEYS=name:scope:secret, or listen on 127.0.0.1")


# --- the hub ------------------------------------------------------------------------------


def _hub(hub: HubFacts, machine: MachineFacts) -> Iterator[Finding]:
    if hub.error:
        advice = "check the hub's name; run the release of Lungfish that made it, or a later one"
        yield _error("hub-unusable", hub.error, advice)
    if hub.status is None:
        return
    yield from _hosts(hub.status, machine)
    yield from _queues(hub, hub.status)
    load = hub.status.load
    if load.dead:
        text = f"{load.dead:,} messages were set aside as dead letters: nobody can apply them"
        advice = "client.dead_letters() lists them with the reason (docs/dead-letters.md)"
        yield _warning("dead-letters", text, advice)
    if hub.stuck:
        listed = ", ".join(map(str, hub.stuck[:10]))
        text = f"messages of partitions {listed} wait to be delivered and do not move"
        advice = "their targets are full or without a host; see the other findings, and the hosts' logs"
        yield _warning("outbox-stuck", text, advice)


def _hosts(status: HubStatus, machine: MachineFacts) -> Iterator[Finding]:
    live = [host for host in status.hosts if host.alive]
    dead = [host.id for host in status.hosts if not host.alive]
    start = "lungfish up MODULE:APP, or lungfish dev MODULE:APP"
    if not live:
        yield _error("no-hosts", "no host runs: what is sent is kept, and nothing happens", start)
    elif status.unowned:
        yield from _pools_without_hosts(status)
        unowned = [each for each in status.partitions if not each.host and status.hosts_of(each.pool)]
        if unowned:
            text = f"{len(unowned)} of {len(status.partitions)} partitions have no live host"
            advice = "this is normal for seconds after a host's death; if it stays, look at the hosts' logs"
            yield _error("partitions-unowned", text, advice)
    for pool, note in status.pool_notes.items():
        if status.hosts_of(pool):
            advice = "free it there, or leave it: the pool's other hosts have its entities"
            yield _warning("pool-host-waits", f"pool {pool!r} has fewer hosts than it should: {note}", advice)
    if dead:
        text = f"no heartbeat any more ({len(dead)}): {', '.join(sorted(dead)[:5])}"
        yield _warning("hosts-dead", text, "others have their partitions; look why they died")
    releases = {host.release for host in live if host.release}
    if len(releases) > 1:
        text = f"hosts run different releases of Lungfish: {', '.join(sorted(releases))}"
        yield _warning("releases-differ", text, "normal during an upgrade; finish it")
    elif releases and machine.release and machine.release not in releases:
        text = f"the hosts run Lungfish {releases.pop()}, this machine {machine.release}"
        yield _warning("release-differs", text, "use the same release for clients and hosts")
    codes = {host.code for host in live if host.code}
    if len(codes) > 1:
        text = f"hosts run {len(codes)} different versions of the app's code"
        yield _warning("code-differs", text, "normal during a deployment; else lungfish up MODULE:APP")


def _pools_without_hosts(status: HubStatus) -> Iterator[Finding]:
    advice = "add a node that has what the pool needs (App(pools=...)), or deploy the app that declares it"
    for pool in status.pools:
        note = status.pool_notes.get(pool)
        why = f" ({note})" if note else ""
        if status.hosts_of(pool):
            continue
        load = status.load_of(pool)
        if waiting := load.inbox + load.mailbox + load.timers:
            text = f"pool {pool!r} has no host{why}: {waiting:,} batches, messages and timers wait for one"
            yield _error("pool-without-hosts", text, advice)
        else:
            text = f"pool {pool!r} has no host{why}: its entities do not answer; nothing waits there"
            yield _warning("pool-without-hosts", text, advice)


def _queues(hub: HubFacts, status: HubStatus) -> Iterator[Finding]:
    live = [worker for worker in status.workers if worker.alive]
    taken = {queue for worker in live for queue in worker.queues}
    missing = [queue for queue in hub.wanted if queue not in taken]
    pending = status.load.activities
    start = "start workers: lungfish up MODULE:APP --workers-per-node N"
    if not live and pending:
        yield _error("no-workers", f"{pending:,} activities wait, and no worker runs", start)
    elif not live and hub.wanted:
        yield _warning("no-workers", "the app has activities, and no worker runs", start)
    elif missing:
        text = f"no worker takes from these queues of the app: {', '.join(missing)}"
        yield _error("queue-without-workers", text, start)
    for queue in hub.queues:
        if queue.paused:
            text = f"queue {queue.name} is paused, and {queue.backlog:,} activities wait in it"
            yield _warning("queue-paused", text, f"client.queue({queue.name!r}).resume()")
