"""Headers travel with messages, and on from there; nothing else of a context does."""

from __future__ import annotations

import asyncio
import dataclasses
from contextvars import ContextVar
from typing import Any

import pytest

import lungfish
from lungfish import OrchestrationContext
from lungfish.runtime.ids import CLIENT, ENTITY, ActorId
from lungfish.runtime.messages import wire
from lungfish.runtime.messages.headers import HEADERS_BYTES_MAX
from lungfish.runtime.messages.messages import ActivityTask, Call, RaiseEvent, Signal, Start
from lungfish.testing import crash_everywhere, environment

app = lungfish.App("headers")
user: ContextVar[int] = ContextVar("user")
app.propagate(user, name="user", encode=str, decode=int)
unrelated: ContextVar[str] = ContextVar("unrelated", default="nothing")


def here() -> list[Any]:
    return [dict(lungfish.headers()), user.get(None), unrelated.get()]


@app.entity
class Seen(lungfish.Entity):
    log: list[Any] = []

    def note(self) -> list[Any]:
        self.log.append(here())
        return here()

    async def note_slowly(self) -> list[Any]:
        await asyncio.sleep(0)
        return here()

    async def ask(self, key: str) -> list[Any]:
        return [here(), await self.context.entity(Seen, key).call(Seen.note)]

    def tell(self, key: str) -> None:
        self.context.entity(Seen, key).signal(Seen.note)

    def tell_as(self, key: str, who: int) -> None:
        user.set(who)
        with lungfish.sending({"extra": "yes"}):
            self.context.entity(Seen, key).signal(Seen.note)

    def begin(self) -> None:
        self.context.start(outer, 0, id="begun")

    @lungfish.shared
    def lines(self) -> list[Any]:
        return self.log


@app.activity
def work() -> list[Any]:
    return here()


@app.activity
async def work_async() -> list[Any]:
    await asyncio.sleep(0)
    return here()


@app.activity(retry=lungfish.RetryPolicy(max_attempts=3))
def flaky() -> list[Any]:
    if lungfish.activity_info().attempt < 3:
        raise ValueError("not yet")
    return here()


@app.orchestration
async def persistent(ctx: OrchestrationContext) -> list[Any]:
    return await ctx.call_activity(flaky)


@app.orchestration
async def inner(ctx: OrchestrationContext) -> list[Any]:
    return here()


@app.orchestration
async def outer(ctx: OrchestrationContext, again: int) -> list[Any]:
    if again:
        ctx.continue_as_new(again - 1)
        return []
    first = await ctx.call_activity(work)
    await ctx.sleep(60)
    rest = await asyncio.gather(
        ctx.call_activity(work_async),
        ctx.entity(Seen, "o").call(Seen.note),
        ctx.call_orchestration(inner, id=f"{ctx.instance_id}-inner"),
    )
    with lungfish.sending({"extra": "o"}):
        special = await ctx.call_activity(work)
    return [here(), first, *rest, special]


EMPTY: list[Any] = [{}, None, "nothing"]
SENT: list[Any] = [{"trace": "t1", "user": "7"}, 7, "nothing"]


def travelling() -> Any:
    user.set(7)
    unrelated.set("stays here")
    return lungfish.sending({"trace": "t1"})


async def test_without_headers_there_are_none() -> None:
    async with environment(app) as env:
        seen = env.client.entity(Seen, "a")
        assert await seen.call(Seen.note) == EMPTY
        assert await seen.call(Seen.note_slowly) == EMPTY
        assert await env.client.run(outer, 0) == [EMPTY] * 5 + [[{"extra": "o"}, None, "nothing"]]


async def test_calls_signals_and_what_follows_from_them() -> None:
    async with environment(app) as env:
        client = env.client
        seen = client.entity(Seen, "a")
        with travelling():
            assert await seen.call(Seen.note) == SENT
            assert await seen.call(Seen.note_slowly) == SENT
            assert await seen.call(Seen.ask, "b") == [SENT, SENT]
            await seen.signal(Seen.tell, "c")
            await seen.signal_many(Seen.tell, [("c",), ("c",)])
            await seen.signal(Seen.tell_as, "d", 8)
            await seen.call(Seen.begin)
        while len(await client.entity(Seen, "c").call(Seen.lines)) < 3:
            await asyncio.sleep(0)
        assert await client.entity(Seen, "c").call(Seen.lines) == [SENT] * 3
        while not (told := await client.entity(Seen, "d").call(Seen.lines)):
            await asyncio.sleep(0)
        assert told == [[{"trace": "t1", "user": "8", "extra": "yes"}, 8, "nothing"]]
        assert (await client.orchestration("begun").result())[:5] == [SENT] * 5
        user.set(7)
        assert await seen.call(Seen.note) == [{"user": "7"}, 7, "nothing"]


@pytest.mark.parametrize("always_replay", [True, False])
@pytest.mark.parametrize("again", [0, 2])
async def test_an_orchestration_keeps_what_it_was_started_with(always_replay: bool, again: int) -> None:
    async with environment(app, always_replay=always_replay) as env:
        with travelling():
            handle = await env.client.start(outer, again)
        user.set(99)
        special = [{**SENT[0], "extra": "o"}, 7, "nothing"]
        assert await handle.result() == [*[SENT] * 5, special]


async def test_headers_are_bounded_where_they_are_sent() -> None:
    async with environment(app) as env:
        seen = env.client.entity(Seen, "a")
        with pytest.raises(lungfish.PayloadTooLarge), lungfish.sending({"x": "y" * HEADERS_BYTES_MAX}):
            pass
        for bad in ({"x": 1}, {1: "x"}, {"": "x"}, {"a\nb": "x"}, ["x"]):
            with pytest.raises(lungfish.UsageError), lungfish.sending(bad):  # type: ignore[arg-type]
                pass
        with lungfish.sending({"x": "y" * (HEADERS_BYTES_MAX - 1)}):
            user.set(7)
            with pytest.raises(lungfish.PayloadTooLarge):
                await seen.call(Seen.note)
        assert await seen.call(Seen.lines) == []


async def test_a_header_that_cannot_be_read_is_refused_typed() -> None:
    async with environment(app) as env:
        seen = env.client.entity(Seen, "a")
        with lungfish.sending({"user": "nobody"}):
            for operation in (Seen.note, Seen.note_slowly):
                with pytest.raises(lungfish.UsageError, match="user"):
                    await seen.call(operation)
            handle = await env.client.start(outer, 0)
        with pytest.raises(lungfish.OrchestrationFailed, match="user"):
            await handle.result()
        assert await seen.call(Seen.lines) == []


def test_a_variable_is_registered_once() -> None:
    other = app.with_hub("other")
    with pytest.raises(lungfish.UsageError, match="user"):
        other.propagate(user, name="user")


def test_a_crash_anywhere_changes_nothing() -> None:
    async def scenario(client: lungfish.Client) -> Any:
        with lungfish.sending({"trace": "t1"}):
            asked = await client.entity(Seen, "a").call(Seen.ask, "b")
            return asked, await client.run(outer, 1, id="o"), await client.run(persistent, id="p")

    traced = [{"trace": "t1"}, None, "nothing"]
    assert crash_everywhere(app, scenario).outcome[2] == traced


TARGET, ME = ActorId(ENTITY, "A", "a"), ActorId(CLIENT, "", "c")


@pytest.mark.parametrize(
    "message",
    [
        Signal(TARGET, "o", b"x"),
        Call(TARGET, "o", b"x", "1", ME),
        Start(TARGET, "o", b"x"),
        RaiseEvent(TARGET, "o", b"x"),
        ActivityTask(TARGET, "e", 1, 1, "n", b"x", "k"),
    ],
)
def test_no_byte_travels_where_there_are_none(message: Any) -> None:
    with_headers = dataclasses.replace(message, headers=("a", "b"))
    read = wire.unpack_task if isinstance(message, ActivityTask) else lambda packed: wire.unpack(packed)[0]
    assert read(wire.pack([message])) == message
    assert read(wire.pack([with_headers])) == with_headers
    assert len(wire.to_row(with_headers)) == len(wire.to_row(message)) + 1
