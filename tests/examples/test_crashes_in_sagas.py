"""Orders and trips, in every branch, with a crash at every instant: nothing is paid or undone twice."""

from __future__ import annotations

import os

import pytest

import lungfish
from examples import order_processing as orders
from examples import travel_saga
from examples.order_processing import Order, Result, Shop
from examples.travel_saga import Trip
from lungfish.testing import CrashReport, crash_everywhere

LAMPS = Order("o1", "Ada", {"lamp": 2}, 100.0)
SOFA = Order("o2", "Bob", {"sofa": 1}, 2_000.0)

#: More than any number of attempts, those that died among them.
FOR_GOOD = 1_000_000

#: By branch: the order, outages of the bank, the review; then what comes of it: the reason (none: completed),
#: how often money moves and moves back, the stock.
BRANCHES = {
    "shipped": (LAMPS, 1, None, "", (1, 0), {"lamp": 8, "sofa": 1}),
    "declined after five tries": (
        LAMPS,
        FOR_GOOD,
        None,
        "the bank does not answer",
        (0, 0),
        {"lamp": 10, "sofa": 1},
    ),
    "out of stock": (
        Order("o3", "Eve", {"sofa": 2}, 10.0),
        0,
        None,
        "not enough sofas",
        (0, 0),
        {"lamp": 10, "sofa": 1},
    ),
    "approved": (SOFA, 0, True, "", (1, 0), {"lamp": 10, "sofa": 0}),
    "refused": (SOFA, 0, False, "the review found fraud", (1, 1), {"lamp": 10, "sofa": 1}),
    "reviewed by nobody": (SOFA, 0, None, "the review took too long", (1, 1), {"lamp": 10, "sofa": 1}),
}


@pytest.mark.parametrize("branch", BRANCHES)
def test_an_order_with_a_crash_anywhere(monkeypatch: pytest.MonkeyPatch, branch: str) -> None:
    order, outages, answer, reason, money, stock = BRANCHES[branch]

    async def scenario(client: lungfish.Client) -> object:
        shop = Shop(outages=outages)
        monkeypatch.setattr(orders, "shop", shop)
        instance = await client.start(orders.process_order, order, id="order")
        if answer is not None:
            await instance.raise_event("fraudReviewApproved", answer)
        result = await instance.result(timeout=60)
        mails = sorted(set(shop.mails))  # an e-mail has no key here: it may be sent twice
        return result, (len(shop.charged), len(shop.refunded)), shop.stock, len(mails)

    report = crash_everywhere(orders.app, scenario)
    result, moved, left, _ = report.outcome
    assert result == Result(order.id, not reason, reason)
    assert (moved, left) == (money, stock)
    assert report.runs > 10


def test_an_order_whose_goods_are_lost_after_the_payment(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(client: lungfish.Client) -> object:
        shop = Shop()
        monkeypatch.setattr(orders, "shop", shop)
        del shop.stock["lamp"]
        monkeypatch.setattr(orders.reserve_inventory, "function", lambda _items: None)
        instance = await client.start(orders.process_order, LAMPS, id="order")
        result = await instance.result(timeout=60)
        return (
            result.completed,
            len(shop.charged),
            shop.refunded == set(shop.charged),
            sorted(set(shop.mails)),
        )

    assert crash_everywhere(orders.app, scenario).outcome == (False, 1, True, [])


TRIPS = {
    "booked": (Trip(), [], ["flight", "hotel", "train"]),
    "no train": (Trip(buy_train_ticket_result="fail"), [], []),
    "no flight": (Trip(reserve_flight_result="fail"), ["train"], []),
    "no hotel": (Trip(reserve_hotel_result="fail"), ["flight", "train"], []),
}


def crash_a_trip(monkeypatch: pytest.MonkeyPatch, trip: Trip, *, pairs: bool = False) -> CrashReport:
    """Book a trip with crashes; its outcome: what was cancelled, in order, and which bookings stand."""
    book = travel_saga.book

    async def scenario(client: lungfish.Client) -> object:
        bookings: list[str] = []

        def remembered(what: str, answer: str) -> str:
            transaction = book(what, answer)
            if transaction not in bookings:  # the provider knows a repeated request by its key
                bookings.append(transaction)
            return transaction

        monkeypatch.setattr(travel_saga, "book", remembered)
        outcome = await (await client.start(travel_saga.travel, trip, id="trip")).result(timeout=60)
        standing = [name for name in bookings if name not in outcome.cancelled]
        assert sorted(outcome.transactions.values()) == sorted(standing if outcome.booked else [])
        return [kind_of(name) for name in outcome.cancelled], sorted(map(kind_of, standing)), outcome.reason

    return crash_everywhere(travel_saga.app, scenario, pairs=pairs)


def kind_of(transaction: str) -> str:
    return transaction.partition("-")[0]


@pytest.mark.parametrize("name", TRIPS)
def test_a_trip_with_a_crash_anywhere(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    trip, cancelled, standing = TRIPS[name]
    report = crash_a_trip(monkeypatch, trip)
    assert report.outcome[:2] == (cancelled, standing)
    assert bool(report.outcome[2]) is (name != "booked")
    assert report.runs > 10


@pytest.mark.slow
def test_a_trip_with_a_second_crash_anywhere_in_the_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    # LUNGFISH_TRIP="no hotel": the longest, some minutes.
    trip, cancelled, standing = TRIPS[os.environ.get("LUNGFISH_TRIP", "no flight")]
    report = crash_a_trip(monkeypatch, trip, pairs=True)
    assert report.outcome[:2] == (cancelled, standing)
    assert report.runs > 10 * len(report.calls)
    print(f"{report.runs} runs, {len(report.calls)} calls in the undisturbed one")
