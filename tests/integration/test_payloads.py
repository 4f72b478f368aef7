"""Large values on the real store, live and replayed, in purges, archives and over restarts."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import lungfish
from lungfish import HostSettings, OrchestrationContext, PayloadSettings
from lungfish.orchestrations.replayer import Replayer
from lungfish.runtime.entry_points.local import LocalRuntime
from tests.integration.polling import until
from tests.local import RunApp
from tests.servers import Server, ask

BIG = 3 * 1024 * 1024
#: Nothing is an orphan that a busy machine is slow to adopt.
QUICK = HostSettings(retention_sweep_s=0.02, payload_sweep_s=0.05, payload_orphan_ms=30_000)


def make_app() -> lungfish.App:
    app = lungfish.App("payloads", payloads=PayloadSettings(bytes_max=16 * 1024 * 1024))

    @app.activity
    def reverse(given: bytes) -> bytes:
        return given[::-1]

    @app.orchestration
    async def child(ctx: OrchestrationContext, given: bytes) -> bytes:
        made: bytes = await ctx.call_activity(reverse, given)
        return made

    @app.orchestration
    async def everything(ctx: OrchestrationContext, given: bytes) -> bytes:
        event: bytes = await ctx.wait_for_external_event("go", bytes)
        made: bytes = await ctx.call_orchestration(child, given, id=f"{ctx.instance_id}.child")
        return made + event

    @app.orchestration
    async def quick(ctx: OrchestrationContext, given: bytes) -> bytes:
        return given[::-1]

    return app


@pytest.fixture(params=["live", "always_replay"])
def replay(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("LUNGFISH_ALWAYS_REPLAY", str(int(request.param == "always_replay")))
    return str(request.param)


@pytest.fixture
async def runtime(replay: str, run_app: RunApp) -> AsyncIterator[LocalRuntime]:
    async with run_app(make_app(), settings=QUICK) as runtime:
        yield runtime


def payload_keys(valkey: Server, hub_name: str) -> bytes:
    """Return the raw answer that lists the keys of large values; ``*0`` begins the empty one."""
    return ask(valkey.port, f"KEYS {{{hub_name}:*}}:payload:*")


async def test_values_of_many_pieces_go_round_and_leave_nothing(
    runtime: LocalRuntime, valkey: Server, hub_name: str
) -> None:
    client = runtime.client
    given, event = bytes(range(256)) * (BIG // 256), b"e" * BIG
    handle = await client.start("everything", given, id="e")
    await handle.raise_event("go", event)
    assert await handle.result(60) == given[::-1] + event
    status = await handle.status()
    assert status.output == given[::-1] + event
    assert status.history_bytes < 10_000
    Replayer(make_app()).replay(await handle.history(), instance_id="e")
    assert not payload_keys(valkey, hub_name).startswith(b"*0")
    await client.purge("e")

    async def is_empty() -> bool:
        return payload_keys(valkey, hub_name).startswith(b"*0")

    await until(is_empty, "no large value is left")


async def test_a_host_that_takes_over_finds_the_values(replay: str, run_app: RunApp) -> None:
    given, event = b"g" * BIG, b"e" * BIG
    async with run_app(make_app()) as runtime:
        handle = await runtime.client.start("everything", given, id="e")
        await handle.suspend()
        await handle.raise_event("go", event)
    async with run_app(make_app()) as runtime:
        handle = runtime.client.orchestration("e")
        await handle.resume()
        assert await handle.result(60) == given + event


async def test_an_archive_holds_the_values(replay: str, run_app: RunApp, tmp_path: Path) -> None:
    app = make_app()
    app.retention(default=dt.timedelta(0), archive=tmp_path)
    given = b"ab" * BIG
    async with run_app(app, settings=QUICK) as runtime:
        client = runtime.client
        await client.start("quick", given, id="q")

        async def is_gone() -> bool:
            return not await client.count_instances()

        await until(is_gone, "it is archived and purged")
        found = await client.archived("q")
        assert found is not None
        assert found.status.output == given[::-1]
        Replayer(app).replay(found.exported)


async def test_many_at_once(runtime: LocalRuntime) -> None:
    client = runtime.client
    sizes = [200_000 + 50_000 * n for n in range(10)]
    results = await asyncio.gather(*(client.run("quick", b"x" * size) for size in sizes))
    assert [len(each) for each in results] == sizes
