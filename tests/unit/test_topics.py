"""Topics in a whole runtime: who gets what, in which order, and until when."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

import lungfish
from lungfish.entities import topic as topics
from lungfish.runtime.errors import LimitExceeded
from lungfish.testing import crash_everywhere, environment

app = lungfish.App("topics")


@app.entity
class Reader(lungfish.Entity):
    read: list[Any] = []

    def take(self, value: Any) -> None:
        self.read.append(value)

    def take_twice(self, value: Any) -> None:
        self.read += [value, value]

    def refuse(self, value: Any) -> None:
        raise ValueError(value)

    def follow(self, topic: str, operation: str = "take") -> None:
        self.context.topic(topic).subscribe(operation)

    def leave(self, topic: str) -> None:
        self.context.topic(topic).unsubscribe()

    def say(self, topic: str, values: list[Any]) -> None:
        for value in values:
            self.context.topic(topic).publish(value)

    def say_and_fail(self, topic: str, value: Any) -> None:
        self.context.topic(topic).publish(value)
        raise ValueError("no")

    @lungfish.shared
    def look(self, topic: str) -> None:
        self.context.topic(topic).subscribe("take")


@app.orchestration
async def listen(ctx: lungfish.OrchestrationContext, topic: str, count: int) -> list[Any]:
    await ctx.topic(topic).subscribe("news")
    ctx.entity(Reader, "seen").signal(Reader.take, "subscribed")
    return [await ctx.wait_for_external_event("news") for _ in range(count)]


@app.orchestration
async def speak(ctx: lungfish.OrchestrationContext, topic: str, values: list[Any]) -> None:
    for value in values:
        ctx.topic(topic).publish(value)
    await ctx.sleep(1)


async def read(client: lungfish.Client, key: str) -> list[Any]:
    state = await client.entity(Reader, key).state()
    return [] if state is None else state.read


async def test_from_everywhere_to_everywhere() -> None:
    async with environment(app) as env:
        client = env.client
        topic = client.topic("orders")
        await topic.subscribe(client.entity(Reader, "a"), Reader.take)
        await client.entity(Reader, "b").call(Reader.follow, "orders", "take_twice")
        listener = await client.start(listen, "orders", 4)
        while await read(client, "seen") != ["subscribed"]:
            await env.advance(0)
        await topic.publish(1)
        await topic.publish_many([2, "three"])
        await client.entity(Reader, "c").call(Reader.say, "orders", [dt.date(2026, 1, 1)])
        await env.advance(0)
        values = [1, 2, "three", dt.date(2026, 1, 1)]
        assert await listener.result() == values
        await (await client.start(speak, "orders", [{"n": 5}])).result()
        assert await read(client, "a") == [*values, {"n": 5}]
        assert await read(client, "b") == [value for one in [*values, {"n": 5}] for value in (one, one)]


async def test_order_is_that_of_the_publisher() -> None:
    async with environment(app) as env:
        for n in range(300):
            await env.client.topic("t").subscribe(env.client.entity(Reader, f"r{n}"), "take")
        await env.client.topic("t").publish_many(range(50))
        await env.client.entity(Reader, "p").call(Reader.say, "t", [f"e{n}" for n in range(50)])
        await env.advance(0)
        for n in range(300):
            found = await read(env.client, f"r{n}")
            assert [value for value in found if isinstance(value, int)] == list(range(50))
            assert [value for value in found if isinstance(value, str)] == [f"e{n}" for n in range(50)]


async def test_a_topic_with_many_subscribers_is_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "PARTS", 4)
    monkeypatch.setattr(topics, "PART_MAX", 60)
    async with environment(app) as env:
        topic = env.client.topic("t")
        refs = [env.client.entity(Reader, f"r{n}") for n in range(330)]
        for ref in refs:
            await topic.subscribe(ref, "take")
            await topic.subscribe(ref, "take")  # once more changes nothing
        await topic.publish("all")
        for ref in refs[:200]:
            await topic.unsubscribe(ref)
        await topic.publish("the rest")
        await env.advance(0)
        assert [await read(env.client, ref.key) for ref in refs] == [["all"]] * 200 + [
            ["all", "the rest"]
        ] * 130
        for ref in refs:
            await topic.unsubscribe(ref)
        await env.advance(0)
        for part in range(4):
            assert await env.client.entity(topics.PART, f"{part}/t").state() is None


async def test_a_full_topic_says_so_and_takes_subscribers_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "PARTS", 1)
    monkeypatch.setattr(topics, "PART_MAX", 10)
    monkeypatch.setattr(topics, "OWN_MAX", 5)
    async with environment(app) as env:
        topic = env.client.topic("t")
        refs = [env.client.entity(Reader, f"r{n}") for n in range(16)]
        for ref in refs[:15]:
            await topic.subscribe(ref, "take")
        await env.advance(0)
        with pytest.raises(LimitExceeded, match="takes no more"):
            await topic.subscribe(refs[15], "take")
        await topic.unsubscribe(refs[14])
        await env.advance(0)
        await topic.subscribe(refs[15], "take")
        await topic.publish("x")
        await env.advance(0)
        assert [len(await read(env.client, ref.key)) for ref in refs] == [1] * 14 + [0, 1]


async def test_unsubscribed_means_nothing_more_and_nothing_left() -> None:
    async with environment(app) as env:
        reader = env.client.entity(Reader, "a")
        await reader.call(Reader.follow, "t")
        await env.advance(0)
        await env.client.topic("t").publish(1)
        await env.advance(0)
        await reader.call(Reader.leave, "t")
        await env.advance(0)
        await env.client.topic("t").publish(2)
        await env.advance(0)
        assert await read(env.client, "a") == [1]
        assert await env.client.entity(topics.TOPIC, "t").state() is None


async def test_a_subscription_ends_with_its_orchestration() -> None:
    async with environment(app) as env:
        topic = env.client.topic("t")
        listener = await env.client.start(listen, "t", 1, id="l")
        while await read(env.client, "seen") != ["subscribed"]:
            await env.advance(0)
        await topic.publish("x")
        assert await listener.result() == ["x"]
        await env.advance(0)
        assert await env.client.entity(topics.TOPIC, "t").state() is None
        # One that has ended, or never was, is not subscribed for long either.
        for id in ("l", "never"):
            await topic.subscribe(env.client.orchestration(id), "news")
            await env.advance(0)
            assert await env.client.entity(topics.TOPIC, "t").state() is None


async def test_what_fails_publishes_nothing_and_a_failing_subscriber_harms_nobody() -> None:
    async with environment(app) as env:
        await env.client.entity(Reader, "bad").call(Reader.follow, "t", "refuse")
        await env.client.entity(Reader, "good").call(Reader.follow, "t")
        with pytest.raises(lungfish.EntityOperationFailed):
            await env.client.entity(Reader, "p").call(Reader.say_and_fail, "t", "never")
        await env.client.entity(Reader, "p").call(Reader.say, "t", ["always"])
        await env.advance(0)
        assert await read(env.client, "good") == ["always"]
        assert await read(env.client, "bad") == []


async def test_mistakes_are_found_where_they_are_made() -> None:
    async with environment(app) as env:
        topic: Any = env.client.topic("t")
        reader: Any = env.client.entity(Reader, "a")
        with pytest.raises(lungfish.NotRegistered):
            await topic.subscribe(reader, "nonsense")
        with pytest.raises(lungfish.UsageError, match="event's name"):
            await topic.subscribe(env.client.orchestration("o"), Reader.take)
        with pytest.raises(lungfish.UsageError, match="a subscriber is"):
            await topic.subscribe("a", "take")
        with pytest.raises(lungfish.SerializationError):
            await topic.publish(object())
        with pytest.raises(lungfish.InvalidId):
            env.client.topic("")
        with pytest.raises(lungfish.NotRegistered):
            await reader.call(Reader.follow, "t", "nonsense")
        with pytest.raises(lungfish.UsageError, match="shared"):
            await reader.call(Reader.look, "t")
        assert await env.client.entity(topics.TOPIC, "t").state() is None


async def scenario(client: lungfish.Client) -> list[Any]:
    topic = client.topic("t")
    await topic.subscribe(client.entity(Reader, "a"), Reader.take)
    await topic.subscribe(client.entity(Reader, "b"), Reader.take)
    listener = await client.start(listen, "t", 4, id="l")
    while await read(client, "seen") != ["subscribed"]:
        await client.entity(Reader, "x").call(Reader.say, "nobody", [])
    await topic.publish_many([1, 2])
    speaker = await client.start(speak, "t", [3, 4], id="s")
    await speaker.result()
    return [await listener.result(), *[await read(client, key) for key in "ab"]]


def test_a_crash_anywhere_neither_loses_nor_doubles_nor_reorders() -> None:
    assert crash_everywhere(app, scenario).outcome == [[1, 2, 3, 4]] * 3
