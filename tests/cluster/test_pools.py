"""Pools on a Ray cluster: hosts of a pool run on the nodes that have what it needs, and nowhere else."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest
import ray

import lungfish
from tests.servers import Server

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

app = lungfish.App(
    "pooled",
    pools={
        "fpga": lungfish.HostPool(partitions=4, resources={"fpga": 1}),
        "zone": lungfish.HostPool(partitions=2, labels={"zone": "z1"}),
    },
)


@app.entity(pool="fpga")
class Board(lungfish.Entity):
    """Tells on which node it runs."""

    calls: int = 0

    def where(self) -> tuple[str, int]:
        """Return the node, and how often this was asked."""
        self.calls += 1
        return ray.get_runtime_context().get_node_id(), self.calls


@app.entity(pool="zone")
class Shop(Board):
    """The same in another pool."""


@app.entity
class Clerk(lungfish.Entity):
    """Lives anywhere."""

    def process(self) -> int:
        """Return the process id."""
        return os.getpid()


KEYS = [f"k{number}" for number in range(8)]


async def nodes_of(client: lungfish.Client, cls: Any, count: int) -> set[str]:
    calls = [client.entity(cls, key).options(timeout=90).call(cls.where) for key in KEYS]
    answers = await asyncio.gather(*calls)
    assert [answer[1] for answer in answers] == [count] * len(KEYS)
    return {answer[0] for answer in answers}


def owned(hosts: list[Any]) -> int:
    """Return how many partitions the hosts of the pool say that they own."""
    return sum(host.partitions for host in hosts if host.pools == ("fpga",))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(90):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.1)


async def test_pinned_entities_run_only_where_their_pool_is(ray_cluster: Any, durable_store: Server) -> None:
    labelled = ray_cluster.add_node(num_cpus=1, labels={"zone": "z1"})
    boards = [ray_cluster.add_node(num_cpus=1, resources={"fpga": 1}) for _ in range(2)]
    runtime = await asyncio.to_thread(lungfish.start, app, url=durable_store.url, workers_per_node=0)
    try:
        async with runtime.client() as client:
            assert await nodes_of(client, Shop, 1) == {labelled.node_id}
            assert await nodes_of(client, Board, 1) <= {board.node_id for board in boards}
            await until(lambda: owned(runtime.hosts()) == 4)
            # A node is lost: what it had is taken over inside of the pool.
            ray_cluster.remove_node(boards[0], allow_graceful=False)
            await until(lambda: all(host.node != boards[0].node_id for host in runtime.hosts()))
            assert await nodes_of(client, Board, 2) == {boards[1].node_id}
            assert await nodes_of(client, Shop, 2) == {labelled.node_id}
            # The last one is lost: the pool waits, and nothing else does.
            ray_cluster.remove_node(boards[1], allow_graceful=False)
            for key in KEYS:
                await client.entity(Board, key).signal(Board.where)
            assert await client.entity(Clerk, "c").options(timeout=60).call(Clerk.process) > 0
            assert await nodes_of(client, Shop, 3) == {labelled.node_id}
            await until(lambda: all(host.pools != ("fpga",) for host in runtime.hosts()))
            assert (await client.hub_status()).hosts_of("fpga") == ()
            late = ray_cluster.add_node(num_cpus=1, resources={"fpga": 1})
            assert await nodes_of(client, Board, 4) == {late.node_id}
    finally:
        await asyncio.to_thread(runtime.shutdown)
