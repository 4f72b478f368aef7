"""Middleware beside spans, batches, crashes and time-outs: what one of them does to the others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from opentelemetry.trace import StatusCode

import lungfish
from lungfish import CallNext, Incoming, OrchestrationContext, Outgoing, UsageError
from lungfish.runtime.telemetry import figures
from lungfish.testing import crash_everywhere, environment
from tests.spans import Told

USER: ContextVar[str] = ContextVar("user", default="nobody")


class Desk(lungfish.Entity):
    seen: list[Any] = []

    def who(self) -> str:
        return USER.get()

    def note(self, what: Any) -> None:
        self.seen.append(object() if what == "not to be stored" else what)

    def begin(self) -> str:
        return self.context.start("waits")

    async def hang(self) -> None:
        await asyncio.sleep(1_000_000)


async def waits(ctx: OrchestrationContext) -> Any:
    return await ctx.wait_for_external_event("go")


def app_of() -> lungfish.App:
    app = lungfish.App("beside")
    app.entity(Desk)
    app.orchestration(waits)
    return app


@pytest.mark.parametrize("headers", [{}, {"a": "b"}], ids=["none", "headers"])
async def test_what_it_sets_for_one_operation_the_next_does_not_see(headers: dict[str, str]) -> None:
    app = app_of()

    @app.operation_middleware
    def known(turn: Incoming) -> Iterator[None]:
        if turn.key == "a":
            USER.set("alice")
        yield

    async with environment(app) as env:
        assert await env.client.entity(Desk, "a").call(Desk.who) == "alice"
        with lungfish.sending(headers):
            assert await env.client.entity(Desk, "b").call(Desk.who) == "nobody"


def stops_it() -> Any:
    async def impatient(subject: Any, call_next: CallNext) -> Any:
        try:
            async with asyncio.timeout(1):
                return await call_next()
        except TimeoutError:
            return "something else"

    return impatient


async def test_a_time_out_of_its_own_cancels_nobody_who_sends() -> None:
    app = app_of()
    app.sending_middleware(stops_it())
    async with environment(app) as env:
        with pytest.raises(UsageError, match="impatient stopped what it called"):
            await env.client.entity(Desk, "a").call(Desk.hang)
        assert not asyncio.current_task().cancelling()  # type: ignore[union-attr]


async def test_a_time_out_of_its_own_fails_the_operation_and_says_why() -> None:
    app = app_of()
    app.operation_middleware(stops_it())
    async with environment(app) as env:
        with pytest.raises(lungfish.LungfishError, match="impatient stopped what it called"):
            await env.client.entity(Desk, "a").call(Desk.hang)


async def test_who_cancels_a_call_is_heard_whatever_middleware_makes_of_it() -> None:
    app = app_of()
    asked = asyncio.Event()

    @app.sending_middleware
    async def deaf(sent: Outgoing, call_next: CallNext) -> Any:
        asked.set()
        try:
            return await call_next()
        except asyncio.CancelledError:
            return "something else"

    async with environment(app) as env:
        call = asyncio.ensure_future(env.client.entity(Desk, "a").call(Desk.hang))
        await asked.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_a_batch_tells_of_all_whatever_middleware_raises_for_one() -> None:
    app = app_of()

    @app.sending_middleware
    def strict(sent: Outgoing) -> Iterator[None]:
        if sent.kind == "event" and sent.key in "bc":
            raise PermissionError("not that one") if sent.key == "b" else lungfish.Refused("nor that one")
        yield

    async with environment(app) as env:
        for id in "abcd":
            await env.client.start("waits", id=id)
        step = await env.client.batch("raise_event", event="go", name="waits")
        assert (step.matched, set(step.done)) == (4, {"a", "d"})
        assert step.unknown == (lungfish.BatchRefusal("b", "PermissionError", "not that one"),)
        assert step.refused == (lungfish.BatchRefusal("c", "Refused", "nor that one"),)


def test_an_id_that_middleware_told_is_the_one_at_any_crash() -> None:
    app = app_of()

    @app.operation_middleware
    async def audited(turn: Incoming, call_next: CallNext) -> Any:
        result = await call_next()
        if turn.operation == "begin":
            await turn.entity.context.entity(Desk, "audit").call(Desk.note, result)
        return result

    async def begins(client: lungfish.Client) -> bool:
        told = await client.entity(Desk, "a").call(Desk.begin)
        audit = await client.entity(Desk, "audit").state()
        assert audit is not None
        return bool(audit.seen == [told])

    crash_everywhere(app, begins)


async def test_each_signal_of_a_batch_with_one_that_cannot_be_stored_has_its_own_span() -> None:
    app = app_of()
    told = Told(app)
    async with environment(app) as env:
        desk = env.client.entity(Desk, "a")
        await desk.signal_many("note", [("one",), ("not to be stored",), ("two",)])
        await desk.call(Desk.who)
        state = await desk.state()
    assert state is not None
    assert state.seen == ["one", "two"]
    found = [span.status.status_code for span in told.named("entity Desk.note")]
    assert found == [StatusCode.UNSET, StatusCode.ERROR, StatusCode.UNSET]
    assert "?" not in [above for above, _ in told.edges()], "and ids of their own"


class Door(lungfish.Entity):
    def open(self) -> None: ...

    def open_not(self) -> None:
        raise lungfish.Refused("says the operation itself")

    async def pass_on(self) -> None:
        await self.context.entity(Door, "b").call(Door.open)


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize(("operation", "count"), [("open", 1), ("pass_on", 1), ("open_not", 0)])
async def test_what_is_refused_is_counted_once_however_far_the_refusal_goes(
    waits: bool, operation: str, count: int
) -> None:
    app = lungfish.App("counted")
    app.entity(Door)

    def strict(turn: Incoming) -> Iterator[None]:
        if turn.operation == "open":
            raise lungfish.Refused("closed")
        yield

    async def strict_and_waiting(turn: Incoming, call_next: CallNext) -> Any:
        if turn.operation == "open":
            raise lungfish.Refused("closed")
        return await call_next()

    app.operation_middleware(strict_and_waiting if waits else strict)
    async with environment(app) as env:
        with pytest.raises(lungfish.Refused):
            await env.client.entity(Door, "a").call(operation)
        (host,) = env._hosts.values()
        (refused,) = [sample for sample in host.samples() if sample.metric is figures.HOST_REFUSED]
        assert refused.value == count


class Ledger(lungfish.Entity):
    value: int = 0

    async def visit(self, key: str, seconds: float) -> int:
        await asyncio.sleep(seconds)
        self.value += 1
        found: int = await self.context.entity(Ledger, key).call(Ledger.look_at, self.key)
        return found

    async def look_at(self, key: str) -> int:
        found: int = await self.context.entity(Ledger, key).call(Ledger.peek)
        return found

    @lungfish.reentrant
    @lungfish.shared
    def peek(self) -> int:
        return self.value

    def bump(self) -> int:
        self.value += 10
        return self.value


@pytest.mark.parametrize("seconds", [0, 1], ids=["at once", "slowly"])
def test_a_read_inside_that_asks_others_sees_the_same_after_any_crash(seconds: float) -> None:
    app = lungfish.App("inside")
    app.entity(Ledger)

    @app.operation_middleware
    async def asks(turn: Incoming, call_next: CallNext) -> Any:
        if turn.operation == "peek":
            await turn.entity.context.entity(Ledger, "rights").call(Ledger.bump)
        return await call_next()

    async def inside(client: lungfish.Client) -> list[int]:
        visit = asyncio.ensure_future(client.entity(Ledger, "a").call(Ledger.visit, "b", seconds))
        await asyncio.sleep(0)
        bump = await client.entity(Ledger, "a").call(Ledger.bump)
        return [await visit, bump]

    assert crash_everywhere(app, inside).outcome == [1, 11]
