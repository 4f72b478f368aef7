"""Days and months pass in an instant: nothing fires early, nothing is forgotten."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

import lungfish
from examples import approval
from lungfish.testing import crash_everywhere, environment

MILLISECOND = timedelta(milliseconds=1)
THREE_DAYS = timedelta(hours=72)
NINE = timedelta(hours=9)


@pytest.mark.parametrize("always_replay", [False, True])
async def test_an_approval_is_escalated_after_72_hours_and_not_before(always_replay: bool) -> None:
    async with environment(approval.app, always_replay=always_replay, auto_skip=False) as env:
        instance = await env.client.start(approval.approve, "a chair")
        await env.advance(THREE_DAYS - MILLISECOND)
        assert (await instance.status()).custom_status == "waiting for an answer"
        await env.advance(MILLISECOND)
        status = await instance.status()
        assert (status.runtime_status, status.output) == ("Completed", "a chair: escalated")


@pytest.mark.parametrize("approved", [True, False])
async def test_an_answer_in_the_last_millisecond_counts(approved: bool) -> None:
    async with environment(approval.app, auto_skip=False) as env:
        instance = await env.client.start(approval.approve, "a chair")
        await env.advance(THREE_DAYS - MILLISECOND)
        await instance.raise_event("ApprovalEvent", approved)
        verdict = "approved" if approved else "rejected"
        assert await instance.result(timeout=60) == f"a chair: {verdict}"
        # The timer is gone: time passes, and nobody escalates anything.
        await env.advance(THREE_DAYS)
        assert "escalate" not in [getattr(event, "name", "") for event in await instance.history()]


def test_a_crash_in_three_days_escalates_all_the_same() -> None:
    async def scenario(client: lungfish.Client) -> str:
        return await (await client.start(approval.approve, "a chair", id="chair")).result(timeout=60)

    assert crash_everywhere(approval.app, scenario).outcome == "a chair: escalated"


# --- a month of days -------------------------------------------------------------------------

app = lungfish.App("daily")
made: dict[str, datetime] = {}


@app.activity
def make_report(day: datetime) -> None:
    """Make a day's report; once, however often this runs."""
    made[lungfish.activity_info().idempotency_key] = day


@app.orchestration
async def report_of(ctx: lungfish.OrchestrationContext) -> None:
    """Make the report of the day on which this is started."""
    await ctx.call_activity(make_report, ctx.now())


@app.orchestration
async def every_morning(ctx: lungfish.OrchestrationContext, mornings: int) -> int:
    """Make a report at nine; live anew every day, so that the history stays short."""
    midnight = ctx.now().replace(hour=0, minute=0, second=0, microsecond=0)
    nine = midnight + NINE
    await ctx.create_timer(nine if nine > ctx.now() else nine + timedelta(days=1))
    await ctx.call_activity(make_report, ctx.now())
    if mornings > 1:
        ctx.continue_as_new(mornings - 1)
    return mornings


JANUARY = [datetime(2026, 1, day, 9, tzinfo=UTC) for day in range(1, 32)]


@pytest.fixture(autouse=True)
def nothing_made() -> None:
    made.clear()


@pytest.mark.parametrize("always_replay", [False, True])
async def test_a_month_of_mornings(always_replay: bool) -> None:
    async with environment(app, always_replay=always_replay) as env:
        instance = await env.client.start(every_morning, 31)
        assert await instance.result(timeout=60) == 1
        assert env.now() == JANUARY[-1]
    assert list(made.values()) == JANUARY


async def test_a_month_of_a_daily_schedule() -> None:
    async with environment(app, auto_skip=False) as env:
        await env.client.schedules.create("daily", lungfish.cron("0 9 * * *", tz="UTC"), report_of)
        await env.advance(timedelta(days=31))
        found = await env.client.schedules.get("daily").describe()
        assert (found.started, found.skipped, found.missed) == (31, 0, 0)
        runs = {status.instance_id async for status in env.client.instances(name="report_of")}
    assert list(made.values()) == JANUARY
    assert runs == {f"daily-{nine:%Y-%m-%dT%H:%M:%SZ}" for nine in JANUARY}


def test_a_crash_skips_and_doubles_no_morning() -> None:
    async def scenario(client: lungfish.Client) -> list[datetime]:
        made.clear()
        await (await client.start(every_morning, 3, id="reports")).result(timeout=60)
        return sorted(made.values())

    assert crash_everywhere(app, scenario).outcome == JANUARY[:3]
