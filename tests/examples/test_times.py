"""The device twin and the daily report: days on a virtual clock, and once on the real store."""

from __future__ import annotations

import datetime as dt

import pytest

from examples import daily_report, device_twin
from examples.device_twin import Dashboard, Device
from lungfish.testing import environment
from tests.local import RunApp

MINUTE, DAY = dt.timedelta(minutes=1), dt.timedelta(days=1)


async def test_device_twin(run_app: RunApp) -> None:
    async with run_app(device_twin.app) as runtime:
        assert await device_twin.main(runtime.client) == {"thermometer": True, "scales": True}


async def test_a_device_that_says_nothing_is_reported_lost() -> None:
    async with environment(device_twin.app, auto_skip=False) as env:
        dashboard, device = env.client.entity(Dashboard, "main"), env.client.entity(Device, "d")
        await dashboard.call(Dashboard.follow)
        await env.advance(0)
        for _ in range(6):
            await device.signal(Device.report, 1.0)
            await env.advance(10 * MINUTE)
        state = await dashboard.state()
        assert state is not None
        assert state.online == {"d": True}
        await env.advance(10 * MINUTE)
        state = await dashboard.state()
        assert state is not None
        assert state.online == {"d": False}
        await env.advance(DAY)
        twin = await device.state()
        assert twin is not None
        assert (twin.online, twin.checks) == (False, 25)
        await device.signal(Device.retire)
        await env.advance(DAY)
        assert await device.state() is None
        assert await device.reminders() == {}


async def test_daily_report(run_app: RunApp) -> None:
    async with run_app(daily_report.app) as runtime:
        assert (await daily_report.main(runtime.client)).endswith(": 2000.00")


@pytest.mark.parametrize("always_replay", [True, False])
async def test_a_month_of_reports(always_replay: bool) -> None:
    daily_report.mails.clear()
    app = daily_report.app
    async with environment(app, auto_skip=False, always_replay=always_replay) as env:
        await env.advance(31 * DAY)
        assert len(daily_report.mails) == 22  # working days of January 2026
        assert next(iter(daily_report.mails.values())) == "Thursday 01 January: 2000.00"
        found = await env.client.schedules.get("daily-report").describe()
        assert (found.started, found.skipped, found.missed) == (22, 0, 0)
        assert found.recent[0].id == "daily-report-2026-01-30T08:00:00Z"
