"""What an app declares, on the real store: schedules, a queue's rate, and how long is retried."""

from __future__ import annotations

import datetime as dt
import time

import pytest

import lungfish
from lungfish import OrchestrationContext, RetryPolicy
from tests.integration.polling import until
from tests.local import RunApp

SECOND = dt.timedelta(seconds=1)
#: So few a second that no two may begin at once.
RATE = 10.0

#: When attempts began (s, monotonic).
began: list[float] = []


@pytest.fixture(autouse=True, params=[False, True], ids=["live", "replayed"])
def replayed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUNGFISH_ALWAYS_REPLAY", "1" if request.param else "0")
    began.clear()


app = lungfish.App("declarations")
app.queue("mail", rate=RATE)


@app.activity(queue="mail")
def send(n: int) -> int:
    began.append(time.monotonic())
    return n


@app.orchestration
async def send_all(ctx: OrchestrationContext, count: int) -> list[int]:
    return await lungfish.when_all([ctx.call_activity(send, n) for n in range(count)])


@app.activity
def always_down() -> None:
    began.append(time.monotonic())
    raise ValueError("is down")


@app.orchestration
async def patient(ctx: OrchestrationContext, retry_timeout_s: float) -> str:
    policy = RetryPolicy(0, 0.2 * SECOND, 1.0, retry_timeout=retry_timeout_s * SECOND)
    try:
        await ctx.call_activity(always_down.options(retry=policy))
    except lungfish.ActivityFailed as error:
        return str(error)
    return "done"


@app.orchestration
async def report(ctx: OrchestrationContext, what: str) -> str:
    return what


async def test_a_rate_holds_over_all_workers(run_app: RunApp) -> None:
    async with run_app(app, workers=3) as runtime:
        assert (await runtime.client.queue("mail").info()).limits.rate == RATE
        count, start = 12, time.monotonic()
        handle = await runtime.client.start(send_all, count)
        assert await handle.result(timeout=60) == list(range(count))
    assert len(began) == count
    # The first at once, each other one a tenth of a second later; one less for what clocks round off.
    assert max(began) - start >= (count - 2) / RATE


async def test_a_retry_timeout_ends_unlimited_retries(run_app: RunApp) -> None:
    async with run_app(app) as runtime:
        handle = await runtime.client.start(patient, 1.0)
        assert "is down" in await handle.result(timeout=60)
        # The first is made whatever the time-out, and at most one per interval fits into it.
        assert 1 <= len(began) <= 6
        began.clear()
        none = await runtime.client.start(patient, 0.1)  # shorter than the first interval
        assert "is down" in await none.result(timeout=60)
        assert len(began) == 1


def scheduling(what: str) -> lungfish.App:
    """Return an app that declares a schedule."""
    made = lungfish.App("declarations")
    made.orchestration(name="report")(report.function)
    made.schedule(
        "often", lungfish.every(SECOND), made.orchestrations["report"].name, [what], runs=2, overlap="allow"
    )
    return made


async def test_a_declared_schedule_is_made_once_and_runs(run_app: RunApp) -> None:
    async with run_app(scheduling("first")) as runtime:
        schedules = runtime.client.schedules

        async def ran() -> bool:
            listed = [found.id async for found in schedules.list()]
            return listed == ["often"] and await runtime.client.count_instances(name="report") == 2

        await until(ran, "two runs")
        runs = [found async for found in runtime.client.instances(name="report")]
        assert [await runtime.client.orchestration(run.instance_id).result(60) for run in runs] == [
            "first"
        ] * 2
    async with run_app(scheduling("first")) as runtime:  # as declared: left alone
        assert (await runtime.client.schedules.get("often").describe()).started == 2
