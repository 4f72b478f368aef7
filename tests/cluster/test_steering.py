"""Scaling, draining, redeploying, nodes that come: under load, without a lost or doubled signal."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from ray.util import list_named_actors

import lungfish
from lungfish.runtime.on_ray.cluster import Runtime
from lungfish.runtime.store.store import HubMeta
from tests.servers import Server

from .app import Counter, app

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@asynccontextmanager
async def load(runtime: Runtime) -> AsyncIterator[None]:
    """Signals all the while; at the end every counter must be what was acknowledged."""
    stop = asyncio.Event()
    sent = dict.fromkeys((f"k{n}" for n in range(64)), 0)

    async def send(client: lungfish.Client) -> None:
        while not stop.is_set():
            for key in sent:
                await client.entity(Counter, key).signal(Counter.add, 1)
                sent[key] += 1

    async with runtime.client() as client:
        before = {key: await client.entity(Counter, key).call(Counter.get) for key in sent}
        sender = asyncio.create_task(send(client))
        yield
        await until(lambda: _over(sent, 500), "there was load")
        stop.set()
        await sender
        after = {key: await client.entity(Counter, key).call(Counter.get) for key in sent}
    assert {key: after[key] - before[key] for key in sent} == sent


async def _over(sent: dict[str, int], least: int) -> bool:
    return sum(sent.values()) > least


async def nodes_of_hosts(runtime: Runtime) -> list[str]:
    """Return the node of every host that owns something."""
    hosts = await asyncio.to_thread(runtime.hosts)
    return sorted(host.node for host in hosts if host.partitions)


async def until(condition: Any, what: str) -> None:
    """Wait for something that happens within a few heartbeats."""
    try:
        async with asyncio.timeout(30):
            while not await condition():
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"it never came to be that {what}") from None


async def test_a_runtime_is_steered_under_load(ray_cluster: Any, durable_store: Server) -> None:
    runtime = await asyncio.to_thread(lungfish.start, app, url=durable_store.url)
    try:
        before = sorted(
            node for name, node, _, _ in await asyncio.to_thread(runtime.actors) if ":host:" in name
        )

        async def spread() -> bool:
            return await nodes_of_hosts(runtime) == before

        await until(spread, "every node has a host with partitions")
        async with load(runtime):
            await asyncio.to_thread(runtime.scale, hosts_per_node=2)

            async def twice() -> bool:
                return await nodes_of_hosts(runtime) == sorted(before * 2)

            await until(twice, "every node has two hosts")
            await asyncio.to_thread(runtime.scale, hosts_per_node=1)

        async with load(runtime):
            drained = before[0]
            await asyncio.to_thread(runtime.drain, drained)
            assert drained not in {node for _, node, _, _ in await asyncio.to_thread(runtime.actors)}

            async def empty() -> bool:
                return await nodes_of_hosts(runtime) == before[1:]

            await until(empty, "the drained node has no host")
            await asyncio.to_thread(runtime.undrain, drained)

        async with load(runtime):
            added = ray_cluster.add_node(num_cpus=1)

            async def joined() -> bool:
                return added.node_id in await nodes_of_hosts(runtime)

            await until(joined, "the new node has a host")

        async with load(runtime):
            actors = await asyncio.to_thread(runtime.actors)
            victim = next(pid for name, _, _, pid in actors if ":host:" in name)
            os.kill(victim, signal.SIGKILL)

            async def replaced() -> bool:
                now = await asyncio.to_thread(runtime.actors)
                return len(now) == len(actors) and victim not in {pid for _, _, _, pid in now}

            await until(replaced, "Ray has replaced the killed host")

        async with load(runtime):
            again = await asyncio.to_thread(lungfish.start, app, url=durable_store.url, concurrency=8)
            names = {name for name, _, _, _ in await asyncio.to_thread(again.actors)}
            assert names, "nothing runs after the deployment"
            assert all(name.endswith(":g2") for name in names), names
    finally:
        await asyncio.to_thread(runtime.shutdown)
    left: list[Any] = list_named_actors(all_namespaces=True)
    assert [entry for entry in left if entry["name"].startswith("nodes:")] == []


async def test_a_runtime_is_found_and_a_missing_one_is_named(ray_cluster: Any, durable_store: Server) -> None:
    missing = lungfish.App("nobody-started-this")
    with pytest.raises(lungfish.RuntimeNotFound, match="nobody-started-this.*lungfish up"):
        lungfish.attach(missing)
    runtime = await asyncio.to_thread(lungfish.start, app, url=durable_store.url)
    try:
        found = await asyncio.to_thread(lungfish.attach, app)
        assert found.url == durable_store.url
        async with lungfish.connect(app) as client:  # no address: the cluster's runtime is found
            assert await client.entity(Counter, "found").call(Counter.add, 1) == 1
    finally:
        await asyncio.to_thread(runtime.shutdown)


async def test_what_ray_knows_to_be_dead_does_not_wait_for_its_lease(
    ray_cluster: Any, durable_store: Server
) -> None:
    patient = lungfish.HostSettings(lease_ms=600_000)
    runtime = await asyncio.to_thread(lungfish.start, app, url=durable_store.url, settings=patient)

    async def owned_without(victim: str) -> int:
        hosts = await asyncio.to_thread(runtime.hosts)
        return sum(host.partitions for host in hosts if host.host_id != victim)

    async def all_owned_without(victim: str) -> bool:
        return await owned_without(victim) == HubMeta().partitions

    try:
        async with load(runtime):
            # Records are half a second old: only when they add up has everybody settled.
            await until(lambda: all_owned_without(""), "every partition is owned once")
            hosts = await asyncio.to_thread(runtime.hosts)
            victim = next(host for host in hosts if host.partitions)
            os.kill(victim.pid, signal.SIGKILL)
            await until(lambda: all_owned_without(victim.host_id), "the others have what the killed host had")
    finally:
        await asyncio.to_thread(runtime.shutdown)
