"""Real processes that can be killed: a store, hosts, workers. Each is stopped by the pid that we started."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from lungfish.runtime.errors import StoreUnavailable
from lungfish.runtime.on_redis.open_store import open_store
from lungfish.runtime.store.store import OwnerRow, Store
from tests.servers import Server

HUB = "faults"
ROOT = Path(__file__).resolve().parents[2]


class Member:
    """A host or a worker process."""

    def __init__(self, role: str, slot: str, log: Path) -> None:
        self.role = role
        self.slot = slot
        self.id = ""
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, url: str) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.faults.process",
                self.role,
                url,
                self.slot,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
            )
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            line = (await self._process.stdout.readline()).decode().split()
        assert line[:1] == ["ready"], f"{self.slot} did not come up: see {self._log}"
        self.id = line[-1]

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    async def kill(self) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


async def owners(store: Store) -> list[OwnerRow]:
    """Ask until the store answers: it may have just been killed."""
    while True:
        try:
            return await store.owners()
        except StoreUnavailable:
            await asyncio.sleep(0.02)


class Cluster:
    """A store, hosts and workers; all of them end with the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # On the disk and with every write synced: it is killed, too.
        self.store = Server(folder / "store")
        self.hosts: list[Member] = []
        self.workers: list[Member] = []
        self._numbers = itertools.count()

    async def add(self, role: str) -> Member:
        slot = f"{role}{next(self._numbers)}"
        member = Member(role, slot, self.folder / f"{slot}.log")
        await member.start(self.store.url)
        (self.hosts if role == "host" else self.workers).append(member)
        return member

    def open_store(self) -> Store:
        return open_store(self.store.url, HUB)

    async def wait_owned(self, store: Store) -> None:
        """Return when every partition is owned by a host that runs."""
        async with asyncio.timeout(60):
            while {row.host for row in await owners(store)} - {host.id for host in self.hosts}:
                await asyncio.sleep(0.02)

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.log")))


@asynccontextmanager
async def running(folder: Path, *, hosts: int, workers: int) -> AsyncIterator[Cluster]:
    cluster = Cluster(folder)
    try:
        await asyncio.gather(*(cluster.add("host") for _ in range(hosts)))
        await asyncio.gather(*(cluster.add("worker") for _ in range(workers)))
        yield cluster
    finally:
        await asyncio.gather(*(member.kill() for member in [*cluster.hosts, *cluster.workers]))
        cluster.store.stop()


__all__ = ["HUB", "Cluster", "Member", "owners", "running"]
