"""Deadlines: each wait ends at its own time, whatever others were set before or after it."""

from __future__ import annotations

import asyncio
from functools import partial

from lungfish.runtime.session.deadlines import Deadlines
from tests.virtual import virtually


class Late(Exception):
    pass


async def ended_s(future: asyncio.Future[None]) -> float:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    try:
        await future
    except Late:
        return round(loop.time() - began_s, 3)
    return -1.0


def add(deadlines: Deadlines, waits: dict[str, asyncio.Future[None]], name: str, timeout_s: float) -> None:
    waits[name] = asyncio.get_running_loop().create_future()
    deadlines.add(name, timeout_s, partial(Late, name))


def test_each_wait_ends_at_its_own_time() -> None:
    async def run() -> None:
        waits: dict[str, asyncio.Future[None]] = {}
        deadlines = Deadlines(waits)
        for name, timeout_s in (("long", 30.0), ("short", 1.0), ("middle", 2.5), ("also", 1.0)):
            add(deadlines, waits, name, timeout_s)
        assert await asyncio.gather(*map(ended_s, waits.values())) == [30.0, 1.0, 2.5, 1.0]

    virtually(run)


def test_what_ended_in_time_is_left_alone_and_forgotten() -> None:
    async def run() -> None:
        waits: dict[str, asyncio.Future[None]] = {}
        deadlines = Deadlines(waits)
        add(deadlines, waits, "kept", 5.0)
        add(deadlines, waits, "answered", 2.0)
        waits["answered"].set_result(None)
        for number in range(10_000):
            add(deadlines, waits, str(number), 1.0)
            waits.pop(str(number)).set_result(None)
        assert len(deadlines._entries) < 200
        assert await ended_s(waits["answered"]) == -1.0
        assert await ended_s(waits["kept"]) == 5.0

    virtually(run)


def test_a_wait_that_is_set_after_all_others_have_ended_ends_too() -> None:
    async def run() -> None:
        waits: dict[str, asyncio.Future[None]] = {}
        deadlines = Deadlines(waits)
        add(deadlines, waits, "first", 1.0)
        del waits["first"]
        await asyncio.sleep(10)
        add(deadlines, waits, "second", 1.0)
        assert await ended_s(waits["second"]) == 1.0
        add(deadlines, waits, "third", 1.0)
        deadlines.close()
        await asyncio.sleep(10)
        assert not waits["third"].done()

    virtually(run)
