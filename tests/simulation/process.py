"""Simulated processes, and what happens to them: crashes, pauses, drains, restarts.

Rules:

* A process that died never runs again; what takes its place has a new name.
* Death comes between two instructions, at any store call or at any time. A drained process must have
  ended all its tasks by itself.
* When the faults are over, everything that should be there is brought back, and nothing else is done: the
  rest is for the product to repair.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from lungfish.runtime.client.client import Client
from lungfish.runtime.errors import StoreUnavailable
from lungfish.runtime.host.host import Host
from lungfish.runtime.store.layout import DEFAULT_POOL, EVERY_POOL
from lungfish.runtime.store.store import HubMeta
from lungfish.runtime.worker.worker import Worker
from tests.simulation import repeats, shards, sleepers
from tests.simulation.app import POND, app
from tests.simulation.faults import Profile, Trace
from tests.simulation.loop import Gate, SimulationLoop
from tests.simulation.network import FaultyStore, Network
from tests.simulation.shape import Shape
from tests.simulation.watch import WatchedServer
from tests.simulation.workload import Ledger, Program, touch_partitions

#: A drain that takes longer than this hangs (s).
DRAIN_S_MAX = 60.0
#: What hosts serve in a run with pools.
_SERVED = ((DEFAULT_POOL,), (POND,))


def _numbered(name: str) -> Callable[[], str]:
    """Return a maker of ids that are the same in every run of a seed."""
    numbers = itertools.count(1)
    return lambda: f"{name}-{next(numbers)}"


class Process:
    """One incarnation of a host, a worker or a client."""

    def __init__(self, cluster: Cluster, sort: str, name: str) -> None:
        self.sort = sort
        self.name = name
        self.gate = Gate(name)
        self.store = FaultyStore(cluster.network, self, app.hub)
        self.host: Host | None = None
        self.worker: Worker | None = None
        #: What it serves, if it is a host.
        self.pools: tuple[str, ...] = (EVERY_POOL,)
        #: Its leaving, once it has been told to.
        self.leaving: asyncio.Task[None] | None = None
        self._cluster = cluster

    @property
    def draining(self) -> bool:
        """True if it was told to leave."""
        return self.leaving is not None

    def crash(self) -> None:
        """Die now."""
        if not self.gate.dead:
            self._cluster.died(self, "crashed")

    def freeze(self) -> float:
        """Stand still from now on; return for how long (s)."""
        return self._cluster.freeze(self)


class Cluster:
    """All processes of a run."""

    def __init__(
        self,
        loop: SimulationLoop,
        network: Network,
        profile: Profile,
        shape: Shape,
        trace: Trace,
        ledger: Ledger,
        seed: int,
    ) -> None:
        self.loop = loop
        self.network = network
        self.live: dict[str, Process] = {}
        #: What each host serves, or served.
        self.serves: dict[str, tuple[str, ...]] = {}
        self.programs: list[Program] = []
        self.closing = False
        self._profile = profile
        self._shape = shape
        self._trace = trace
        self._ledger = ledger
        self._seed = seed
        self._rng = random.Random(f"{seed}:nemesis")
        self._names = {"host": 0, "worker": 0, "client": 0}
        self._nemeses: dict[str, Callable[[], None]] = {
            "store_stop": self._stop_store,
            "shard_stop": self._stop_shards,
            "host_crash": lambda: self._crash("host"),
            "host_pause": lambda: self._pause("host"),
            "host_drain": lambda: self._drain("host"),
            "host_add": self._add_host,
            "worker_crash": lambda: self._crash("worker"),
            "worker_pause": lambda: self._pause("worker"),
            "worker_drain": lambda: self._drain("worker"),
            "client_crash": lambda: self._crash("client"),
            "client_pause": lambda: self._pause("client"),
            "failover": self._fail_over,
        }

    # --- starting ------------------------------------------------------------------------

    def start(self) -> None:
        """Start what a run begins with, and the faults."""
        for _ in range(self._shape.hosts):
            self.start_host()
        for _ in range(self._shape.workers):
            self.start_worker()
        for _ in range(self._shape.clients):
            self.start_client()
        for name, mean_s in self._profile.nemeses.items():
            self._begin_nemesis(name, mean_s)
        if self._profile.failovers:
            self._begin_nemesis("failover", self._profile.failovers)

    def _begin_nemesis(self, name: str, mean_s: float) -> None:
        _ = self.loop.create_task(self._haunt(name, mean_s), name=name, context=self.loop.outside)

    def _new(self, sort: str) -> Process:
        self._names[sort] += 1
        process = Process(self, sort, f"{sort[0]}{self._names[sort]}")
        self.live[process.name] = process
        self._trace.add(self.loop.now_s, f"{process.name} starts")
        return process

    def _begin(self, process: Process, main: Coroutine[Any, Any, None]) -> None:
        task = self.loop.start_process(process.gate, main)
        task.add_done_callback(lambda task: self._ended(process, task), context=self.loop.outside)

    def _ended(self, process: Process, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, StoreUnavailable):
            self.died(process, f"gave up: {error}")  # as at a start while the store is away
        elif error is not None:
            self._ledger.report(f"{process.name} ended with {error!r}")
            self.died(process, "failed")
        elif not process.gate.dead:
            self.died(process, "left")

    def start_host(self) -> None:
        """Start a host under a new name."""
        process = self._new("host")
        if self._shape.pooled:
            # Whichever has fewer, so that neither is long without one.
            served = [p.pools for p in self.of("host") if p is not process and not p.draining]
            process.pools = min(_SERVED, key=served.count)
        self.serves[process.name] = process.pools
        self._begin(process, self._run_host(process))

    async def _run_host(self, process: Process) -> None:
        tokens = 0

        def unique() -> str:
            nonlocal tokens
            tokens += 1
            return f"{process.name}.{tokens}"

        host = Host(
            process.store,
            app,
            host_id=process.name,
            settings=self._shape.settings,
            unique=unique,
            pools=process.pools,
        )
        kinds: list[Any] = list(host._kinds.values())
        for kind in kinds:
            if hasattr(kind, "always_replay"):
                kind.always_replay = self._shape.always_replay
        await host.start(HubMeta(partitions=self._shape.partitions))
        process.host = host
        assert host.failed is not None
        await host.failed

    def start_worker(self) -> None:
        """Start a worker under a new name."""
        process = self._new("worker")
        self._begin(process, self._run_worker(process))

    async def _run_worker(self, process: Process) -> None:
        worker = Worker(
            process.store,
            app,
            worker_id=process.name,
            concurrency=self._shape.concurrency,
            settings=self._shape.worker_settings,
        )
        await worker.start()
        process.worker = worker
        await self.loop.create_future()

    def start_client(self) -> None:
        """Start a client with a program of its own."""
        process = self._new("client")
        program = Program(
            self._ledger, self._shape, process.name, self._seed, max(1.0, self._profile.until_s)
        )
        self.programs.append(program)
        self._begin(process, self._run_client(process, program))

    async def _run_client(self, process: Process, program: Program) -> None:
        while True:
            client = Client(lambda: process.store, app, unique=_numbered(process.name))
            try:
                await client.__aenter__()
                break
            except StoreUnavailable:
                await asyncio.sleep(0.2)
        await program.run(client)
        await client.close()

    async def run_outside(self, work: Callable[[Client], Awaitable[None]]) -> None:
        """Do something as a client that nothing happens to."""
        process = self._new("client")

        async def main() -> None:
            async with Client(lambda: process.store, app, unique=_numbered(process.name)) as client:
                await work(client)

        await self.loop.start_process(process.gate, main())
        self.died(process, "is done")

    # --- dying -----------------------------------------------------------------------------

    def died(self, process: Process, how: str) -> None:
        """A process is gone: nothing of it runs any more, and another takes its place."""
        self._trace.add(self.loop.now_s, f"{process.name} {how}")
        self.loop.kill(process.gate)
        self.network.died(process.gate)
        self.live.pop(process.name, None)
        if process.sort == "client" or self.closing:
            return
        # Announced by Ray, or only noticed by its silence.
        if process.sort == "host" and self._rng.random() < self._profile.death_notice:
            self._after(self._rng.expovariate(4.0), lambda: self._announce(process))
        if self._missing(process.sort) > 0 or self._lacks_a_pool():
            self._after(self._rng.expovariate(2.0), lambda: self._replace(process.sort))

    def _announce(self, process: Process) -> None:
        if not self.network.down:
            self._trace.fault(self.loop.now_s, "death_notice", process.name)
            self.network.server.hub(app.hub).hosts.pop(process.name, None)

    def _after(self, delay_s: float, work: Callable[[], None]) -> None:
        self.loop.call_later(delay_s, work, context=self.loop.outside)

    def of(self, sort: str) -> list[Process]:
        """Return the live processes of a sort."""
        return [process for process in self.live.values() if process.sort == sort]

    def _missing(self, sort: str) -> int:
        wanted = {"host": self._shape.hosts, "worker": self._shape.workers}[sort]
        return wanted - len(self.of(sort))

    def _lacks_a_pool(self) -> bool:
        """True if a pool is left without a host that will stay, with no more faults to bring one."""
        staying = {process.pools for process in self.of("host") if not process.draining}
        return self.network.over and self._shape.pooled and not staying.issuperset(_SERVED)

    def _replace(self, sort: str) -> None:
        if self.closing:
            return
        if self._missing(sort) > 0:
            self.start_host() if sort == "host" else self.start_worker()
        if self._lacks_a_pool():
            self.start_host()

    # --- faults ----------------------------------------------------------------------------

    async def _haunt(self, name: str, mean_s: float) -> None:
        rng = random.Random(f"{self._seed}:{name}")
        while True:
            await asyncio.sleep(rng.expovariate(1.0 / mean_s))
            if not self.network.faulty:
                return
            self._nemeses[name]()

    def _choose(self, sort: str) -> Process | None:
        found = [p for p in self.of(sort) if not p.gate.frozen]
        return self._rng.choice(found) if found else None

    def _stop_store(self) -> None:
        if self.network.down:
            return
        self._trace.fault(self.loop.now_s, "store_stop", "")
        self.network.stop_store()
        self._after(self._rng.choice((0.05, 0.5, 2.0, 5.0)), self.network.start_store)

    def _stop_shards(self) -> None:
        away = self.network.server.away
        if not self.network.clustered or away:
            return
        away.update(
            n for n in range(self._shape.partitions + app.pools[POND].partitions) if self._rng.random() < 0.5
        )
        self._trace.fault(self.loop.now_s, "shard_stop", str(sorted(away)))
        self._after(self._rng.choice((0.05, 0.5, 2.0, 5.0)), away.clear)

    def _fail_over(self) -> None:
        """Let a replica take over that is a little behind: what was written since is lost."""
        checkpoint, before = self.network.server.checkpoint(), self._trace.fired["failover"]

        def take_over() -> None:
            # A replica follows one history: after another failover, this picture is of one that was given up.
            other = self._trace.fired["failover"] != before
            if other or self.network.down or not self.network.faulty:
                return
            self._trace.fault(self.loop.now_s, "failover", "")
            self.network.stop_store()
            self.network.server.rollback(checkpoint)
            self._after(self._rng.choice((0.01, 0.5)), self.network.start_store)

        self._after(self._rng.choice((0.01, 0.1, 0.5)), take_over)

    async def fail_over_at_rest(self, rest: Callable[[], Awaitable[None]]) -> None:
        """Lose a few commits of every partition, with nobody there to send what would show it."""
        checkpoint = self.network.server.checkpoint()
        await self.run_outside(touch_partitions)
        await rest()
        self._trace.fault(self.loop.now_s, "last_failover", "")
        self.network.stop_store()
        self.network.server.rollback(checkpoint)
        await asyncio.sleep(self._rng.choice((0.01, 0.5)))
        self.network.start_store()

    async def repeat_at_rest(self, rest: Callable[[], Awaitable[None]]) -> None:
        """Have commits arrive again, when later ones are there, of the same owners or of others."""
        server = self.network.server
        assert isinstance(server, WatchedServer)
        server.noted = noted = repeats.Noted()
        await self.run_outside(lambda client: repeats.put(client, 1))
        await rest()
        server.noted = None
        if self._profile.last_repeats == "of earlier owners":
            self._crash_all()
        await self.run_outside(lambda client: repeats.put(client, 2))
        await rest()
        self._trace.fault(self.loop.now_s, "last_repeats", "")
        for hub, commit in noted.latest_first():
            server.commit(hub, commit)

        await self._look(lambda client: repeats.wrong(client, 2))

    async def sleep_at_rest(self, rest: Callable[[], Awaitable[None]]) -> None:
        """Have every host die while operations run, and acknowledged ones wait behind them."""
        await self.run_outside(sleepers.tell)
        self._crash_all()
        self._trace.fault(self.loop.now_s, "last_sleep", "")
        await asyncio.sleep(2 * sleepers.SLEEP_S)
        await rest()
        await self._look(sleepers.wrong)

    def _crash_all(self) -> None:
        for process in self.of("host"):
            process.crash()

    async def _look(self, wrong: Callable[[Client], Awaitable[list[str]]]) -> None:
        async def look(client: Client) -> None:
            for violation in await wrong(client):
                self._ledger.report(violation)

        await self.run_outside(look)

    async def fail_over_a_shard(self, rest: Callable[[], Awaitable[None]]) -> None:
        """Have some partitions forget what they told the others, who remember."""
        total = self._shape.partitions + app.pools[POND].partitions
        await self.run_outside(lambda client: shards.tell(client, "long ago", 1))
        await rest()
        has_begun = self._rng.random() < 0.5
        if has_begun:  # and forgets how it ended
            await self.run_outside(shards.begin)
        checkpoint = self.network.server.checkpoint()
        await self.run_outside(lambda client: shards.tell(client, "before", shards.BEFORE))
        await rest()
        if not has_begun:
            await self.run_outside(shards.begin)
        forgetful = sorted(self._rng.sample(range(total), self._rng.randint(1, total - 1)))
        self._trace.fault(self.loop.now_s, "last_shard", str(forgetful))
        self.network.server.away.update(forgetful)
        self.network.server.rollback(checkpoint, forgetful)
        await asyncio.sleep(self._rng.choice((0.01, 0.5)))
        self.network.server.away.clear()
        if self._rng.random() < 0.5:
            await rest()  # else it is the messages that show it
        await self.run_outside(lambda client: shards.tell(client, "after", 1))

    def _crash(self, sort: str) -> None:
        process = self._choose(sort)
        if process is not None:
            self._trace.fault(self.loop.now_s, f"{sort}_crash", process.name)
            process.crash()

    def _pause(self, sort: str) -> None:
        process = self._choose(sort)
        if process is None:
            return
        self._trace.fault(self.loop.now_s, f"{sort}_pause", process.name)
        self.freeze(process)

    def freeze(self, process: Process) -> float:
        """Stop a process for a while; return for how long (s)."""
        # Shorter than any lease, about as long, and much longer.
        pause_s = self._rng.choice((0.1, 1.0, 3.5, 8.0)) * self._rng.uniform(0.5, 1.5)
        self._trace.add(self.loop.now_s, f"{process.name} stands still for {pause_s:.3f} s")
        self.loop.freeze(process.gate)
        self._after(pause_s, lambda: self._resume(process))
        return pause_s

    def _resume(self, process: Process) -> None:
        if process.gate.frozen and not process.gate.dead:
            self._trace.add(self.loop.now_s, f"{process.name} goes on")
            self.loop.thaw(process.gate)

    def _add_host(self) -> None:
        if len(self.of("host")) < self._shape.hosts + 2:
            self._trace.fault(self.loop.now_s, "host_add", "")
            self.start_host()

    def _drain(self, sort: str) -> None:
        process = self._choose(sort)
        if process is None or process.draining or (process.host or process.worker) is None:
            return
        self._trace.fault(self.loop.now_s, f"{sort}_drain", process.name)
        _ = self.begin_drain(process)

    def begin_drain(self, process: Process) -> asyncio.Task[None]:
        """Have a host or a worker leave in good order."""
        stopping = process.leaving = self.loop.start_process(process.gate, self._stop(process))

        def stopped(task: asyncio.Task[None]) -> None:
            if process.gate.dead:
                return
            error = None if task.cancelled() else task.exception()
            if error is not None and not isinstance(error, StoreUnavailable):
                self._ledger.report(f"stopping {process.name} raised {error!r}")
            _, *left = [t for t in self.loop.tasks_of(process.gate) if t is not task]
            if left and error is None:
                self._ledger.report(f"{process.name} stopped, and left {[t.get_name() for t in left]}")
            self.died(process, "drained")

        stopping.add_done_callback(stopped, context=self.loop.outside)
        return stopping

    async def _stop(self, process: Process) -> None:
        began_s = self.loop.now_s
        if process.host is not None:
            await process.host.stop()
        if process.worker is not None:
            await process.worker.stop(self._shape.settings.drain_s)
        if self.loop.now_s - began_s > DRAIN_S_MAX:
            self._ledger.report(f"{process.name} took {self.loop.now_s - began_s:.0f} s to stop")

    async def close(self) -> None:
        """Have every host and worker leave, all at once; some may be about to already."""
        self.closing = True
        staying = [p for p in self.live.values() if p.host or p.worker]
        leaving = [process.leaving or self.begin_drain(process) for process in staying]
        await asyncio.gather(*leaving, return_exceptions=True)

    def end_faults(self) -> None:
        """Bring back the store and whoever sleeps or is missing."""
        self.network.over = True
        self.network.server.away.clear()
        self.network.start_store()
        for process in list(self.live.values()):
            self._resume(process)
        for sort in ("host", "worker"):
            if not [process for process in self.of(sort) if not process.draining]:
                self._replace(sort) if self._missing(sort) > 0 else self.start_host()
        while self._lacks_a_pool():
            self.start_host()
