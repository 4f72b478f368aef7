"""A call's ``timeout=`` begins at the call, whatever middleware around it waits for (virtual time)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import lungfish
from lungfish import CallNext, DeadlineExceeded, Outgoing
from lungfish.runtime.testing.loop import run_virtually
from lungfish.testing import environment


class Desk(lungfish.Entity):
    began: int = 0

    async def work(self, seconds: float) -> str:
        self.began += 1
        await asyncio.sleep(seconds)
        return "done"


Middleware = Callable[[Outgoing, CallNext], Awaitable[Any]]


def waiting(before_s: float = 0, after_s: float = 0, in_spite_s: float = 0) -> Middleware:
    """Return middleware that waits before a call, after an answer, and after a call that failed."""

    async def middleware(sent: Outgoing, call_next: CallNext) -> Any:
        await asyncio.sleep(before_s)
        try:
            result = await call_next()
        except DeadlineExceeded:
            SEEN.append("late")
            await asyncio.sleep(in_spite_s)
            SEEN.append("waited")
            raise
        await asyncio.sleep(after_s)
        return result

    return middleware


async def deaf(sent: Outgoing, call_next: CallNext) -> Any:
    """Go on when it was told to stop."""
    try:
        await asyncio.sleep(3_600)
    except asyncio.CancelledError:
        return await call_next()


SEEN: list[str] = []


def took(middleware: Any, seconds: float, *, timeout: float | None) -> tuple[str, float, int]:
    """Return what a call came to, after how long (s), and how often the operation was begun."""
    app = lungfish.App("in-time")
    app.entity(Desk)
    app.sending_middleware(middleware)
    SEEN.clear()

    async def scenario() -> tuple[str, float, int]:
        loop = asyncio.get_running_loop()
        async with environment(app) as env:
            desk = env.client.entity(Desk, "a").options(timeout=timeout)
            began_s = loop.time()
            try:
                outcome = await desk.call(Desk.work, seconds)
            except DeadlineExceeded as error:
                outcome = str(error)
            took_s = loop.time() - began_s
            await asyncio.sleep(10)
            state = await desk.state()
            return outcome, round(took_s, 1), 0 if state is None else state.began

    result: tuple[str, float, int] = run_virtually(scenario)
    return result


def test_middleware_that_waits_before_a_call_takes_of_its_time() -> None:
    assert took(waiting(before_s=1), 0.5, timeout=2)[:2] == ("done", 1.5)
    outcome, took_s, _ = took(waiting(before_s=1.5), 2, timeout=2)
    assert "no answer within" in outcome
    assert took_s == 2


def test_what_middleware_holds_back_for_too_long_is_never_sent() -> None:
    outcome, took_s, begun = took(waiting(before_s=5), 0, timeout=2)
    assert outcome == "Desk/a.work: no answer within 2 s: middleware waited before it; nothing was sent"
    assert (took_s, begun) == (2, 0)


def test_not_even_by_middleware_that_does_not_stop() -> None:
    outcome, took_s, begun = took(deaf, 0, timeout=2)
    assert "nothing was sent" in outcome
    assert (took_s, begun) == (2, 0)


def test_an_answer_that_middleware_holds_back_for_too_long_is_late() -> None:
    outcome, took_s, begun = took(waiting(after_s=5), 1, timeout=2)
    assert "middleware waited after it; the outcome is unknown" in outcome
    assert (took_s, begun) == (2, 1)


@pytest.mark.parametrize(("in_spite_s", "seen"), [(0, ["late", "waited"]), (5, ["late"])])
def test_middleware_is_told_that_an_answer_is_late_and_cannot_make_it_later(
    in_spite_s: float, seen: list[str]
) -> None:
    assert took(waiting(in_spite_s=in_spite_s), 5, timeout=2)[1] == 2
    assert seen[: len(SEEN)] == SEEN
    assert SEEN[0] == "late"


def test_without_a_time_out_it_may_wait_for_as_long_as_it_likes() -> None:
    assert took(waiting(before_s=100, after_s=100), 0, timeout=None)[:2] == ("done", 200)
