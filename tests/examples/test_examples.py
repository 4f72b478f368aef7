"""The examples do what they say: on the real store, and where days pass, on a virtual clock."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

import lungfish
from examples import aggregator, approval, fan_out, hello_cities, travel_saga
from examples.approval import ApprovalResult, Leave
from examples.travel_saga import Outcome, Trip
from tests.local import RunApp
from tests.virtual import run_app_virtually


async def names_of(instance: lungfish.OrchestrationHandle[Any]) -> list[str]:
    """Return the activities that an instance scheduled, in order."""
    return [event.name for event in await instance.history() if type(event).__name__ == "TaskScheduled"]


# --- hello cities ----------------------------------------------------------------------------


async def test_hello_cities(run_app: RunApp) -> None:
    async with run_app(hello_cities.app) as runtime:
        greetings = await hello_cities.main(runtime.client)
        assert greetings == ["Hello, Tokyo!", "Hello, Seattle!", "Hello, Cairo!"]


def test_hello_cities_makes_its_calls_one_after_the_other() -> None:
    async def test(client: lungfish.Client) -> None:
        instance = await client.start(hello_cities.hello_cities)
        await instance.result(timeout=60)
        kinds = [type(event).__name__ for event in await instance.history()]
        calls = [kind for kind in kinds if kind.startswith("Task")]
        assert calls == ["TaskScheduled", "TaskCompleted"] * 3

    run_app_virtually(hello_cities.app, test)


# --- fan-out ---------------------------------------------------------------------------------


async def test_fan_out(run_app: RunApp) -> None:
    async with run_app(fan_out.app) as runtime:
        total, report = await fan_out.main(runtime.client)
        assert total == f"{sum(len(f'inbox/{n}.txt') for n in range(20))} bytes in all"
        assert report.stored == ["archive/a.pdf"]
        assert set(report.failed) == {"b.jpg", "empty.txt"}
        assert "b.jpg is no text" in report.failed["b.jpg"]
        assert "empty.pdf is not valid" in report.failed["empty.txt"]


def test_fan_out_runs_the_parts_at_once() -> None:
    async def test(client: lungfish.Client) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        instance = await client.start(fan_out.total_size, "inbox")
        await instance.result(timeout=60)
        assert loop.time() - began_s < 2 * 0.01 + 0.01  # 20 parts of 10 ms each
        assert (await names_of(instance)).count("measure") == 20

    run_app_virtually(fan_out.app, test)


# --- approval --------------------------------------------------------------------------------


async def test_approval(run_app: RunApp) -> None:
    async with run_app(approval.app) as runtime:
        assert await approval.main(runtime.client) == [
            "a chair: approved",
            "to Ada: rejected: the release is on Friday",
        ]


def test_approval_is_escalated_when_time_is_up_and_not_before() -> None:
    async def test(client: lungfish.Client) -> None:
        instance = await client.start(approval.approve, "a desk", timedelta(minutes=10))
        await asyncio.sleep(9 * 60)
        status = await instance.status()
        assert status.runtime_status == "Running"
        assert status.custom_status == "waiting for an answer"
        assert await instance.result(timeout=120) == "a desk: escalated"

    run_app_virtually(approval.app, test)


def test_approval_answered_in_time() -> None:
    async def test(client: lungfish.Client) -> None:
        instance = await client.start(approval.approve, "a lamp")
        await asyncio.sleep(300)
        await instance.raise_event("ApprovalEvent", False)
        assert await instance.result(timeout=60) == "a lamp: rejected"
        assert "escalate" not in await names_of(instance)

    run_app_virtually(approval.app, test)


def test_leave_waits_for_as_long_as_it_takes() -> None:
    async def test(client: lungfish.Client) -> None:
        instance = await client.start(approval.request_leave, Leave("Bob", 3))
        await asyncio.sleep(600)
        await instance.raise_event("ApprovalResult", ApprovalResult(True))
        assert await instance.result(timeout=60) == "to Bob: your 3 days are approved"

    run_app_virtually(approval.app, test)


# --- aggregator ------------------------------------------------------------------------------


async def test_aggregator_counts_every_reading_once(run_app: RunApp) -> None:
    async with run_app(aggregator.app) as runtime:
        means = await aggregator.main(runtime.client)
        readings = [float(sender + number) for sender in range(10) for number in range(100)]
        expected = sum(readings) / 1_000
        assert means["hall"] == means["kitchen"] == expected
        assert means["roof"] == pytest.approx((sum(readings) + 451) / 1_001)
        state = await runtime.client.entity(aggregator.Sensor, "roof").state()
        assert state is not None
        assert (state.count, state.highest) == (1_001, 451)
        roof = runtime.client.entity(aggregator.Sensor, "roof")
        assert await roof.call(aggregator.Sensor.reset) == 1_001
        assert await roof.call(aggregator.Sensor.mean) is None


async def test_aggregator_raises_the_alarm(run_app: RunApp) -> None:
    async with run_app(aggregator.app) as runtime:
        await aggregator.main(runtime.client)
        alarm = runtime.client.entity(aggregator.Alarm, "building")
        async with asyncio.timeout(60):
            while (state := await alarm.state()) is None or "roof" not in state.sensors:
                await asyncio.sleep(0.01)
        # 100 and more: senders 2 to 9 sent a few to every room.
        assert state.sensors == {"hall", "kitchen", "roof"}


# --- travel ----------------------------------------------------------------------------------

BOOKED = ["buy_train_ticket", "reserve_flight", "reserve_hotel"]


@pytest.mark.parametrize(
    ("trip", "steps"),
    [
        (Trip(), [*BOOKED, "order_succeeded"]),
        (Trip(buy_train_ticket_result="fail"), ["buy_train_ticket", "order_failed"]),
        (
            Trip(reserve_flight_result="fail"),
            ["buy_train_ticket", "reserve_flight", "cancel_train_ticket", "order_failed"],
        ),
        (
            Trip(reserve_hotel_result="fail"),
            [*BOOKED, "cancel_flight", "cancel_train_ticket", "order_failed"],
        ),
    ],
)
def test_travel_books_all_or_nothing(trip: Trip, steps: list[str]) -> None:
    async def test(client: lungfish.Client) -> tuple[Outcome, list[str], float]:
        began_s = asyncio.get_running_loop().time()
        instance = await client.start(travel_saga.travel, trip)
        outcome = await instance.result(timeout=60)
        return outcome, await names_of(instance), asyncio.get_running_loop().time() - began_s

    outcome, taken, seconds = run_app_virtually(travel_saga.app, test)
    assert taken == steps
    assert outcome.booked is ("order_succeeded" in steps)
    # What was booked is what was cancelled, in reverse, by the ids that booking gave.
    cancelled = [transaction.partition("-")[0] for transaction in outcome.cancelled]
    assert cancelled == [step.split("_")[1] for step in steps if step.startswith("cancel")]
    if trip.reserve_hotel_result == "fail":
        assert 3 <= seconds < 4, "three attempts, 1 s and 2 s apart"


async def test_travel_on_the_real_store(run_app: RunApp) -> None:
    async with run_app(travel_saga.app) as runtime:
        works, fails = await travel_saga.main(runtime.client)
        assert works.booked
        assert set(works.transactions) == {"train", "flight", "hotel"}
        assert not fails.booked
        assert fails.reason == "We are sorry: no hotel to be had"
