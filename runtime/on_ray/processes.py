"""What a host process and a worker process are made of, whoever starts them.

A ``Deployment`` says what to run. ``HostProcess`` and ``WorkerProcess`` run it: in a Ray actor
(``on_ray.actors``),
or in any other process (tests that kill processes, a future shell).
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from lungfish.runtime.declared.app import App
from lungfish.runtime.host.host import Host, new_id
from lungfish.runtime.host.keepalive import Keepalive
from lungfish.runtime.on_redis.open_store import open_store
from lungfish.runtime.settings import HostSettings
from lungfish.runtime.store.existing import open_existing
from lungfish.runtime.store.layout import EVERY_POOL, HubMeta
from lungfish.runtime.worker.attempts import Launcher
from lungfish.runtime.worker.threads import DaemonThreads
from lungfish.runtime.worker.worker import Worker

#: Python's own: (700, 10, 10).
COLLECT_AT: Final = (20_000, 20, 20)


@dataclass(frozen=True, slots=True)
class Deployment:
    """What hosts and workers need to know beside the app.

    Attributes:
        hub: name of the hub.
        url: the store's address, as the processes see it.
        replicas: replicas that must have a write before it counts; 0 is none.
        concurrency: activities that one worker runs at once.
        code: fingerprint of the app's code; another one means that it must be deployed again.
        partitions: of the hub. A host that comes back makes a hub that was deleted with so many, since the
            others count on them, and refuses one of another count. None takes the hub as it is, or makes
            one of the default count.
    """

    hub: str
    url: str
    replicas: int = 0
    concurrency: int = 32
    settings: HostSettings = HostSettings()
    code: str = ""
    partitions: int | None = None


def tune_collector() -> None:
    """Make the garbage collector of this process, a host's own, look at young objects less often.

    A round makes thousands of objects that reference counts free by themselves; what is loaded (modules, the
    app) stays anyway. Collecting took 6 % of a host's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AT)


class HostProcess:
    """A host and its store."""

    def __init__(
        self,
        deployment: Deployment,
        app: App,
        *,
        slot: str,
        node: str = "",
        pools: Collection[str] = (EVERY_POOL,),
    ) -> None:
        """Prepare a host.

        Args:
            slot: stable name of the place that this incarnation takes: a former incarnation
                of the same slot is known to be dead, so that its partitions are taken at once.
            pools: as in ``Host``.
        """
        self._slot = slot
        self._wanted = HubMeta(deployment.partitions) if deployment.partitions is not None else None
        self._store = open_store(deployment.url, deployment.hub, replicas=deployment.replicas)
        host_id = f"{slot}#{new_id()[:12]}"
        settings = deployment.settings
        self._keepalive = Keepalive(
            lambda: open_store(deployment.url, deployment.hub),
            host_id,
            heartbeat_ms=settings.heartbeat_ms,
            lease_ms=settings.lease_ms,
            blocked_s_max=settings.blocked_s_max,
            stalled=self._count_stall,
        )
        self.host = Host(
            self._store,
            app,
            host_id=host_id,
            settings=settings,
            node=node,
            beaten=self._keepalive.beaten,
            code=deployment.code[:12],
            pools=pools,
        )

    async def start(self) -> None:
        """Join the hub."""
        tune_collector()
        await self._store.open(self._wanted)
        # Only looks: who has not said yet what it serves, or never comes to it, is no host.
        view = await self._store.heartbeat("", b"", lease_ms=60_000, lead=False)
        for beat in view.hosts:
            if beat.host.startswith(f"{self._slot}#"):
                await self._store.remove_host(beat.host)
        await self.host.start(self._wanted)
        self._keepalive.start()

    def _count_stall(self) -> None:
        self.host.stalls += 1

    async def stop(self) -> None:
        """Leave the hub gracefully."""
        # First: a beat after the last goodbye would bring the host back for a lease.
        self._keepalive.stop()
        await self.host.stop()

    async def failure(self) -> BaseException:
        """Return what ended the host, when something does: the process is of no use any more."""
        failed = self.host.failed
        assert failed is not None
        try:
            await asyncio.shield(failed)
        except Exception as error:
            return error
        raise AssertionError("a host does not end without an error")


class WorkerProcess:
    """A worker, its store and its threads."""

    def __init__(
        self, deployment: Deployment, app: App, *, slot: str, launcher: Launcher | None = None
    ) -> None:
        self._app = app
        self._deployment = deployment
        self._slot = slot
        self._launcher = launcher
        self._store = open_store(deployment.url, deployment.hub)
        self._threads = DaemonThreads(deployment.concurrency, "lungfish activity")
        self.worker: Worker | None = None

    async def start(self) -> None:
        """Begin to take activities."""
        await open_existing(self._store)
        for beat in await self._store.workers():
            if beat.host.startswith(f"{self._slot}#"):
                await self._store.remove_worker(beat.host)
        self.worker = Worker(
            self._store,
            self._app,
            worker_id=f"{self._slot}#{new_id()[:12]}",
            concurrency=self._deployment.concurrency,
            executor=self._threads,
            launcher=self._launcher,
        )
        await self.worker.start()

    async def stop(self) -> None:
        """Finish what runs and leave."""
        if self.worker is not None:
            await self.worker.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)
