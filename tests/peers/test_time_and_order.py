"""What came in time counts, whoever was away when it came."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

import lungfish
from lungfish import OrchestrationContext
from tests.unit.hub import Hub, hub_of
from tests.virtual import virtually

app = lungfish.App("time-and-order")


@app.orchestration
async def approval(ctx: OrchestrationContext, seconds: float) -> str:
    ctx.set_custom_status("asked")
    try:
        async with asyncio.timeout(seconds):
            return await ctx.wait_for_external_event("answer", str)
    except TimeoutError:
        return "nobody answered"


@app.orchestration
async def shortest(ctx: OrchestrationContext) -> list[float]:
    """Set timers in another order than that in which they are due."""
    ended: list[float] = []

    async def wait(seconds: float) -> None:
        await ctx.sleep(seconds)
        ended.append(seconds)

    ctx.set_custom_status("asked")
    await asyncio.gather(*map(wait, (30, 10, 20)))
    return ended


@contextlib.asynccontextmanager
async def one_host(hub: Hub) -> AsyncIterator[lungfish.Client]:
    """Start a host, which makes the hub, and give a client."""
    await hub.start_all("one")
    async with hub.client() as client:
        yield client


async def asked(handle: lungfish.OrchestrationHandle[Any]) -> None:
    async with asyncio.timeout(60):
        while (await handle.status()).custom_status != "asked":
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("answered_s", "outcome"), [(9, "yes"), (11, "nobody answered")], ids=["in_time", "too_late"]
)
@pytest.mark.parametrize("instances", [1, 30])
def test_an_answer_in_time_counts_although_nobody_was_there_to_hear_it(
    answered_s: float, outcome: str, instances: int
) -> None:
    async def run() -> None:
        async with hub_of(app) as hub, one_host(hub) as client:
            handles = [await client.start(approval, 10, id=f"i{n}") for n in range(instances)]
            for handle in handles:
                await asked(handle)
            await hub.kill("one")
            await asyncio.sleep(answered_s)
            for handle in handles:
                await handle.raise_event("answer", "yes")
            await asyncio.sleep(60)
            await hub.start_all("two")
            assert [await handle.result() for handle in handles] == [outcome] * instances

    virtually(run)


def test_timers_that_fell_due_while_nobody_ran_fire_in_the_order_of_their_times() -> None:
    async def run() -> None:
        async with hub_of(app) as hub, one_host(hub) as client:
            handle = await client.start(shortest)
            await asked(handle)
            await hub.kill("one")
            await asyncio.sleep(60)
            await hub.start_all("two")
            assert await handle.result() == [10, 20, 30]

    virtually(run)


def test_an_idle_inbox_does_not_delay_late_timers() -> None:
    async def run() -> None:
        async with hub_of(app) as hub, one_host(hub) as client:
            handle = await client.start(approval, 10)
            await asked(handle)
            await hub.kill("one")
            await asyncio.sleep(60)
            await hub.start_all("two")
            began_s = asyncio.get_running_loop().time()
            assert await handle.result() == "nobody answered"
            assert asyncio.get_running_loop().time() - began_s < 0.05

    virtually(run)
