"""What an operator does with instances, queues, schedules and dead letters, by mouse."""

from __future__ import annotations

import pytest

import lungfish
from lungfish.runtime.messages.status import RuntimeStatus
from tests.browser.app import STRIKES, echo, fulfil, ship
from tests.browser.chromium import expect
from tests.browser.conftest import OpenShop, Shop
from tests.integration.polling import until


async def status(shop: Shop, id: str) -> RuntimeStatus:
    return (await shop.client.orchestration(id).status()).runtime_status


async def test_an_event_is_raised_an_instance_suspended_resumed_and_terminated(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        sight = shop.sight
        for id in ("order-1", "order-2"):
            await shop.client.start(fulfil, id, ["lamp"], id=id)
        await sight.open("#/instances/order-1")
        await sight.button("Suspend").click()
        await sight.answer("Suspend", reason="wait a moment")
        await sight.button("Resume").click()
        await sight.answer("Resume", reason="go on")
        await expect(sight.button("Suspend")).to_be_visible()
        await sight.button("Raise event…").click()
        await sight.answer("Raise", name="paid", payload="12.5")
        await expect(sight.page.locator("main .status").first).to_have_text("Completed")
        await sight.open("#/instances/order-2")
        await sight.button("Terminate").click()
        await sight.answer("Back", reason="never mind")
        assert not (await status(shop, "order-2")).is_terminal
        await sight.button("Terminate").click()
        await sight.answer("Terminate", reason="the customer has gone")
        await sight.sees("the customer has gone")
        await expect(sight.page.locator("main .status").first).to_have_text("Terminated")


async def test_what_is_no_json_is_told_in_the_dialog_and_nothing_is_lost(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        sight = shop.sight
        await shop.client.start(fulfil, "order-1", ["lamp"], id="order-1")
        await sight.open("#/instances/order-1")
        await sight.button("Raise event…").click()
        await sight.answer("Raise", name="paid", payload="{12.5")
        await expect(sight.page.locator("dialog textarea:invalid")).to_have_value("{12.5")
        await sight.answer("Raise", payload="12.5")
        await expect(sight.page.locator("main .status").first).to_have_text("Completed")
        await sight.button("Fork…").click()
        await sight.answer("Fork", at="no number")
        await expect(sight.page.locator("#toast.bad")).to_be_visible()
        sight.expected.append("400")


async def test_second_lives(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        sight = shop.sight
        STRIKES.add("stork")
        await shop.client.start(ship, "stork", id="late-1")
        await sight.open("#/instances/late-1")
        await expect(sight.page.locator("main .status").first).to_have_text("Failed")
        STRIKES.clear()
        await sight.button("Rewind").click()
        await sight.answer("Rewind", reason="the strike is over")
        await sight.sees("stork-4711")
        await sight.button("Restart").click()
        await sight.answer("Restart")
        await expect(sight.page.locator("h1")).not_to_have_text("late-1")
        await expect(sight.page.locator("main .status").first).to_have_text("Completed")
        await sight.open("#/instances/late-1")
        await sight.button("Fork…").click()
        history = await shop.client.orchestration("late-1").history()
        at = next(index for index, event in enumerate(history) if type(event).__name__ == "TimerFired") - 1
        await sight.answer("Fork", at=str(at), id="late-2")
        await expect(sight.page.locator("h1")).to_have_text("late-2")
        await sight.sees("stork-4711")
        await sight.open("#/instances/late-1")
        await sight.button("Purge").click()
        await sight.answer("Purge")
        await expect(sight.page).to_have_url(f"{sight.origin}/ui/#/instances")
        with pytest.raises(lungfish.InstanceNotFound):
            await status(shop, "late-1")


async def test_its_code_is_asked(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        sight = shop.sight
        await shop.client.start("account", id="a-1")
        await sight.open("#/instances/a-1")
        await sight.button("Update…").click()
        await sight.answer("Update", name="deposit", input="40")
        await sight.sees("40", "dialog[open] pre")
        await sight.button("Close").click()
        await sight.button("Query…").click()
        await sight.answer("Query", name="current")
        await sight.sees("40", "dialog[open] pre")
        await sight.button("Close").click()
        await sight.button("Cancel").click()
        await sight.answer("Cancel", reason="closed")
        await expect(sight.page.locator("main .status").first).to_have_text("Canceled")


async def test_instances_are_found_chosen_and_steered(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        sight = shop.sight
        for number in range(1, 5):
            await shop.client.start(
                fulfil, f"order-{number}", ["lamp"], id=f"order-{number}", tags={"city": "ä&b"}
            )
        await shop.client.run(echo, "x", timeout=60)
        await sight.open("#/instances")
        await sight.sees("5 in all")
        await sight.filter("id begins with", "order-")
        await sight.filter("orchestration", "fulfil")
        await sight.filter("tag=value", "city=ä&b")
        await sight.page.get_by_label("Status").select_option("Running")
        await sight.sees("4 match")
        await sight.reload()
        await expect(sight.page.get_by_label("tag=value")).to_have_value("city=ä&b")
        await sight.sees("4 match")
        await sight.page.get_by_label("choose order-1").check()
        await sight.page.get_by_label("choose order-2").check()
        await sight.page.get_by_label("Action").select_option("terminate")
        await sight.button("Run on 2 chosen").click()
        await sight.answer("terminate", reason="recall")
        await sight.sees("2 match")
        assert await status(shop, "order-1") == RuntimeStatus.TERMINATED
        await sight.page.get_by_label("choose all of this page").check()
        await expect(sight.button("Run on 2 chosen")).to_be_enabled()
        await sight.page.get_by_label("choose all of this page").uncheck()
        await expect(sight.button("Run on 0 chosen")).to_be_disabled()
        await sight.filter("created from", "2126-01-01T00:00:00")
        await sight.sees("Nothing fits.")
        await sight.button("Clear").click()
        await sight.sees("5 in all")
        await sight.filter("to", "2126-01-01T00:00:00")
        await sight.sees("5 match")
        await sight.filter("tag=value", "nonsense")
        await sight.sees("tag is name=value", "#toast.bad")
        sight.expected.append("400")


async def test_all_that_match_are_steered(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        sight = shop.sight
        for number in range(60):
            await shop.client.start(fulfil, f"order-{number}", ["lamp"], id=f"order-{number}")
        await shop.client.start(fulfil, "other", ["lamp"], id="other")
        await sight.open("#/instances?instanceIdPrefix=order-")
        await sight.sees("60 match")
        await sight.page.get_by_label("Action").select_option("resume")
        await sight.button("Run on all that match…").click()
        await sight.sees("nothing that matches", "#toast.bad")
        await sight.page.get_by_label("Action").select_option("terminate")
        await sight.button("Run on all that match…").click()
        await sight.sees("terminate all 60 that match?", "dialog")
        await sight.answer("terminate", reason="recall")
        await sight.sees("60 done", "#toast")
        await sight.button("Close").click()
        assert await status(shop, "order-3") == RuntimeStatus.TERMINATED
        assert await status(shop, "other") != RuntimeStatus.TERMINATED


async def test_an_instance_is_started_and_pages_are_turned(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        sight = shop.sight
        for number in range(60):
            await shop.client.start(echo, number, id=f"e-{number}")
        await sight.open("#/instances")
        await expect(sight.page.locator("tbody tr")).to_have_count(50)
        await sight.button("Next page").click()
        await expect(sight.page.locator("tbody tr")).to_have_count(10)
        await sight.button("Previous page").click()
        await expect(sight.page.locator("tbody tr")).to_have_count(50)
        await sight.button("Start…").click()
        await sight.answer("Start", name="echo", id="mine", input='{"a": 1}')
        await expect(sight.page.locator("h1")).to_have_text("mine")
        await expect(sight.page.locator("main .status").first).to_have_text("Completed")


async def test_a_long_history_is_cut_until_it_is_asked_for(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        sight = shop.sight
        await shop.client.run("long", 320, timeout=60, id="long-1")
        await sight.open("#/instances/long-1")
        await sight.sees("the last 300 of 320")
        await expect(sight.page.locator("tbody tr")).to_have_count(300)
        await sight.button("Show all 322").click()
        await expect(sight.page.locator("tbody tr")).to_have_count(322)


async def test_schedules(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        sight = shop.sight
        await sight.open("#/schedules")
        await sight.sees("There are none.")
        await sight.button("New schedule…").click()
        await sight.answer(
            "Make", id="nightly", orchestration="echo", args='["x"]', when="86400", note="at first"
        )
        await expect(sight.page.locator("h1")).to_have_text("nightly")
        await sight.button("Trigger now").click()
        await sight.sees("nightly-", "tbody")
        await sight.sees("Trigger: done", "#toast")
        await expect(sight.page.locator("#toast")).to_be_empty()
        await sight.button("Pause").click()
        await sight.answer("Pause", reason="holidays")
        await sight.sees("holidays")
        await sight.button("Resume").click()
        await sight.answer("Resume", reason="back")
        await expect(sight.button("Pause")).to_be_visible()
        await sight.button("Backfill…").click()
        await sight.answer("Backfill", start="2026-01-01T00:00:00Z", end="2026-01-03T00:00:00Z")
        await sight.sees("nightly-2026-01-02", "tbody")
        await sight.page.get_by_role("link", name="Schedules").click()
        await sight.sees("every 1 day", "tbody")
        await sight.page.locator("tbody tr").first.click(position={"x": 300, "y": 8})
        await sight.button("Delete").click()
        await sight.answer("Delete")
        await sight.sees("There are none.")
        await sight.button("New schedule…").click()
        await sight.answer(
            "Make", id="cron", orchestration="echo", args='["x"]', when="0 3 * * *", tz="Europe/Berlin"
        )
        await sight.sees("0 3 * * *", "dl")


async def test_queues(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        sight = shop.sight
        await sight.open("#/workers")
        await sight.button("Pause").click()
        await expect(sight.page.locator("tbody .status").first).to_have_text("Suspended")

        async def one_waits() -> bool:
            # A worker learns of the pause at its next look.
            await shop.client.run(ship, "dove", timeout=1)
            return False

        with pytest.raises(lungfish.DeadlineExceeded):
            await until(one_waits, "the pause to be in force")
        waits = sight.page.locator("tbody tr").first.locator("td").nth(2)
        await expect(waits).not_to_have_text("0")
        await sight.button("Why").click()
        await sight.sees("queue default", "dialog[open]")
        await sight.button("Close").click()
        await sight.button("Resume").click()
        await expect(waits).to_have_text("0")
        await sight.button("Limits…").click()
        await sight.answer("Set", concurrency="7", rate="")
        await expect(sight.page.locator("tbody tr").first.locator("td").nth(6)).to_have_text("7")
        await sight.button("Reset").click()
        await sight.answer("Reset")
        await expect(sight.page.locator("tbody tr").first.locator("td").nth(6)).to_have_text("none")
        await sight.sees("succeeded")


async def test_dead_letters(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        sight = shop.sight
        await set_aside(shop, ["c-1", "c-2", "c-3", "c-4", "c-5"])
        await sight.open("#/dead-letters")
        await expect(sight.page.locator("tbody tr")).to_have_count(5)
        await sight.sees("no operation of Cart named 'wrap'")
        row = sight.page.locator("tbody tr", has_text="Cart/c-1")
        await row.get_by_role("button", name="Delete").click()
        await sight.answer("Delete")
        await expect(sight.page.locator("tbody tr")).to_have_count(4)
        await sight.filter("For", "Cart/c-2")
        await expect(sight.page.locator("tbody tr")).to_have_count(1)
        await sight.button("Delete all").click()
        await sight.answer("Delete")
        await sight.sees("Nothing is set aside.")
        await sight.filter("For", "")
        await expect(sight.page.locator("tbody tr")).to_have_count(3)
        # It cannot be applied this time either: it comes back, under another id.
        first = (await shop.served.http.get("/dead-letters")).json()[0]["id"]
        await sight.page.locator("tbody tr").first.get_by_role("button", name="Replay").click()

        async def came_back() -> bool:
            found = (await shop.served.http.get("/dead-letters")).json()
            return len(found) == 3 and first not in [letter["id"] for letter in found]

        await until(came_back, "the message to be tried again")
        await sight.button("Replay all").click()
        await sight.answer("Replay")
        await sight.sees("Replay: done", "#toast")


async def test_many_dead_letters_have_pages(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        sight = shop.sight
        await set_aside(shop, [f"c-{number}" for number in range(110)])
        await sight.open("#/dead-letters")
        await expect(sight.page.locator("tbody tr")).to_have_count(100)
        await sight.button("Next page").click()
        await expect(sight.page.locator("tbody tr")).to_have_count(10)
        await sight.button("Previous page").click()
        await expect(sight.page.locator("tbody tr")).to_have_count(100)


async def set_aside(shop: Shop, keys: list[str]) -> None:
    """Send carts what this release cannot apply, and wait until it lies aside."""
    async with shop.stranger() as stranger:
        for key in keys:
            await stranger.entity("Cart", key).signal("wrap")

    async def lie_there() -> bool:
        return (await shop.client.hub_status()).load.dead == len(keys)

    await until(lie_there, "the messages to be set aside")
