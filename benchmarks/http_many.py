"""How long does the HTTP API take over very many? ``python -m benchmarks.http_many [count]``.

So many instances and so many entities are made in one hub. Then lists, filters and counts are asked over
HTTP, one at a time: of ``lungfish http`` in a process of its own, over an embedded store.
Printed: median, 95th percentile and most of each question, and how long server and store were at work for one
(which hardly depends on what else the machine does). With ``--most MS`` the run fails where a 95th percentile
is above it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import uvloop

import lungfish
from lungfish.runtime.entry_points.local import LocalRuntime
from lungfish.runtime.http.service import CONTINUATION
from lungfish.runtime.http.shapes import PREFIX
from lungfish.runtime.on_redis import embedded
from lungfish.runtime.on_redis.open_store import open_store
from lungfish.runtime.settings import HostSettings

from .common import expect, quantile

app = lungfish.App("http-many")
IN_FLIGHT = 1_000
REGIONS = 20


@app.entity
class Counter(lungfish.Entity):
    value: int = 0

    def add(self, n: int = 1) -> int:
        self.value += n
        return self.value


@app.orchestration
async def order(ctx: lungfish.OrchestrationContext, number: int) -> int:
    ctx.set_custom_status("done")
    return number


@app.orchestration
async def approval(ctx: lungfish.OrchestrationContext, number: int) -> int:
    await ctx.wait_for_external_event("approved")
    return number


async def each(count: int, work: Callable[[int], Awaitable[object]]) -> None:
    """Do something for every number, many at a time."""
    left = iter(range(count))

    async def go_on() -> None:
        for number in left:
            await work(number)

    await asyncio.gather(*(go_on() for _ in range(IN_FLIGHT)))


async def fill(client: lungfish.Client, count: int) -> None:
    """Make the entities and the instances: every tenth instance waits, the others have ended."""

    async def write(number: int) -> None:
        await client.entity(Counter, f"shop-{number % 100:02}/counter-{number}").signal(Counter.add, 1)

    async def start(number: int) -> None:
        begun = approval if number % 10 == 0 else order
        tags = {"region": f"r{number % REGIONS}"}
        await client.start(begun, number, id=f"{begun.name}-{number}", tags=tags)

    await each(count, write)
    await each(count, start)
    while await client.count_entities(Counter) < count or await client.count_instances(status="Pending"):
        await asyncio.sleep(0.2)


def work_ms(pids: Sequence[int]) -> float:
    """Return how long processes have been at work, in user code and for it (ms)."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks * 1_000 / os.sysconf("SC_CLK_TCK")


@contextmanager
def served(url: str) -> Iterator[tuple[str, int]]:
    """Run ``lungfish http`` and yield the address of its API, and its process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "lungfish.runtime.cli.main", "http", "--hub", app.hub, "--redis", url]
    process = subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/readyz").raise_for_status()
                break
            except httpx.HTTPError:
                if process.poll() is not None or time.monotonic() > until:
                    raise
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}{PREFIX}", process.pid
    finally:
        process.terminate()
        process.wait(20)


async def ask(http: httpx.AsyncClient, count: int, rounds: int, pids: Sequence[int]) -> dict[str, float]:
    """Ask every question so many times; print and return the 95th percentiles (ms)."""
    first = await http.get("/instances?top=100")
    middle = {CONTINUATION: first.headers[CONTINUATION]}
    waiting, some = count // 10, count // REGIONS
    half = (await http.get("/instances?runtimeStatus=Running&top=1")).json()[0]["createdTime"]
    questions: list[tuple[str, str, dict[str, str], int]] = [
        ("list: newest 100 instances", "/instances?top=100", {}, 100),
        ("list: the page behind it", "/instances?top=100", middle, 100),
        ("filter: status", "/instances?runtimeStatus=Running", {}, 100),
        ("filter: name and status", "/instances?name=order&runtimeStatus=Completed", {}, 100),
        ("filter: tag", "/instances?tag=region=r7", {}, 100),
        ("filter: tag and status", "/instances?tag=region=r10&runtimeStatus=Running", {}, 100),
        ("filter: id prefix", "/instances?instanceIdPrefix=approval-99", {}, 100),
        ("filter: one by its prefix", f"/instances?instanceIdPrefix=order-{count - 1}", {}, 1),
        ("filter: created before", f"/instances?createdTimeTo={half}", {}, 100),
        ("filter: nothing fits", "/instances?name=nothing", {}, 0),
        ("count: all instances", "/count", {}, count),
        ("count: status", "/count?runtimeStatus=Running", {}, waiting),
        ("count: name and status", "/count?name=order&runtimeStatus=Completed", {}, count - waiting),
        ("count: tag", "/count?tag=region=r7", {}, some),
        ("count: tag and status", "/count?tag=region=r7&runtimeStatus=Completed", {}, some),
        ("count: id prefix", "/count?instanceIdPrefix=approval-", {}, waiting),
        ("list: first 100 entities", "/entities/Counter?top=100", {}, 100),
        ("list: with their states", "/entities/Counter?top=100&fetchState=true", {}, 100),
        ("filter: entities by prefix", "/entities/Counter?prefix=shop-77/", {}, 100),
        ("count: all entities", "/count/entities/Counter", {}, count),
        ("count: entities by prefix", "/count/entities/Counter?prefix=shop-77/", {}, count // 100),
    ]
    found = {}
    for name, path, headers, wanted in questions:
        times, worked_ms = [], work_ms(pids)
        for _ in range(rounds):
            began = time.perf_counter()
            answered = await http.get(path, headers=headers)
            times.append((time.perf_counter() - began) * 1_000)
            body = answered.json()
            got = body["count"] if "count" in body else len(body)
            expect((answered.status_code, got), (200, min(wanted, count)), name)
        found[name] = quantile(times, 0.95)
        median, most = quantile(times, 0.5), max(times)
        print(f"{name:28} median {median:7.1f} ms, p95 {found[name]:7.1f} ms, most {most:7.1f} ms", end="")
        print(f", work {(work_ms(pids) - worked_ms) / rounds:6.1f} ms")
    return found


async def measure(url: str, store: int, count: int, rounds: int) -> dict[str, float]:
    """Fill a hub and ask about it."""
    settings = HostSettings(activations_max=20_000)
    async with LocalRuntime(app, lambda: open_store(url, app.hub), settings=settings, workers=0) as runtime:
        began = time.perf_counter()
        await fill(runtime.client, count)
        print(f"{count:,} entities and {count:,} instances made in {time.perf_counter() - began:.0f} s")
    with served(url) as (api, pid):
        async with httpx.AsyncClient(base_url=api, timeout=60) as http:
            return await ask(http, count, rounds, (pid, store))


def main() -> None:
    """Run with a store of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("count", nargs="?", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--most", type=float, metavar="MS", help="fail if a 95th percentile is above this")
    given = parser.parse_args()
    parent = Path(embedded.FOLDER)
    parent.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="http-many-", dir=parent)).resolve()
    try:
        with (
            embedded.start_child(folder) as server,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
            found = runner.run(measure(server.url, server.pid, given.count, given.rounds))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if given.most is not None and max(found.values()) > given.most:
        sys.exit(f"above {given.most:g} ms: {[name for name, ms in found.items() if ms > given.most]}")


if __name__ == "__main__":
    main()
