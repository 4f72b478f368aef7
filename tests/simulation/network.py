"""The way to the store: each process has a ``FaultyStore``; calls travel, break, repeat and get lost.

Rules:

* A request on its way is out of its process's hands: it arrives also if that is frozen or dead by then.
* A reply to a frozen process waits; one to a dead process is nobody's.
* A call that is not applied and one that is applied but not answered look the same to the caller.
* ``take`` runs at the server, as XREADGROUP BLOCK does: a process that froze or died while
  it was waiting is given entries for a while.
"""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Callable, Coroutine, Mapping, Sequence, Set
from contextvars import copy_context
from enum import Enum
from typing import Any, Protocol, TypeVar

from lungfish.runtime.errors import StoreUnavailable
from lungfish.runtime.messages.payloads import Payload
from lungfish.runtime.store.index import Counted, Found, Scan
from lungfish.runtime.store.queues import QueueState
from lungfish.runtime.store.store import (
    Append,
    Appended,
    ClusterView,
    Commit,
    CommitOutcome,
    Committed,
    Entry,
    HostBeat,
    HubMeta,
    OwnerRow,
    PartitionImage,
    PartitionLoad,
    QueueEntry,
    StoredInstance,
    Take,
    Unknown,
)
from lungfish.runtime.testing.memory_server import MemoryServer
from lungfish.runtime.testing.memory_store import MemoryListener, MemoryQueueReader, MemoryReader, MemoryStore
from tests.simulation.faults import Profile, Trace
from tests.simulation.loop import Gate, SimulationLoop

S = TypeVar("S")
T = TypeVar("T")


class Victim(Protocol):
    """The process whose calls these are."""

    @property
    def gate(self) -> Gate:
        """Its switch."""
        ...

    def crash(self) -> None:
        """Die now."""
        ...

    def freeze(self) -> float:
        """Stand still from now on; return for how long (s)."""
        ...


class Network:
    """The state of all ways to one server."""

    def __init__(
        self,
        loop: SimulationLoop,
        server: MemoryServer,
        profile: Profile,
        trace: Trace,
        seed: int,
        *,
        clustered: bool,
        told: Callable[[str, str], None],
    ) -> None:
        """Make ways that are open.

        Args:
            clustered: partitions are on several servers, some of which may fail to answer.
            told: called with (process, idempotency key) when a process hears that an activity needs no
                result any more.
        """
        self.loop = loop
        self.server = server
        self.profile = profile
        self.trace = trace
        self.clustered = clustered
        self.told = told
        self.down = False
        self.over = False
        #: How many store calls there were before the faults were over.
        self.calls = 0
        self._rng = random.Random(f"{seed}:network")
        self._faults = list(profile.calls.items())
        self._readers: dict[FaultyReader, None] = {}
        self.listeners: dict[FaultyListener, None] = {}
        self._takes: dict[asyncio.Task[Any], Gate] = {}

    @property
    def faulty(self) -> bool:
        """Whether faults may still begin."""
        return not self.over

    # --- the store as a whole ------------------------------------------------------------

    def stop_store(self) -> None:
        """Break every connection; nothing gets through until ``start_store``."""
        self.down = True
        for reader in tuple(self._readers):
            reader.cut()
        for listener in tuple(self.listeners):
            listener.cut()
        for take in tuple(self._takes):
            take.cancel()

    def start_store(self) -> None:
        """Let calls through again."""
        self.down = False

    def died(self, gate: Gate) -> None:
        """Close the dead process's connections, when the server notices."""
        for take, owner in self._takes.items():
            if owner is gate:
                self.loop.call_later(self._rng.expovariate(2.0), take.cancel, context=self.loop.outside)

    # --- one call ----------------------------------------------------------------------

    def latency(self) -> float:
        """Return how long a message takes one way (s)."""
        return self._rng.expovariate(1.0) * self.profile.latency_s

    def _fault(self) -> str:
        if self.over:
            return ""
        self.calls += 1
        if self.calls in self.profile.script:
            return self.profile.script[self.calls]
        chance = self._rng.random()
        for name, share in self._faults:
            if chance < share:
                return name
            chance -= share
        return ""

    def _long(self) -> float:
        return self._rng.expovariate(1.0) * self.profile.slow_s

    def call(
        self,
        victim: Victim,
        what: str,
        apply: Callable[[], Coroutine[Any, Any, T]],
        *,
        repeats: bool = True,
        partly: Callable[[random.Random], Coroutine[Any, Any, T]] | None = None,
    ) -> asyncio.Future[T]:
        """Send a call on its way; the future has its outcome.

        Args:
            repeats: whether a client library may send it again by itself.
            partly: applies it where some servers do not answer.
        """
        reply: asyncio.Future[T] = self.loop.create_future()
        if victim.gate.dead:
            return reply
        fault = self._fault()
        if (fault == "twice" and not repeats) or (fault == "partial" and partly is None):
            fault = ""
        if fault == "partial" and partly is not None:
            choose, rng = partly, random.Random(self._rng.random())
            apply = lambda: choose(rng)  # noqa: E731 - the same call, at fewer servers
        delay_s = self.latency()
        if fault == "slow_before":
            delay_s += self._long()
        if fault:
            self.trace.fault(self.loop.now_s, fault, f"{victim.gate.name} {what}")
        if fault in ("freeze_before", "freeze_after"):
            frozen_s = victim.freeze()
            delay_s += frozen_s if fault == "freeze_before" else 0.0
        self.loop.call_later(
            delay_s, self._arrive, victim, what, apply, reply, fault, context=self.loop.outside
        )
        return reply

    def _arrive(
        self,
        victim: Victim,
        what: str,
        apply: Callable[[], Coroutine[Any, Any, T]],
        reply: asyncio.Future[T],
        fault: str,
    ) -> None:
        if self.down or fault in ("break_before", "crash_before", "ghost"):
            self._break(victim, apply, what, reply, "" if self.down else fault)
            return
        outcome = self._apply(victim, what, apply)
        if fault == "twice":
            outcome = self._apply(victim, what, apply)
        if fault == "crash_after":
            victim.crash()
            return
        delay_s = self.latency()
        if fault == "slow_after":
            delay_s += self._long()
        if fault == "break_after":
            outcome = StoreUnavailable("simulated: the connection broke")
        self.loop.call_later(delay_s, _answer, reply, outcome, context=self.loop.outside)

    def _break(
        self,
        victim: Victim,
        apply: Callable[[], Coroutine[Any, Any, T]],
        what: str,
        reply: asyncio.Future[T],
        fault: str,
    ) -> None:
        if fault == "crash_before":
            victim.crash()
            return
        if fault == "ghost":
            self.loop.call_later(self._long(), self._haunt, victim, what, apply, context=self.loop.outside)
        # Refused at once, or noticed by a time-out.
        delay_s = self.latency() if self._rng.random() < 0.7 else self._long()
        error = StoreUnavailable("simulated: the connection broke")
        self.loop.call_later(delay_s, _answer, reply, error, context=self.loop.outside)

    def _haunt(self, victim: Victim, what: str, apply: Callable[[], Coroutine[Any, Any, T]]) -> None:
        if not self.down:
            self._apply(victim, f"(ghost) {what}", apply)

    def _apply(
        self, victim: Victim, what: str, apply: Callable[[], Coroutine[Any, Any, T]]
    ) -> T | StoreUnavailable:
        try:
            outcome = run_now(apply())
        except StoreUnavailable as error:  # the handle was closed meanwhile
            return error
        self.trace.add(self.loop.now_s, f"{victim.gate.name} {what} -> {_brief(outcome)}")
        return outcome

    # --- blocking reads --------------------------------------------------------------------

    async def after_read(self, victim: Victim, *, broken: bool = False) -> None:
        """Let the answer of a blocking read arrive, or not."""
        fault = self._fault()
        if fault in ("break_before", "break_after"):
            self.trace.fault(self.loop.now_s, fault, f"{victim.gate.name} read")
            broken = True
        elif fault == "slow_after":
            self.trace.fault(self.loop.now_s, fault, f"{victim.gate.name} read")
            await asyncio.sleep(self._long())
        elif fault in ("freeze_before", "freeze_after"):
            self.trace.fault(self.loop.now_s, fault, f"{victim.gate.name} read")
            victim.freeze()
            await asyncio.sleep(0)
        elif fault in ("crash_before", "crash_after"):
            self.trace.fault(self.loop.now_s, fault, f"{victim.gate.name} read")
            victim.crash()
            await self.loop.create_future()
        if broken:
            raise StoreUnavailable("simulated: the connection broke")

    async def while_waiting(self, victim: Victim, take: asyncio.Task[Any], block_ms: int) -> None:
        """Break the connection while a take waits; as a ghost, it goes on and is given entries."""
        fault = self._fault()
        if fault not in ("break_before", "ghost"):
            return
        self.trace.fault(self.loop.now_s, fault, f"{victim.gate.name} take")
        await asyncio.sleep(self._rng.random() * block_ms / 1_000)
        if fault == "break_before":
            take.cancel()
        if not take.done() or fault == "ghost":
            raise StoreUnavailable("simulated: the connection broke")

    def took(self, take: asyncio.Task[Any]) -> None:
        """Forget a take that has ended."""
        self._takes.pop(take, None)
        if not take.cancelled():
            take.exception()  # seen: who asked may be dead

    def handed(self, victim: Victim) -> float | None:
        """Return how long what was handed to a host is on its way from the server (s); None: it is lost."""
        if self.down:
            return None
        fault = self._fault()
        if fault in ("break_before", "break_after", "ghost"):
            self.trace.fault(self.loop.now_s, fault, f"{victim.gate.name} handed")
            return None
        delay_s = self.latency()
        if fault in ("slow_before", "slow_after"):
            self.trace.fault(self.loop.now_s, fault, f"{victim.gate.name} handed")
            delay_s += self._long()
        return delay_s

    def drop_wake(self) -> bool:
        """Tell whether this wake-up is lost."""
        lost = self.faulty and self._rng.random() < self.profile.wake_lost
        if lost:
            self.trace.fault(self.loop.now_s, "wake_lost", "")
        return lost


class FaultyStore:
    """One process's handle on the store, with faults; see ``Store``."""

    def __init__(self, network: Network, victim: Victim, hub: str) -> None:
        self._network = network
        self._victim = victim
        self._inner = MemoryStore(network.server, hub)

    @property
    def hub(self) -> str:
        return self._inner.hub

    def _call(self, what: str, apply: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Future[T]:
        return self._network.call(self._victim, what, apply)

    async def open(self, wanted: HubMeta | None = None, *, create: bool = True) -> HubMeta:
        return await self._call("open", lambda: self._inner.open(wanted, create=create))

    async def add_pools(self, pools: Mapping[str, int]) -> HubMeta:
        return await self._call("add_pools", lambda: self._inner.add_pools(pools))

    async def close(self) -> None:
        run_now(self._inner.close())

    async def append(self, appends: Sequence[Append]) -> list[Appended]:
        what = " ".join(f"{a.target}#{a.sequence}:{_sum(a.payloads)}" for a in appends)
        partly = self._partly(appends, self._inner.append, Appended.UNKNOWN)
        return await self._network.call(
            self._victim, f"append {what}", lambda: self._inner.append(appends), partly=partly
        )

    def _partly(
        self, items: Sequence[S], apply: Callable[[list[S]], Coroutine[Any, Any, list[T]]], unknown: T
    ) -> Callable[[random.Random], Coroutine[Any, Any, list[T]]] | None:
        """Return a call that some servers do not answer; None: there is one server for all."""
        if not self._network.clustered or len(items) < 2:
            return None

        async def partly(rng: random.Random) -> list[T]:
            fates = [rng.choice(("answered", "applied", "lost")) for _ in items]
            fates[rng.randrange(len(fates))] = "answered"
            chosen = [at for at, fate in enumerate(fates) if fate != "lost"]
            outcomes = dict(zip(chosen, await apply([items[at] for at in chosen]), strict=True))
            return [outcomes[at] if fate == "answered" else unknown for at, fate in enumerate(fates)]

        return partly

    @property
    def hands_over(self) -> bool:
        return self._inner.hands_over

    async def hand(self, host: str, partitions: Sequence[int], payload: bytes) -> bool:
        what = f"hand {host} {_sum([payload])}"
        # Nothing repeats it: who hands over goes on by appending.
        return await self._network.call(
            self._victim, what, lambda: self._inner.hand(host, partitions, payload), repeats=False
        )

    def listener(self, host: str) -> FaultyListener:
        return FaultyListener(self._network, self._victim, self._inner.listener(host))

    def reader(self) -> FaultyReader:
        return FaultyReader(self._network, self._victim, self._inner.reader())

    async def commit(self, commits: Sequence[Commit]) -> list[CommitOutcome]:
        what = " ".join(f"{c.partition}#{c.number}" for c in commits)
        unknown: CommitOutcome = Unknown("simulated: no answer")
        partly = self._partly(commits, self._inner.commit, unknown)
        return await self._network.call(
            self._victim, f"commit {what}", lambda: self._inner.commit(commits), partly=partly
        )

    async def claim(self, partition: int, host: str, token: str) -> PartitionImage:
        return await self._call(
            f"claim {partition} {token}", lambda: self._inner.claim(partition, host, token)
        )

    async def release(self, partition: int, token: str) -> bool:
        return await self._call(f"release {partition}", lambda: self._inner.release(partition, token))

    async def loads(self) -> list[PartitionLoad]:
        return await self._call("loads", self._inner.loads)

    async def owners(self) -> list[OwnerRow]:
        return await self._call("owners", self._inner.owners)

    async def heartbeat(self, host: str, record: bytes, *, lease_ms: int, lead: bool = True) -> ClusterView:
        return await self._call(
            "heartbeat", lambda: self._inner.heartbeat(host, record, lease_ms=lease_ms, lead=lead)
        )

    async def place(self, leader: str, version: int, placement: bytes) -> bool:
        return await self._call(f"place {version}", lambda: self._inner.place(leader, version, placement))

    async def remove_host(self, host: str, seen_ms: int | None = None) -> bool:
        return await self._call(f"remove_host {host}", lambda: self._inner.remove_host(host, seen_ms))

    async def now_ms(self) -> int:
        return await self._call("now_ms", self._inner.now_ms)

    async def snapshots(self, keys: Sequence[tuple[int, str, str]]) -> list[bytes | None]:
        return await self._call(f"snapshots {len(keys)}", lambda: self._inner.snapshots(keys))

    async def instances(self, keys: Sequence[tuple[int, str]], *, history: bool) -> list[StoredInstance]:
        return await self._call(
            f"instances {len(keys)}", lambda: self._inner.instances(keys, history=history)
        )

    async def has_activities(self, keys: Sequence[tuple[int, str]]) -> list[bool]:
        found = await self._call(f"has_activities {len(keys)}", lambda: self._inner.has_activities(keys))
        for (_, row), missing in zip(keys, found, strict=True):
            if not missing:
                self._network.told(self._victim.gate.name, row.replace("\x00", ":"))
        return found

    async def activity_rows(self, keys: Sequence[tuple[int, str]]) -> list[bytes | None]:
        return await self._call(f"activity rows {len(keys)}", lambda: self._inner.activity_rows(keys))

    async def scan_index(self, scans: Sequence[Scan], *, count: int) -> list[Found]:
        return await self._call(f"scan {len(scans)}", lambda: self._inner.scan_index(scans, count=count))

    async def count_index(self, scans: Sequence[Scan]) -> list[Counted]:
        return await self._call(f"count {len(scans)}", lambda: self._inner.count_index(scans))

    async def ended_before(self, ends: Sequence[tuple[int, str, int]], *, count: int) -> list[list[str]]:
        return await self._call(f"ended {len(ends)}", lambda: self._inner.ended_before(ends, count=count))

    async def dead(self, partition: int, after: str, count: int) -> list[Entry]:
        return await self._call(f"dead {partition}", lambda: self._inner.dead(partition, after, count))

    async def remove_dead(self, partition: int, ids: Sequence[str]) -> None:
        await self._call(f"bury {partition}", lambda: self._inner.remove_dead(partition, ids))

    async def put_payloads(self, payloads: Sequence[Payload]) -> None:
        await self._call(f"put {len(payloads)} payloads", lambda: self._inner.put_payloads(payloads))

    async def payloads(self, tokens: Sequence[bytes]) -> dict[bytes, bytes]:
        return await self._call(f"{len(tokens)} payloads", lambda: self._inner.payloads(tokens))

    async def sweep_payloads(self, partition: int, ids: Sequence[str], before_ms: int) -> int:
        return await self._call(
            f"sweep payloads {partition}", lambda: self._inner.sweep_payloads(partition, ids, before_ms)
        )

    async def doubled(self, partition: int) -> dict[str, int]:
        return await self._call(f"doubled {partition}", lambda: self._inner.doubled(partition))

    async def sweep_producers(self, partition: int, older_ms: int) -> int:
        return await self._call(
            f"sweep {partition}", lambda: self._inner.sweep_producers(partition, older_ms)
        )

    async def marks(self, producer: str, partitions: Sequence[int]) -> list[int]:
        return await self._call("marks", lambda: self._inner.marks(producer, partitions))

    async def forget_producer(self, producer: str, partitions: Sequence[int]) -> None:
        await self._call("forget", lambda: self._inner.forget_producer(producer, partitions))

    def queue_reader(self, worker: str) -> FaultyQueueReader:
        return FaultyQueueReader(self._network, self._victim, self._inner, worker)

    async def finish_entries(self, entries: Sequence[tuple[str, str]]) -> None:
        await self._call(f"finish {len(entries)}", lambda: self._inner.finish_entries(entries))

    async def keep_details(self, details: Mapping[tuple[str, str], bytes]) -> None:
        await self._call(f"keep {len(details)}", lambda: self._inner.keep_details(details))

    async def details_of(self, entries: Sequence[tuple[str, str]]) -> list[bytes | None]:
        return await self._call(f"details {len(entries)}", lambda: self._inner.details_of(entries))

    async def queue_state(self, queue: str) -> QueueState:
        return await self._call(f"queue {queue}", lambda: self._inner.queue_state(queue))

    async def adjust_queue(self, queue: str, fields: Mapping[str, str | None]) -> None:
        await self._call(f"adjust {queue}", lambda: self._inner.adjust_queue(queue, fields))

    async def queued_rows(self, queue: str, rows: Sequence[str]) -> set[str]:
        return await self._call(f"queued {len(rows)}", lambda: self._inner.queued_rows(queue, rows))

    async def claim_entries(
        self, worker: str, queues: Sequence[str], *, alive_ms: int, count: int
    ) -> list[QueueEntry]:
        # Entries that a first answer named are not in the second: nothing may repeat this but the worker.
        return await self._network.call(
            self._victim,
            "claim_entries",
            lambda: self._inner.claim_entries(worker, queues, alive_ms=alive_ms, count=count),
            repeats=False,
        )

    async def worker_beat(self, worker: str, record: bytes) -> None:
        await self._call("worker_beat", lambda: self._inner.worker_beat(worker, record))

    async def remove_worker(self, worker: str) -> None:
        await self._call("remove_worker", lambda: self._inner.remove_worker(worker))

    async def workers(self) -> list[HostBeat]:
        return await self._call("workers", self._inner.workers)


class FaultyReader:
    """See ``Reader``. Reading changes nothing, so it runs in the process itself."""

    def __init__(self, network: Network, victim: Victim, inner: MemoryReader) -> None:
        self._network = network
        self._victim = victim
        self._inner = inner
        self._cut = False

    @property
    def away(self) -> Set[str]:
        return self._inner.away

    async def read(
        self, positions: Mapping[str, str], *, block_ms: int, count: int
    ) -> dict[str, list[Entry]]:
        network = self._network
        self._cut = network.down
        network._readers[self] = None
        try:
            found = {} if self._cut else await self._inner.read(positions, block_ms=block_ms, count=count)
        finally:
            network._readers.pop(self, None)
        if found or self._cut:
            await asyncio.sleep(network.latency())
        await network.after_read(self._victim, broken=self._cut)
        if found:
            read = " ".join(f"{target}:{entries[-1].id}" for target, entries in found.items())
            network.trace.add(network.loop.now_s, f"{self._victim.gate.name} read {read}")
        return found

    def cut(self) -> None:
        """Break the connection."""
        self._cut = True
        run_now(self._inner.wake())

    async def wake(self) -> None:
        if not self._network.drop_wake():
            await self._inner.wake()

    async def close(self) -> None:
        await self._inner.close()


class FaultyListener:
    """See ``Listener``. What is handed over travels on: late, lost, or to a host that is frozen."""

    def __init__(self, network: Network, victim: Victim, inner: MemoryListener) -> None:
        self._network = network
        self._victim = victim
        self._inner = inner
        self._cut = asyncio.Event()

    async def listen(self, take: Take) -> None:
        network, context = self._network, copy_context()
        if network.down:
            await asyncio.sleep(network.latency())
            raise StoreUnavailable("simulated: the connection broke")

        def pass_on(ends: list[str], payload: bytes) -> None:
            delay_s = network.handed(self._victim)
            if delay_s is not None:
                network.loop.call_later(delay_s, take, ends, payload, context=context)

        network.listeners[self] = None
        self._cut.clear()
        listening = asyncio.ensure_future(self._inner.listen(pass_on))
        cut = asyncio.ensure_future(self._cut.wait())
        try:
            await asyncio.wait((listening, cut), return_when=asyncio.FIRST_COMPLETED)
            if listening.done():
                await listening
            raise StoreUnavailable("simulated: the connection broke")
        finally:
            listening.cancel()
            cut.cancel()
            network.listeners.pop(self, None)

    def cut(self) -> None:
        """Break the connection."""
        self._cut.set()

    async def close(self) -> None:
        await self._inner.close()


class FaultyQueueReader:
    """See ``QueueReader``."""

    def __init__(self, network: Network, victim: Victim, store: MemoryStore, worker: str) -> None:
        self._network = network
        self._victim = victim
        self._store = store
        self._worker = worker
        self._inner: MemoryQueueReader = store.queue_reader(worker)

    async def take(self, queues: Sequence[str], *, block_ms: int, count: int) -> list[QueueEntry]:
        network = self._network
        if network.down:
            await asyncio.sleep(network.latency())
            raise StoreUnavailable("simulated: the connection broke")
        work = self._inner.take(queues, block_ms=block_ms, count=count)
        take = network.loop.create_task(work, name="take", context=network.loop.outside)
        network._takes[take] = self._victim.gate
        take.add_done_callback(network.took, context=network.loop.outside)
        try:
            await network.while_waiting(self._victim, take, block_ms)
            entries: list[QueueEntry] = await take
        except StoreUnavailable:
            # What waits at the server goes on waiting, on the connection that was.
            self._inner = self._store.queue_reader(self._worker)
            raise
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            raise StoreUnavailable("simulated: the connection broke") from None
        if entries:
            await asyncio.sleep(network.latency())
            network.trace.add(network.loop.now_s, f"{self._victim.gate.name} took {_brief(entries)}")
        await network.after_read(self._victim)
        return entries

    async def retake(self, queues: Sequence[str], *, count: int) -> list[QueueEntry]:
        return await self._network.call(
            self._victim, "retake", lambda: self._inner.retake(queues, count=count)
        )

    async def close(self) -> None:
        await self._inner.close()


def run_now(call: Coroutine[Any, Any, T]) -> T:
    """Run a call of a ``MemoryStore`` that does not wait: it takes effect at once and yields at most once."""
    try:
        call.send(None)
        call.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError(f"{call} waits")


def _answer(reply: asyncio.Future[Any], outcome: object) -> None:
    if reply.done():
        return
    if isinstance(outcome, Exception):
        reply.set_exception(outcome)
    else:
        reply.set_result(outcome)


def _sum(payloads: Sequence[bytes]) -> str:
    checksum = 0
    for payload in payloads:
        checksum = zlib.crc32(payload, checksum)
    return f"{checksum:08x}"


def _brief(outcome: object) -> str:
    """Return an answer in a few characters that tell it from other answers."""
    match outcome:
        case None:
            return "-"
        case Enum():
            return outcome.name
        case bytes():
            return _sum((outcome,))
        case Committed():
            return f"ok{len(outcome.outbox) or ''}"
        case PartitionImage():
            return f"epoch {outcome.epoch} #{outcome.commit_number} at {outcome.position}"
        case ClusterView():
            return f"{outcome.leader} leads {len(outcome.hosts)} v{outcome.placement_version}"
        case StoredInstance():
            return _sum((outcome.row or b"", *outcome.history))
        case QueueEntry():
            return f"{outcome.id}x{outcome.deliveries}"
        case Unknown():
            return "?"
        case OwnerRow():
            return f"{outcome.host}:{outcome.epoch}"
        case list() | tuple():
            return ",".join(map(_brief, outcome))
        case HubMeta() | HostBeat():
            return "."
        case _:
            return str(outcome)
