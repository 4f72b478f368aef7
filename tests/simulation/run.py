"""One simulation, from its seed to its verdict."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from unittest.mock import patch

from lungfish.entities import locking
from lungfish.runtime.errors import LungfishError
from lungfish.runtime.host import host
from lungfish.runtime.session.sender import Sender
from lungfish.runtime.store.store import HubMeta
from lungfish.runtime.testing import memory_store
from tests.simulation import invariants, parcels, purging, purses, shards
from tests.simulation.app import POND, app
from tests.simulation.faults import Profile, Trace, profile_of
from tests.simulation.indexes import indexes
from tests.simulation.loop import Deadlock, new_loop
from tests.simulation.network import Network
from tests.simulation.process import Cluster
from tests.simulation.shape import Shape, shape_of
from tests.simulation.tales import Tales
from tests.simulation.watch import WatchedServer
from tests.simulation.workload import OK, Ledger, end_the_running, forget_acknowledgements, settle_debts
from tests.simulation.world import BASE_MS, World, enter

#: Everything must be at rest this long after the last fault and the last client (virtual s).
REST_S_MAX = 120.0
#: After a failover, what has not ended for so long never will (virtual s).
OPERATOR_S = 45.0
#: A timer is at most this late when nothing goes wrong (ms); partitions may be on the move as hosts start.
LATE_MS_MAX = 1_000
#: How often that is looked at (virtual s).
REST_POLL_S = 0.5
#: How often a worker looks whether a queue that has limits lets it take more (virtual s). As often as outside
#: of simulations (50/s), it would be half of the work of a run.
LIMITED_POLL_S = 0.1


@dataclass(slots=True)
class Report:
    """What came of a run.

    Attributes:
        hash: of everything that happened; equal seeds have equal ones.
        violations: what is wrong; empty: nothing.
        fired: fault → how often it was injected.
        outcomes: ``ok``, ``fail``, ``unknown`` → operations that clients saw end so.
        rest_s: when everything was at rest (virtual).
    """

    seed: int
    hash: str = ""
    violations: list[str] = field(default_factory=list)
    fired: Counter[str] = field(default_factory=Counter)
    planned: set[str] = field(default_factory=set)
    outcomes: Counter[str] = field(default_factory=Counter)
    rest_s: float = 0.0
    commits: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    takeovers: int = 0
    given_up: int = 0
    work: Counter[str] = field(default_factory=Counter)
    timers: int = 0
    late_ms: int = 0
    callbacks: int = 0
    calls: int = 0
    trace: list[str] = field(default_factory=list)

    @property
    def weak(self) -> bool:
        """True if the run says little: most operations have no outcome, or no planned fault happened."""
        total = sum(self.outcomes.values())
        return self.outcomes[OK] < total / 2 or (bool(self.planned) and not self.fired)


class _Errors(logging.Handler):
    """Collects what the product logs as an error: it says itself that something is wrong."""

    #: Said of failures that are injected.
    EXPECTED = ("simulated:", "tried again", "store is closed")

    def __init__(self, report: Callable[[str], None]) -> None:
        super().__init__(logging.ERROR)
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if not any(expected in text for expected in self.EXPECTED):
            error = f": {record.exc_info[1]!r}" if record.exc_info else ""
            self._report(f"logged: {record.name}: {text}{error}")


class Simulation:
    """One run."""

    def __init__(self, seed: int, *, profile: Profile | None = None, shape: Shape | None = None) -> None:
        self.seed = seed
        self.profile = profile or profile_of(seed)
        self.shape = shape or shape_of(seed)
        self.violations: list[str] = []
        #: Most users do not trace; neither do most runs.
        self.tales = Tales() if seed % 3 == 0 else None
        self.loop = new_loop()
        self.trace = Trace()
        self.server = WatchedServer(
            self.now_ms,
            self.report,
            delivers_in_place=self.shape.in_place,
            inbox_length_max=self.shape.inbox_length_max,
            queue_length_max=self.shape.queue_length_max,
            mailbox_length_max=self.shape.mailbox_length_max,
        )
        # Whoever opens a hub first creates it; a client or a worker would take the default size.
        meta = HubMeta(partitions=self.shape.partitions)
        self.server.hub(app.hub).meta = meta.with_pools({POND: app.pools[POND].partitions})
        self.world = World(self.now_ms, self.report, lossy=self.profile.failovers > 0)
        self.server.when_rolled_back = self.world.told.clear
        self.network = Network(
            self.loop,
            self.server,
            self.profile,
            self.trace,
            seed,
            clustered=not self.shape.in_place,
            told=lambda *who: self.world.told.add(who),
        )
        self.ledger = Ledger(self.report, lossy=self.profile.failovers > 0)
        self.cluster = Cluster(
            self.loop, self.network, self.profile, self.shape, self.trace, self.ledger, seed
        )
        self.server.serves = self.cluster.serves

    def now_ms(self) -> int:
        """Return the store's clock."""
        return BASE_MS + int(self.loop.now_s * 1_000)

    def report(self, violation: str) -> None:
        """Note that something is wrong."""
        self.violations.append(violation)
        self.trace.add(self.loop.now_s, f"VIOLATION {violation}")

    def run(self) -> Report:
        """Run to the end and return the verdict."""
        errors = _Errors(self.report)
        logger = logging.getLogger("lungfish")
        logger.addHandler(errors)
        logger.propagate = False
        enter(self.world)
        app.tracing = self.tales
        # What a host does now and then, it does often here; what this machine runs is not in a seed.
        often = patch.multiple(host, PASSIVATION_S=0.7, PRODUCER_SWEEP_S=1.1, read_memory=lambda: None)
        often.start()
        seldom = patch.object(memory_store, "LIMITED_POLL_S", LIMITED_POLL_S)
        seldom.start()
        asks = patch.object(locking, "CHECK_MS", self.shape.lock_check_ms)
        asks.start()
        # Nobody but a simulation needs to say this.
        gives_up = patch.dict(Sender.__init__.__kwdefaults__, {"give_up_s": self.shape.give_up_s})
        gives_up.start()
        try:
            self.loop.run(self._main())
        except Deadlock as error:
            self.report(f"deadlock: {error}")
        except LungfishError as error:
            # Of the client that nothing happens to.
            self.report(f"stuck: {error!r}")
        finally:
            gives_up.stop()
            often.stop()
            seldom.stop()
            asks.stop()
            logger.removeHandler(errors)
            logger.propagate = True
            report = self._report()
            logging.disable(logging.CRITICAL)  # what code says while it is torn down
            self.loop.close()
            enter(None)
            app.tracing = None
        return report

    async def _main(self) -> None:
        self.cluster.start()
        await asyncio.sleep(self.profile.until_s)
        self.cluster.end_faults()
        while not self._clients_done():
            await asyncio.sleep(REST_POLL_S)
        # What is owed to an instance can be given when it is known whether there is one.
        await self._rest(self._unread)
        await self.cluster.run_outside(lambda client: settle_debts(client, self.ledger))
        if self.ledger.lossy:
            await self._give_up_on_the_lost()
        await self._rest(self._unrest)
        if self.profile.last_failover and not self.violations:
            await self.cluster.fail_over_at_rest(self._rest_of_touches)
            await self._rest(self._unrest)
        if self.profile.last_repeats and not self.violations:
            await self.cluster.repeat_at_rest(self._rest_of_touches)
        if self.profile.last_sleep and not self.violations:
            await self.cluster.sleep_at_rest(self._rest_of_touches)
        if self.profile.last_shard and not self.violations:
            await self.cluster.fail_over_a_shard(self._rest_of_touches)
            await self._rest(self._unrest)
            for violation in shards.check(self.server.hub(app.hub)):
                self.report(violation)
        for violation in self._check():
            self.report(violation)
        if self.seed % 4 == 1:
            await self._leave()

    async def _leave(self) -> None:
        """Have everybody leave in good order: nobody owns anything then, and nothing else changes.

        A last heartbeat may overtake the farewell here; such a row is forgotten after a lease.
        """
        hub = self.server.hub(app.hub)
        before = {number: invariants.content(rows) for number, rows in hub.partitions.items()}
        await self.cluster.close()
        for number, rows in hub.partitions.items():
            if rows.token or rows.host:
                self.report(f"everybody left, and partition {number} is owned by {rows.host}")
            if invariants.content(rows) != before[number]:
                self.report(f"everybody left, and partition {number} changed")

    def _clients_done(self) -> bool:
        return not self.cluster.of("client")

    async def _rest(self, left: Callable[[], list[str]]) -> None:
        until_s = self.loop.now_s + REST_S_MAX
        while left():
            if self.loop.now_s > until_s:
                for what in left():
                    self.report(f"stuck: {what}")
                return
            await asyncio.sleep(REST_POLL_S)

    async def _give_up_on_the_lost(self) -> None:
        """End instances that wait for what the store lost, as an operator would.

        A worker removes a task when its result is acknowledged: if the store loses just the
        result, nobody has either.
        """
        until_s = self.loop.now_s + OPERATOR_S
        while self._unrest() and self.loop.now_s < until_s:
            await asyncio.sleep(REST_POLL_S)
        if self._unrest():
            await self.cluster.run_outside(lambda client: end_the_running(client, self.ledger))

    async def _rest_of_touches(self) -> None:
        await self._rest(self._unrest)

    def _unread(self) -> list[str]:
        return list(invariants.unread(self.server.hub(app.hub)))

    def _unrest(self) -> list[str]:
        hub = self.server.hub(app.hub)
        hosts = {p.name: p.host for p in self.cluster.of("host") if p.host is not None}
        starting = [f"{p.name} is about to start" for p in self.cluster.of("host") if p.host is None]
        return [*starting, *invariants.unrest(hub), *purging.unrest(hub), *invariants.memory(hosts, hub)]

    def _check(self) -> Iterator[str]:
        stored = invariants.Stored(self.server.hub(app.hub))
        purging.leave_out(stored.instances)
        shards.leave_out(stored.instances)
        yield from stored.misplaced
        if self.ledger.lossy:
            forget_acknowledgements(self.ledger)
        yield from invariants.logs(stored, self.ledger)
        yield from invariants.cells(stored, self.ledger)
        yield from invariants.instances(stored, self.ledger)
        yield from self.ledger.purges.are_gone(self.server.hub(app.hub))
        yield from indexes(self.server.hub(app.hub))
        yield from purses.orphans(self.server.hub(app.hub))
        yield from parcels.accounts(self.server.hub(app.hub), lossy=self.ledger.lossy)
        yield from invariants.sections(stored, self.ledger)
        yield from invariants.registers(stored, self.ledger)
        yield from invariants.rings(stored, self.ledger)
        if self.tales is not None:
            lossy = self.ledger.lossy or self.profile.last_shard
            yield from self.tales.violations(lossy=lossy, calm=not self.trace.fired)
        if not self.trace.fired:
            yield from self._perfect()
        yield from (f"loop: {error}" for error in self.loop.errors)

    def _perfect(self) -> Iterator[str]:
        """Nothing went wrong: then everything has one outcome, and happened once."""
        for key, count in self.world.attempts.items():
            if count > 1:
                yield f"without faults, attempt {key} ran {count} times"
        if self.world.late_ms > LATE_MS_MAX and not self.ledger.work["suspend"]:
            yield f"without faults, a timer was {self.world.late_ms} ms late"

    def _report(self) -> Report:
        self.trace.add(self.loop.now_s, f"end {self.loop.callbacks} {self.server.checksum:08x}")
        lines = self.trace.lines
        return Report(
            seed=self.seed,
            hash=hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest(),
            violations=self.violations,
            fired=self.trace.fired,
            planned={*self.profile.calls, *self.profile.nemeses},
            outcomes=self.ledger.outcomes,
            rest_s=self.loop.now_s,
            commits=self.server.commits,
            refused=self.server.refused,
            given_up=self.ledger.given_up,
            takeovers=self.server.claims,
            work=self.ledger.work,
            timers=self.world.timers,
            late_ms=self.world.late_ms,
            callbacks=self.loop.callbacks,
            calls=self.network.calls,
            trace=lines,
        )


#: Runs between two collections: a run leaves some megabytes of cycles.
COLLECT_EVERY = 10
_runs = itertools.count(1)


def simulate(seed: int, *, profile: Profile | None = None, shape: Shape | None = None) -> Report:
    """Run one seed; the collector waits until it is over, so that it has no say in what happens."""
    collects = gc.isenabled()
    gc.disable()
    logging.disable(logging.WARNING)
    try:
        return Simulation(seed, profile=profile, shape=shape).run()
    finally:
        logging.disable(logging.NOTSET)
        if collects:
            gc.enable()
        if next(_runs) % COLLECT_EVERY == 0:
            gc.collect()
