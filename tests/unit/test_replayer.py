"""Old histories against today's code, and their form on paper."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

import lungfish
from lungfish.orchestrations import events
from lungfish.orchestrations.exporting import ExportedHistory
from lungfish.runtime.errors import FailureDetails
from lungfish.runtime.ids import ActorId
from lungfish.testing import Replayer, environment, export_history


def yesterday() -> lungfish.App:
    """Return the app as it was when the histories were written."""
    app = lungfish.App("replayed")

    @app.activity
    def reserve(item: str) -> str:
        return f"{item} reserved"

    @app.activity
    def charge(amount: int) -> int:
        if amount < 0:
            raise ValueError("a negative amount")
        return amount

    @app.orchestration
    async def order(ctx: lungfish.OrchestrationContext, item: str, amount: int) -> str:
        ctx.set_custom_status(str(ctx.uuid4()))
        try:
            await ctx.call_activity("reserve", item)
            await ctx.call_activity("charge", amount)
        except lungfish.ActivityFailed:
            return "failed"
        await asyncio.sleep(24 * 3600)
        return await ctx.wait_for_external_event("received", str)

    @app.orchestration
    async def count(ctx: lungfish.OrchestrationContext, n: int = 0) -> int:
        await ctx.sleep(1)
        if n < 3:
            ctx.continue_as_new(n + 1)
        return n

    return app


def today(*, charges_first: bool, asks: bool = False) -> lungfish.App:
    """Return the app after a change."""
    app = lungfish.App("replayed")

    @app.orchestration
    async def order(ctx: lungfish.OrchestrationContext, item: str, amount: int) -> str:
        calls = [("reserve", item), ("charge", amount)]
        first, second = reversed(calls) if charges_first else calls
        try:
            await ctx.call_activity(*first)
            if asks and ctx.patched("ask"):
                await ctx.call_activity("ask")
            await ctx.call_activity(*second)
        except lungfish.ActivityFailed:
            return "failed"
        await asyncio.sleep(24 * 3600)
        return await ctx.wait_for_external_event("received", str)

    return app


async def history_of(item: str = "lamp", amount: int = 5, *, ends: bool = True) -> str:
    async with environment(yesterday()) as env:
        instance = await env.client.start("order", item, amount, id="order-1")
        if ends:
            await instance.raise_event("received", "yes")
            await instance.result(timeout=10)
        else:
            await env.advance(60)
        return await export_history(instance)


@pytest.mark.parametrize("amount", [5, -5])
@pytest.mark.parametrize("ends", [True, False])
async def test_unchanged_code_replays(amount: int, ends: bool) -> None:
    history = await history_of(amount=amount, ends=ends)
    Replayer(yesterday()).replay(history)
    Replayer(today(charges_first=False)).replay(history)


async def test_swapped_steps_are_found() -> None:
    history = await history_of()
    with pytest.raises(lungfish.NonDeterminism) as raised:
        Replayer(today(charges_first=True)).replay(history)
    text = str(raised.value)
    assert "order, instance 'order-1'" in text
    assert "expected: activity 'reserve'" in text
    assert "actual:   activity 'charge'" in text
    assert "test_replayer.py" in text


async def test_a_patched_change_replays() -> None:
    Replayer(today(charges_first=False, asks=True)).replay(await history_of(ends=False))


async def test_an_orchestration_that_is_gone_is_named() -> None:
    with pytest.raises(lungfish.NotRegistered, match="order"):
        Replayer(lungfish.App("empty")).replay(await history_of())


async def test_a_whole_hub_is_replayed() -> None:
    async with environment(yesterday()) as env:
        for number in range(3):
            await env.client.start("order", "sofa", number, id=f"order-{number}")
        counter = await env.client.start("count")
        await env.advance(60)
        assert (await counter.status()).output == 3
        assert await Replayer(yesterday()).replay_all(env.client) == 4
        assert await Replayer(yesterday()).replay_all(env.client, name="order", status="Running") == 3
        changed = Replayer(today(charges_first=True))
        with pytest.raises(lungfish.NonDeterminism, match="3 of 3 instances") as raised:
            await changed.replay_all(env.client, name="order")
        assert str(raised.value).count("expected:") == 3


async def test_events_can_be_replayed_without_a_file() -> None:
    async with environment(yesterday()) as env:
        instance = await env.client.start("order", "lamp", 1)
        await env.advance(1)
        Replayer(yesterday()).replay(await instance.history(), instance_id=instance.id)


# --- on paper --------------------------------------------------------------------------------


async def test_the_file_is_json_an_event_a_line() -> None:
    text = await history_of()
    found: Any = json.loads(text)
    assert found["lungfish_history"] == 1
    assert found["instance_id"] == "order-1"
    assert [row["event"] for row in found["events"]][:3] == [
        "TurnStarted",
        "ExecutionStarted",
        "TaskScheduled",
    ]
    assert sum('"event"' in line for line in text.splitlines()) == len(found["events"])


def test_every_kind_of_event_comes_back() -> None:
    failure = FailureDetails("builtins.ValueError", "no", "trace", FailureDetails("KeyError", "x"), True)
    written: list[events.Event] = [
        events.TurnStarted(17),
        events.ExecutionStarted("e1", "order", b"\x93\x00\xff", 17, "v2", ActorId("o", "", "parent"), "r1"),
        events.TaskScheduled(1, "charge", b"\x01"),
        events.TaskFailed(1, failure, timed_out=True),
        events.EntityResponded(2, None, failure),
        events.TaskCompleted(3, None),
        events.PatchMarked("ask"),
        events.ExecutionCompleted("Failed", None, failure),
    ]
    history = ExportedHistory("a \"quoted\" 'id' ü", written)
    assert ExportedHistory.from_json(history.to_json()) == history


def test_fields_of_other_releases_are_bridged() -> None:
    text = json.dumps(
        {
            "lungfish_history": 1,
            "instance_id": "i",
            "events": [{"event": "TimerCreated", "id": 4, "colour": "blue"}],
        }
    )
    assert list(ExportedHistory.from_json(text).events) == [events.TimerCreated(4, 0)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"lungfish_history": 2, "instance_id": "i", "events": []}',
        '{"lungfish_history": 1, "instance_id": "i", "events": [{"event": "Unheard"}]}',
        '{"lungfish_history": 1, "instance_id": "i", "events": [{"event": "TimerFired", "id": "one"}]}',
        '{"lungfish_history": 1, "instance_id": "i", "events": [{"event": "EventRaised", "name": "n",'
        ' "payload": {"base64": "!"}}]}',
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(lungfish.SerializationError, match="not an exported history"):
        Replayer(yesterday()).replay(text)


def test_a_history_without_its_beginning_is_refused() -> None:
    with pytest.raises(lungfish.SerializationError, match="without the start"):
        Replayer(yesterday()).replay([events.TimerFired(1)])
