"""What do very many entities cost? ``python -m benchmarks.many [count]``.

Counters are written once each, in one hub, by one host with a cap on activations, in this process (no Ray).
Printed: bytes per idle entity in the store, bytes per activation in the host, and the host's memory as the
count grows under the cap. Its resident size creeps up for a while, as the allocators' pages fill unevenly;
the blocks that Python has in use say whether anything is kept of entities that have left.
"""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path

import uvloop

import lungfish
from lungfish.runtime.entry_points.local import LocalRuntime
from lungfish.runtime.host.passivation import read_memory
from lungfish.runtime.on_redis import embedded
from lungfish.runtime.on_redis.open_store import open_store
from lungfish.runtime.settings import HostSettings

from .common import expect

app = lungfish.App("many")
CAP = 50_000
IN_FLIGHT = 2_000


@app.entity
class Counter(lungfish.Entity):
    value: int = 0

    def add(self, n: int = 1) -> int:
        self.value += n
        return self.value


def own_bytes() -> int:
    """Return the resident memory of this process."""
    gc.collect()
    memory = read_memory()
    return memory.own if memory is not None else 0


def store_bytes(url: str) -> int:
    """Return what the store has allocated."""
    port = int(url.rsplit(":", 1)[1].split("/", maxsplit=1)[0])
    with socket.create_connection(("127.0.0.1", port)) as link:
        link.sendall(b"INFO memory\r\n")
        text = link.recv(65_536).decode()
    return next(int(line.split(":")[1]) for line in text.splitlines() if line.startswith("used_memory:"))


async def write_each(client: lungfish.Client, first: int, last: int) -> None:
    """Write the counters of these numbers once, many at a time."""
    left = iter(range(first, last))

    async def go_on() -> None:
        for number in left:
            await client.entity(Counter, f"counter-{number}").signal(Counter.add, 1)

    await asyncio.gather(*(go_on() for _ in range(IN_FLIGHT)))


async def until_written(runtime: LocalRuntime) -> None:
    """Return when every inbox is read and all is committed."""
    while any(part.busy or part.stale or part.running for host in runtime.hosts for part in host.partitions):
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)


async def measure(url: str, count: int) -> None:
    """Write ``count`` entities and print what they cost."""
    settings = HostSettings(activations_max=CAP)
    async with LocalRuntime(app, lambda: open_store(url, app.hub), settings=settings, workers=0) as runtime:
        (host,) = runtime.hosts
        stored, own = store_bytes(url), own_bytes()
        began, done, peak = time.perf_counter(), 0, 0
        for last in (CAP - 5_000, *range(100_000, count + 1, 100_000)):
            await write_each(runtime.client, done, last)
            await until_written(runtime)
            done = last
            active = sum(part.activations for part in host.partitions)
            peak = max(peak, active)
            grown = own_bytes() - own
            if last == CAP - 5_000:
                print(f"{grown / active:,.0f} bytes per activation ({active:,} in memory)")
            print(
                f"{last:>9,} entities, {active:>6,} active, host {grown / 1e6:6.1f} MB over the start,"
                f" {sys.getallocatedblocks() / 1e6:.2f} M blocks of Python's,"
                f" store {(store_bytes(url) - stored) / last:5.1f} bytes each,"
                f" {time.perf_counter() - began:6.1f} s"
            )
        expect(await runtime.client.entity(Counter, "counter-0").call(Counter.add), 2, "the first counter")
        print(f"most activations seen at a look: {peak:,}; the cap is {CAP:,}")


def main() -> None:
    """Run with a store of its own."""
    count = int(sys.argv[1].replace("_", "")) if len(sys.argv) > 1 else 1_000_000
    parent = Path(embedded.FOLDER)
    parent.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="many-", dir=parent)).resolve()
    try:
        with (
            embedded.start_child(folder) as server,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            print(f"{os.cpu_count()} cores, fsync, one process for client and host")
            runner.run(measure(server.url, count))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
