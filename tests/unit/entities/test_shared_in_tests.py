"""In tests, a @shared operation that changes the state fails; outside of them, the change is dropped."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest

import lungfish
from lungfish.entities import Entity, shared
from lungfish.testing import environment
from tests.integration.polling import until
from tests.unit.entities.fakes import Host, value

app = lungfish.App("shared")


@app.entity
class Shelf(Entity):
    value: int = 0
    odd: float = math.nan
    tags: set[str] = {"a", "b"}
    books: dict[str, list[int]] = {"x": [1]}

    def add(self) -> int:
        self.value += 1
        return self.value

    @shared
    def reads(self) -> int:
        local = dict(self.books)
        local["y"] = []
        return len(local) + len(self.tags) + self.value

    @shared
    def assigns(self, n: int = 7) -> int:
        self.value = n
        return self.value

    @shared
    def appends(self) -> int:
        self.books["x"].append(2)
        self.tags.add("c")
        return 1

    @shared
    async def waits(self) -> int:
        await asyncio.sleep(0)
        self.value += 1
        return self.value

    @shared
    async def waits_only(self) -> int:
        await asyncio.sleep(0)
        return self.value


@pytest.mark.parametrize(
    ("operation", "fields"),
    [(Shelf.assigns, "value"), (Shelf.appends, "tags, books"), (Shelf.waits, "value")],
)
async def test_a_call_fails_and_names_the_fields(operation: Callable[..., Any], fields: str) -> None:
    async with environment(app) as env:
        shelf = env.client.entity(Shelf, "s")
        await shelf.call(Shelf.add)
        with pytest.raises(lungfish.ReadOnly, match=f"changed {fields}: that is not kept"):
            await shelf.call(operation)
        assert await shelf.call(Shelf.add) == 2


async def test_what_only_reads_does_not() -> None:
    async with environment(app) as env:
        shelf = env.client.entity(Shelf, "s")
        assert await shelf.call(Shelf.reads) == 4
        assert await shelf.call(Shelf.waits_only) == 0
        assert await shelf.call(Shelf.assigns, 0) == 0, "the same value is no change"


async def test_a_signal_is_logged_as_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    async with environment(app) as env:
        await env.client.entity(Shelf, "s").signal_many(Shelf.assigns, [[5], [0]])

        async def is_told() -> bool:
            return "1 of 2 signals failed" in caplog.text

        await until(is_told, "it is logged")
        assert "ReadOnly" in caplog.text


def test_outside_of_tests_it_is_dropped() -> None:
    host = Host(Shelf)
    assert value(host.call("assigns", 5)) == 5
    assert value(host.call("reads")) == 4
