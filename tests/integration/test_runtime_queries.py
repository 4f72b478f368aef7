"""Queries, updates and versions on the real store, with both clients, live and replayed at every turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import lungfish
from lungfish import OrchestrationContext
from lungfish.runtime.blocking.client import BlockingClient
from lungfish.runtime.client.client import Client
from lungfish.runtime.entry_points.local import LocalRuntime
from lungfish.runtime.on_redis.open_store import open_store
from tests.local import RunApp
from tests.servers import Server

app = lungfish.App("queries")


@app.activity
async def approve(amount: int) -> int:
    if amount > 100:
        raise PermissionError("too much")
    return amount


@app.orchestration(version="1")
async def account(ctx: OrchestrationContext) -> int:
    balance, closed = 0, asyncio.Event()

    @ctx.on_query
    def current() -> int:
        return balance

    def positive(amount: int) -> None:
        if amount <= 0:
            raise ValueError("not positive")

    @ctx.on_update(validator=positive)
    async def deposit(amount: int) -> int:
        nonlocal balance
        approved = await ctx.call_activity(approve, amount)
        balance += approved
        return balance

    ctx.on_update("close", closed.set)
    await closed.wait()
    await ctx.updates_finished()
    return balance


@pytest.fixture(params=["0", "1"], ids=["live", "always_replay"])
async def runtime(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, run_app: RunApp
) -> AsyncIterator[LocalRuntime]:
    monkeypatch.setenv("LUNGFISH_ALWAYS_REPLAY", request.param)
    async with run_app(app) as runtime:
        yield runtime


async def test_asked_and_changed(runtime: LocalRuntime) -> None:
    handle = await runtime.client.start(account)
    assert await handle.query("current") == 0
    deposits = await asyncio.gather(*(handle.update("deposit", 1, id=f"d{n % 25}") for n in range(50)))
    assert sorted(set(deposits)) == list(range(1, 26))
    with pytest.raises(lungfish.UpdateRejected, match="not positive"):
        await handle.update("deposit", 0)
    with pytest.raises(lungfish.UpdateFailed, match="too much"):
        await handle.update("deposit", 101)
    assert await handle.query("current") == 25
    await handle.update("close")
    assert await handle.result(timeout=60) == 25
    assert await handle.query("current") == 25
    assert (await handle.status()).version == "1"


async def test_another_host_takes_over(run_app: RunApp) -> None:
    async with run_app(app) as first:
        handle = await first.client.start(account, id="moves")
        assert await handle.update("deposit", 7, id="once") == 7
    async with run_app(app) as second:
        again = second.client.orchestration("moves")
        assert await again.query("current") == 7
        assert await again.update("deposit", 7, id="once") == 7
        assert await again.update("deposit", 3) == 10


def use_blocking(open_client: Any) -> list[Any]:
    with BlockingClient(open_client) as client:
        handle = client.start(account, version="1")
        found = [
            handle.update("deposit", 5, id="one"),
            handle.update("deposit", amount=6),
            handle.query("current"),
        ]
        with pytest.raises(lungfish.UpdateRejected):
            handle.update("deposit", -1)
        handle.update("close")
        return [*found, handle.result(timeout=60)]


async def test_the_blocking_client_does_the_same(
    runtime: LocalRuntime, valkey: Server, hub_name: str
) -> None:
    client = Client(lambda: open_store(valkey.url, hub_name), app)
    assert await asyncio.to_thread(use_blocking, client) == [5, 11, 11, 11]


async def test_a_batch_of_the_blocking_client(valkey: Server, hub_name: str, runtime: LocalRuntime) -> None:
    handles = [await runtime.client.start(account, id=f"b{number}") for number in range(5)]
    for handle in handles:
        assert await handle.query("current") == 0

    def use() -> None:
        with BlockingClient(Client(lambda: open_store(valkey.url, hub_name), app)) as client:
            assert client.batch("suspend", name="account", count_only=True).matched == 5
            first = client.batch("suspend", name="account", limit=2)
            assert sorted(first.done) == ["b0", "b1"]
            rest = list(client.batch_all("suspend", id_prefix="b"))
            assert [sorted(step.done) for step in rest] == [["b2", "b3", "b4"]]
            assert [len(step.done) for step in client.batch_all("terminate", name="account")] == [5]

    await asyncio.to_thread(use)
    for handle in handles:
        with pytest.raises(lungfish.OrchestrationTerminated):
            await handle.result(timeout=20)
