"""Entities: found, looked into, sent to, edited on record, and seen to change."""

from __future__ import annotations

from tests.browser.app import Cart, Stock, counted, stocktaking
from tests.browser.chromium import expect
from tests.browser.conftest import OpenShop


async def test_a_state_changes_before_the_eyes(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        await shop.sight.open("#/entities/Cart/c-1")
        await shop.sight.sees("It does not exist.")
        await shop.client.entity(Cart, "c-1").call(Cart.add, "lamp", 2)
        await shop.sight.sees('"lamp": 2')
        await shop.client.entity(Cart, "c-1").call(Cart.add, "lamp", 1)
        await shop.sight.sees('"lamp": 3')


async def test_entities_are_found_and_pages_turned(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        sight = shop.sight
        for number in range(60):
            await shop.client.entity(Cart, f"c-{number}").signal(Cart.add, "lamp")
        await shop.client.entity(Stock, "berlin").call(Stock.reserve, "order-1", 1)
        await sight.open("#/entities")
        await expect(sight.page.locator("main .card").first.locator("tbody tr")).to_have_count(50)
        await sight.button("Next page").click()
        await expect(sight.page.locator("main .card").first.locator("tbody tr")).to_have_count(10)
        await sight.button("Previous page").click()
        await sight.filter("Key begins with", "c-59")
        await expect(sight.page.locator("main .card").first.locator("tbody tr")).to_have_count(1)
        await sight.reload()
        await expect(sight.page.locator("main .card").first.locator("tbody tr")).to_have_count(1)
        await sight.page.locator("tbody tr").first.click(position={"x": 400, "y": 8})
        await sight.sees("Cart / c-59", "h1")
        await sight.open("#/entities")
        await sight.page.get_by_role("link", name="Stock", exact=True).click()
        await sight.sees("berlin", "tbody")
        await sight.filter("Type", "Cart")
        await sight.sees("c-1", "main")
        await sight.button("Open by key…").click()
        await sight.answer("Open", key="a/b?c#d %")
        await sight.sees("Cart / a/b?c#d %", "h1")
        await sight.sees("It does not exist.")


async def test_it_is_signalled_and_called(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        sight = shop.sight
        await sight.open("#/entities/Cart/c-1")
        await sight.button("Signal…").click()
        await sight.answer("Signal", operation="add", input='["lamp", 2]')
        await sight.sees('"lamp": 2')
        await sight.button("Call…").click()
        await sight.answer("Call", operation="size")
        await sight.sees("2", "dialog[open] pre")
        await sight.button("Close").click()
        await sight.button("Call…").click()
        await sight.answer("Call", operation="weigh")
        await sight.sees("no operation", "#toast.bad")
        sight.expected.append("40")


async def test_all_of_a_type_are_signalled(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        sight = shop.sight
        for key in ("a-1", "a-2", "b-1"):
            await shop.client.entity(Cart, key).call(Cart.add, "lamp")
        await sight.open("#/entities/Cart?prefix=a-")
        await sight.button("Signal all…").click()
        await sight.sees("Signal every Cart whose key begins with a-", "dialog")
        await sight.answer("Signal all", operation="add", input='["desk", 5]')
        await expect(sight.page.locator("tbody tr", has_text="desk")).to_have_count(2)
        state = await shop.client.entity(Cart, "b-1").state()
        assert state is not None
        assert state.items == {"lamp": 1}


async def test_an_edit_is_on_record(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        sight = shop.sight
        await shop.client.entity(Stock, "berlin").call(Stock.reserve, "order-1", 1)
        await sight.open("#/entities/Stock/berlin")
        await sight.sees('"units": 99')
        await sight.button("Edit state…").click()
        await sight.answer("Save", state='{"units": "many"}', reason="counted again")
        await sight.sees("units", "#toast.bad")
        sight.expected.append("40")
        await sight.button("Edit state…").click()
        await sight.answer("Save", state='{"units": 42}')
        await expect(sight.page.locator("dialog input:invalid")).to_be_visible()  # without a reason
        await sight.answer("Save", reason="counted again")
        await sight.sees('"units": 42')
        await sight.sees("counted again", "main")
        await sight.sees('{"units":99', "tbody")
        (edit,) = await shop.client.entity(Stock, "berlin").edits()
        assert edit.reason == "counted again"
        await sight.button("Delete").click()
        await sight.answer("Delete", reason="closed down")
        await sight.sees("It does not exist.")


async def test_who_holds_its_lock_is_a_link(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        sight = shop.sight
        await shop.client.start("locking", "berlin", id="lock-1")
        await shop.client.start("locking", "berlin", id="lock-2")
        await sight.open("#/entities/Stock/berlin")
        await sight.sees("Wait for the lock", "dl")
        await sight.page.locator("dd").first.get_by_role("link").click()
        await sight.sees("lock-", "h1")


async def test_who_is_busy_is_told(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        sight = shop.sight
        await shop.client.start(stocktaking, "berlin", id="count-1")
        counted.set()
        for _ in range(300):
            await shop.client.entity(Cart, "busy").call(Cart.add, "lamp")
        await sight.open("#/entities")
        await sight.sees("Cart/busy", "main")
