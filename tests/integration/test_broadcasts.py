"""Broadcasts on the real store: thousands of entities, and hosts that go in the middle."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

import lungfish
from lungfish.runtime.on_redis.open_store import open_store
from lungfish.runtime.settings import HostSettings
from tests.integration.polling import until
from tests.local import RunApp
from tests.servers import Server

app = lungfish.App("broadcasts")

#: A dead host is missed soon.
QUICK = HostSettings(heartbeat_ms=100, lease_ms=600)
COUNT = 3_000


@app.entity
class Box(lungfish.Entity):
    got: Counter[str] = Counter()

    def take(self, value: str) -> None:
        self.got[value] += 1

    def cast(self, value: str) -> None:
        self.context.broadcast(Box, Box.take, value, prefix="eu/")


@app.orchestration
async def caster(ctx: lungfish.OrchestrationContext, values: list[str]) -> None:
    for value in values:
        ctx.broadcast(Box, Box.take, value)
    await ctx.sleep(0.01)


async def fill(client: lungfish.Client, count: int) -> None:
    keys = [f"{'eu' if n % 2 else 'us'}/{n}" for n in range(count)]
    await asyncio.gather(*[client.entity(Box, key).call(Box.take, "made") for key in keys])


async def totals(client: lungfish.Client) -> Counter[tuple[str, int]]:
    """Return how many entities got each value how often: ``(value, times)``."""
    found: Counter[tuple[str, int]] = Counter()
    async for box in client.entities(Box, states=True, page_size=1_000):
        found.update(box.state.got.items() if box.state is not None else ())
    return found


async def test_hosts_die_in_the_middle_and_nobody_is_missed_or_told_twice(run_app: RunApp) -> None:
    async with run_app(app, hosts=2, settings=QUICK) as runtime:
        await fill(runtime.client, COUNT)
        for value in "abc":
            await runtime.client.broadcast(Box, Box.take, value)
        await runtime.client.entity(Box, "eu/1").signal(Box.cast, "d")

        async def some_got_the_first() -> bool:
            return (await totals(runtime.client))["a", 1] > 0

        await until(some_got_the_first, "the first of them")
        await runtime.hosts.pop(0).stop(drain=False)  # as if it had died
        await until(lambda: all_got(runtime.client), "all of them")
        assert await totals(runtime.client) == EXPECTED


EXPECTED = Counter({**{(value, 1): COUNT for value in ("made", "a", "b", "c")}, ("d", 1): COUNT // 2})


async def all_got(client: lungfish.Client) -> bool:
    return sum((await totals(client)).values()) >= sum(EXPECTED.values())


@pytest.mark.parametrize("always_replay", [False, True])
async def test_from_an_orchestration(
    run_app: RunApp, always_replay: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUNGFISH_ALWAYS_REPLAY", str(int(always_replay)))
    async with run_app(app) as runtime:
        await fill(runtime.client, 100)
        await (await runtime.client.start(caster, ["x", "y"])).result(timeout=60)

        async def all_there() -> bool:
            return sum((await totals(runtime.client)).values()) >= 300

        await until(all_there, "both values")
        assert await totals(runtime.client) == Counter({("made", 1): 100, ("x", 1): 100, ("y", 1): 100})


async def test_the_blocking_client_has_it(run_app: RunApp, valkey: Server, hub_name: str) -> None:
    def in_a_thread() -> None:
        with lungfish.BlockingClient(
            lungfish.Client(lambda: open_store(valkey.url, hub_name), app)
        ) as client:
            client.broadcast(Box, Box.take, "t", prefix="us/")
            client.broadcast("Box", "take", "u")

    async with run_app(app) as runtime:
        await fill(runtime.client, 100)
        await asyncio.to_thread(in_a_thread)

        async def all_there() -> bool:
            return sum((await totals(runtime.client)).values()) >= 250

        await until(all_there, "both values")
        assert await totals(runtime.client) == Counter({("made", 1): 100, ("t", 1): 50, ("u", 1): 100})
