"""Headers on a real store: another host goes on with them, and the blocking client sends them."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest

import lungfish
from lungfish import OrchestrationContext
from lungfish.runtime.on_redis.open_store import open_store
from tests.local import RunApp
from tests.servers import Server

app = lungfish.App("headers")
user: ContextVar[str] = ContextVar("user")
app.propagate(user)


@app.entity
class Seen(lungfish.Entity):
    times: int = 0

    def note(self) -> dict[str, str]:
        self.times += 1
        return dict(lungfish.headers())


@app.activity
def work() -> list[Any]:
    return [dict(lungfish.headers()), user.get(None)]


@app.orchestration
async def waits(ctx: OrchestrationContext) -> list[Any]:
    await ctx.wait_for_external_event("go")
    return [await ctx.call_activity(work), await ctx.entity(Seen, "o").call(Seen.note)]


EXPECTED = {"trace": "t1", "user": "ada"}


@pytest.mark.parametrize("delay_s", [None, 0.2])
async def test_another_host_goes_on_with_the_same_headers(run_app: RunApp, delay_s: float | None) -> None:
    async with run_app(app) as runtime:
        user.set("ada")
        with lungfish.sending({"trace": "t1"}):
            await runtime.client.start(waits, id="w", at=delay_s)
    user.set("somebody else")
    async with run_app(app) as runtime:
        handle = runtime.client.orchestration("w")
        await handle.raise_event("go")
        assert await handle.result(20) == [[EXPECTED, "ada"], EXPECTED]


async def test_the_blocking_client(run_app: RunApp, valkey: Server, hub_name: str) -> None:
    def work_blocking() -> Any:
        user.set("ada")
        client = lungfish.BlockingClient(lungfish.Client(lambda: open_store(valkey.url, hub_name), app))
        with client, lungfish.sending({"trace": "t1"}):
            return client.entity(Seen, "b").call(Seen.note)

    async with run_app(app):
        assert await asyncio.to_thread(work_blocking) == EXPECTED
