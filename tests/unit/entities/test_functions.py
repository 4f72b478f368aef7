"""Entities that are one function: the same guarantees as those of classes."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

import lungfish
from lungfish.entities.functions import KNOWN_MAX
from lungfish.testing import environment

app = lungfish.App("functions")


class Line(BaseModel):
    name: str
    count: int = 1


@app.entity_function
def counter(context: lungfish.FunctionContext) -> Any:
    match context.operation_name:
        case "add":
            context.set_state(context.get_state(lambda: 0) + context.get_input())
            context.set_result(context.get_state())
        case "get":
            return context.get_state(lambda: 0)
        case "is_new":
            return context.is_newly_constructed
        case "reset":
            context.destruct_on_exit()
        case "who":
            return [context.entity_name, context.entity_key, context.operation_name, context.get_input()]
        case "fail":
            context.set_state(1_000)
            context.context.signal(("counter", "other"), "add", 1)
            raise ValueError("no")
        case "tell":
            context.context.signal(("counter", "other"), "add", context.get_input())
        case "zero":
            context.set_state(0)
        case "bad":
            context.set_state(object())
    return None


@app.entity_function(name="cart")
async def cart_of_lines(context: lungfish.FunctionContext) -> Any:
    lines = context.get_state(list, list[Line])
    match context.operation_name:
        case "put":
            lines.append(Line(name=context.get_input(str)))
            context.set_state(lines)
        case "peek":
            lines.clear()
        case "ask":
            return await context.context.entity("counter", "c").call("add", 5)
    return [type(line).__name__ for line in context.get_state(list, list[Line])]


async def test_durable_functions_counter() -> None:
    async with environment(app) as env:
        ref = env.client.entity("counter", "c")
        assert await ref.call("is_new") is True
        assert await ref.state() is None
        assert await ref.call("add", 5) == 5
        assert await ref.call("is_new") is False
        await ref.signal("add", 2)
        await ref.signal_many("add", [[1]] * 10)
        assert await ref.call("get") == 17
        assert await ref.call("who", {"a": 1}) == ["counter", "c", "who", {"a": 1}]
        assert await ref.call("who") == ["counter", "c", "who", None]
        assert await ref.call("who", 1, 2) == ["counter", "c", "who", [1, 2]]
        await ref.call("reset")
        assert await ref.state() is None
        assert await ref.call("get") == 0


async def test_what_raises_is_rolled_back_with_its_messages() -> None:
    async with environment(app) as env:
        ref = env.client.entity("counter", "c")
        await ref.call("add", 1)
        with pytest.raises(lungfish.EntityOperationFailed, match="no"):
            await ref.call("fail")
        with pytest.raises(lungfish.LungfishError):
            await ref.call("bad")
        assert await ref.call("get") == 1
        assert await env.client.entity("counter", "other").state() is None
        await ref.call("tell", 3)
        assert await env.client.entity("counter", "other").call("get") == 3


async def test_falsy_is_not_deleted() -> None:
    async with environment(app) as env:
        ref = env.client.entity("counter", "c")
        await ref.call("zero")
        state = await ref.state()
        assert state is not None
        assert state.state == 0
        assert await ref.call("is_new") is False


async def test_an_async_function_with_a_typed_state_that_is_the_same_after_a_takeover() -> None:
    async with environment(app, hosts=2) as env:
        ref = env.client.entity("cart", "c")
        assert await ref.call("put", "a") == ["Line"]
        assert await ref.call("peek") == ["Line"]
        with pytest.raises(lungfish.InvalidArguments):
            await ref.call("put", 5)
        assert await ref.call("ask") == 5
        for host in env._hosts.values():
            for part in host.partitions:
                part.passivate(10**15, most=100)
        assert await ref.call("put", "b") == ["Line", "Line"]


def generator(context: Any) -> Any:
    yield context


@pytest.mark.parametrize("function", [generator, lambda: None, lambda a, b: None, 5])
def test_what_cannot_be_an_entity_is_refused(function: Any) -> None:
    with pytest.raises(lungfish.UsageError):
        lungfish.App("wrong").entity_function(function, name="wrong")


def test_a_name_can_be_taken_once() -> None:
    with pytest.raises(lungfish.UsageError, match="already"):
        app.entity_function(lambda context: None, name="counter")


def test_names_of_clients_do_not_pile_up() -> None:
    definition = app.find_entity("counter")
    for number in range(KNOWN_MAX + 5):
        assert definition.find(f"op{number}").name == f"op{number}"
    assert len(definition.operations) <= KNOWN_MAX
    with pytest.raises(lungfish.InvalidId):
        definition.find("")
