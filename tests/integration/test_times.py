"""Reminders, schedules and topics on the real store: over a stop of all hosts, and from a thread."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import pytest

import lungfish
from lungfish.runtime.on_redis.open_store import open_store
from tests.integration.polling import until
from tests.local import RunApp
from tests.servers import Server

app = lungfish.App("times")
SECOND = dt.timedelta(seconds=1)


@app.entity
class Log(lungfish.Entity):
    lines: list[Any] = []

    def write(self, line: Any) -> None:
        self.lines.append(line)

    def remind(self, name: str, due_s: float, period_s: float | None = None) -> None:
        self.context.set_reminder(name, due_s * SECOND, None if period_s is None else period_s * SECOND)

    def on_reminder(self, name: str) -> None:
        self.lines.append(name)


@app.orchestration
async def listen(ctx: lungfish.OrchestrationContext, count: int) -> list[Any]:
    await ctx.topic("t").subscribe("news")
    ctx.entity(Log, "ready").signal(Log.write, "yes")
    return [await ctx.wait_for_external_event("news") for _ in range(count)]


@app.orchestration
async def tick(ctx: lungfish.OrchestrationContext) -> str:
    ctx.topic("t").publish(ctx.instance_id)
    return "tock"


async def lines(client: lungfish.Client, key: str) -> list[Any]:
    state = await client.entity(Log, key).state()
    return [] if state is None else state.lines


async def test_what_comes_due_while_nobody_is_at_home_comes_when_somebody_is(run_app: RunApp) -> None:
    async with run_app(app) as runtime:
        log = runtime.client.entity(Log, "log")
        await log.call(Log.remind, "later", 0.5)
        await log.call(Log.remind, "often", 0.2, 3_600)
        await log.signal(Log.write, "signal", at=0.5 * SECOND)
        target = (Log, "scheduled", Log.write)
        await runtime.client.schedules.create("s", lungfish.every(SECOND), target, ["s"], runs=2)
    await asyncio.sleep(1)  # nobody there: what comes due now is made up for
    async with run_app(app) as runtime:
        client = runtime.client

        async def all_is_there() -> bool:
            return len(await lines(client, "log")) == 3 and len(await lines(client, "scheduled")) == 2

        await until(all_is_there, "what was due")
        assert sorted(await lines(client, "log")) == ["later", "often", "signal"]
        assert list(await client.entity(Log, "log").reminders()) == ["often"]
        found = await client.schedules.get("s").describe()
        assert (found.started, found.remaining, found.next_times) == (2, 0, ())


@pytest.mark.parametrize("always_replay", [False, True])
async def test_from_a_schedule_through_a_topic_to_an_orchestration(
    run_app: RunApp, always_replay: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUNGFISH_ALWAYS_REPLAY", str(int(always_replay)))
    async with run_app(app) as runtime:
        client = runtime.client
        listener = await client.start(listen, 2)

        async def is_ready() -> bool:
            return await lines(client, "ready") == ["yes"]

        await until(is_ready, "the subscription")
        await client.schedules.create("s", lungfish.every(SECOND), tick, runs=2, overlap="allow")
        heard = await listener.result(timeout=30)
        assert len(set(heard)) == 2
        assert all(run.startswith("s-2") for run in heard)


async def test_the_blocking_client_has_it_all(run_app: RunApp, valkey: Server, hub_name: str) -> None:
    def in_a_thread() -> None:
        client = lungfish.Client(lambda: open_store(valkey.url, hub_name), app)
        with lungfish.BlockingClient(client) as blocking:
            log = blocking.entity(Log, "b")
            log.signal(Log.write, "at once", at=dt.timedelta(0))
            log.call(Log.remind, "much later", 3_600)
            assert list(log.reminders()) == ["much later"]
            topic = blocking.topic("t")
            topic.subscribe(log, Log.write)
            topic.publish("one")
            topic.publish_many(["two"])
            topic.unsubscribe(log)
            schedule = blocking.schedules.create("b", lungfish.every(3_600 * SECOND), tick, paused=True)
            run = schedule.trigger()
            assert run is not None
            assert blocking.orchestration(run).result(timeout=60) == "tock"
            schedule.update(overlap="allow")
            schedule.resume("r")
            schedule.pause("p")
            now = dt.datetime.now(dt.UTC)
            schedule.backfill(now - SECOND, now)
            assert [found.id for found in blocking.schedules.list()] == ["b"]
            assert schedule.describe().note == "p"
            blocking.schedules.get("b").delete()

    async with run_app(app) as runtime:
        await asyncio.to_thread(in_a_thread)

        async def heard() -> bool:
            return await lines(runtime.client, "b") == ["at once", "one", "two"]

        await until(heard, "what was published")
