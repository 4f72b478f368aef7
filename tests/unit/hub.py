"""A hub in memory with several hosts in one loop, and a store that can be taken away from each."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import lungfish
from lungfish.runtime.client.client import Client
from lungfish.runtime.errors import StoreUnavailable
from lungfish.runtime.host.host import Host
from lungfish.runtime.ids import ENTITY, ActorId, partition_of
from lungfish.runtime.settings import HostSettings
from lungfish.runtime.store.store import Commit, CommitOutcome, HubMeta, PartitionImage, Store
from lungfish.runtime.testing.memory_server import Hub as HubState
from lungfish.runtime.testing.memory_server import Partition as PartitionState
from lungfish.runtime.testing.memory_store import MemoryStore
from tests.virtual import virtual_server

PARTITIONS = 4
HEARTBEAT_MS, LEASE_MS = 100, 500
SETTINGS = HostSettings(heartbeat_ms=HEARTBEAT_MS, lease_ms=LEASE_MS, release_grace_ms=2_000, drain_s=5.0)


class OneHostsStore(MemoryStore):
    """One host's handle: notes claims and releases, and can be cut off."""

    def __init__(self, hub: Hub, name: str) -> None:
        super().__init__(hub.server, hub.name)
        self.of = hub
        self.host = name
        self.cut_off = False
        #: Called with the commits before they are applied; may raise.
        self.before_commit: Callable[[Sequence[Commit]], None] = lambda commits: None
        #: Commits are applied when this is set.
        self.commits_pass = asyncio.Event()
        self.commits_pass.set()

    def _hub(self) -> Any:
        if self.cut_off:
            raise StoreUnavailable(f"{self.host} is cut off")
        return super()._hub()

    async def claim(self, partition: int, host: str, token: str) -> PartitionImage:
        image = await super().claim(partition, host, token)
        self.of.log.append((self.host, "claims", partition))
        return image

    async def release(self, partition: int, token: str) -> bool:
        self.of.log.append((self.host, "releases", partition))
        return await super().release(partition, token)

    async def commit(self, commits: Sequence[Commit]) -> list[CommitOutcome]:
        self.before_commit(commits)
        await self.commits_pass.wait()
        return await super().commit(commits)


class Hub:
    """Hosts of one app over one server in memory."""

    def __init__(self, app: lungfish.App, **options: Any) -> None:
        self.app = app
        self.name = app.hub
        self.server = virtual_server()
        for name, value in options.items():
            assert hasattr(self.server, name)
            setattr(self.server, name, value)
        self.hosts: dict[str, Host] = {}
        self.stores: dict[str, OneHostsStore] = {}
        self.log: list[tuple[str, str, int]] = []

    async def start(self, name: str, pools: Sequence[str] = ("*",), **settings: Any) -> Host:
        """Start a host; it may not have its partitions yet."""
        store = self.stores[name] = OneHostsStore(self, name)
        chosen = HostSettings(**{**{f: getattr(SETTINGS, f) for f in SETTINGS.__slots__}, **settings})
        host = Host(store, self.app, host_id=name, settings=chosen, pools=pools)
        await host.start(HubMeta(partitions=PARTITIONS))
        self.hosts[name] = host
        return host

    async def start_all(self, *names: str, **settings: Any) -> list[Host]:
        """Start hosts, and return when every partition is where it belongs."""
        hosts = [await self.start(name, **settings) for name in names]
        await self.settled()
        return hosts

    async def settled(self) -> None:
        """Wait until every partition is run by the host that the placement names."""
        async with asyncio.timeout(60):
            for host in self.hosts.values():
                await host.wait_settled()

    async def kill(self, name: str) -> None:
        """End a host as if its process had died."""
        await self.hosts.pop(name).stop(drain=False)

    async def drain(self, name: str) -> None:
        """End a host gracefully."""
        await self.hosts.pop(name).stop()

    def store(self) -> Store:
        """Return a handle for a client."""
        return MemoryStore(self.server, self.name)

    def client(self) -> Client:
        return Client(self.store, self.app)

    @property
    def state(self) -> HubState:
        """What the server holds."""
        return self.server.hub(self.name)

    def owners(self) -> dict[int, str]:
        """Who the owner rows name."""
        return {number: self.row(number).host for number in range(PARTITIONS)}

    def row(self, number: int) -> PartitionState:
        return self.state.partition(number)

    def running(self) -> dict[str, set[int]]:
        """What each host runs."""
        return {name: {p.number for p in host.partitions} for name, host in self.hosts.items()}

    async def until(
        self, condition: Callable[[], object], what: str, timeout_s: float = 60.0, step_s: float = 0.005
    ) -> float:
        """Wait for a condition (in virtual time); return how long it took (s)."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        while not condition():
            assert loop.time() - began_s < timeout_s, f"timed out: {what}"
            await asyncio.sleep(step_s)
        return loop.time() - began_s


@contextlib.asynccontextmanager
async def hub_of(app: lungfish.App, **options: Any) -> AsyncIterator[Hub]:
    """Give a hub; whatever still runs is killed at the end, and no host may have failed."""
    hub = Hub(app, **options)
    try:
        yield hub
        for host in hub.hosts.values():
            assert host.failed is not None
            assert not host.failed.done()
    finally:
        for name in list(hub.hosts):
            await hub.kill(name)


def key_in(partition: int, name: str, prefix: str = "k") -> str:
    """Return the key of an entity in a partition."""
    keys = (f"{prefix}{number}" for number in range(1_000))
    return next(key for key in keys if partition_of(ActorId(ENTITY, name, key), PARTITIONS) == partition)
