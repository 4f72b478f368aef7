"""SIGTERM: first leaving, then whoever had the signal before."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest

from lungfish.runtime.on_ray.leaving import Sigterm

#: Far more than anything here takes (s).
LIMIT_S = 60.0


class Before(Exception):
    """What the handler that was there before does."""


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop in a thread of its own, and a handler of SIGTERM that raises ``Before``."""

    def refuse(*_: object) -> None:
        raise Before

    before = signal.signal(signal.SIGTERM, refuse)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    signal.signal(signal.SIGTERM, before)


class Process:
    """What is told to leave, with ``leave``, and when it did and ended."""

    def __init__(self, loop: asyncio.AbstractEventLoop, leave: Callable[[], Awaitable[None]]) -> None:
        self.told: list[str] = []
        self.begun, self.ended = threading.Event(), threading.Event()
        self._loop = loop
        self._leave = leave
        self._sigterm = Sigterm(self._end)

    def is_ready(self, limit_s: float = LIMIT_S) -> None:
        """Have something to leave."""

        async def begin() -> None:
            self._sigterm.leave_with(self._leaving, limit_s=limit_s)

        asyncio.run_coroutine_threadsafe(begin(), self._loop).result(LIMIT_S)

    async def _leaving(self) -> None:
        self.begun.set()
        await self._leave()
        self.told.append("left")

    def _end(self) -> None:
        self.told.append("ended")
        self.ended.set()


async def for_ever() -> None:
    await asyncio.Event().wait()


async def shortly() -> None:
    await asyncio.sleep(0.05)


async def never() -> None:
    raise OSError("the store is away")


def sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_it_leaves_and_then_ends(loop: asyncio.AbstractEventLoop) -> None:
    process = Process(loop, shortly)
    process.is_ready()
    sigterm()
    assert process.ended.wait(LIMIT_S)
    assert process.told == ["left", "ended"]


@pytest.mark.parametrize(("leave", "limit_s"), [(never, LIMIT_S), (for_ever, 0.05)])
def test_it_ends_also_when_leaving_fails_or_takes_too_long(
    loop: asyncio.AbstractEventLoop, leave: Callable[[], Awaitable[None]], limit_s: float
) -> None:
    process = Process(loop, leave)
    process.is_ready(limit_s)
    sigterm()
    assert process.ended.wait(LIMIT_S)
    assert process.told == ["ended"]


def test_a_second_signal_ends_at_once(loop: asyncio.AbstractEventLoop) -> None:
    process = Process(loop, for_ever)
    process.is_ready()
    sigterm()
    assert process.begun.wait(LIMIT_S)
    assert not process.told
    sigterm()
    assert process.ended.wait(LIMIT_S)


def test_who_has_nothing_to_leave_does_as_before(loop: asyncio.AbstractEventLoop) -> None:
    process = Process(loop, shortly)
    with pytest.raises(Before):
        sigterm()
    assert not process.told
