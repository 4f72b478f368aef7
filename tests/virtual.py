"""An event loop on a virtual clock, and a whole runtime on it: waiting takes no time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import lungfish
from lungfish.runtime.client.client import Client
from lungfish.runtime.host.host import Host
from lungfish.runtime.settings import HostSettings, WorkerSettings
from lungfish.runtime.store.store import HubMeta
from lungfish.runtime.testing.memory_store import MemoryServer, MemoryStore
from lungfish.runtime.worker.worker import Worker

T = TypeVar("T")

#: Unix time at which virtual time begins (s).
EPOCH_S = 1_700_000_000
HOUR_MS = 3_600_000


class VirtualClock(selectors.DefaultSelector):
    """A selector that never waits for a timer: it moves the clock instead."""

    now_s = 1_000.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "nothing is ready and no timer runs: this would wait for ever"
        # Every turn takes a little time: a sleep too short for a float to show must end, too.
        self.now_s += max(timeout, 1e-9)
        return super().select(0.0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on a virtual clock."""

    def __init__(self) -> None:
        self._clock = VirtualClock()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now_s


def virtually(test: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine on a virtual clock."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(test())


def virtual_server() -> MemoryServer:
    """Return a store's server whose clock is that of the running loop."""
    return MemoryServer(lambda: int((EPOCH_S + asyncio.get_running_loop().time()) * 1000))


def run_app_virtually(app: lungfish.App, test: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
    """Run ``test`` with a client of a runtime in memory: a host, a worker, no threads."""

    async def run() -> T:
        server = virtual_server()
        # Nobody dies here: rare heartbeats make the months pass quickly.
        host = Host(
            MemoryStore(server, app.hub),
            app,
            settings=HostSettings(heartbeat_ms=HOUR_MS, lease_ms=2 * HOUR_MS),
        )
        worker = Worker(
            MemoryStore(server, app.hub),
            app,
            worker_id="worker",
            settings=WorkerSettings(HOUR_MS, 2 * HOUR_MS, HOUR_MS, HOUR_MS),
        )
        await host.start(HubMeta(partitions=4))
        await worker.start()
        try:
            async with Client(lambda: MemoryStore(server, app.hub), app) as client:
                return await test(client)
        finally:
            await worker.stop()
            await host.stop()

    return virtually(run)
