"""A request's trace goes on with what it starts and sends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.http.app import app
from tests.http.conftest import ServeApp
from tests.spans import Told, span_id

TRACE = "5a" * 16
PARENT = f"00-{TRACE}-{'7b' * 8}-01"


@pytest.fixture
def told() -> Iterator[Told]:
    yield Told(app)
    app.tracing = None


async def test_the_traceparent_of_a_request_is_the_parent(serve_app: ServeApp, told: Told) -> None:
    async with serve_app(app) as served:
        headers = {"traceparent": PARENT, "tracestate": "vendor=1"}
        done = await served.http.post("/orchestrators/hello?timeout=60", headers=headers)
        assert done.status_code == 200
        called = await served.http.post("/entities/Counter/c?op=add", json=1, headers=headers)
        assert called.status_code < 300, called.text
    assert told.traces() == {int(TRACE, 16)}
    started = told.one("start hello")
    assert started.parent is not None
    assert started.parent.span_id == int("7b" * 8, 16)
    assert started.parent.trace_state["vendor"] == "1"
    assert [span.parent.span_id for span in told.named("activity greet") if span.parent] == [
        span_id(told.one("orchestration hello"))
    ] * 3


@pytest.mark.parametrize("broken", ["00-1-2-3", "x" * 7_000])
async def test_a_traceparent_that_is_none_is_ignored(serve_app: ServeApp, told: Told, broken: str) -> None:
    async with serve_app(app) as served:
        done = await served.http.post("/orchestrators/hello?timeout=60", headers={"traceparent": broken})
        assert done.json() == ["Hello Tokyo!", "Hello Seattle!", "Hello Cairo!"]
    assert told.one("start hello").parent is None


async def test_requests_at_once_do_not_mix(serve_app: ServeApp, told: Told) -> None:
    async with serve_app(app) as served:
        parents = [f"00-{n:032x}-{'7b' * 8}-01" for n in range(1, 9)]
        posts = [
            served.http.post(f"/orchestrators/hello/i{n}?timeout=60", headers={"traceparent": parent})
            for n, parent in enumerate(parents, 1)
        ]
        assert [done.status_code for done in await asyncio.gather(*posts)] == [200] * 8
    found = {
        (span.attributes or {})["lungfish.instance_id"]: span.context.trace_id
        for span in told.named("orchestration hello")
        if span.context is not None
    }
    assert found == {f"i{n}": n for n in range(1, 9)}
