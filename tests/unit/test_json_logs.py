"""Log lines as JSON: ids are fields, replay is silent, and no record is lost for what is in it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

import lungfish
import lungfish.testing
from lungfish.logging import JsonFormatter

app = lungfish.App("logs")


@app.activity
def buy(what: str) -> str:
    logging.getLogger("shop").warning("buying %s", what, extra={"price": 7})
    return what


@app.orchestration
async def shop(ctx: lungfish.OrchestrationContext, what: str) -> str:
    ctx.logger.warning("wants %s", what)
    bought = await ctx.call_activity(buy, what)
    await ctx.sleep(60)
    ctx.logger.warning("has %s", bought)
    return bought


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is logged as JSON during the test."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter(hub="logs", node="a"))
    logging.getLogger().addHandler(handler)
    yield stream
    logging.getLogger().removeHandler(handler)


def read(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


async def test_ids_are_fields_and_replay_says_nothing(lines: io.StringIO) -> None:
    async with lungfish.testing.environment(app, always_replay=True) as env:
        order = await env.client.start(shop, "tea", id="order-1")
        assert await order.result(600) == "tea"
    told = read(lines)
    assert [line["message"] for line in told] == ["wants tea", "buying tea", "has tea"]
    assert {line["instance_id"] for line in told} == {"order-1"}
    assert all(line["hub"] == "logs" and line["node"] == "a" for line in told)
    first, bought, last = told
    assert (first["orchestration"], first["level"]) == ("shop", "WARNING")
    assert first["execution_id"] == last["execution_id"] != ""
    assert (bought["activity"], bought["attempt"], bought["price"]) == ("buy", 1, 7)
    assert bought["idempotency_key"]
    assert "activity" not in last


def record(**extra: Any) -> logging.LogRecord:
    made = logging.makeLogRecord({"msg": "said %s", "args": ("it",), "levelname": "INFO", "name": "x"})
    vars(made).update(extra)
    return made


class Rude:
    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize("value", [object(), {1, 2}, b"\xff", Rude(), {("a", "b"): 1}, float("nan")])
def test_no_value_loses_the_line(value: object) -> None:
    line = JsonFormatter().format(record(value=value, good=1))
    told = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert told["message"] == "said it"
    assert "value" in told


def test_a_cycle_does_not_lose_the_line() -> None:
    cycle: list[object] = []
    cycle.append(cycle)
    assert json.loads(JsonFormatter().format(record(value=cycle)))["message"] == "said it"


def test_an_exception_is_told_on_the_same_line() -> None:
    try:
        raise KeyError("gone")
    except KeyError as error:
        exc_info = (type(error), error, error.__traceback__)
    line = JsonFormatter().format(record(exc_info=exc_info))
    assert "\n" not in line
    assert json.loads(line)["error"] == "KeyError"
    assert "Traceback" in json.loads(line)["traceback"]
