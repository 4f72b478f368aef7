"""Middleware on a real store: both clients, another host, attempts in threads, and HTTP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import lungfish
from lungfish import CallNext, Incoming, OrchestrationContext, Outgoing, Refused
from lungfish.runtime.on_redis.open_store import open_store
from tests.local import RunApp
from tests.servers import Server

USER = "ada"


def app_of(form: str) -> lungfish.App:
    """Return an app whose senders name a user, and whose entities let only one in."""
    app = lungfish.App("middleware")
    app.entity(Safe)

    def check(turn: Incoming) -> None:
        if turn.headers.get("user") != USER:
            raise Refused(f"{turn.key} is not for {turn.headers.get('user')}")

    @app.sending_middleware
    async def names_the_user(sent: Outgoing, call_next: CallNext) -> Any:
        sent.headers.setdefault("user", USER)
        return await call_next()

    if form == "yielding":

        @app.operation_middleware
        def yielding(turn: Incoming) -> Iterator[None]:
            check(turn)
            yield

    else:

        @app.operation_middleware
        async def waiting(turn: Incoming, call_next: CallNext) -> Any:
            await asyncio.sleep(0)
            check(turn)
            return await call_next()

    @app.activity_middleware
    def notes_the_thread(attempt: lungfish.ActivityInfo) -> Iterator[None]:
        THREADS.append(threading.current_thread() is threading.main_thread())
        yield

    @app.activity
    def work(key: str) -> str:
        return key

    @app.orchestration
    async def puts(ctx: OrchestrationContext, key: str) -> int:
        await ctx.call_activity(work, key)
        found: int = await ctx.entity(Safe, key).call(Safe.put, 1)
        return found

    return app


THREADS: list[bool] = []


class Safe(lungfish.Entity):
    value: int = 0

    def put(self, n: int) -> int:
        self.value += n
        return self.value


@pytest.mark.parametrize("form", ["yielding", "waiting"])
async def test_only_one_user_is_let_in(run_app: RunApp, valkey: Server, hub_name: str, form: str) -> None:
    app = app_of(form)
    THREADS.clear()
    async with run_app(app) as runtime:
        safe = runtime.client.entity(Safe, "s")
        assert await safe.call(Safe.put, 1) == 1
        with lungfish.sending({"user": "eve"}):
            await safe.signal_many(Safe.put, [(10,)] * 3)
            with pytest.raises(Refused, match="s is not for eve"):
                await safe.call(Safe.put, 10)
            with pytest.raises(lungfish.OrchestrationFailed, match="o is not for eve"):
                await runtime.client.run("puts", "o", timeout=60)
        assert await runtime.client.run("puts", "s", timeout=60) == 2
    assert THREADS == [False, False]
    async with run_app(app) as runtime:  # another host has it, too
        safe = runtime.client.entity(Safe, "s")
        with lungfish.sending({"user": "eve"}), pytest.raises(Refused):
            await safe.call(Safe.put, 10)
        assert await safe.call(Safe.put, 1) == 3
        assert await runtime.client.entity(Safe, "o").state() is None

        def blocking() -> int:
            client = lungfish.BlockingClient(lungfish.Client(lambda: open_store(valkey.url, hub_name), app))
            with client:
                with lungfish.sending({"user": "eve"}), pytest.raises(Refused):
                    client.entity(Safe, "s").call(Safe.put, 10)
                return client.entity(Safe, "s").call(Safe.put, 1)

        assert await asyncio.to_thread(blocking) == 4
        told = [sample for _, samples in runtime.samples() for sample in samples]
        assert [each.value for each in told if each.metric.name == "lungfish_host_refused_total"] == [2]
