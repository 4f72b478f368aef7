"""A hub for a test: hosts, workers, a store in memory and a clock of its own, in the test's event loop.

Rules:

* The parts are those that run on a cluster; only the store and the clock are others. Sync activities run
  inline, so that a test sees one thing at a time.
* Orchestrations are replayed from their history at every turn, unless the test says otherwise.
* Nothing survives the block, and nothing is waited for at its end.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import logging
from types import TracebackType
from typing import Any, Final

from lungfish.runtime.client.client import Client
from lungfish.runtime.declared.app import App
from lungfish.runtime.declared.definitions import as_duration
from lungfish.runtime.errors import UsageError
from lungfish.runtime.host.host import Host
from lungfish.runtime.ids import ENTITY, ORCHESTRATION
from lungfish.runtime.partitions.kinds import ActorKind, load_kinds
from lungfish.runtime.settings import HostSettings
from lungfish.runtime.store.store import HubMeta
from lungfish.runtime.worker.worker import Worker

from .clock import HeldClock, HeldServer, TimeSkipper
from .memory_store import MemoryStore

logger = logging.getLogger(__name__)

#: When an environment begins, unless the test says otherwise: always the same, so that runs are.
START: Final = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MS: Final = dt.timedelta(milliseconds=1)
#: Few, so that it starts quickly; several, so that messages between partitions occur.
_META: Final = HubMeta(partitions=4)


class Environment:
    """A whole runtime for the length of an ``async with`` block; see ``environment``."""

    def __init__(
        self,
        app: App,
        *,
        hosts: int = 1,
        workers: int = 1,
        always_replay: bool = True,
        auto_skip: bool = True,
        start: dt.datetime = START,
    ) -> None:
        if hosts < 1 or workers < 0:
            raise UsageError("an environment needs at least one host, and no fewer than no workers")
        if start.tzinfo is None:
            raise UsageError(f"start needs a time zone: {start!r}")
        self.app = app
        self._counts = (hosts, workers)
        self._always_replay = always_replay
        # With several hosts, placement is settled by heartbeats: a test should not wait for them.
        self._settings = HostSettings(
            heartbeat_ms=500 if hosts == 1 else 20, producer_idle_ms=10**15, retention_sweep_s=0.05
        )
        self._server = HeldServer(app.hub, (start - _EPOCH) // _MS)
        self._skipper = TimeSkipper(
            self._server, idle=self._is_idle, awaited=self._is_awaited, moved=self._wake
        )
        self._skipper.automatic = auto_skip
        self._skipping: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)
        self._hosts: dict[str, Host] = {}
        self._workers: dict[str, Worker] = {}
        self._clients: list[Client] = []
        self._client = self.connect()

    @property
    def client(self) -> Client:
        """An ordinary client of the hub; open as long as the environment is."""
        return self._client

    def connect(self) -> Client:
        """Return one more client: use it with ``async with``, inside the environment's block."""
        number = next(self._numbers)
        client = Client(
            lambda: self._open_store(f"client-{number}"),
            self.app,
            unique=self._unique,
        )
        self._clients.append(client)
        return client

    # --- time --------------------------------------------------------------------------

    def now(self) -> dt.datetime:
        """Return durable time: what orchestrations see as ``ctx.now()`` (aware, UTC)."""
        return _EPOCH + self._server.now_ms() * _MS

    async def advance(self, duration: dt.timedelta | float) -> None:
        """Let durable time pass: every timer on the way fires, in order, and what follows from it is done.

        Waits for running activities. Several may be under way at once: each returns at its own time.

        Args:
            duration: timedelta, or seconds.
        """
        passed_ms = as_duration(duration) // _MS
        if passed_ms < 0:
            raise UsageError(f"durable time does not go back: {duration!r}")
        if self._skipping is None:
            raise RuntimeError("the environment is not open: use it with 'async with'")
        await self._skipper.advance_to(self._server.now_ms() + passed_ms)

    @property
    def auto_skip(self) -> bool:
        """Whether durable time jumps to the next timer while a client waits for an outcome. May be set."""
        return self._skipper.automatic

    @auto_skip.setter
    def auto_skip(self, on: bool) -> None:
        self._skipper.automatic = on

    def _is_awaited(self) -> bool:
        return any(client.waiting > 0 for client in self._clients)

    def _wake(self) -> None:
        for host in self._hosts.values():
            host.wake()

    def _is_idle(self) -> bool:
        owned = {part.number: part for host in self._hosts.values() for part in host.partitions}
        pooled = sum(pool.partitions for pool in self.app.pools.values())
        if any(client.handing for client in self._clients):
            return False
        if len(owned) < _META.partitions + pooled or (self._workers and self._server.has_tasks):
            return False
        return not any(
            part.dropped
            or part.busy
            or part.running
            or part.dirty
            or self._server.has_news(number, part.read_position)
            for number, part in owned.items()
        )

    # --- life --------------------------------------------------------------------------

    async def __aenter__(self) -> Environment:
        try:
            for _ in range(self._counts[0]):
                await self._add_host()
            for _ in range(self._counts[1]):
                await self._add_worker()
            await asyncio.gather(*(host.wait_settled() for host in self._hosts.values()))
            await self._client.__aenter__()
        except BaseException:
            await self._stop()
            raise
        self._skipping = asyncio.get_running_loop().create_task(
            self._skipper.run_forever(), name="lungfish time skipper"
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        skipping, self._skipping = self._skipping, None
        if skipping is not None:
            skipping.cancel()
            await asyncio.gather(skipping, return_exceptions=True)
        await self._client.close()
        # Nobody will read this store again: nothing needs to be finished or given back.
        for worker in self._workers.values():
            await worker.kill()
        for host in self._hosts.values():
            await host.stop(drain=False)

    def _open_store(self, process: str) -> MemoryStore:  # noqa: ARG002 - for who wants other stores
        return MemoryStore(self._server, self.app.hub)

    def _unique(self) -> str:
        return f"{next(self._numbers)}"

    def _kinds(self) -> dict[str, ActorKind]:
        kinds = load_kinds(self.app)
        orchestrations: Any = kinds[ORCHESTRATION]
        orchestrations.always_replay = self._always_replay
        entities: Any = kinds[ENTITY]
        entities.is_strict = True
        return kinds

    async def _add_host(self) -> None:
        name = f"host-{self._unique()}"
        host = Host(
            self._open_store(name),
            self.app,
            host_id=name,
            settings=self._settings,
            unique=self._unique,
            clock=HeldClock(self._server),
            kinds=self._kinds(),
        )
        await host.start(_META)
        self._hosts[name] = host

    async def _add_worker(self) -> None:
        name = f"worker-{self._unique()}"
        worker = Worker(self._open_store(name), self.app, worker_id=name)
        await worker.start()
        self._workers[name] = worker


def environment(
    app: App,
    *,
    hosts: int = 1,
    workers: int = 1,
    always_replay: bool = True,
    auto_skip: bool = True,
    start: dt.datetime = START,
) -> Environment:
    """Return a runtime for a test, to be used with ``async with``; its ``client`` is an ordinary one.

    Works in any running event loop. Durable time jumps to the next timer while a client waits for an outcome
    and nothing runs, so an orchestration of a month takes milliseconds.

    A ``@shared`` operation that changes the state fails with ``ReadOnly``; outside of tests, the change is
    dropped.

    Args:
        app: what to run; its name is the hub's.
        hosts, workers: how many of each; without workers no activity is ever run.
        always_replay: replay orchestrations from their history at every turn: finds non-determinism at once.
        auto_skip: False: durable time moves by ``advance`` only.
        start: durable time at the beginning (aware).
    """
    return Environment(
        app, hosts=hosts, workers=workers, always_replay=always_replay, auto_skip=auto_skip, start=start
    )
