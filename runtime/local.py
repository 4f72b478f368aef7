"""A hub in one process, without Ray: hosts, workers and a client in one event loop.

For ``lungfish dev``, for fast tests and for a first look. The parts are those that run on a Ray
cluster; only the shell around them is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from types import TracebackType

from .app import App
from .client import Client
from .host import Host
from .settings import HostSettings
from .store import HubMeta, Store
from .worker import Worker


class LocalRuntime:
    """Runs an app in this process for as long as the ``async with`` block lasts."""

    def __init__(
        self,
        app: App,
        open_store: Callable[[], Store],
        *,
        hosts: int = 1,
        workers: int = 1,
        concurrency: int = 32,
        settings: HostSettings | None = None,
        meta: HubMeta | None = None,
    ) -> None:
        """Prepare a runtime.

        Args:
            app: what to run.
            open_store: makes one store handle; every part gets its own.
            hosts, workers: how many of each.
            concurrency: activities that one worker runs at once.
            settings: bounds and times of the hosts.
            meta: what the hub must be; None takes it as it is, or creates the default.
        """
        self._app = app
        self._open_store = open_store
        self._meta = meta
        self._executor: Executor | None = None
        self.hosts = [Host(open_store(), app, settings=settings) for _ in range(hosts)]
        self._worker_count = workers
        self._concurrency = concurrency
        self.workers: list[Worker] = []
        self.client = Client(open_store, app)

    async def __aenter__(self) -> LocalRuntime:
        self._executor = ThreadPoolExecutor(self._concurrency, thread_name_prefix="lungfish activity")
        for host in self.hosts:
            await host.start(self._meta)
        for number in range(self._worker_count):
            worker = Worker(
                self._open_store(),
                self._app,
                worker_id=f"worker-{number}-{self.hosts[0].host_id}",
                concurrency=self._concurrency,
                executor=self._executor,
            )
            await worker.start()
            self.workers.append(worker)
        await asyncio.gather(*(host.wait_settled() for host in self.hosts))
        await self.client.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.client.close()
        for worker in self.workers:
            await worker.stop()
        for host in self.hosts:
            await host.stop()
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
