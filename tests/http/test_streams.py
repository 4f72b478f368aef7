"""Server-sent events: what is committed, in order, until it ends; and what follows a reconnection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lungfish.runtime.http import streams
from tests.http.app import Counter, app
from tests.http.conftest import ServeApp, Served
from tests.http.test_orchestrations import problem


@pytest.fixture
async def served(serve_app: ServeApp) -> AsyncIterator[Served]:
    async with serve_app(app) as served:
        yield served


class Events:
    """What a browser makes of a stream."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines
        self.comments = 0

    async def next(self) -> tuple[str, Any, str]:
        """Return name, value and id of the next event."""
        found: dict[str, str] = {}
        async with asyncio.timeout(60):
            async for line in self._lines:
                if line.startswith(":"):
                    self.comments += 1
                elif line:
                    name, _, value = line.partition(": ")
                    found[name] = value
                elif found:
                    return found["event"], json.loads(found["data"]), found.get("id", "")
        raise AssertionError("the stream ended")


@asynccontextmanager
async def streaming(served: Served, path: str, **headers: str) -> AsyncIterator[Events]:
    async with served.http.stream("GET", path, headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield Events(response.aiter_lines())


async def test_an_entity_is_followed_and_the_stream_goes_on_after_a_reconnection(served: Served) -> None:
    path = "/entities/Counter/hits/watch"
    hits = served.client.entity(Counter, "hits")
    async with streaming(served, path) as events:
        assert (await events.next())[:2] == ("state", None)
        await hits.call(Counter.add, 1)
        name, value, version = await events.next()
        assert (name, value) == ("state", {"value": 1})
    async with streaming(served, path, **{"Last-Event-ID": version}) as events:
        await hits.call(Counter.add, 1)
        seen = [(await events.next())[1]]
        if seen == [{"value": 1}]:  # nobody knows any more whether it is the one that was seen last
            seen = [(await events.next())[1]]
        assert seen == [{"value": 2}]


async def test_an_instance_is_followed_to_its_end(served: Served) -> None:
    handle = await served.client.start("wait", id="one")
    async with streaming(served, "/instances/one/watch") as events:
        name, value, _ = await events.next()
        assert (name, value["runtimeStatus"]) == ("status", "Running")
        await handle.raise_event("go", "now")
        name, value, _ = await events.next()
        assert (name, value["runtimeStatus"], value["output"]) == ("status", "Completed", "now")
        assert (await events.next())[0] == "end"
    problem(await served.http.get("/instances/nobody/watch"), 404, "nobody")


async def test_the_hub_is_followed(served: Served) -> None:
    async with streaming(served, "/watch") as events:
        name, value, _ = await events.next()
        assert name == "hub"
        assert [host["alive"] for host in value["hosts"]] == [True]
        assert len(value["partitions"]) == 32
        assert value["unowned"] == []


async def test_a_wrong_entity_is_told_in_the_stream(served: Served) -> None:
    async with streaming(served, "/entities/Nothing/x/watch") as events:
        name, value, _ = await events.next()
        assert name == "problem"
        assert "Nothing" in value["detail"]


async def test_a_silent_stream_says_that_it_is_there(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "ALIVE_S", 0.05)
    await served.client.entity(Counter, "still").call(Counter.add, 1)
    async with streaming(served, "/entities/Counter/still/watch") as events:
        assert (await events.next())[1] == {"value": 1}
        later = asyncio.create_task(events.next())
        async with asyncio.timeout(60):
            while events.comments < 2:
                await asyncio.sleep(0.01)
        await served.client.entity(Counter, "still").call(Counter.add, 1)
        assert (await later)[1] == {"value": 2}


async def test_streams_are_bounded_and_counted_off(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "STREAMS_MAX", 1)
    async with streaming(served, "/watch") as events:
        await events.next()
        problem(await served.http.get("/watch"), 503, "1 streams")
    async with asyncio.timeout(60):
        while (await served.http.send(served.http.build_request("GET", "/watch"), stream=True)).is_error:
            await asyncio.sleep(0.05)


async def test_a_commit_in_the_same_second_is_news() -> None:
    """What is shown has times to the second: it may look as before."""
    versions = iter([(False, 1), (False, 1), (False, 2), (True, 3)])

    async def look() -> streams.Look:
        last, version = next(versions)
        return {"status": "Running"}, last, version

    names = [each.split(b"\n")[0] async for each in streams.changes("status", look, 0.0)]
    assert names == [b"event: status"] * 3 + [b"event: end"]
