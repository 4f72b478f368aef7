"""A hub in one process, without Ray: hosts, workers and a client in one event loop.

For ``lungfish dev``, for fast tests and for a first look. The parts are those that run on a Ray
cluster; only the shell around them is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AsyncExitStack
from types import TracebackType

from lungfish.runtime.client.client import Client
from lungfish.runtime.declared.app import App
from lungfish.runtime.host.host import Host
from lungfish.runtime.settings import HostSettings
from lungfish.runtime.store.layout import EVERY_POOL
from lungfish.runtime.store.store import HubMeta, Store
from lungfish.runtime.telemetry.metrics import Sample
from lungfish.runtime.worker.threads import DaemonThreads
from lungfish.runtime.worker.worker import Worker


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
        pools: Sequence[Collection[str]] = (),
    ) -> None:
        """Prepare a runtime.

        Args:
            app: what to run.
            open_store: makes one store handle; every part gets its own.
            hosts, workers: how many of each.
            concurrency: activities that one worker runs at once.
            settings: bounds and times of the hosts.
            meta: what the hub must be; None takes it as it is, or creates the default.
            pools: what each host serves, instead of all (see ``Host``).
        """
        self._app = app
        self._open_store = open_store
        self._meta = meta
        self._open = AsyncExitStack()
        served = [*pools, *[(EVERY_POOL,)] * (hosts - len(pools))]
        self.hosts = [Host(open_store(), app, settings=settings, pools=each) for each in served]
        self._worker_count = workers
        self._concurrency = concurrency
        self.workers: list[Worker] = []
        self.client = Client(open_store, app)

    async def __aenter__(self) -> LocalRuntime:
        async with AsyncExitStack() as undo:
            executor = DaemonThreads(self._concurrency, "lungfish activity")
            undo.callback(executor.shutdown, wait=False, cancel_futures=True)
            for host in self.hosts:
                await host.start(self._meta)
                undo.push_async_callback(self._stop, host)
            for number in range(self._worker_count):
                worker = self._make_worker(number, executor)
                await worker.start()
                undo.push_async_callback(worker.stop)
                self.workers.append(worker)
            await asyncio.gather(*(host.wait_settled() for host in self.hosts))
            await undo.enter_async_context(self.client)
            self._open = undo.pop_all()
        return self

    def samples(self) -> Iterator[tuple[str, Iterator[Sample]]]:
        """Yield the figures of each host and worker, by its id."""
        for host in self.hosts:
            yield host.host_id, host.samples()
        for worker in self.workers:
            yield worker.worker_id, worker.samples()

    async def _stop(self, host: Host) -> None:
        if host in self.hosts:  # else whoever took it from the list has stopped it
            await host.stop()

    def _make_worker(self, number: int, executor: Executor) -> Worker:
        return Worker(
            self._open_store(),
            self._app,
            worker_id=f"worker-{number}-{self.hosts[0].host_id}",
            concurrency=self._concurrency,
            executor=executor,
        )

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._open.aclose()
