"""Bugs and traps of Durable Functions and its relatives that this runtime must not share.

Each name tells the bug; docs/known-bugs-of-peers.md says whose it was and where the others are tested.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import math
from collections import Counter as Counts
from collections.abc import AsyncIterator
from typing import Any

import pytest

import lungfish
from lungfish import OrchestrationContext, RuntimeStatus
from lungfish.runtime.errors import MESSAGE_CHARS_MAX
from lungfish.testing import Environment, environment

app = lungfish.App("durable-functions", version="7")
HOUR = dt.timedelta(hours=1)

ran: Counts[str] = Counts()
broken: set[str] = set()


@app.activity
def step(name: str) -> str:
    ran[name] += 1
    if name in broken:
        raise OSError(f"{name} is down")
    return name


@app.entity
class Box(lungfish.Entity):
    value: int = 0

    def add(self, n: int) -> int:
        self.value += n
        return self.value

    async def add_slowly(self, n: int) -> int:
        await asyncio.sleep(0.01)
        return self.add(n)

    def rant(self, length: int) -> None:
        self.value += 1
        raise ValueError("x" * length)


@pytest.fixture(params=[True, False], ids=["always_replay", "live"])
async def env(request: pytest.FixtureRequest) -> AsyncIterator[Environment]:
    ran.clear()
    broken.clear()
    async with environment(app, always_replay=request.param) as env:
        yield env


async def failure_of(handle: lungfish.OrchestrationHandle[Any]) -> lungfish.FailureDetails:
    with pytest.raises(lungfish.OrchestrationFailed) as raised:
        await handle.result()
    assert raised.value.details is not None
    return raised.value.details


# --- several tasks ----------------------------------------------------------------------------------


@app.orchestration
async def waits_for_nothing(ctx: OrchestrationContext) -> list[Any]:
    return [await ctx.when_all(), await ctx.when_all([]), await asyncio.gather()]


async def test_waiting_for_all_of_nothing_completes(env: Environment) -> None:
    assert await env.client.run(waits_for_nothing) == [[], [], []]


# --- timers -----------------------------------------------------------------------------------------


@app.orchestration
async def waits_for_ever(ctx: OrchestrationContext, seconds: float) -> str:
    how = [ctx.sleep(dt.timedelta.max), asyncio.sleep(seconds)]
    tasks = [asyncio.ensure_future(each) for each in how]
    async with asyncio.timeout(seconds):
        await ctx.wait_for_external_event("go")
    for task in tasks:
        task.cancel()
    return "went"


@pytest.mark.parametrize("seconds", [1e12, 1e300, math.inf])
async def test_no_wait_is_too_long_for_a_timer(env: Environment, seconds: float) -> None:
    """Timers of at most 6 days; here also those that outlast the calendar, and that never end."""
    handle = await env.client.start(waits_for_ever, seconds)
    env.auto_skip = False
    await env.advance(dt.timedelta(days=100_000))
    assert (await handle.status()).runtime_status is RuntimeStatus.RUNNING
    await handle.raise_event("go")
    assert await handle.result() == "went"


@app.orchestration
async def waits_for_no_number(ctx: OrchestrationContext) -> None:
    await asyncio.sleep(math.nan)


async def test_a_wait_that_is_no_number_fails_where_it_is_asked_for(env: Environment) -> None:
    handle = await env.client.start(waits_for_no_number)
    assert (await failure_of(handle)).error_type == "builtins.ValueError"


# --- failures ---------------------------------------------------------------------------------------


@app.activity
def rants(length: int) -> None:
    raise ValueError("x" * length)


@app.orchestration
async def rants_everywhere(ctx: OrchestrationContext, length: int) -> list[int]:
    lengths = []
    for what in (ctx.call_activity(rants, length), ctx.entity(Box, "a").call(Box.rant, length)):
        try:
            await what
        except lungfish.ExecutionFailed as error:
            lengths.append(len(str(error)))
    try:
        await ctx.call_orchestration(rants_itself, length)
    except lungfish.OrchestrationFailed as error:
        lengths.append(len(str(error)))
    return lengths


@app.orchestration
async def rants_itself(ctx: OrchestrationContext, length: int) -> None:
    raise ValueError("x" * length)


async def test_a_failure_with_a_huge_message_neither_hangs_nor_swells_histories(env: Environment) -> None:
    most = MESSAGE_CHARS_MAX + 500
    handle = await env.client.start(rants_everywhere, 10_000_000)
    lengths = await handle.result()
    assert all(MESSAGE_CHARS_MAX < length < most for length in lengths), lengths
    assert len(lengths) == 3
    assert sum(len(repr(event)) for event in await handle.history()) < 20 * most
    with pytest.raises(lungfish.EntityOperationFailed) as raised:
        await env.client.entity(Box, "a").call(Box.rant, 10_000_000)
    assert len(str(raised.value)) < most


@pytest.mark.parametrize("verb", ["suspend", "resume", "terminate", "cancel", "rewind"])
async def test_a_huge_reason_is_refused_where_it_is_given(env: Environment, verb: str) -> None:
    handle = await env.client.start(waits_for_ever, 1)
    with pytest.raises(lungfish.UsageError, match="5,000,000 characters; the limit is"):
        await getattr(handle, verb)("x" * 5_000_000)
