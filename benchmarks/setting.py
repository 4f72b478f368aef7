"""Where the benchmarks run: an embedded store, a Ray cluster on this machine, a runtime on both."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import ray
import uvloop

import lungfish
from lungfish.runtime.on_ray.cluster import Runtime
from lungfish.runtime.on_redis import embedded

from .app import Counter, app
from .common import Pass, WrongResult, quantile

# Benchmarks talk to this machine only.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

T = TypeVar("T")

IN_FLIGHT = 64


@dataclass(frozen=True, slots=True)
class Setting:
    """What the benchmarks are given.

    Attributes:
        folder: where the store keeps its data.
        quick: do less of everything.
        load_before, fsync_ms: of the machine and its disk, before anything was started.
    """

    runtime: Runtime
    url: str
    folder: Path
    quick: bool
    load_before: float
    fsync_ms: float

    def size(self, full: int, quick: int) -> int:
        """Return how much to do."""
        return quick if self.quick else full


@contextmanager
def prepared(*, hosts: int, workers: int, quick: bool) -> Iterator[Setting]:
    """Start everything afresh, and remove it all at the end."""
    parent = Path(embedded.FOLDER)
    parent.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=parent)).resolve()
    load_before = os.getloadavg()[0]
    try:
        fsync_ms = quantile([_fsync_once(folder) for _ in range(200)], 0.5) * 1_000
        with embedded.start_child(folder) as server:
            ray.init(
                address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
            )
            try:
                runtime = lungfish.start(app, url=server.url, hosts_per_node=hosts, workers_per_node=workers)
                yield Setting(runtime, server.url, folder, quick, load_before, fsync_ms)
                runtime.shutdown()
            finally:
                ray.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fsync_once(folder: Path) -> float:
    with (folder / "fsync-probe").open("ab") as file:
        file.write(bytes(512))
        file.flush()
        began = time.perf_counter()
        os.fsync(file.fileno())
        return time.perf_counter() - began


def on_client(setting: Setting, work: Callable[[lungfish.Client], Awaitable[Pass]]) -> Callable[[], Pass]:
    """Return a pass over a session of its own, whose connections are open when the clock starts."""

    async def session() -> Pass:
        async with setting.runtime.client() as client:
            await client.entity(Counter, "warm-up").call(Counter.get)
            return await work(client)

    def run() -> Pass:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(session())

    return run


async def each_timed(work: Callable[[T], Awaitable[None]], items: Iterable[T], most: int) -> Pass:
    """Do ``work`` for all items, ``most`` at a time."""
    latencies: list[float] = []
    left = iter(items)

    async def go_on() -> None:
        for item in left:
            began = time.perf_counter()
            await work(item)
            latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    workers = [asyncio.create_task(go_on()) for _ in range(most)]
    await asyncio.gather(*workers)
    if not latencies:
        raise WrongResult("nothing was done")
    return Pass(len(latencies), time.perf_counter() - began, latencies)
