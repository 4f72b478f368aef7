"""Edits by hand on a real store: of both clients, over a takeover, and of states that nobody can read."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import pytest

import lungfish
from lungfish import OrchestrationContext
from lungfish.runtime.on_redis.open_store import open_store
from tests.integration.polling import until
from tests.local import RunApp
from tests.servers import Server


class Older(lungfish.Entity):
    value: str = "a text"

    def set(self, value: str) -> None:
        self.value = value
        self.context.set_reminder("tick", dt.timedelta(days=1), operation="add")

    def add(self) -> None: ...


class Newer(lungfish.Entity):
    value: int = 0

    def add(self, n: int = 1) -> int:
        self.value += n
        return self.value


class Newest(Newer):
    schema_version = 2
    migrations = {1: lambda fields: fields}


async def guard(ctx: OrchestrationContext) -> Any:
    """Hold the thing until told; then use it."""
    thing = ctx.entity("Thing", "t")
    async with ctx.lock(thing):
        await ctx.wait_for_external_event("go")
        return await thing.call("add", 100)


def release(cls: type[lungfish.Entity]) -> lungfish.App:
    """Return an app in which ``cls`` is known as Thing."""
    app = lungfish.App("releases")
    app.entity(name="Thing")(cls)
    app.orchestration(guard)
    return app


async def test_a_state_that_cannot_be_read_is_mended(run_app: RunApp) -> None:
    async with run_app(release(Older)) as runtime:
        await runtime.client.entity("Thing", "t").call("set", "no number")
    async with run_app(release(Newer)) as runtime:
        thing = runtime.client.entity("Thing", "t")
        await thing.signal("add", 5)
        with pytest.raises(lungfish.StateMismatch):
            await thing.call("add", 1)
        with pytest.raises(lungfish.InvalidArguments, match="value"):
            await thing.edit({"value": "still none"}, reason="x")
        held = await runtime.client.start("guard", id="g")

        async def is_held() -> bool:
            return (await thing.inspect()).holder == "g"

        await until(is_held, "the guard holds the thing")
        await thing.edit({"value": 10}, reason="mended", by="ada")
        waiting = asyncio.create_task(thing.call("add", 1))
        await held.raise_event("go")
        assert await held.result(20) == 110
        assert await waiting == 116
    async with run_app(release(Newer)) as runtime:
        thing = runtime.client.entity("Thing", "t")
        assert await thing.call("add", 0) == 116
        (edit,) = await thing.edits()
        assert (edit.before, edit.by) == ({"value": "no number"}, "ada")
        assert "tick" in await thing.reminders()


async def test_a_state_that_cannot_be_read_is_purged(run_app: RunApp) -> None:
    async with run_app(release(Older)) as runtime:
        await runtime.client.entity("Thing", "t").edit({"value": "no number"}, reason="x")
    async with run_app(release(Newer)) as runtime:
        thing = runtime.client.entity("Thing", "t")
        await thing.signal("add", 5)
        with pytest.raises(lungfish.StateMismatch):
            await thing.call("add", 1)
        await thing.purge(reason="start again")
        assert await thing.call("add", 1) == 6
        assert await thing.edits() == []


async def test_a_state_of_a_later_release_is_left_alone(run_app: RunApp) -> None:
    async with run_app(release(Newest)) as runtime:
        await runtime.client.entity("Thing", "t").call("add", 1)
    async with run_app(release(Newer)) as runtime:
        with pytest.raises(lungfish.StateMismatch, match="schema version 2"):
            await runtime.client.entity("Thing", "t").edit({"value": 10}, reason="too early")
    async with run_app(release(Newest)) as runtime:
        assert await runtime.client.entity("Thing", "t").call("add", 1) == 2


async def test_records_go_with_an_entity_that_was_loaded_again(run_app: RunApp) -> None:
    async with run_app(release(Newer)) as runtime:
        for number in range(3):
            await runtime.client.entity("Thing", "t").edit({"value": number}, reason="x")
    async with run_app(release(Newer)) as runtime:
        thing = runtime.client.entity("Thing", "t")
        assert len(await thing.edits()) == 3
        await thing.purge(reason="gone")
        assert await thing.edits() == []
        assert await thing.state() is None


async def test_the_blocking_client(run_app: RunApp, valkey: Server, hub_name: str) -> None:
    app = release(Newer)

    def work() -> tuple[Any, ...]:
        with lungfish.BlockingClient(
            lungfish.Client(lambda: open_store(valkey.url, hub_name), app)
        ) as client:
            thing = client.entity("Thing", "t")
            thing.edit({"value": 7}, reason="seed", by="ada")
            (edit,) = thing.edits()
            total = thing.call("add", 1)
            thing.purge(reason="gone")
            return edit.by, total, thing.state()

    async with run_app(app):
        assert await asyncio.to_thread(work) == ("ada", 8, None)
