"""The frame around the pages: keys, the theme, what users wrote, who may, and a server that goes away."""

from __future__ import annotations

import lungfish
import lungfish.http
from tests.browser.app import Cart, echo, fulfil
from tests.browser.chromium import expect
from tests.browser.conftest import OpenShop

EVIL = "<img src=x onerror=\"document.title='pwned'\"><script>document.title='pwned'</script>'\"&amp;"


async def test_all_of_it_by_keyboard(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        sight, keys = shop.sight, shop.sight.page.keyboard
        for number in (1, 2, 3):
            await shop.client.start(fulfil, f"order-{number}", ["lamp"], id=f"order-{number}")
        await sight.open()
        await sight.sees("live", "#live")
        for key, title in {"e": "Entities", "s": "Schedules", "w": "Workers", "h": "Hosts and partitions",
                           "d": "Dead letters", "o": "Overview", "i": "Instances"}.items():  # fmt: skip
            await keys.press(key)
            await expect(sight.page.locator("h1")).to_have_text(title)
        await keys.press("/")
        await keys.type("order-")
        await keys.press("Enter")
        await sight.sees("3 match")
        await keys.press("o")  # typed into the field: no page is changed
        await expect(sight.page.get_by_label("id begins with")).to_have_value("order-o")
        await keys.press("Backspace")
        await keys.press("Enter")
        await sight.sees("3 match")
        await expect(sight.page.locator("tbody tr")).to_have_count(3)
        await sight.page.get_by_label("id begins with").blur()
        await keys.press("j")
        await keys.press("j")
        await keys.press("k")
        await keys.press("j")
        second = await sight.page.locator("tbody tr").nth(1).locator("a").inner_text()
        await expect(sight.page.locator("tbody tr").nth(1)).to_be_focused()
        third = await sight.page.locator("tbody tr").nth(2).locator("a").inner_text()
        await shop.client.orchestration(third).suspend()
        await sight.sees("Suspended", "tbody")  # the list was drawn again
        await expect(sight.page.locator("tbody tr").nth(1)).to_be_focused()
        await keys.press("Enter")
        await expect(sight.page.locator("h1")).to_have_text(second)
        for _ in range(30):
            await keys.press("Tab")
            if await sight.page.evaluate("document.activeElement.textContent") == "Raise event…":
                break
        await keys.press("Enter")
        await keys.type("paid")
        await keys.press("Tab")
        await keys.type("7")
        await keys.press("Tab")
        await keys.press("Enter")
        await expect(sight.page.locator("main .status").first).to_have_text("Completed")
        await keys.press("?")
        await sight.sees("next, previous row", "dialog[open]")
        await keys.press("Escape")
        await expect(sight.page.locator("dialog")).not_to_be_visible()
        await keys.press("?")
        await keys.press("Enter")  # its button has the focus
        await expect(sight.page.locator("dialog")).not_to_be_visible()


async def test_a_dialog_is_left_with_escape_and_changes_nothing(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        await shop.client.start(fulfil, "order-1", ["lamp"], id="order-1")
        await shop.sight.open("#/instances/order-1")
        await shop.sight.button("Terminate").click()
        await shop.sight.page.keyboard.press("Escape")
        await expect(shop.sight.page.locator("dialog")).not_to_be_visible()
        assert not (await shop.client.orchestration("order-1").status()).runtime_status.is_terminal


async def test_skipping_to_the_content(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        await shop.sight.open("#/workers")
        await shop.sight.sees("Workers", "h1")
        await shop.sight.page.keyboard.press("Tab")
        await shop.sight.page.keyboard.press("Enter")
        await expect(shop.sight.page.locator("main")).to_be_focused()
        await shop.sight.sees("Workers", "h1")


async def test_light_and_dark_is_remembered(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        page = shop.sight.page
        await shop.sight.open()
        await shop.sight.sees("live", "#live")

        async def back() -> str:
            return str(await page.evaluate("getComputedStyle(document.body).backgroundColor"))

        light = await back()
        await page.locator("#theme").click()
        dark = await back()
        assert dark != light
        await shop.sight.reload()
        await shop.sight.sees("live", "#live")
        assert await back() == dark
        await page.keyboard.press("t")
        assert await back() == light


async def test_what_users_wrote_is_text_everywhere(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        sight = shop.sight
        await shop.client.run(echo, EVIL, id=EVIL, timeout=60)
        await shop.client.start("break_down", EVIL, id=f"broken {EVIL}")
        await shop.client.entity(Cart, EVIL).call(Cart.add, EVIL)
        await shop.served.http.put(
            "/schedules/evil", json={"every": 60, "orchestration": "echo", "args": [EVIL], "note": EVIL}
        )
        async with shop.stranger() as stranger:
            await stranger.entity("Cart", EVIL).signal(EVIL)
        await sight.open()
        await sight.sees("broken <img src=x")
        await sight.sees("Set aside: 1 message")
        for path in (
            "#/",
            "#/instances",
            "#/entities/Cart",
            "#/schedules",
            "#/schedules/evil",
            "#/dead-letters",
        ):
            await sight.open(path)
            await sight.sees("<img src=x" if path != "#/schedules" else "evil", "main")
        for open_first in ("#/instances", "#/entities/Cart", "#/dead-letters"):
            await sight.open(open_first)
            await sight.page.locator("tbody tr").first.wait_for()
            if open_first != "#/dead-letters":
                await sight.page.locator("tbody a").first.click()
                await sight.sees("<img src=x", "h1")
                await sight.sees("<script>", "main")
        assert "pwned" not in await sight.page.title()
        assert await sight.page.locator("main img, main script").count() == 0


async def test_a_key_is_asked_for_and_kept_for_the_tab(open_shop: OpenShop) -> None:
    keys = lungfish.http.parse_keys("viewer:read:secret-of-the-viewer")
    async with open_shop(keys=keys) as shop:
        sight = shop.sight
        sight.expected += ["401", "403"]
        await sight.open("#/instances")
        await sight.answer("Back")
        await sight.sees("offline", "#live")
        await sight.page.wait_for_timeout(4_500)  # the stream is tried again: that does not ask again
        await expect(sight.page.locator("dialog")).not_to_be_visible()
        await sight.page.get_by_role("link", name="Hosts").click()
        await sight.answer("Use it", key="wrong, wrong, wrong")
        await sight.answer("Use it", key="secret-of-the-viewer")
        await sight.sees("live", "#live")
        await sight.open("#/workers")
        await sight.button("Pause").click()
        await sight.sees("Pause: ", "#toast.bad")


async def test_a_stream_that_breaks_is_taken_up_again(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        sight = shop.sight
        sight.expected.append("ERR_FAILED")
        await sight.page.route("**/watch", lambda route: route.abort())
        await sight.open()
        await sight.sees("offline", "#live")
        await sight.page.unroute("**/watch")
        await sight.sees("live", "#live")
        await sight.sees("32 partitions")


async def test_who_does_not_look_keeps_no_connection(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        sight = shop.sight
        await shop.client.entity(Cart, "c-1").call(Cart.add, "lamp")
        await sight.open("#/entities/Cart/c-1")
        await sight.sees('"lamp": 1')
        hidden = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true});"
        changed = "document.dispatchEvent(new Event('visibilitychange', {bubbles: true}))"
        async with sight.page.expect_event(
            "requestfailed", lambda request: request.url.endswith("/c-1/watch")
        ):
            await sight.page.evaluate(hidden % "true" + changed)
        await shop.client.entity(Cart, "c-1").call(Cart.add, "lamp")
        await sight.page.evaluate(hidden % "false" + changed)
        await sight.sees('"lamp": 2')
