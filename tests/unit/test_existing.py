"""Clients and workers never make a hub: they wait a while for a host that does."""

from __future__ import annotations

import asyncio

import pytest

import lungfish
from lungfish.runtime.client import Client
from lungfish.runtime.existing import HUB_WAIT_S
from lungfish.runtime.memory_store import MemoryServer, MemoryStore
from lungfish.runtime.store import HubMeta
from lungfish.runtime.worker import Worker
from tests.virtual import virtual_server, virtually

HUB = "shop"
WANTED = HubMeta(partitions=7)


def client_of(server: MemoryServer, wait_s: float = HUB_WAIT_S) -> Client:
    return Client(lambda: MemoryStore(server, HUB), lungfish.App(HUB), wait_s=wait_s)


async def make_hub(server: MemoryServer, after_s: float) -> None:
    await asyncio.sleep(after_s)
    await MemoryStore(server, HUB).open(WANTED)


def test_a_client_makes_no_hub_and_says_who_does() -> None:
    async def main() -> None:
        server = virtual_server()
        began_s = asyncio.get_running_loop().time()
        with pytest.raises(lungfish.HubNotFound, match=r"hub 'shop' does not exist yet: start a host first"):
            await client_of(server).__aenter__()
        assert asyncio.get_running_loop().time() - began_s == pytest.approx(HUB_WAIT_S)
        assert server.hub(HUB).meta is None

    virtually(main)


def test_a_client_that_shall_not_wait_does_not() -> None:
    async def main() -> None:
        began_s = asyncio.get_running_loop().time()
        with pytest.raises(lungfish.HubNotFound):
            await client_of(virtual_server(), wait_s=0.0).__aenter__()
        assert asyncio.get_running_loop().time() - began_s < 0.01

    virtually(main)


def test_a_client_that_comes_first_takes_the_hosts_partitions() -> None:
    async def main() -> None:
        server = virtual_server()
        making = asyncio.create_task(make_hub(server, 5.0))
        async with client_of(server) as client:
            assert len((await client.hub_status()).partitions) == WANTED.partitions
        await making

    virtually(main)


def test_a_worker_that_comes_first_takes_the_hosts_partitions() -> None:
    async def main() -> None:
        server = virtual_server()
        making = asyncio.create_task(make_hub(server, 5.0))
        worker = Worker(MemoryStore(server, HUB), lungfish.App(HUB), worker_id="w")
        await worker.start()
        assert server.hub(HUB).meta == WANTED
        await worker.stop()
        await making

    virtually(main)


@pytest.mark.parametrize("wait_s", [-1.0, float("nan"), "10", None, True])
def test_only_a_time_can_be_waited(wait_s: object) -> None:
    with pytest.raises(lungfish.UsageError, match="wait_s is a number of seconds"):
        lungfish.connect(lungfish.App(HUB), wait_s=wait_s)  # type: ignore[arg-type]
