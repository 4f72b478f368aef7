"""Purges survive the death of a host before and after every call to the store."""

from __future__ import annotations

import asyncio

import pytest

import lungfish
from lungfish import OrchestrationContext
from lungfish.testing import crash_everywhere


def make_app() -> lungfish.App:
    app = lungfish.App("crash-purges")

    @app.activity
    def double(n: int) -> int:
        return 2 * n

    @app.orchestration
    async def child(ctx: OrchestrationContext, n: int) -> int:
        doubled: int = await ctx.call_activity(double, n)
        return doubled

    @app.orchestration
    async def parent(ctx: OrchestrationContext, n: int) -> int:
        first: int = await ctx.call_orchestration(child, n, id="i.child")
        return first + 1

    return app


async def purged_by_hand(client: lungfish.Client) -> tuple[int, list[str], int, int]:
    first = await (await client.start("parent", 5, id="i")).result(timeout=60)
    await client.purge("i")
    left = [found.instance_id async for found in client.instances()]
    # Both ids are free again, and nothing of the first run gets into the second.
    second = await (await client.start("parent", 6, id="i")).result(timeout=60)
    return first, left, second, await client.count_instances()


async def purged_by_age(client: lungfish.Client) -> int:
    await client.start("parent", 5, id="i")
    while await client.count_instances():
        await asyncio.sleep(0.02)
    return await client.count_entities("Nobody")


@pytest.mark.parametrize("always_replay", [True, False])
def test_by_hand(always_replay: bool) -> None:
    report = crash_everywhere(make_app(), purged_by_hand, always_replay=always_replay)
    assert report.outcome == (11, [], 13, 2)


def test_by_age() -> None:
    app = make_app()
    app.retention(default=0)
    assert crash_everywhere(app, purged_by_age).outcome == 0
