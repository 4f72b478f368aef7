"""Rewind, restart, fork and cancellation on a real store, live and replayed."""

from __future__ import annotations

import asyncio
from collections import Counter as Counts
from collections.abc import AsyncIterator

import pytest

import lungfish
from lungfish import OrchestrationContext, RuntimeStatus
from lungfish.orchestrations import events
from lungfish.runtime.entry_points.local import LocalRuntime
from tests.integration.polling import until
from tests.local import RunApp

app = lungfish.App("second-lives")
ran: Counts[str] = Counts()
broken: set[str] = set()


@app.activity
def step(name: str) -> str:
    ran[name] += 1
    if name in broken:
        raise OSError(f"{name} is down")
    return name


@app.orchestration
async def parent(ctx: OrchestrationContext) -> list[str]:
    first = await ctx.call_activity(step, "first")
    return [first, await ctx.call_orchestration(child, id=f"{ctx.instance_id}.child")]


@app.orchestration
async def child(ctx: OrchestrationContext) -> str:
    return await ctx.call_activity(step, "second")


@app.orchestration
async def tidy(ctx: OrchestrationContext) -> None:
    try:
        await ctx.wait_for_external_event("never")
    except asyncio.CancelledError:
        await ctx.call_activity(step, "cleanup")
        raise


@pytest.fixture(params=["0", "1"], ids=["live", "always_replay"])
async def runtime(
    request: pytest.FixtureRequest, run_app: RunApp, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[LocalRuntime]:
    monkeypatch.setenv("LUNGFISH_ALWAYS_REPLAY", request.param)
    ran.clear()
    broken.clear()
    async with run_app(app) as runtime:
        yield runtime


async def test_a_family_is_rewound_forked_and_restarted(runtime: LocalRuntime) -> None:
    client = runtime.client
    broken.add("second")
    handle = await client.start(parent, id="p")
    with pytest.raises(lungfish.OrchestrationFailed, match="second is down"):
        await handle.result(timeout=60)
    broken.clear()
    await handle.rewind("it is up again")
    assert await handle.result(timeout=60) == ["first", "second"]
    assert ran == Counts({"first": 1, "second": 2})
    history = await handle.history()
    done = next(at for at, event in enumerate(history) if isinstance(event, events.TaskCompleted))
    fork = await handle.fork(at=done, id="fork")
    assert await fork.result(timeout=60) == ["first", "second"]
    assert (await (await handle.restart(new_id=True)).result(timeout=60)) == ["first", "second"]
    assert ran["first"] >= 2


async def test_cancellation_cleans_up(runtime: LocalRuntime) -> None:
    handle = await runtime.client.start(tidy, id="t")
    await handle.cancel("enough")
    with pytest.raises(lungfish.OrchestrationCanceled, match="enough"):
        await handle.result(timeout=60)
    assert ran["cleanup"] == 1

    async def is_listed() -> bool:
        found = [one async for one in runtime.client.instances(status=RuntimeStatus.CANCELED)]
        return [one.instance_id for one in found] == ["t"]

    await until(is_listed, "it is found by its status")
