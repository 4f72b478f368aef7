"""The monitor: its pauses grow, it ends when the job does or when it is too late, it alerts once."""

from __future__ import annotations

from datetime import timedelta

import pytest

import lungfish
from examples import monitor
from examples.monitor import Watched
from lungfish.testing import crash_everywhere, environment

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def services(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "looks_left", {})
    monkeypatch.setattr(monitor, "alerts", {})


async def test_pauses_grow_until_the_job_is_done() -> None:
    monitor.looks_left["backup"] = 10
    async with environment(monitor.app) as env:
        began = env.now()
        instance = await env.client.start(monitor.monitor, Watched("backup"))
        assert await instance.result(timeout=60) == "done after 10 looks"
        # 1, 2, 4 … 32 minutes, then the longest pause three times.
        assert env.now() - began == 63 * MINUTE + 3 * HOUR
        assert list(monitor.alerts.values()) == ["backup is done"]
        assert (await instance.status()).custom_status == "look 10: Completed"


async def test_it_gives_up_at_the_expiry_time() -> None:
    monitor.looks_left["backup"] = 1_000
    async with environment(monitor.app) as env:
        began = env.now()
        instance = await env.client.start(monitor.monitor, Watched("backup"))
        assert (await instance.result(timeout=60)).startswith("given up after")
        assert env.now() - began == timedelta(days=3)
        assert list(monitor.alerts.values()) == ["backup is not done yet"]


async def test_a_day_in_its_life() -> None:
    monitor.looks_left["backup"] = 3
    async with environment(monitor.app, auto_skip=False) as env:
        instance = await env.client.start(monitor.monitor, Watched("backup"))
        await env.advance(2 * MINUTE)
        assert (await instance.status()).custom_status == "look 2: Running"
        await env.advance(1 * MINUTE)
        assert await instance.result(timeout=60) == "done after 3 looks"


def test_a_crash_alerts_nobody_twice() -> None:
    async def scenario(client: lungfish.Client) -> tuple[bool, list[str]]:
        monitor.looks_left["backup"] = 3
        monitor.alerts.clear()
        instance = await client.start(monitor.monitor, Watched("backup"))
        # The number of looks may differ: an attempt that died has looked, too.
        return (await instance.result(timeout=60)).startswith("done"), list(monitor.alerts.values())

    crash_everywhere(monitor.app, scenario)
