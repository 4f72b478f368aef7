"""Activities that are lost with their queue entries begin again; those that are not, do not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import lungfish
from lungfish.runtime.errors import StoreUnavailable
from lungfish.runtime.settings import WorkerSettings
from lungfish.runtime.testing.memory_store import MemoryStore
from lungfish.runtime.worker.worker import Worker
from tests.unit.hub import Hub, hub_of
from tests.virtual import virtually

app = lungfish.App("patrol")
PATROL_MS = 1_000
begun: list[int] = []


@app.activity(priority=2, queue="gpu")
async def work(seconds: int) -> int:
    begun.append(seconds)
    await asyncio.sleep(seconds)
    return seconds


@app.orchestration
async def job(ctx: lungfish.OrchestrationContext, seconds: int) -> int:
    return await ctx.call_activity(work, seconds)


async def worker_of(hub: Hub, name: str = "w1", queues: list[str] | None = None) -> Worker:
    store = MemoryStore(hub.server, hub.name)
    settings = WorkerSettings(heartbeat_ms=100, alive_ms=500, sweep_ms=100)
    worker = Worker(store, app, worker_id=name, queues=queues, settings=settings)
    await worker.start()
    return worker


def entries(hub: Hub) -> int:
    return sum(len(s.ids) for target, s in hub.state.streams.items() if target.startswith("q:"))


def lose_entries(hub: Hub) -> None:
    """Lose a queue, as a shard does that fails over to a replica that has nothing of it."""
    for target in [target for target in hub.state.streams if target.startswith("q:")]:
        stream = hub.state.streams[target]
        del stream.ids[:], stream.payloads[:]
        hub.state.producers.pop(target, None)
    hub.state.groups.clear()


def test_an_activity_that_its_queue_has_lost_begins_again() -> None:
    async def test() -> None:
        begun.clear()
        async with hub_of(app) as hub:
            await hub.start_all("a", patrol_ms=PATROL_MS)
            async with hub.client() as client:
                handles = [await client.start(job, n) for n in (1, 2, 3)]
                await hub.until(lambda: entries(hub) == 3, "dispatched")
                lose_entries(hub)
                took_s = await hub.until(lambda: entries(hub) == 3, "dispatched again")
                assert took_s <= 2 * PATROL_MS / 1_000 + 1
                worker = await worker_of(hub)
                assert [await handle.result(timeout=30) for handle in handles] == [1, 2, 3]
                assert sorted(begun) == [1, 2, 3]
                assert [len(await handle.history()) for handle in handles] == [6] * 3, "at no cost to history"
                await worker.kill()

    virtually(test)


def test_a_result_that_the_inbox_has_lost_is_made_again() -> None:
    """The worker was told that its result is durable, and removed the entry; then the result was lost."""

    async def test() -> None:
        begun.clear()
        async with hub_of(app) as hub:
            await hub.start_all("a", patrol_ms=PATROL_MS)
            async with hub.client() as client:
                handle = await client.start(job, 1)
                await hub.until(lambda: entries(hub) == 1, "dispatched")
                hub.stores["a"].cut_off = True
                checkpoint = hub.server.checkpoint()
                worker = await worker_of(hub)
                await hub.until(lambda: begun == [1] and entries(hub) == 0, "run and removed")
                hub.server.rollback(checkpoint)
                lose_entries(hub)
                hub.stores["a"].cut_off = False
                assert await handle.result(timeout=60) == 1
                assert begun == [1, 1]
                await worker.kill()

    virtually(test)


def test_what_waits_or_runs_for_long_is_not_begun_again() -> None:
    async def test() -> None:
        begun.clear()
        async with hub_of(app) as hub:
            (host,) = await hub.start_all("a", patrol_ms=PATROL_MS)
            async with hub.client() as client:
                handle = await client.start(job, 20)
                await asyncio.sleep(10)
                worker = await worker_of(hub)
                assert await handle.result(timeout=60) == 20
                assert begun == [20]
                assert host._patrol.found == 0
                await worker.kill()

    virtually(test)


def test_what_is_still_on_its_way_to_its_queue_is_not_begun_again() -> None:
    async def test() -> None:
        begun.clear()
        async with hub_of(app, delivers_in_place=False) as hub:
            (host,) = await hub.start_all("a", patrol_ms=PATROL_MS)
            hub.server._lengths_max["q"] = 0
            async with hub.client() as client:
                handle = await client.start(job, 1)
                await asyncio.sleep(10)
                assert entries(hub) == 0
                hub.server._lengths_max["q"] = 100
                worker = await worker_of(hub)
                assert await handle.result(timeout=60) == 1
                assert begun == [1]
                assert host._patrol.found == 0
                await worker.kill()

    virtually(test)


def test_it_is_found_by_the_next_owner() -> None:
    async def test() -> None:
        begun.clear()
        async with hub_of(app) as hub:
            await hub.start_all("a", patrol_ms=PATROL_MS)
            async with hub.client() as client:
                handle = await client.start(job, 1)
                await hub.until(lambda: entries(hub) == 1, "dispatched")
                await hub.kill("a")
                lose_entries(hub)
                await hub.start_all("b", patrol_ms=PATROL_MS)
                worker = await worker_of(hub)
                assert await handle.result(timeout=60) == 1
                await worker.kill()

    virtually(test)


def test_a_store_that_is_away_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        begun.clear()
        async with hub_of(app) as hub:
            (host,) = await hub.start_all("a", patrol_ms=PATROL_MS)
            store = hub.stores["a"]
            asked = 0
            queued_rows = store.queued_rows

            async def flaky(*args: Any) -> set[str]:
                nonlocal asked
                asked += 1
                if asked < 3:
                    raise StoreUnavailable("injected")
                return await queued_rows(*args)

            monkeypatch.setattr(store, "queued_rows", flaky)
            async with hub.client() as client:
                handle = await client.start(job, 1)
                await hub.until(lambda: entries(hub) == 1, "dispatched")
                lose_entries(hub)
                await hub.until(lambda: entries(hub) == 1, "dispatched again")
                assert asked == 3
                assert host._patrol.found == 1
                worker = await worker_of(hub)
                assert await handle.result(timeout=60) == 1
                await worker.kill()

    virtually(test)


def test_every_suspect_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        begun.clear()
        monkeypatch.setattr("lungfish.runtime.host.patrol.LOOKED_FOR_MAX", 2)
        async with hub_of(app) as hub:
            await hub.start_all("a", patrol_ms=PATROL_MS)
            async with hub.client() as client:
                handles = [await client.start(job, 1) for _ in range(7)]
                await hub.until(lambda: entries(hub) == 7, "dispatched")
                lose_entries(hub)
                await hub.until(lambda: entries(hub) == 7, "dispatched again")
                worker = await worker_of(hub)
                assert [await handle.result(timeout=30) for handle in handles] == [1] * 7
                await worker.kill()

    virtually(test)
