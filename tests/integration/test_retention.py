"""Purges, by hand and by age, and what is archived before."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import lungfish
from lungfish import HostSettings, OrchestrationContext, RuntimeStatus
from lungfish.orchestrations.replayer import Replayer
from lungfish.runtime.entry_points.local import LocalRuntime
from lungfish.runtime.host import strays, sweeping
from lungfish.runtime.on_redis.keys import Keys
from lungfish.runtime.store.archive import FolderArchive
from tests.integration.polling import until
from tests.local import RunApp
from tests.servers import Server, ask

QUICK = HostSettings(retention_sweep_s=0.02)
DAY = dt.timedelta(days=1)


def make_app(**retention: Any) -> lungfish.App:
    app = lungfish.App("retention")

    @app.activity
    def double(n: int) -> int:
        return 2 * n

    @app.orchestration
    async def quick(ctx: OrchestrationContext, n: int) -> int:
        if n < 0:
            raise ValueError(n)
        doubled: int = await ctx.call_activity(double, n)
        return doubled

    @app.orchestration
    async def waits(ctx: OrchestrationContext) -> str:
        answer: str = await ctx.wait_for_external_event("go", str)
        return answer

    @app.orchestration
    async def parent(ctx: OrchestrationContext, depth: int) -> int:
        if depth == 0:
            return 0
        jobs: list[Any] = [
            ctx.call_orchestration("parent", depth - 1, id=f"{ctx.instance_id}.{n}") for n in range(2)
        ]
        found: list[int] = await asyncio.gather(*jobs)
        return 1 + sum(found)

    if retention:
        app.retention(**retention)
    return app


@pytest.fixture(params=["live", "always_replay"])
def replay(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("LUNGFISH_ALWAYS_REPLAY", str(int(request.param == "always_replay")))
    return str(request.param)


@pytest.fixture
async def runtime(replay: str, run_app: RunApp) -> AsyncIterator[LocalRuntime]:
    async with run_app(make_app()) as runtime:
        yield runtime


async def run(client: lungfish.Client, n: int, id: str) -> None:
    handle = await client.start("quick", n, id=id)
    try:
        await handle.result(timeout=60)
    except lungfish.OrchestrationFailed:
        assert n < 0


async def ids(client: lungfish.Client, **filters: Any) -> list[str]:
    return [found.instance_id async for found in client.instances(**filters)]


async def is_gone(client: lungfish.Client, id: str) -> bool:
    try:
        await client.orchestration(id).status()
    except lungfish.InstanceNotFound:
        return True
    return False


def keys_of(server: Server, hub: str, partitions: int = 32) -> set[str]:
    """Return the names of the keys that hold something of instances."""
    found = set()
    for p in range(partitions):
        names = Keys(hub).partition(p)
        prefix = names.by("")[: -len("by:")]
        for line in ask(server.port, f"KEYS {prefix}*").decode().splitlines():
            what = line.removeprefix(prefix)
            if what.startswith(
                ("by:", "history:", "instances", "payload", "mailbox", "timers", "activities")
            ):
                found.add(what)
    return found


# --- by hand ------------------------------------------------------------------------------


async def test_a_purged_instance_leaves_no_key(runtime: LocalRuntime, valkey: Server, hub_name: str) -> None:
    client = runtime.client
    await run(client, 1, "a")
    await run(client, -1, "b")
    assert "history:a" in keys_of(valkey, hub_name)
    await client.purge("a")
    await client.purge("b")
    assert keys_of(valkey, hub_name) == set()
    assert await ids(client) == []
    with pytest.raises(lungfish.InstanceNotFound):
        await client.orchestration("a").result(timeout=60)
    with pytest.raises(lungfish.InstanceNotFound):
        await client.purge("a")
    await run(client, 2, "a")
    assert await client.orchestration("a").result(timeout=60) == 4


async def test_what_runs_is_not_purged(runtime: LocalRuntime) -> None:
    client = runtime.client
    handle = await client.start("waits", id="w")
    with pytest.raises(lungfish.InstanceRunning, match="Running"):
        await client.purge("w")
    with pytest.raises(lungfish.InvalidArguments, match="Running"):
        await client.purge_instances(status=["Completed", "Running"])
    assert await client.purge_instances() == 0
    await handle.raise_event("go", "on")
    assert await handle.result(timeout=60) == "on"


async def test_children_go_with_their_parents(runtime: LocalRuntime, valkey: Server, hub_name: str) -> None:
    client = runtime.client
    await (await client.start("parent", 3, id="p")).result(timeout=60)
    await (await client.start("parent", 1, id="q")).result(timeout=60)
    assert await client.count_instances(name="parent") == 15 + 3
    await client.purge("p")
    assert sorted(await ids(client)) == ["q", "q.0", "q.1"]
    await client.purge("q", recursive=False)
    assert sorted(await ids(client)) == ["q.0", "q.1"]
    assert await client.purge_instances(name="parent") == 2
    assert keys_of(valkey, hub_name) == set()


async def test_many_are_purged_by_filter(runtime: LocalRuntime) -> None:
    client = runtime.client
    await asyncio.gather(*(run(client, n, f"i{n}") for n in range(-40, 120)))
    await client.start("waits", id="w")
    assert await client.purge_instances(older_than=DAY) == 0
    assert await client.purge_instances(status="Failed", id_prefix="i-1", older_than=0) == 11
    assert await client.count_instances(status="Failed") == 29
    assert await client.purge_instances(status=RuntimeStatus.COMPLETED) == 120
    assert await client.purge_instances() == 29
    assert await ids(client) == ["w"]


async def test_blocking_client_purges_too(runtime: LocalRuntime, valkey: Server, hub_name: str) -> None:
    await run(runtime.client, 1, "a")
    await run(runtime.client, 2, "b")

    def work() -> int:
        with lungfish.connect_sync(valkey.url, hub=hub_name) as client:
            client.purge("a")
            return client.purge_instances(older_than=0.0)

    assert await asyncio.to_thread(work) == 1


# --- by age -------------------------------------------------------------------------------


async def test_each_status_has_its_time(replay: str, run_app: RunApp) -> None:
    app = make_app(completed=dt.timedelta(0), failed=DAY)
    async with run_app(app, settings=QUICK) as runtime:
        client = runtime.client
        await client.start("waits", id="runs")
        await asyncio.gather(*(run(client, n, f"i{n}") for n in range(-3, 30)))
        await until(lambda: _none(client, "Completed"), "the completed ones are purged")
        assert sorted(await ids(client)) == ["i-1", "i-2", "i-3", "runs"]


async def _none(client: lungfish.Client, status: str) -> bool:
    return await client.count_instances(status=status) == 0


async def test_an_orchestration_has_its_own_time(replay: str, run_app: RunApp) -> None:
    app = make_app(default=0)
    app.retention(orchestration="quick", default=DAY)
    async with run_app(app, settings=QUICK) as runtime:
        client = runtime.client
        await run(client, 1, "kept")
        await (await client.start("parent", 0, id="p")).result(timeout=60)
        await until(lambda: is_gone(client, "p"), "p is purged")
        assert await ids(client) == ["kept"]


async def test_what_ended_before_there_was_a_retention_goes_too(run_app: RunApp) -> None:
    async with run_app(make_app()) as runtime:
        await run(runtime.client, 1, "old")
    async with run_app(make_app(default=0), settings=QUICK) as runtime:
        await until(lambda: is_gone(runtime.client, "old"), "it is purged by its next owner")


async def test_a_sweep_is_bounded(run_app: RunApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "PURGES_MAX", 7)
    asked: list[int] = []
    let_go = sweeping.Sweeper._let_go

    async def counted(self: sweeping.Sweeper, due: Any) -> None:
        asked.append(len(due))
        await let_go(self, due)

    monkeypatch.setattr(sweeping.Sweeper, "_let_go", counted)
    async with run_app(make_app()) as runtime:
        await asyncio.gather(*(run(runtime.client, n, f"i{n}") for n in range(40)))
    async with run_app(make_app(default=0), settings=QUICK) as runtime:
        await until(lambda: _none(runtime.client, "Completed"), "all are purged")
    assert max(asked) <= 7
    assert sum(asked) >= 40


# --- the archive --------------------------------------------------------------------------


async def test_an_archived_instance_can_be_read_and_replayed(
    replay: str, run_app: RunApp, tmp_path: Path
) -> None:
    app = make_app(default=0, archive=tmp_path)
    async with run_app(app, settings=QUICK) as runtime:
        client = runtime.client
        await client.start("quick", 21, id="a/../b", tags={"customer": "17"})
        await until(lambda: is_gone(client, "a/../b"), "it is purged")
        found = await client.archived("a/../b")
        assert (found.status.output, found.status.tags) == (42, {"customer": "17"})
        assert found.status.runtime_status is RuntimeStatus.COMPLETED
        Replayer(app).replay(found.exported)
        Replayer(app).replay(list(found.history), instance_id="a/../b")
        assert await client.orchestration("a/../b").history() == list(found.history)
        elsewhere = await lungfish_archived(runtime, "a/../b", tmp_path)
        assert elsewhere == found
        with pytest.raises(lungfish.InstanceNotFound):
            await client.archived("none")


async def lungfish_archived(runtime: LocalRuntime, id: str, place: Path) -> lungfish.ArchivedInstance:
    return await runtime.client.archived(id, archive=place)


async def test_the_latest_under_an_id_is_found(run_app: RunApp, tmp_path: Path) -> None:
    app = make_app(default=0, archive=tmp_path)
    async with run_app(app, settings=QUICK) as runtime:
        for n in (1, 2, 3):
            await runtime.client.start("quick", n, id="again")
            await until(lambda: is_gone(runtime.client, "again"), "it is purged")
        assert (await runtime.client.archived("again")).status.output == 6


async def test_what_cannot_be_archived_is_kept_and_tried_again(
    run_app: RunApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sweeping, "RETRY_S", 0.05)
    broken = {"bad": True}
    write = FolderArchive.write

    def failing(self: FolderArchive, hub: str, instance: str, edition: str, record: str) -> None:
        if instance.startswith("bad") and broken["bad"]:
            raise OSError("no such bucket")
        write(self, hub, instance, edition, record)

    monkeypatch.setattr(FolderArchive, "write", failing)
    app = make_app(default=0, archive=tmp_path)
    with caplog.at_level(logging.ERROR):
        async with run_app(app, settings=QUICK) as runtime:
            client = runtime.client
            await asyncio.gather(*(run_only(client, f"bad{n}") for n in range(3)))
            await run_only(client, "good")
            await until(lambda: is_gone(client, "good"), "the good one is purged, behind the bad ones")
            assert sorted(await ids(client)) == ["bad0", "bad1", "bad2"]
            assert "no such bucket" in caplog.text
            broken["bad"] = False
            await until(lambda: _none(client, "Completed"), "all are archived at last")
            assert (await client.archived("bad2")).status.output == 2


async def run_only(client: lungfish.Client, id: str) -> None:
    """Start, without waiting: the instance may be purged before its result is asked for."""
    await client.start("quick", 1, id=id)


async def test_no_archive_is_known(runtime: LocalRuntime) -> None:
    with pytest.raises(lungfish.UsageError, match="no archive"):
        await runtime.client.archived("a")


# --- orchestrations that the app does not have any more -----------------------------------------------


def without(name: str, **retention: Any) -> lungfish.App:
    """Return the app of a later release, which lacks an orchestration."""
    app = make_app(**retention)
    del app.orchestrations[name]
    return app


async def test_instances_of_an_orchestration_that_is_gone_have_the_time_of_all(run_app: RunApp) -> None:
    async with run_app(make_app()) as runtime:
        await asyncio.gather(*(run(runtime.client, n, f"i{n}") for n in range(-3, 20)))
        await runtime.client.start("waits", id="runs")
    app = without("quick", completed=0, failed=DAY)
    async with run_app(app, settings=QUICK) as runtime:
        await until(lambda: _none(runtime.client, "Completed"), "those that completed are purged")
        assert sorted(await ids(runtime.client)) == ["i-1", "i-2", "i-3", "runs"]


async def test_an_orchestration_that_is_gone_may_be_named(run_app: RunApp) -> None:
    async with run_app(make_app()) as runtime:
        await run(runtime.client, 1, "kept")
        await (await runtime.client.start("parent", 0, id="p")).result(timeout=20)
    app = without("quick", default=0)
    del app.orchestrations["parent"]
    app.retention(orchestration="quick", default=DAY)
    async with run_app(app, settings=QUICK) as runtime:
        await until(lambda: is_gone(runtime.client, "p"), "p is purged")
        assert await ids(runtime.client) == ["kept"]
    named = without("quick")
    named.retention(orchestration="quick", default=0)
    async with run_app(named, settings=QUICK) as runtime:
        await until(lambda: is_gone(runtime.client, "kept"), "what is named goes, too")


async def test_the_walk_for_names_goes_page_by_page_and_begins_anew(
    run_app: RunApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strays, "PAGE", 2)
    monkeypatch.setattr(strays, "REST_S", 0.01)
    async with run_app(make_app()) as runtime:
        await asyncio.gather(*(run(runtime.client, n, f"i{n}") for n in range(20)))
    app = without("quick", failed=0)
    async with run_app(app, settings=QUICK) as runtime:
        assert await runtime.client.count_instances() == 20
    async with run_app(make_app()) as runtime:
        await asyncio.gather(*(run(runtime.client, n, f"i{n}") for n in range(-5, 0)))
    async with run_app(app, settings=QUICK) as runtime:
        await until(lambda: _none(runtime.client, "Failed"), "those that failed are found behind the others")
        assert await runtime.client.count_instances() == 20
