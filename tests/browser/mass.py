"""How long does the dashboard take to open on a large hub? ``python -m tests.browser.mass [count]``.

Makes ``count`` instances and as many entities, in a store and a host of this process, and opens each page
of the dashboard in a real browser. Told: from the begin of the navigation until the page shows what it is
about, the median of several times with a cold cache; and the load of the machine, for it counts.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import lungfish
import lungfish.http
from lungfish.runtime.client.client import Client
from lungfish.runtime.entry_points.local import LocalRuntime
from lungfish.runtime.on_redis import embedded
from lungfish.runtime.on_redis.open_store import open_store
from tests.browser.chromium import PATIENCE_MS, Browser, Sight, launched
from tests.http.conftest import listening

app = lungfish.App("many")
COUNT = 100_000
REPEATS = 5
IN_FLIGHT = 500
#: The address of a page, and what shows that it is filled.
PAGES = {
    "overview": ("#/", ".cards a .figure"),
    "instances": ("#/instances", "tbody tr"),
    "failed instances": ("#/instances?runtimeStatus=Failed", "tbody tr"),
    "several filters": ("#/instances?runtimeStatus=Completed&name=order", "tbody tr"),
    "their count": ("#/instances?runtimeStatus=Completed&name=order", "span[role=status]:not(:empty)"),
    "entities": ("#/entities/Counter", "tbody tr"),
    "an instance": ("#/instances/order-7", ".gantt"),
    "an entity": ("#/entities/Counter/counter-7", "pre"),
}


@app.entity
class Counter(lungfish.Entity):
    value: int = 0

    def add(self, n: int) -> int:
        self.value += n
        return self.value


@app.activity(inline=True)
def half(number: int) -> int:
    if number % 100 == 0:
        raise ValueError("this one goes wrong")
    return number // 2


@app.orchestration
async def order(ctx: lungfish.OrchestrationContext, number: int) -> int:
    return await ctx.call_activity(half, number)


async def in_flight(work: Callable[[int], Coroutine[Any, Any, object]], numbers: Iterator[int]) -> None:
    """Do something for each number, many at a time."""

    async def go_on() -> None:
        for number in numbers:
            await work(number)

    await asyncio.gather(*(go_on() for _ in range(IN_FLIGHT)))


async def fill(client: Client, count: int) -> None:
    """Make instances and entities, and wait until all are there."""

    async def begin(number: int) -> None:
        await client.start(order, number, id=f"order-{number}")

    async def add(number: int) -> None:
        await client.entity(Counter, f"counter-{number}").signal(Counter.add, number)

    await in_flight(begin, iter(range(count)))
    await in_flight(add, iter(range(count)))
    while (
        await client.count_instances(status=["Pending", "Running"])
        or await client.count_entities(Counter) < count
    ):
        await asyncio.sleep(0.5)


async def opened(browser: Browser, origin: str, path: str, filled: str) -> float:
    """Open a page with nothing in the cache; return the seconds until it is filled."""
    page = await browser.new_page()
    try:
        sight = Sight(page, origin)
        began = time.perf_counter()
        await sight.open(path)
        await page.wait_for_selector(filled, timeout=PATIENCE_MS)
        took = time.perf_counter() - began
        sight.check()
        return took
    finally:
        await page.close()


async def measure(url: str, count: int, repeats: int = REPEATS) -> dict[str, list[float]]:
    """Fill a hub and return how long each page took, every time."""

    def store() -> Any:
        return open_store(url, app.hub)

    async with LocalRuntime(app, store) as runtime:
        began = time.perf_counter()
        await fill(runtime.client, count)
        print(f"{count:,} instances and {count:,} entities made in {time.perf_counter() - began:.0f} s")
        api = lungfish.http.make_server(lungfish.http.make_router(Client(store, app)), title=app.hub)
        async with listening(api) as origin, launched() as browser:
            await opened(browser, origin, *PAGES["overview"])  # the browser's own beginnings
            took: dict[str, list[float]] = {name: [] for name in PAGES}
            for name, _ in itertools.product(PAGES, range(repeats)):
                took[name].append(await opened(browser, origin, *PAGES[name]))
            return took


def main() -> None:
    """Run with a store of its own."""
    count = int(sys.argv[1].replace("_", "")) if len(sys.argv) > 1 else COUNT
    parent = Path(embedded.FOLDER)
    parent.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="mass-", dir=parent)).resolve()
    try:
        with embedded.start_child(folder) as server:
            print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the begin")
            took = asyncio.run(measure(server.url, count))
        for name, times in took.items():
            listed = ", ".join(f"{seconds * 1000:.0f}" for seconds in sorted(times))
            print(f"{name:20} {statistics.median(times) * 1000:5.0f} ms  ({listed})")
        print(f"load {os.getloadavg()[0]:.1f} at the end")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
