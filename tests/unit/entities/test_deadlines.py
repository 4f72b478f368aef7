"""Deadlines travel with calls, and a call that nobody waits for any more is not started."""

from __future__ import annotations

import asyncio
import datetime as dt

import pytest

import lungfish
from lungfish import OrchestrationContext
from lungfish.entities import Entity
from lungfish.runtime.errors import UsageError
from lungfish.runtime.messages.messages import Call, CancelCall
from lungfish.testing import Environment, environment
from tests.unit.entities.fakes import CLIENT_ID, Host, error, value, virtually

NOW_MS = 1_000_000

app = lungfish.App("deadlines")


@app.entity
class Store(Entity):
    total: int = 0

    def add(self, n: int) -> int:
        self.total += n
        return self.total

    def wait(self, timeout: float) -> float:
        """Take an argument that is called as ours is."""
        return timeout

    async def slow(self) -> int:
        await asyncio.sleep(1)
        self.total += 100
        return self.total

    async def ask(self) -> int:
        return await self.context.entity(Store, "b").call(Store.add, 1)

    async def ask_briefly(self) -> int:
        return int(await self.context.entity(Store, "b").call(Store.add, 1, timeout=dt.timedelta(seconds=2)))

    async def ask_in_vain(self) -> str:
        try:
            async with asyncio.timeout(3):
                await self.context.entity(Store, "b").call(Store.add, 1)
        except TimeoutError:
            return "gave up"
        return "answered"

    async def own(self) -> float:
        return await self.context.entity(Store, "b").call(Store.wait, timeout=0.5)

    async def wrong(self) -> int:
        return int(await self.context.entity(Store, "b").call(Store.add, 1, timeout=-1))


@app.orchestration
async def holder(ctx: OrchestrationContext) -> None:
    async with ctx.lock(ctx.entity(Store, "a")):
        ctx.set_custom_status("holds")
        await ctx.wait_for_external_event("leave")


@app.orchestration
async def caller(ctx: OrchestrationContext, how: str) -> str:
    ref = ctx.entity(Store, "a")
    try:
        if how == "deadline":
            await ref.call(Store.add, 1, timeout=5)
        else:
            async with asyncio.timeout(5):
                await ref.call(Store.add, 1)
    except lungfish.DeadlineExceeded:
        return "dropped"
    except TimeoutError:
        return "timed out"
    return "answered"


# --- entities ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "deadline_ms", "inherited_ms"),
    [
        ("ask", 0, 30_000),
        ("ask", NOW_MS + 4_000, 4_000),
        ("ask", -4_000, 4_000),
        ("ask", NOW_MS + 90_000, 30_000),
        ("ask_briefly", 0, 2_000),
        ("ask_briefly", NOW_MS + 1_000, 1_000),
    ],
)
def test_a_call_waits_no_longer_than_who_asked(operation: str, deadline_ms: int, inherited_ms: int) -> None:
    async def scenario() -> None:
        host = Host(Store, app=app)
        request = host.ask(operation, deadline_ms=deadline_ms)
        await host.settle()
        (call,) = host.calls
        assert call.deadline_ms == NOW_MS + inherited_ms
        host.respond(call.request, 5)
        await host.settle()
        assert value(host.answer(request)) == 5

    virtually(scenario())


def test_a_parameter_that_is_called_timeout_is_the_operations() -> None:
    async def scenario() -> None:
        host = Host(Store, app=app)
        host.ask("own")
        await host.settle()
        (call,) = host.calls
        assert call.deadline_ms == NOW_MS + 30_000
        store = Host(Store, app=app)
        assert value(store.call("wait", timeout=0.5)) == 0.5
        refused = host.ask("wrong")
        host.respond(call.request, 0.5)
        await host.settle()
        assert error(host.answer(refused)) == UsageError.__name__

    virtually(scenario())


def test_an_expired_call_is_answered_and_not_run() -> None:
    host = Host(Store, app=app)
    late = host.ask("add", 1, deadline_ms=-500)
    host.effects.now_ms += 501
    host.run()
    assert error(host.answer(late)) == "DeadlineExceeded"
    assert value(host.call("add", 1)) == 1


def test_an_operation_that_gives_up_withdraws_its_call() -> None:
    async def scenario() -> None:
        host = Host(Store, app=app)
        request = host.ask("ask_in_vain")
        await host.settle()
        await asyncio.sleep(4)
        await host.settle()
        assert value(host.answer(request)) == "gave up"
        (call,) = host.calls
        cancels = [message for message in host.effects.sent if isinstance(message, CancelCall)]
        assert cancels == [CancelCall(call.target, call.request, host.actor)]

    virtually(scenario())


def test_a_host_that_stops_withdraws_nothing() -> None:
    async def scenario() -> None:
        host = Host(Store, app=app)
        host.ask("ask")
        await host.settle()
        await host.crash()
        assert not [message for message in host.effects.sent if isinstance(message, CancelCall)]

    virtually(scenario())


def test_only_what_waits_is_cancelled() -> None:
    async def scenario() -> None:
        host = Host(Store, app=app)
        running, waiting, other = host.ask("slow"), host.ask("add", 1), host.ask("add", 10)
        await host.settle()
        for request in (running, waiting, "unknown"):
            host.accept(CancelCall(host.actor, request, CLIENT_ID))
        host.accept(CancelCall(host.actor, other, host.actor))  # not the one who asked
        await host.settle()
        await asyncio.sleep(2)
        await host.settle()
        assert value(host.answer(running)) == 100
        assert not host.answered(waiting)
        assert value(host.answer(other)) == 110

    virtually(scenario())


# --- through a runtime -----------------------------------------------------------------------------


async def held(env: Environment) -> lungfish.OrchestrationHandle[None]:
    handle = await env.client.start(holder)
    while (await handle.status()).custom_status != "holds":
        await asyncio.sleep(0.002)
    return handle


async def waiting_calls(env: Environment, count: int) -> None:
    async with asyncio.timeout(20):
        while (await env.client.entity(Store, "a").inspect()).operations != count:
            await asyncio.sleep(0.002)


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
async def test_a_clients_call_that_nobody_waits_for_is_not_started(how: str) -> None:
    async with environment(app) as env:
        env.auto_skip = False
        handle = await held(env)
        ref = env.client.entity(Store, "a")
        if how == "cancelled":
            call = asyncio.create_task(ref.call(Store.add, 1))
            await waiting_calls(env, 1)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        else:
            with pytest.raises(lungfish.DeadlineExceeded):
                await ref.call(Store.add, 1, timeout=0.2)
        await waiting_calls(env, 0)
        await handle.raise_event("leave")
        assert await ref.call(Store.add, 10) == 10


@pytest.mark.parametrize("always_replay", [True, False])
@pytest.mark.parametrize(("how", "outcome"), [("asyncio", "timed out"), ("deadline", "dropped")])
async def test_an_orchestrations_call_that_nobody_waits_for_is_not_started(
    how: str, outcome: str, always_replay: bool
) -> None:
    async with environment(app, always_replay=always_replay) as env:
        env.auto_skip = False
        handle = await held(env)
        instance = await env.client.start(caller, how)
        await waiting_calls(env, 1)
        await env.advance(6)
        if how == "asyncio":
            assert await instance.result(20) == outcome
            await waiting_calls(env, 0)
        await handle.raise_event("leave")
        assert await instance.result(20) == outcome
        assert await env.client.entity(Store, "a").call(Store.add, 10) == 10


def test_a_call_without_a_deadline_never_expires() -> None:
    host = Host(Store, app=app)
    host.accept(Call(host.actor, "add", b"\x92\x91\x01\x80", "r", CLIENT_ID))
    host.effects.now_ms += 10**9
    host.run()
    assert value(host.answer("r")) == 1
