"""Order processing: every branch, on the virtual clock, and a crash at every instant."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

import lungfish
from examples import order_processing as orders
from examples.order_processing import Order, Result, Shop
from lungfish.testing import crash_everywhere, environment
from tests.local import RunApp

LAMP = Order("o1", "Ada", {"lamp": 2}, 100.0)
SOFA = Order("o2", "Bob", {"sofa": 1}, 2_000.0)
DAY = timedelta(hours=24)


@pytest.fixture(autouse=True)
def shop(monkeypatch: pytest.MonkeyPatch) -> Shop:
    shop = Shop()
    monkeypatch.setattr(orders, "shop", shop)
    return shop


async def process(order: Order) -> tuple[Result, timedelta]:
    """Process an order that nobody reviews; return how long it took."""
    async with environment(orders.app) as env:
        began = env.now()
        instance = await env.client.start(orders.process_order, order)
        return await instance.result(timeout=60), env.now() - began


async def test_an_order_is_followed_up_a_day_later(shop: Shop) -> None:
    assert await process(LAMP) == (Result("o1", True), DAY)
    assert shop.stock["lamp"] == 8
    assert shop.mails == ["Ada: o1 is confirmed", "Ada: how was o1?"]
    assert list(shop.charged.values()) == [100.0]
    assert shop.refunded == set()


async def test_the_follow_up_does_not_come_early(shop: Shop) -> None:
    async with environment(orders.app, auto_skip=False) as env:
        instance = await env.client.start(orders.process_order, LAMP)
        await env.advance(DAY - timedelta(milliseconds=1))
        assert shop.mails == ["Ada: o1 is confirmed"]
        assert (await instance.status()).custom_status == "confirmed"
        await env.advance(timedelta(milliseconds=1))
        assert shop.mails == ["Ada: o1 is confirmed", "Ada: how was o1?"]


async def test_out_of_stock_there_is_nothing_to_refund(shop: Shop) -> None:
    result, took = await process(Order("o3", "Eve", {"sofa": 2}, 10.0))
    assert (result, took) == (Result("o3", False, "not enough sofas"), timedelta(0))
    assert (shop.charged, shop.refunded, shop.mails) == ({}, set(), [])


async def test_a_payment_is_tried_five_times(shop: Shop) -> None:
    shop.outages = 4
    result, took = await process(LAMP)
    assert result.completed
    assert took == timedelta(seconds=10 + 20 + 40 + 80) + DAY
    assert len(shop.charged) == 1


async def test_a_payment_that_fails_five_times_fails_the_order(shop: Shop) -> None:
    shop.outages = 5
    result, took = await process(LAMP)
    assert result == Result("o1", False, "the bank does not answer")
    assert took == timedelta(seconds=150)
    assert shop.refunded == set()


async def test_a_payment_that_is_refused_is_not_tried_again(shop: Shop) -> None:
    result, took = await process(Order("o4", "Eve", {"lamp": 1}, 0.0))
    assert (result, took) == (Result("o4", False, "nothing to pay for o4"), timedelta(0))


async def test_a_review_that_nobody_makes_is_a_refusal(shop: Shop) -> None:
    result, took = await process(SOFA)
    assert (result, took) == (Result("o2", False, "the review took too long"), timedelta(hours=2))
    assert shop.refunded == set(shop.charged)
    assert shop.stock["sofa"] == 1
    assert shop.mails == ["fraud team: review o2"]


@pytest.mark.parametrize("approved", [True, False])
async def test_a_review_in_the_last_minute_counts(shop: Shop, approved: bool) -> None:
    async with environment(orders.app) as env:
        began = env.now()
        instance = await env.client.start(orders.process_order, SOFA)

        async def answer() -> None:
            await env.advance(timedelta(minutes=119))
            assert (await instance.status()).custom_status == "under review"
            await instance.raise_event("fraudReviewApproved", approved)

        result, _ = await asyncio.gather(instance.result(timeout=60), answer())
        took = env.now() - began
    if approved:
        assert (result, took) == (Result("o2", True), timedelta(minutes=119) + DAY)
        assert shop.refunded == set()
    else:
        assert (result, took) == (Result("o2", False, "the review found fraud"), timedelta(minutes=119))
        assert shop.refunded == set(shop.charged)


async def test_a_failure_after_the_payment_is_refunded(shop: Shop) -> None:
    order = Order("o5", "Eve", {"lamp": 1}, 10.0)
    async with environment(orders.app) as env:
        instance = await env.client.start(orders.process_order, order)
        del shop.stock  # the warehouse burns down
        result = await instance.result(timeout=60)
    assert not result.completed
    assert shop.refunded == set(shop.charged)


@pytest.mark.parametrize(
    ("order", "says"),
    [
        (LAMP, "order #o1 is placed"),
        (Order("o6", "Eve", {"sofa": 2}, 10.0), "out of stock"),
        (Order("o7", "Eve", {"lamp": 1}, 0.0), "not paid: nothing to pay for o7"),
    ],
)
async def test_the_simpler_variant_ends_early(shop: Shop, order: Order, says: str) -> None:
    async with environment(orders.app) as env:
        instance = await env.client.start(orders.place_order, order)
        assert await instance.result(timeout=60) == says
    assert shop.mails == (["Ada: #o1 is confirmed"] if order is LAMP else [])


@pytest.mark.parametrize("order", [LAMP, SOFA])
def test_a_crash_neither_charges_nor_ships_twice(monkeypatch: pytest.MonkeyPatch, order: Order) -> None:
    async def scenario(client: lungfish.Client) -> tuple[Result, int, int, dict[str, int]]:
        shop = Shop(outages=1)
        monkeypatch.setattr(orders, "shop", shop)
        instance = await client.start(orders.process_order, order)
        result = await instance.result(timeout=60)
        return result, len(shop.charged), len(shop.refunded), shop.stock

    report = crash_everywhere(orders.app, scenario)
    if order is LAMP:
        assert report.outcome == (Result("o1", True), 1, 0, {"lamp": 8, "sofa": 1})
    else:
        late = Result("o2", False, "the review took too long")
        assert report.outcome == (late, 1, 1, {"lamp": 10, "sofa": 1})


async def test_on_the_real_store(run_app: RunApp) -> None:
    async with run_app(orders.app) as runtime:
        placed, refused = await orders.main(runtime.client)
    assert placed == "order #1 is placed"
    assert refused == Result("2", False, "the review found fraud")
