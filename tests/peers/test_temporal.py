"""Bugs and complaints of Temporal and Cadence that this runtime must not share.

Each name tells the bug; docs/known-bugs-of-peers.md says whose it was and where the others are tested.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import Counter as Counts
from collections.abc import AsyncIterator

import pytest

import lungfish
from lungfish import OrchestrationContext, RuntimeStatus
from lungfish.testing import Environment, environment

app = lungfish.App("temporal")
DAY = dt.timedelta(days=1)

ran: Counts[str] = Counts()


@app.activity
def step(name: str) -> str:
    ran[name] += 1
    return name


@app.activity
def always_fails() -> None:
    ran["fails"] += 1
    raise OSError("down")


@pytest.fixture(params=[True, False], ids=["always_replay", "live"])
async def env(request: pytest.FixtureRequest) -> AsyncIterator[Environment]:
    ran.clear()
    async with environment(app, always_replay=request.param) as env:
        yield env


# --- no sandbox -------------------------------------------------------------------------------------


@app.orchestration
async def imports_what_it_likes(ctx: OrchestrationContext) -> list[str]:
    import decimal
    import json
    import pathlib

    import pydantic

    class Row(pydantic.BaseModel):
        price: decimal.Decimal

    path = pathlib.PurePosixPath("a") / await ctx.call_activity(step, "b")
    return [str(path), json.dumps({"n": 1}), str(Row(price=decimal.Decimal("1.10")).price)]


async def test_ordinary_imports_work_in_an_orchestration(env: Environment) -> None:
    assert await env.client.run(imports_what_it_likes) == ["a/b", '{"n": 1}', "1.10"]


# --- retries ----------------------------------------------------------------------------------------


@app.orchestration
async def trusts(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(always_fails)


async def test_a_plain_failure_is_not_retried_for_ever_unless_asked_for(env: Environment) -> None:
    with pytest.raises(lungfish.OrchestrationFailed, match="down"):
        await env.client.run(trusts)
    assert ran["fails"] == 1


# --- tests ------------------------------------------------------------------------------------------


@app.orchestration
async def sleeps(ctx: OrchestrationContext, days: int) -> int:
    await ctx.sleep(days * DAY)
    return days


async def test_two_test_environments_have_a_clock_each(env: Environment) -> None:
    async with environment(app) as other:
        began = other.now()
        assert await env.client.run(sleeps, 30) == 30
        assert env.now() - began >= 30 * DAY
        assert other.now() == began
        two, one = await asyncio.gather(env.client.run(sleeps, 2), other.client.run(sleeps, 1))
        assert (two, one) == (2, 1)
        assert other.now() - began < 2 * DAY


# --- signals ----------------------------------------------------------------------------------------


@app.orchestration
async def counts_until(ctx: OrchestrationContext, rounds: int, seen: list[int]) -> list[int]:
    seen.append(await ctx.wait_for_external_event("n", int))
    if rounds > 1:
        ctx.continue_as_new(rounds - 1, seen)
    return seen


async def test_no_signal_is_lost_or_reordered_where_every_one_continues_as_new(env: Environment) -> None:
    handle = await env.client.start(counts_until, 50, [])
    for n in range(50):
        await handle.raise_event("n", n)
    assert await handle.result() == list(range(50))


@app.orchestration
async def answers_and_ends(ctx: OrchestrationContext) -> str:
    @ctx.on_update
    async def slow(name: str) -> str:
        await ctx.sleep(60)
        return await ctx.call_activity(step, name)

    await ctx.wait_for_external_event("end")
    return "ended"


async def test_an_update_that_runs_when_the_code_ends_is_told_so(env: Environment) -> None:
    handle = await env.client.start(answers_and_ends)
    env.auto_skip = False
    update = asyncio.ensure_future(handle.update("slow", "x", id="u"))
    async with asyncio.timeout(60):
        while "UpdateAccepted" not in [type(event).__name__ for event in await handle.history()]:
            await asyncio.sleep(0.001)
    await handle.raise_event("end")
    with pytest.raises(lungfish.LungfishError):
        await update
    assert await handle.result() == "ended"
    assert ran["x"] == 0


# --- cancellation -----------------------------------------------------------------------------------


@app.orchestration
async def cleans_up(ctx: OrchestrationContext) -> None:
    try:
        await ctx.sleep(DAY)
    finally:
        await ctx.call_activity(step, "cleaned")
        await ctx.sleep(60)
        await ctx.call_activity(step, "up")


async def test_cleanup_after_a_cancellation_may_take_its_time_and_happens_once(env: Environment) -> None:
    handle = await env.client.start(cleans_up)
    await env.advance(1)
    for _ in range(3):
        await handle.cancel("enough")
    with pytest.raises(lungfish.OrchestrationCanceled):
        await handle.result()
    assert ran == {"cleaned": 1, "up": 1}


# --- history ----------------------------------------------------------------------------------------


@app.orchestration
async def too_large(ctx: OrchestrationContext) -> str:
    try:
        await ctx.call_activity(step, "x" * 70_000_000)
    except lungfish.PayloadTooLarge as error:
        return type(error).__name__
    return "sent"


async def test_a_payload_over_the_limit_is_an_error_that_the_code_can_catch(env: Environment) -> None:
    """Not a task that fails for ever while the instance stays Running."""
    assert await env.client.run(too_large) == "PayloadTooLarge"


async def test_changed_code_ends_its_instance_and_does_not_block_it_for_ever() -> None:
    old, new = lungfish.App("changed"), lungfish.App("changed")
    for app_, which in ((old, "first"), (new, "second")):
        app_.activity(step)

        async def body(ctx: OrchestrationContext, which: str = which) -> None:
            if which == "second":
                await ctx.sleep(1)
            await ctx.call_activity("step", which)
            await ctx.wait_for_external_event("go")

        app_.orchestration(name="body")(body)
    async with environment(old) as env:
        handle = await env.client.start("body")
        await env.advance(1)
        env.app.orchestrations["body"] = new.orchestrations["body"]
        await handle.raise_event("go")
        with pytest.raises(lungfish.OrchestrationFailed) as raised:
            await handle.result()
        assert raised.value.details is not None
        assert raised.value.details.is_caused_by(lungfish.NonDeterminism)
        assert (await handle.status()).runtime_status is RuntimeStatus.FAILED
