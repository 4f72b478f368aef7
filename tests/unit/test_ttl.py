"""Entities with a ttl: deleted after that long without a message, not earlier, whatever happened."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Sequence

import lungfish
from lungfish.runtime.store.store import Commit
from lungfish.testing import Environment, environment
from tests.unit.entities.fakes import Host, value
from tests.unit.hub import hub_of, key_in
from tests.virtual import virtually

app = lungfish.App("ttl")
DAY = dt.timedelta(days=1)
TTL = 30 * DAY
LATE = TTL / 16 + dt.timedelta(seconds=1)


@app.entity
class Cart(lungfish.Entity, ttl=TTL):
    items: int = 0

    def add(self) -> int:
        self.items += 1
        return self.items

    @lungfish.shared
    def count(self) -> int:
        return self.items

    def clear(self) -> None:
        self.context.delete()

    async def fill(self) -> None:
        await asyncio.sleep(0.05)
        self.items = 9

    async def linger(self) -> None:
        await asyncio.sleep(40)


@app.entity
class Brief(Cart, ttl=30): ...


@app.entity
class Kept(lungfish.Entity):
    items: int = 0

    def add(self) -> int:
        self.items += 1
        return self.items


async def items(env: Environment, key: str = "c") -> int | None:
    state = await env.client.entity(Cart, key).state()
    return None if state is None else state.items


def stored_timers(env: Environment) -> int:
    return sum(len(rows.timers) for rows in env._server.hub(app.hub).partitions.values())


async def test_an_idle_entity_is_deleted_and_others_are_not() -> None:
    async with environment(app, auto_skip=False) as env:
        await env.client.entity(Cart, "c").call(Cart.add)
        await env.client.entity(Kept, "k").call(Kept.add)
        await env.advance(TTL - DAY)
        assert await items(env) == 1
        await env.advance(DAY + LATE)
        assert await items(env) is None
        assert await env.client.entity(Kept, "k").state() is not None
        assert await env.client.entity(Cart, "c").call(Cart.add) == 1
        await env.advance(TTL + LATE)
        assert await items(env) is None
        assert stored_timers(env) == 0


async def test_an_entity_that_only_an_async_operation_wrote_goes_too() -> None:
    async with environment(app, auto_skip=False) as env:
        await env.client.entity(Cart, "c").call(Cart.fill)
        assert await items(env) == 9
        await env.advance(TTL + LATE)
        assert await items(env) is None


async def test_any_message_prolongs_also_one_that_changes_nothing() -> None:
    async with environment(app, auto_skip=False) as env:
        cart = env.client.entity(Cart, "c")
        await cart.call(Cart.add)
        for _ in range(10):
            await env.advance(TTL - dt.timedelta(hours=1))
            assert await cart.call(Cart.count) == 1
        await env.advance(TTL - dt.timedelta(seconds=1))
        assert await items(env) == 1
        await env.advance(LATE)
        assert await items(env) is None


async def test_an_entity_that_was_deleted_leaves_no_timer() -> None:
    async with environment(app, auto_skip=False) as env:
        cart = env.client.entity(Cart, "c")
        await cart.call(Cart.add)
        await cart.call(Cart.clear)
        assert stored_timers(env) == 0
        await cart.call(Cart.count)
        assert await items(env) is None


async def test_watchers_see_the_end() -> None:
    async with environment(app, auto_skip=False) as env:
        cart = env.client.entity(Cart, "c")
        await cart.call(Cart.add)
        watch = cart.watch()
        assert (await anext(watch)) is not None
        await env.advance(TTL + LATE)
        assert await anext(watch) is None


KEY = key_in(1, "Brief")


def test_it_costs_no_write_per_operation_and_survives_takeovers() -> None:
    timers = 0

    def count(commits: Sequence[Commit]) -> None:
        nonlocal timers
        timers += sum(len(commit.timers) for commit in commits)

    async def run() -> None:
        nonlocal timers
        async with hub_of(app) as hub:
            await hub.start_all("a")
            hub.stores["a"].before_commit = count
            async with hub.client() as client:
                cart = client.entity(Brief, KEY)
                for _ in range(100):
                    await cart.call(Cart.add)
                    await asyncio.sleep(0.01)
                assert timers == 1
                # Read by the next owner after 29 seconds: 30 more from there.
                await asyncio.sleep(29)
                await hub.kill("a")
                await hub.start_all("b")
                assert await cart.call(Cart.count) == 100
                await asyncio.sleep(29)
                assert await cart.state() is not None
                await hub.kill("b")
                await hub.start_all("c")
                await asyncio.sleep(4)
                assert await cart.state() is None

    virtually(run)


def test_one_that_is_running_when_its_time_is_over_is_kept() -> None:
    async def run() -> None:
        async with hub_of(app) as hub:
            await hub.start_all("a")
            async with hub.client() as client:
                cart = client.entity(Brief, KEY).options(timeout=None)
                await cart.call(Cart.add)
                running = asyncio.ensure_future(cart.call(Cart.linger))
                await asyncio.sleep(35)
                assert not running.done()
                assert await cart.state() is not None
                await running
                await asyncio.sleep(28)
                state = await cart.state()
                assert state is not None
                assert state.items == 1
                await asyncio.sleep(5)
                assert await cart.state() is None

    virtually(run)


def test_a_timer_that_fired_before_an_operation_and_is_heard_behind_it_means_nothing() -> None:
    # As where messages are handed over one by one, because the host before has died several times in a row.
    host = Host(Cart, app=lungfish.App("one-by-one"))
    host.call("add")
    due_ms, fired = host.effects.timers.popitem()[1]
    host.reactivate()
    host.effects.now_ms = due_ms
    assert value(host.call("add")) == 2
    host.accept(fired)
    host.run()
    assert host.fields == {"items": 2}, "it was used a moment ago"
    due_ms, fired = host.effects.timers.popitem()[1]
    host.effects.now_ms = due_ms
    host.accept(fired)
    host.run()
    assert host.fields is None
