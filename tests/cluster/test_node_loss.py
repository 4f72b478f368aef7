"""A node is taken away without grace: everything goes on elsewhere, exactly."""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import lungfish
from tests.servers import Server

from .app import Counter, app, approve

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

COUNTERS = 40
ORDERS = 30


class Sender:
    """A plain Ray actor that signals entities and remembers what was acknowledged."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._acknowledged: Tally[str] = Tally()
        self._stop = False

    async def run(self) -> dict[str, int]:
        async with lungfish.connect(app, url=self._url) as client:
            number = 0
            while not self._stop:
                number += 1
                key = f"c{number % COUNTERS}"
                await client.entity(Counter, key).signal_many(Counter.add, [(1,)] * 5)
                self._acknowledged[key] += 5
        return dict(self._acknowledged)

    async def sent(self) -> int:
        return self._acknowledged.total()

    async def stop(self) -> None:
        self._stop = True


async def _waiting(client: lungfish.Client, order: int) -> None:
    handle = client.orchestration(f"order-{order}")
    while not any(type(event).__name__ == "TaskCompleted" for event in await handle.history()):
        await asyncio.sleep(0.05)


async def _until_sent(senders: list[Any], total: int) -> None:
    async with asyncio.timeout(60):
        while sum(await asyncio.gather(*(sender.sent.remote() for sender in senders))) < total:
            await asyncio.sleep(0.05)


async def test_a_lost_node_loses_and_doubles_nothing(
    ray_cluster: Any, durable_store: Server, tmp_path: Path
) -> None:
    ledger = str(tmp_path / "charges")
    runtime = await asyncio.to_thread(lungfish.start, app, url=durable_store.url)
    try:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        made: Any = ray.remote(Sender).options(num_cpus=0, scheduling_strategy=here)
        senders = [made.remote(durable_store.url) for _ in range(2)]
        runs = [sender.run.remote() for sender in senders]
        async with runtime.client() as client:
            handles = [
                await client.start(approve, order, ledger, id=f"order-{order}") for order in range(ORDERS)
            ]
            async with asyncio.timeout(60):
                for order in range(ORDERS):
                    await _waiting(client, order)
            charged = Path(ledger).read_text(encoding="utf-8")
            await _until_sent(senders, 500)

            node = next(iter(ray_cluster.worker_nodes))
            hosts = await asyncio.to_thread(runtime.hosts)
            assert any(host.node == node.node_id and host.partitions for host in hosts), (
                "the node owns nothing"
            )
            ray_cluster.remove_node(node, allow_graceful=False)

            for order, handle in enumerate(handles):
                await handle.raise_event("approved", order)
            results = [await handle.result(timeout=60) for handle in handles]
            before = sum(await asyncio.gather(*(sender.sent.remote() for sender in senders)))
            await _until_sent(senders, before + 500)
            acknowledged: Tally[str] = Tally()
            await asyncio.gather(*(sender.stop.remote() for sender in senders))
            for counted in await asyncio.gather(*runs):
                acknowledged.update(counted)
            counts = {key: await client.entity(Counter, key).call(Counter.get) for key in acknowledged}
        assert results == [[order * 10, order, 1] for order in range(ORDERS)]
        # Every first step ran before the node went: none of them was run again by the replay.
        assert Path(ledger).read_text(encoding="utf-8") == charged
        assert sorted(map(int, charged.split())) == list(range(ORDERS))
        assert counts == dict(acknowledged)
    finally:
        await asyncio.to_thread(runtime.shutdown)
