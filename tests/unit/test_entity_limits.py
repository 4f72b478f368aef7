"""What is too large for an entity is refused where it is given, on every way (docs/adr/0041)."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

import lungfish
from lungfish import OrchestrationContext, PayloadTooLarge
from lungfish.runtime.codec import PAYLOAD_BYTES_MAX
from lungfish.testing import Environment, environment

app = lungfish.App("entity-limits")
OVER = PAYLOAD_BYTES_MAX + 1


@app.entity
class Box(lungfish.Entity):
    """Notes how often it was changed."""

    changes: int = 0
    kept: bytes = b""

    def take(self, data: bytes) -> int:
        self.changes += 1
        return len(data)

    def keep(self, data: bytes, times: int) -> None:
        self.changes += 1
        self.kept = data * times

    def give(self, size: int) -> bytes:
        self.changes += 1
        self.context.entity(Box, "told").signal(Box.take, b"")
        return b"x" * size

    async def passes_on(self, how: str, size: int) -> str:
        self.changes += 1
        other = self.context.entity(Box, "other")
        if how == "call":
            await other.call(Box.take, b"x" * size)
        elif how == "signal":
            other.signal(Box.take, b"x" * size)
        elif how == "reminder":
            self.context.set_reminder("r", dt.timedelta(1), operation=Box.take, args=[b"x" * size])
        elif how == "result":
            await other.call(Box.give, size)
        return "done"


@app.orchestration
async def asks(ctx: OrchestrationContext, how: str, size: int) -> str:
    box = ctx.entity(Box, "other")
    try:
        if how == "call":
            await box.call(Box.take, b"x" * size)
        elif how == "signal":
            box.signal(Box.take, b"x" * size)
        elif how == "broadcast":
            ctx.broadcast(Box, Box.take, b"x" * size)
        elif how == "result":
            await box.call(Box.give, size)
        elif how == "state":
            await box.call(Box.keep, b"x", size)
    except PayloadTooLarge as error:
        return str(error)
    except lungfish.EntityOperationFailed as error:
        assert error.details is not None  # noqa: PT017
        assert error.details.is_caused_by(PayloadTooLarge)  # noqa: PT017
        return str(error)
    return "done"


@pytest.fixture(params=[True, False], ids=["always_replay", "live"])
async def env(request: pytest.FixtureRequest) -> AsyncIterator[Environment]:
    async with environment(app, always_replay=request.param) as env:
        yield env


async def changes(env: Environment, key: str) -> int:
    """Return how often an entity was changed, after all that was sent to it before."""
    await env.client.entity(Box, key).call(Box.take, b"")
    state = await env.client.entity(Box, key).state()
    assert state is not None
    return state.changes - 1


Ways = dict[str, Callable[[Any], Awaitable[Any]]]
LARGE = b"x" * OVER
FROM_A_CLIENT: Ways = {
    "call": lambda box: box.call(Box.take, LARGE),
    "call by name": lambda box: box.call("take", LARGE),
    "signal": lambda box: box.signal(Box.take, LARGE),
    "scheduled signal": lambda box: box.signal(Box.take, LARGE, at=dt.timedelta(1)),
    "signal_many": lambda box: box.signal_many(Box.take, [(b"",), (LARGE,), (b"",)]),
    "signal_many by name": lambda box: box.signal_many("take", [(b"",), (LARGE,), (b"",)]),
}


@pytest.mark.parametrize("way", FROM_A_CLIENT)
async def test_a_large_argument_of_a_client(env: Environment, way: str) -> None:
    with pytest.raises(PayloadTooLarge, match="the limit is 4,194,304"):
        await FROM_A_CLIENT[way](env.client.entity(Box, "a"))
    assert await changes(env, "a") == 0


async def test_a_large_argument_of_a_broadcast(env: Environment) -> None:
    assert await changes(env, "a") == 0
    with pytest.raises(PayloadTooLarge):
        await env.client.broadcast(Box, Box.take, LARGE)
    await env.advance(1)
    state = await env.client.entity(Box, "a").state()
    assert state is not None
    assert state.changes == 1


async def test_many_small_signals_may_be_large_together(env: Environment) -> None:
    box = env.client.entity(Box, "a")
    for operation in (Box.take, "take"):
        await box.signal_many(operation, [(b"x" * 1_000_000,)] * 11)
    assert await changes(env, "a") == 22


@pytest.mark.parametrize("way", ["call", "signal", "broadcast"])
async def test_a_large_argument_of_an_orchestration(env: Environment, way: str) -> None:
    assert "the limit is 4,194,304" in await env.client.run(asks, way, OVER)
    assert await changes(env, "other") == 0


@pytest.mark.parametrize("way", ["call", "signal", "reminder"])
async def test_a_large_argument_of_another_entity_rolls_that_back(env: Environment, way: str) -> None:
    with pytest.raises((PayloadTooLarge, lungfish.EntityOperationFailed), match="the limit is 4,194,304"):
        await env.client.entity(Box, "a").call(Box.passes_on, way, OVER)
    assert await changes(env, "a") == 0
    assert await changes(env, "other") == 0
    assert await env.client.entity(Box, "a").reminders() == {}


async def test_a_large_result_for_a_client_rolls_back(env: Environment) -> None:
    with pytest.raises(PayloadTooLarge, match=r"result of Box.give is .* the limit is 4,194,304"):
        await env.client.entity(Box, "a").call(Box.give, OVER)
    assert await changes(env, "a") == 0
    assert await changes(env, "told") == 0


async def test_a_large_result_for_an_orchestration_rolls_back(env: Environment) -> None:
    assert "the limit is 4,194,304" in await env.client.run(asks, "result", OVER)
    assert await changes(env, "other") == 0
    assert await changes(env, "told") == 0


async def test_a_large_result_for_another_entity_rolls_both_back(env: Environment) -> None:
    with pytest.raises((PayloadTooLarge, lungfish.EntityOperationFailed), match="the limit is 4,194,304"):
        await env.client.entity(Box, "a").call(Box.passes_on, "result", OVER)
    for key in ("a", "other", "told"):
        assert await changes(env, key) == 0


async def test_a_large_state_is_not_stored(env: Environment) -> None:
    with pytest.raises((PayloadTooLarge, lungfish.EntityOperationFailed), match="the limit is"):
        await env.client.entity(Box, "a").call(Box.keep, b"x", OVER)
    assert "the limit is" in await env.client.run(asks, "state", OVER)
    assert await changes(env, "a") == 0
    assert await changes(env, "other") == 0


@pytest.mark.parametrize("size", [PAYLOAD_BYTES_MAX // 2, PAYLOAD_BYTES_MAX - 1_000])
async def test_what_is_just_not_too_large_goes_every_way(env: Environment, size: int) -> None:
    box = env.client.entity(Box, "a")
    assert await box.call(Box.take, b"x" * size) == size
    assert len(await box.call(Box.give, size)) == size
    for way in ("call", "signal", "result"):
        assert await env.client.run(asks, way, size) == "done"
    for way in ("call", "signal", "result"):
        assert await box.call(Box.passes_on, way, size) == "done"
