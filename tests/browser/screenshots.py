"""Pictures of the dashboard: ``python -m tests.browser.screenshots [folder]``; docs/images by default.

A shop of a few carts and orders is run for a moment, and looked at: light and dark, wide and narrow.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import lungfish
import lungfish.http
from lungfish.runtime.client.client import Client
from lungfish.runtime.entry_points.local import LocalRuntime
from lungfish.runtime.on_redis.open_store import open_store
from tests.browser.app import STRIKES, Cart, Stock, app, counted, echo, fulfil, stocktaking
from tests.browser.chromium import Browser, Sight, launched
from tests.http.conftest import listening
from tests.servers import running

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "images"
ITEMS = ["lamp", "desk", "chair", "wardrobe"]
#: Name of the picture, page, and what must be there before it is taken.
PAGES = (
    ("overview", "#/", ".cards a"),
    ("instances", "#/instances", "tbody tr"),
    ("instance", "#/instances/order-1009", ".gantt"),
    ("failed", "#/instances/order-1003", ".gantt"),
    ("waiting", "#/instances/order-1011", "#why"),
    ("entities", "#/entities/Cart", "tbody tr"),
    ("entity", "#/entities/Stock/berlin", "pre"),
    ("locked", "#/entities/Stock/hamburg", "#why"),
    ("schedules", "#/schedules", "tbody tr"),
    ("schedule", "#/schedules/nightly-report", "tbody tr"),
    ("workers", "#/workers", "tbody tr"),
    ("hosts", "#/hosts", ".part"),
    ("dead-letters", "#/dead-letters", "tbody tr"),
)
#: Those that the documentation shows; the others are for whoever changes the dashboard.
KEPT = {
    "overview-light",
    "instances-light",
    "instance-light",
    "waiting-dark",
    "entity-light",
    "hosts-dark",
}
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1200, "height": 720}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1200, "height": 720}, "color_scheme": "dark"},
    "narrow": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
}


async def fill(client: Client) -> None:
    """Let something happen in the shop."""
    STRIKES.add("stork")
    for number in range(1, 8):
        for item in ITEMS[: number % 4 + 1]:
            await client.entity(Cart, f"customer-{number}").call(Cart.add, item, number)
    await client.schedules.create("nightly-report", lungfish.every(dt.timedelta(days=1)), echo, ["report"])
    await client.schedules.create(
        "refill",
        lungfish.every(dt.timedelta(hours=1)),
        echo,
        ["refill"],
        paused=True,
        note="until the strike is over",
    )
    await client.schedules.get("nightly-report").trigger()
    await client.start(stocktaking, "hamburg", id="stocktaking-7")
    await client.entity(Stock, "hamburg").signal(Stock.reserve, "order-7", 3)
    orders = [
        await client.start(
            fulfil,
            f"order-{number}",
            ITEMS[: number % 4 + 1],
            "stork" if number == 1003 else "dove",
            id=f"order-{number}",
        )
        for number in range(1000, 1012)
    ]
    for order in orders[:10]:
        await order.raise_event("paid", 129.0)
    for order in orders[:10]:
        await asyncio.gather(order.result(60), return_exceptions=True)
    await orders[10].suspend("the customer asked for it")


async def letters(url: str) -> None:
    """Send what this release cannot apply."""
    async with Client(lambda: open_store(url, app.hub)) as stranger:
        await stranger.entity("Cart", "customer-1").signal("wrap", "as a gift")
        await stranger.entity("Cart", "customer-2").signal("wrap")


async def taken(browser: Browser, origin: str, keep: Callable[[str, Any], Awaitable[None]]) -> None:
    """Take all pictures."""
    for look, options in LOOKS.items():
        for name, path, filled in PAGES:
            page = await browser.new_page(**options, locale="en-GB", timezone_id="Europe/Berlin")
            sight = Sight(page, origin)
            await sight.open(path)
            await page.wait_for_selector(filled)
            await sight.sees("live", "#live")
            await page.wait_for_timeout(1_500)  # until there are rates
            await keep(f"{name}-{look}", page)
            sight.check()
            await page.close()


async def shoot(url: str, folder: Path, *, all_of_them: bool) -> None:
    """Run the shop, and take pictures of it."""

    async def keep(name: str, page: Any) -> None:
        if all_of_them or name in KEPT:
            await page.screenshot(path=folder / f"dashboard-{name}.png")

    def store() -> Any:
        return open_store(url, app.hub)

    async with LocalRuntime(app, store, hosts=3, workers=2) as runtime:
        await fill(runtime.client)
        await letters(url)
        api = lungfish.http.make_server(lungfish.http.make_router(Client(store, app)), title=app.hub)
        async with listening(api) as origin, launched() as browser:
            await taken(browser, origin, keep)
        counted.set()


def main() -> None:
    """Run with a store of its own."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="lungfish-") as data, running(folder=Path(data)) as server:
        asyncio.run(shoot(server.url, folder, all_of_them=len(sys.argv) > 1))


if __name__ == "__main__":
    main()
