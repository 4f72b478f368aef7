"""A session's time limits: one timer for all requests, and each has its own time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lungfish.runtime.errors import StoreUnavailable
from lungfish.runtime.on_redis.session import Request, Session
from tests.virtual import virtually


class Transport:
    """Swallows what is written."""

    def set_protocol(self, protocol: object) -> None:
        """Take the session."""

    def write(self, data: bytes) -> None:
        """Send nothing."""

    def abort(self) -> None:
        """Close nothing."""


class Writer:
    def __init__(self) -> None:
        self.transport = Transport()


def session() -> Session:
    writer: Any = Writer()
    return Session(writer, "server", parse_error=RuntimeError, refusal=RuntimeError)


def ask(at: Session, timeout_s: float) -> Request:
    request = at.send([("PING",)])
    at.limit(request, timeout_s)
    return request


async def lost_s(at: Session, request: Request) -> float:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    with pytest.raises(StoreUnavailable, match="no answer in time"):
        await request.future
    assert at.lost is not None
    return round(loop.time() - began_s, 3)


def test_a_silent_server_is_taken_for_gone_when_the_first_limit_is_over() -> None:
    async def run() -> None:
        at = session()
        requests = [ask(at, timeout_s) for timeout_s in (10.0, 3.0, 5.0)]
        assert [await lost_s(at, request) for request in requests] == [3.0, 0.0, 0.0]

    virtually(run)


def test_an_answer_moves_the_limit_on_to_the_next_request() -> None:
    async def run() -> None:
        at = session()
        first = ask(at, 3.0)
        await asyncio.sleep(2)
        second = ask(at, 3.0)
        at.data_received(b"+PONG\r\n")
        assert await first.future == [b"PONG"]
        assert await lost_s(at, second) == 3.0

    virtually(run)


def test_a_server_that_answers_is_kept_and_a_limit_set_later_holds() -> None:
    async def run() -> None:
        at = session()
        first = ask(at, 1.0)
        at.data_received(b"+PONG\r\n")
        await first.future
        await asyncio.sleep(60)
        assert at.lost is None
        assert await lost_s(at, ask(at, 1.0)) == 1.0

    virtually(run)


def test_a_caller_that_was_cancelled_waits_for_nothing() -> None:
    async def run() -> None:
        at = session()
        ask(at, 1.0).future.cancel()
        await asyncio.sleep(60)
        assert at.lost is None

    virtually(run)
