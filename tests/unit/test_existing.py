"""Clients and workers never make a hub: they wait a while for a host that does."""

from __future__ import annotations

import asyncio

import pytest

import lungfish
from lungfish.runtime.client.client import Client
from lungfish.runtime.host.keepalive import Keepalive
from lungfish.runtime.on_ray import processes
from lungfish.runtime.store.existing import HUB_WAIT_S, SAY_AFTER_S
from lungfish.runtime.store.store import HubMeta
from lungfish.runtime.testing.memory_store import MemoryServer, MemoryStore
from lungfish.runtime.worker.worker import Worker
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
        with pytest.raises(lungfish.HubNotFound, match=r"hub 'shop' does not exist yet in memory: start"):
            await client_of(server).__aenter__()
        assert asyncio.get_running_loop().time() - began_s == pytest.approx(HUB_WAIT_S)
        assert server.hub(HUB).meta is None

    virtually(main)


def test_who_waits_for_a_hub_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        server = virtual_server()
        waiting = asyncio.create_task(client_of(server).__aenter__())
        await asyncio.sleep(SAY_AFTER_S - 0.5)
        assert not caplog.records
        await asyncio.sleep(1.0)
        (said,) = caplog.records
        assert said.levelname == "WARNING", "it must be seen where nobody has configured logging"
        assert said.getMessage() == (
            "waiting up to 30 s: hub 'shop' does not exist yet in memory: start a host first (lungfish dev, "
            "lungfish up, lungfish.start), which makes the hub with its number of partitions"
        )
        with pytest.raises(lungfish.HubNotFound, match=r"; nobody made it within 30 s \(wait_s\)$"):
            await waiting
        assert len(caplog.records) == 1

    virtually(main)


def test_who_finds_the_hub_soon_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        server = virtual_server()
        making = asyncio.create_task(make_hub(server, SAY_AFTER_S - 0.5))
        async with client_of(server):
            await making

    virtually(main)
    assert not caplog.records


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


@pytest.mark.parametrize("partitions", [7, None])
def test_a_host_that_comes_back_makes_a_lost_hub_as_it_was(
    partitions: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        server = virtual_server()
        on(server, monkeypatch)
        deployment = processes.Deployment(HUB, "", partitions=partitions)
        await begin_and_end(deployment)  # of a hub that was deleted, or lost with its store
        meta = server.hub(HUB).meta
        assert meta is not None
        assert meta.partitions == (partitions or HubMeta().partitions)

    virtually(main)


def test_a_host_that_comes_back_does_not_take_a_hub_of_another_count(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        server = virtual_server()
        await MemoryStore(server, HUB).open(HubMeta(partitions=5))  # deleted, and made anew by somebody else
        on(server, monkeypatch)
        with pytest.raises(lungfish.HubMismatch, match="partition count is 5, this process uses 7"):
            await begin_and_end(processes.Deployment(HUB, "", partitions=WANTED.partitions))

    virtually(main)


def on(server: MemoryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "open_store", lambda *_, **__: MemoryStore(server, HUB))
    monkeypatch.setattr(Keepalive, "start", lambda _: None)  # its thread has no virtual clock


async def begin_and_end(deployment: processes.Deployment) -> None:
    process = processes.HostProcess(deployment, lungfish.App(HUB), slot="s")

    await process.start()
    await process.stop()


@pytest.mark.parametrize("wait_s", [-1.0, float("nan"), "10", None, True])
def test_only_a_time_can_be_waited(wait_s: object) -> None:
    with pytest.raises(lungfish.UsageError, match="wait_s is a number of seconds"):
        lungfish.connect(lungfish.App(HUB), wait_s=wait_s)  # type: ignore[arg-type]
