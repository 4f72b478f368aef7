"""Queries, updates and versions through the clients, on a runtime in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import lungfish
from lungfish.orchestrations import OrchestrationContext
from lungfish.runtime.client.client import Client
from lungfish.runtime.errors import InstanceEnded
from lungfish.testing import crash_everywhere
from tests.virtual import run_app_virtually

app = lungfish.App("queries")


@pytest.fixture(params=["0", "1"], ids=["live", "always_replay"], autouse=True)
def _both(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUNGFISH_ALWAYS_REPLAY", request.param)


@app.activity
async def approve(amount: int) -> bool:
    return amount < 100


@app.orchestration(version="1")
async def account(ctx: OrchestrationContext, limit: int) -> int:
    balance = 0
    closed = asyncio.Event()

    @ctx.on_query
    def current() -> int:
        return balance

    def positive(amount: int) -> None:
        if amount <= 0:
            raise ValueError("not positive")

    @ctx.on_update(validator=positive)
    async def deposit(amount: int) -> int:
        nonlocal balance
        if not await ctx.call_activity(approve, amount):
            raise PermissionError("too much")
        balance += amount
        return balance

    @ctx.on_update
    def close() -> None:
        closed.set()

    await closed.wait()
    return balance


def test_a_client_asks_and_changes() -> None:
    async def use(client: Client) -> None:
        handle = await client.start(account, 5, id="a")
        assert await handle.query("current") == 0
        assert await handle.update("deposit", 10, id="first") == 10
        assert await handle.update("deposit", amount=5) == 15
        assert await handle.update("deposit", 10, id="first") == 10
        with pytest.raises(lungfish.UpdateRejected, match="not positive") as rejected:
            await handle.update("deposit", -1)
        assert rejected.value.details is not None
        assert rejected.value.details.error_type == "builtins.ValueError"
        with pytest.raises(lungfish.UpdateFailed, match="too much") as failed:
            await handle.update("deposit", 1_000)
        assert not isinstance(failed.value, lungfish.UpdateRejected)
        assert failed.value.details is not None
        assert failed.value.details.error_type == "builtins.PermissionError"
        with pytest.raises(lungfish.InvalidArguments):
            await handle.update("deposit", "much")
        with pytest.raises(lungfish.NotRegistered):
            await handle.query("nothing")
        with pytest.raises(lungfish.UsageError, match="a query is a function"):
            await handle.query(7)  # type: ignore[arg-type]
        assert await handle.update("close") is None
        assert await handle.result() == 15
        assert await handle.query("current") == 15
        with pytest.raises(InstanceEnded):
            await handle.update("deposit", 1)
        status = await handle.status()
        assert status.version == "1"

    run_app_virtually(app, use)


def test_many_updates_at_once_are_done_once_each() -> None:
    async def use(client: Client) -> None:
        handle = await client.start(account, 5)
        balances = await asyncio.gather(
            *(handle.update("deposit", 1, id=f"u{number % 20}") for number in range(40))
        )
        assert sorted(balances) == sorted([*range(1, 21), *range(1, 21)])
        assert await handle.query("current") == 20

    run_app_virtually(app, use)


def test_a_start_says_which_version() -> None:
    two = lungfish.App("two")

    @two.orchestration(name="f", version="1")
    async def old(ctx: OrchestrationContext) -> str:
        return f"old {ctx.version}"

    @two.orchestration(name="f", version="2")
    async def new(ctx: OrchestrationContext) -> str:
        return f"new {ctx.version}"

    async def use(client: Client) -> list[Any]:
        handles = [
            await client.start("f"),
            await client.start("f", version="1"),
            await client.start(old),
            await client.start(new, version="1"),
        ]
        with pytest.raises(lungfish.NotRegistered, match="no version '3'"):
            await client.start("f", version="3")
        return [await handle.result() for handle in handles]

    assert run_app_virtually(two, use) == ["new 2", "old 1", "old 1", "old 1"]


async def shopping(client: lungfish.Client) -> list[Any]:
    handle = await client.start(account, 5, id="a")
    balances = [
        await handle.update("deposit", 10, id="first"),
        await handle.update("deposit", 5, id="second"),
        await handle.update("deposit", 10, id="first"),
        await handle.query("current"),
    ]
    with pytest.raises(lungfish.UpdateRejected):
        await handle.update("deposit", 0, id="third")
    await handle.update("close", id="fourth")
    return [*balances, await handle.result(), await handle.query("current")]


@pytest.mark.parametrize("always_replay", [False, True])
def test_no_crash_loses_or_repeats_an_update(always_replay: bool) -> None:
    report = crash_everywhere(app, shopping, always_replay=always_replay)
    assert report.outcome == [10, 15, 10, 15, 15, 15]
