"""Broadcasts in a whole runtime: who gets what, how often, and what crashes do to that."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import lungfish
from lungfish.entities import broadcast as broadcasts
from lungfish.runtime.client.broadcasts import ARGUMENTS_MAX, BROADCAST, request
from lungfish.runtime.ids import ENTITY, ActorId, partition_of
from lungfish.runtime.store.layout import spread_keys
from lungfish.testing import crash_everywhere, environment

app = lungfish.App("broadcasts")


@app.entity
class Box(lungfish.Entity):
    got: list[Any] = []

    def take(self, value: Any = None, *, by: str = "") -> None:
        self.got.append(value)

    def tell(self) -> None:
        self.got.append(self.context.caller)

    def refuse(self, key: str) -> None:
        self.got.append("not kept")
        if self.context.key == key:
            raise ValueError(key)

    def cast(self, value: Any, prefix: str = "") -> None:
        self.context.broadcast(Box, Box.take, value, prefix=prefix)

    def cast_tell(self) -> None:
        self.context.broadcast(Box, Box.tell)

    def cast_and_fail(self) -> None:
        self.context.broadcast(Box, "take", 1)
        raise ValueError("no")

    def clear(self) -> None:
        self.context.delete()


@app.entity
class Other(lungfish.Entity):
    got: list[Any] = []

    def take(self, value: Any) -> None:
        self.got.append(value)


@app.orchestration
async def caster(ctx: lungfish.OrchestrationContext, values: list[Any], prefix: str) -> None:
    for value in values:
        ctx.broadcast(Box, Box.take, value, prefix=prefix)
    await ctx.sleep(1)


@app.orchestration
async def teller(ctx: lungfish.OrchestrationContext) -> None:
    ctx.broadcast(Box, Box.tell)


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcasts, "PAGE", 3)


async def fill(client: lungfish.Client, keys: list[str]) -> None:
    await asyncio.gather(*[client.entity(Box, key).call(Box.take, key) for key in keys])


async def got(client: lungfish.Client, entity: Any = Box) -> dict[str, list[Any]]:
    return {
        found.key: found.state.got
        async for found in client.entities(entity, states=True)
        if found.state is not None
    }


@pytest.mark.usefixtures("small_pages")
async def test_all_of_a_type_get_it_once_whoever_sends() -> None:
    async with environment(app) as env:
        keys = [f"k{n}" for n in range(200)]
        await fill(env.client, keys)
        await env.client.entity(Other, "k1").call(Other.take, 0)
        await env.client.broadcast(Box, Box.take, 1)
        await env.client.broadcast("Box", "take", value=2)
        await env.advance(0)
        assert await got(env.client) == {key: [key, 1, 2] for key in keys}
        await env.client.entity(Box, "k7").call(Box.cast, 3)
        await env.advance(0)
        await (await env.client.start(caster, [4], "")).result()
        await env.advance(0)
        assert await got(env.client) == {key: [key, 1, 2, 3, 4] for key in keys}
        assert await got(env.client, Other) == {"k1": [0]}


@pytest.mark.usefixtures("small_pages")
async def test_a_prefix_chooses() -> None:
    async with environment(app) as env:
        inside, outside = [f"eu/{n}" for n in range(40)], ["eu", "eu.", "eu0", "us/1", "e", "éu/"]
        await fill(env.client, [*inside, *outside])
        await env.client.broadcast(Box, Box.take, "x", prefix="eu/")
        await env.client.entity(Box, "us/1").call(Box.cast, "y", "eu/")
        await env.advance(0)
        await (await env.client.start(caster, ["z"], "éu")).result()
        await env.advance(0)
        found = await got(env.client)
        assert all(sorted(found[key]) == sorted([key, "x", "y"]) for key in inside)
        assert {key: found[key] for key in outside} == {
            **{key: [key] for key in outside},
            "éu/": ["éu/", "z"],
        }


async def test_who_was_signalled_a_moment_ago_is_there() -> None:
    # Its state may still wait for its commit when the broadcast comes.
    async with environment(app) as env:
        for n in range(100):
            await env.client.entity(Box, f"new{n}").signal(Box.take, "first")
        await env.client.broadcast(Box, Box.take, "all")
        await env.advance(0)
        assert await got(env.client) == {f"new{n}": ["first", "all"] for n in range(100)}


async def test_signals_and_broadcast_in_one_batch() -> None:
    async with environment(app) as env:
        new = [env.client.entity(Box, f"new{n}").signal(Box.take, "first") for n in range(20)]
        await asyncio.gather(*new, env.client.broadcast(Box, Box.take, "all"))
        await env.advance(0)
        assert await got(env.client) == {f"new{n}": ["first", "all"] for n in range(20)}


async def test_the_deleted_get_nothing_and_nothing_is_left_of_a_broadcast() -> None:
    async with environment(app) as env:
        await fill(env.client, ["a", "b"])
        await env.client.entity(Box, "a").call(Box.clear)
        await env.client.broadcast(Box, Box.take, 1)
        await env.client.broadcast(Box, Box.take, 1, prefix="nobody")
        await env.client.broadcast(Other, Other.take, 1)
        await env.advance(0)
        assert await got(env.client) == {"b": ["b", 1]}
        for name in (BROADCAST, broadcasts.PART):
            assert await env.client.count_entities(name) == 0


async def test_a_refusing_entity_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with environment(app) as env:
        await fill(env.client, ["a", "b", "c"])
        await env.client.broadcast(Box, Box.refuse, "b")
        await env.advance(0)
        assert await got(env.client) == {"a": ["a", "not kept"], "b": ["b"], "c": ["c", "not kept"]}
        assert "were rolled back" in caplog.text


async def test_what_is_rolled_back_casts_nothing_and_the_caster_is_known() -> None:
    async with environment(app) as env:
        await fill(env.client, ["a"])
        with pytest.raises(lungfish.EntityOperationFailed):
            await env.client.entity(Box, "a").call(Box.cast_and_fail)
        await env.advance(0)
        assert await got(env.client) == {"a": ["a"]}
        await env.client.broadcast(Box, Box.tell)
        await env.client.entity(Box, "b").call(Box.cast_tell)
        await env.advance(0)
        await (await env.client.start(teller, id="run")).result()
        await env.advance(0)
        found = await got(env.client)
        assert sorted(map(str, found["a"])) == ["Box/b", "None", "a", "run"]


async def test_mistakes_are_found_where_they_are_made() -> None:
    async with environment(app) as env:
        cast: Any = env.client.broadcast
        with pytest.raises(lungfish.NotRegistered):
            await cast(Box, "nonsense")
        with pytest.raises(lungfish.InvalidArguments):
            await cast(Box, Box.take, 1, 2)
        with pytest.raises(lungfish.InvalidArguments):
            await cast(Box, Box.take, prefix=7)
        with pytest.raises(lungfish.UsageError, match="an entity is"):
            await cast(7, "take")
        with pytest.raises(lungfish.UsageError, match="an operation is"):
            await cast(Box, 7)
        with pytest.raises(lungfish.InvalidId):
            await cast("", "take")
        with pytest.raises(lungfish.SerializationError):
            await cast(Box, Box.take, object())
        with pytest.raises(lungfish.PayloadTooLarge, match="65,536"):
            await cast(Box, Box.take, "x" * ARGUMENTS_MAX)


def test_a_request_has_room_for_the_largest_arguments() -> None:
    assert len(request("Box", "take", b"x" * ARGUMENTS_MAX, "p" * 512)) < ARGUMENTS_MAX + 1_200


@pytest.mark.parametrize("partitions", [1, 2, 3, 7, 32, 255, 256, 1_000, 4_096])
def test_every_partition_has_a_part(partitions: int) -> None:
    keys = spread_keys(broadcasts.PART, partitions)
    assert [partition_of(ActorId(ENTITY, broadcasts.PART, key), partitions) for key in keys] == list(
        range(partitions)
    )


async def scenario(client: lungfish.Client) -> Any:
    keys = [f"k{n}" for n in range(12)]
    await fill(client, keys)
    await client.broadcast(Box, Box.take, "c")
    await client.entity(Box, "k3").call(Box.cast, "e")
    await (await client.start(caster, ["o"], "k1")).result()
    while True:
        found = {key: sorted(values) for key, values in (await got(client)).items()}
        if all("c" in found[key] and "e" in found[key] for key in keys) and "o" in found["k11"]:
            break
        await client.entity(Other, "tick").call(Other.take, 0)
    return found


def test_a_crash_anywhere_neither_loses_nor_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcasts, "PAGE", 1)
    report = crash_everywhere(app, scenario)
    for key, values in report.outcome.items():
        assert values == sorted([key, "c", "e", *["o"] * key.startswith("k1")])
