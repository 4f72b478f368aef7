"""Pinned entities on the real store: hosts of two pools, and processes of the pool that die."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import lungfish
from lungfish.runtime.settings import HostSettings
from tests.integration.polling import until
from tests.local import RunApp

QUICK = HostSettings(heartbeat_ms=50, lease_ms=400)
POOLS = {"gpu": lungfish.HostPool(partitions=3)}
app = lungfish.App("pinned", pools=POOLS)


@app.entity(pool="gpu")
class Model(lungfish.Entity):
    """Lives in the pool."""

    seen: int = 0

    def see(self, n: int = 1) -> int:
        """Count."""
        self.seen += n
        return self.seen


@app.entity
class Desk(lungfish.Entity):
    """Lives in no pool."""

    sent: int = 0

    def pass_on(self, model: str) -> None:
        """Signal a pinned entity, from outside of its pool."""
        self.sent += 1
        self.context.entity(Model, model).signal(Model.see)


@app.orchestration
async def train(ctx: lungfish.OrchestrationContext, model: str) -> int:
    """Call a pinned entity."""
    return await ctx.entity(Model, model).call(Model.see)


KEYS = [f"m{number}" for number in range(12)]


async def test_a_pool_is_taken_over_inside_of_it_and_waits_while_it_has_no_host(run_app: RunApp) -> None:
    pools = [[""], ["gpu"], ["gpu"]]
    async with run_app(app, hosts=3, pools=pools, settings=QUICK) as runtime:
        client, (rest, *pooled) = runtime.client, runtime.hosts
        for key in KEYS:
            await client.entity(Model, key).call(Model.see)
            await client.entity(Desk, key).call(Desk.pass_on, key)
        owned = [{partition.number for partition in host.partitions} for host in runtime.hosts]
        assert all(owned[1:])
        assert owned[1] | owned[2] == {32, 33, 34}
        runtime.hosts.remove(pooled[0])
        await pooled[0].stop(drain=False)
        for key in KEYS:
            assert await client.entity(Model, key).options(timeout=60).call(Model.see) == 3
        assert {partition.number for partition in pooled[1].partitions} == {32, 33, 34}

        runtime.hosts.remove(pooled[1])
        await pooled[1].stop(drain=False)
        waiting = await client.start(train, KEYS[0])
        for key in KEYS:
            await client.entity(Desk, key).call(Desk.pass_on, key)

        async def has_no_host() -> bool:
            return not (await client.hub_status()).hosts_of("gpu")

        await until(has_no_host, "the pool has no host")
        assert "lives in pool 'gpu', which has no live host" in str(await client.entity(Model, "m0").why())
        assert {partition.number for partition in rest.partitions} == set(range(32))
    async with run_app(app, hosts=2, pools=[[""], ["gpu"]], settings=QUICK) as runtime:
        client = runtime.client
        assert isinstance(await client.orchestration(waiting.id).result(timeout=60), int)

        async def counted() -> list[Any]:
            states = [await client.entity(Model, key).state() for key in KEYS]
            return [state and state.seen for state in states]

        async def arrived() -> bool:
            return await counted() == [5] + [4] * 11

        await until(arrived, "all have arrived")
        assert await client.count_entities(Model) == 12


async def test_a_client_that_knows_no_app_routes_right(run_app: RunApp, valkey: Any, hub_name: str) -> None:
    plain = lungfish.App("pinned")
    plain.entity(Desk)
    async with (
        run_app(plain, pools=[[""]]),
        lungfish.connect(valkey.url, hub=hub_name) as client,
    ):
        with pytest.raises(lungfish.UnknownPool):
            await client.entity("Model@gpu", "m").call("see")
        async with run_app(app, pools=[["gpu"]]):
            calls = (client.entity("Model@gpu", key).call("see") for key in KEYS)
            assert await asyncio.gather(*calls) == [1] * 12
            assert await client.entity("Model@gpu", "m0").state() == {"seen": 1}
            assert await client.count_entities("Model@gpu") == 12
