"""Every page opens, by day and by night, on a wide screen and on a narrow one, and tells what there is."""

from __future__ import annotations

import contextlib

import pytest

import lungfish
from tests.browser.app import STRIKES, Cart, Stock, fulfil, ship, stocktaking
from tests.browser.chromium import expect
from tests.browser.conftest import OpenShop, Shop

PAGES = (
    "#/",
    "#/instances",
    "#/instances/order-1",
    "#/entities",
    "#/entities/Cart/c-1",
    "#/schedules",
    "#/schedules/nightly",
    "#/workers",
    "#/hosts",
    "#/dead-letters",
)

#: Texts whose contrast to what is behind them is below what WCAG 2 asks for (AA).
FAINT = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const seen = (layers) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const color of layers) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => {
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = rgb.map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    const layers = [];
    for (; node; node = node.parentElement) layers.unshift(getComputedStyle(node).backgroundColor);
    return ["white", ...layers];
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !node.checkVisibility()) continue;
    if (node.closest("button:disabled,option,datalist,.skip")) continue;
    const layers = behind(node);
    const [a, b] = [light(seen(layers)), light(seen([...layers, getComputedStyle(node).color]))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) found.push(`${walk.currentNode.data.trim()}: ${contrast.toFixed(2)}`);
  }
  return found;
}"""


async def fill(shop: Shop) -> None:
    """Let there be something of everything."""
    STRIKES.add("stork")
    client = shop.client
    await client.entity(Cart, "c-1").call(Cart.add, "lamp", 2)
    await client.start(fulfil, "order-1", ["lamp", "desk"], id="order-1")
    await client.start(ship, "stork", id="late-1")
    await shop.served.http.put(
        "/schedules/nightly", json={"every": 86_400, "orchestration": "echo", "args": ["x"]}
    )
    await shop.served.http.post("/schedules/nightly/trigger")
    with contextlib.suppress(lungfish.OrchestrationFailed):
        await client.orchestration("late-1").result(60)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
async def test_every_page_can_be_read(open_shop: OpenShop, width: int, dark: bool) -> None:
    async with open_shop(width, dark=dark) as shop:
        await fill(shop)
        for path in PAGES:
            await shop.sight.open(path)
            await shop.sight.sees("live", "#live")
            await expect(shop.sight.page.locator("main h1")).to_be_visible()
            await expect(shop.sight.page.locator("main .card").first).to_be_visible()
            wide = await shop.sight.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{path} is {wide} px wide"
            assert await shop.sight.page.evaluate(FAINT) == [], path
            assert "shop" in await shop.sight.page.title() or "test-" in await shop.sight.page.title()


async def test_the_overview_tells_rates_failures_and_what_is_wrong(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        await fill(shop)
        sight = shop.sight
        await sight.open()
        await sight.sees("stork does not answer")
        await expect(sight.page.locator("a.card", has_text="Failed").locator(".figure")).to_have_text("1")
        await expect(sight.page.locator(".figures .card", has_text="Hosts")).to_contain_text(
            "32 partitions, 0 gone"
        )
        await expect(sight.page.locator(".figures .card", has_text="Commit time")).to_contain_text(
            "99 % within"
        )
        await sight.page.locator("tbody tr").first.click(position={"x": 500, "y": 8})
        await expect(sight.page).to_have_url(f"{sight.origin}/ui/#/instances/late-1")
        await sight.open()
        await sight.page.locator("a.card", has_text="Running").click()
        await sight.sees("order-1", "tbody")
        await sight.sees_no("late-1", "tbody")


async def test_a_hub_whose_host_is_gone_says_so(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        await shop.sight.open()
        await shop.sight.sees("32 partitions, 0 gone")
        for worker in shop.served.runtime.workers:
            await worker.stop()
        await shop.served.runtime.hosts.pop().stop()
        await shop.sight.sees("No live host runs partitions")
        await shop.sight.sees("No worker runs")
        await shop.sight.page.get_by_role("link", name="No live host").click()
        await shop.sight.sees("nobody", ".parts")


async def test_a_running_instance_shows_why_it_waits_and_moves_on_by_itself(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        sight = shop.sight
        await shop.client.start(fulfil, "order-1", ["lamp"], id="order-1")
        await sight.open("#/instances/order-1")
        await sight.sees("waits for the external event 'paid'", "#why")
        await expect(sight.page.locator(".gantt .name")).to_contain_text(["Stock/berlin.reserve", "pick"])
        await sight.sees('"waiting for the payment"')
        await shop.client.orchestration("order-1").raise_event("paid", 99.0)
        await expect(sight.page.locator("main .status").first).to_have_text("Completed")
        await sight.sees("dove-4711")
        await expect(sight.page.locator(".gantt .bar.child")).to_be_visible()
        await expect(sight.page.locator(".gantt .bar.moment")).to_be_visible()
        await expect(sight.page.locator("#why")).to_have_count(0)
        await sight.page.locator(".gantt").get_by_role("link", name="ship").click()
        await expect(sight.page.locator(".gantt .bar.timer")).to_be_visible()
        await sight.page.go_back()
        await sight.page.locator(".gantt").get_by_role("link", name="Stock/berlin.reserve").click()
        await sight.sees("Stock / berlin")


async def test_a_failed_instance_shows_what_went_wrong(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        sight = shop.sight
        STRIKES.add("stork")
        await shop.client.start(ship, "stork", id="late-1")
        await sight.open("#/instances/late-1")
        await expect(sight.page.locator("main .status").first).to_have_text("Failed")
        await expect(sight.page.locator(".gantt .bar.failed")).to_be_visible()
        await sight.sees("failed", ".gantt .took.Failed")
        await sight.sees("stork does not answer", "pre.Failed")
        await sight.page.locator("summary", has_text="Error").first.click()
        await sight.sees("ConnectionError", "details[open]")
        await sight.button("As JSON").click()
        await sight.sees('"EventType": "TaskFailed"')
        await sight.button("As a table").click()
        await sight.sees_no('"EventType": "TaskFailed"')


async def test_an_attempt_that_waits_for_the_next_is_told_of(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        (worker,) = shop.served.runtime.workers
        await worker.stop()
        await shop.client.start(ship, "dove", id="ship-1")
        await shop.sight.open("#/instances/ship-1")
        await shop.sight.sees("activity hand_over", "#why")


async def test_a_page_that_is_not_there_and_an_instance_that_is_not(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        shop.sight.expected.append("404")
        await shop.sight.open("#/nothing/at/all")
        await shop.sight.sees("Overview", "h1")
        await shop.sight.open("#/instances/nobody")
        await shop.sight.sees("nobody")
        await shop.sight.sees("no orchestration instance", ".Failed")
        await shop.sight.open("#/instances/100%")
        await shop.sight.sees("100%", "h1")


async def test_a_locked_and_a_busy_entity_tell_who_holds_them_up(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        await shop.client.start(stocktaking, "berlin", id="count-1")
        await shop.client.entity(Stock, "berlin").signal(Stock.reserve, "order-1", 1)
        await shop.sight.open("#/entities/Stock/berlin")
        await shop.sight.sees("runs count", "#why")
        await shop.sight.sees("Operations that wait1", "dl")


async def test_who_has_scrolled_or_opened_something_finds_it_so(open_shop: OpenShop) -> None:
    async with open_shop(390) as shop:
        sight = shop.sight
        await sight.open("#/hosts")
        await sight.sees("host-", "tbody")
        table, beat = sight.page.locator(".scroll"), sight.page.locator("tbody td").last
        await table.evaluate("node => { node.scrollLeft = 200; }")
        await expect(beat).not_to_have_text(await beat.inner_text())  # it was drawn again
        assert await table.evaluate("node => node.scrollLeft") == 200
        await shop.client.start("stumble", id="s-1")
        await sight.open("#/instances/s-1")
        await sight.page.locator("summary").click()
        await shop.client.orchestration("s-1").raise_event("go", 1)
        await sight.sees("EventRaised", "tbody")
        await expect(sight.page.locator("details[open]")).to_be_visible()
