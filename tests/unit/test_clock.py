"""A host's idea of the store's clock."""

from __future__ import annotations

import asyncio

from lungfish.runtime.host.clock import HubClock
from tests.virtual import virtually


def test_it_goes_on_from_the_last_reading() -> None:
    async def run() -> None:
        clock = HubClock()
        clock.sync(5_000_000)
        assert clock.now_ms() == 5_000_000
        await asyncio.sleep(1.5)
        assert clock.now_ms() in (5_001_500, 5_001_501)

    virtually(run)


def test_it_stands_still_rather_than_go_back() -> None:
    async def run() -> None:
        clock = HubClock()
        clock.sync(5_000_000)
        await asyncio.sleep(10)
        before = clock.now_ms()
        clock.sync(5_004_000)
        assert clock.now_ms() == before
        await asyncio.sleep(5)
        assert clock.now_ms() == before
        await asyncio.sleep(2)
        assert clock.now_ms() > before

    virtually(run)


def test_it_jumps_forward_with_a_reading() -> None:
    async def run() -> None:
        clock = HubClock()
        clock.sync(5_000_000)
        clock.sync(9_000_000)
        assert clock.now_ms() == 9_000_000

    virtually(run)


def test_it_is_not_the_machines_clock() -> None:
    async def run() -> None:
        clock = HubClock()
        clock.sync(1)
        await asyncio.sleep(0.1)
        assert clock.now_ms() < 1_000

    virtually(run)
