"""Spans: which ids they have, that they leave behind the commit only, and that nobody suffers from them."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

import lungfish
import lungfish.tracing
from lungfish.logging import JsonFormatter
from lungfish.runtime.errors import FailureDetails
from lungfish.runtime.messages.headers import HEADERS_BYTES_MAX
from lungfish.runtime.messages.tracing import Kind, Span, TraceContext, parse, read
from lungfish.runtime.on_ray.actors import pack_app, unpack_app
from lungfish.runtime.store.store import Commit
from lungfish.runtime.telemetry.otel import OpenTelemetry
from lungfish.testing import environment
from tests.packaging.tree import ROOT
from tests.spans import Told, span_id
from tests.unit.hub import PARTITIONS, Hub, hub_of, key_in
from tests.virtual import virtually

TRACE, SPAN = "ab" * 16, "cd" * 8
PARENT = f"00-{TRACE}-{SPAN}-01"
CONTEXT = TraceContext(TRACE, SPAN)


# --- contexts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        PARENT.upper(),
        PARENT + "-more",
        PARENT + " ",
        PARENT.replace("ab", "xy"),
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-٠١",
        f"cc-{TRACE}-{SPAN}-01-{'x' * 9_000}",
    ],
)
def test_what_is_no_trace_context(text: str) -> None:
    assert read(text) is None
    assert parse(("traceparent", text)) is None


def test_what_is_a_trace_context() -> None:
    assert read(PARENT) == CONTEXT
    assert read(f"cc-{TRACE}-{SPAN}-01-more") == CONTEXT, "of a later version"
    assert parse(("a", "b", "traceparent", PARENT, "tracestate", "x=1")) == TraceContext(
        TRACE, SPAN, 1, "x=1"
    )
    assert parse(("tracestate", "x=1")) is None
    assert parse(("a", "traceparent")) is None, "a value is no name"
    assert [context.sampled for context in map(read, (PARENT, PARENT[:-1] + "0")) if context] == [True, False]
    assert read(PARENT, "x" * 513) == CONTEXT, "too long a state is left out"


@given(st.text(max_size=80), st.text(max_size=600))
def test_whatever_comes_is_read_or_not(text: str, state: str) -> None:
    found = read(text, state)
    assert found is None or read(found.traceparent, found.state) == found


def test_headers_name_a_span_once() -> None:
    child = CONTEXT.child("a", 1)
    wire = child.put_into(("x", "y", "traceparent", PARENT, "tracestate", "old=1"))
    assert wire == ("x", "y", "traceparent", child.traceparent)
    assert TraceContext(TRACE, SPAN, 0, "k=v").put_into(()) == (
        *("traceparent", f"00-{TRACE}-{SPAN}-00"),
        *("tracestate", "k=v"),
    )


def test_no_message_is_too_large_for_the_sake_of_a_trace() -> None:
    full = ("x", "y" * (HEADERS_BYTES_MAX - 1))
    assert CONTEXT.put_into(full) == full


def test_a_child_is_the_same_wherever_it_is_asked_for() -> None:
    ids = [CONTEXT.child(*parts).span_id for parts in (("a", 1), ("a", 2), ("a1",), ("a", "1"))]
    assert ids[0] == ids[3] == "f621b5981b360d3a", "over releases: an execution may outlive one"
    assert len(set(ids)) == 3
    assert CONTEXT.child("a").child("b") != CONTEXT.child("a", "b")


# --- behind the commit -----------------------------------------------------------------------------


def app_of(runs: list[str]) -> lungfish.App:
    app = lungfish.App("gate")

    @app.entity
    class Desk(lungfish.Entity):
        seen: int = 0

        def note(self) -> None:
            runs.append("note")
            self.seen += 1

        def begin(self) -> None:
            self.context.start("quick", id="q")

    @app.orchestration
    async def quick(ctx: lungfish.OrchestrationContext) -> None:
        runs.append("quick")

    return app


def thief(hub: Hub, partition: int, told: Told, seen: list[list[str]]) -> Any:
    """Take a partition away, once, just before its host writes what its actors did."""

    def before(commits: Sequence[Commit]) -> None:
        for commit in commits:
            if commit.partition == partition and (commit.snapshots or commit.instances):
                seen.append([name for name in told.names if not name.startswith("call")])
                if len(seen) == 1:
                    hub.row(partition).token = "somebody else's"

    return before


@contextlib.asynccontextmanager
async def one_host(app: lungfish.App) -> AsyncIterator[tuple[Hub, lungfish.Client]]:
    async with hub_of(app) as hub:
        await hub.start_all("a")
        async with hub.client() as client:
            yield hub, client


@pytest.mark.parametrize("what", ["note", "quick"])
def test_a_refused_commit_tells_nothing(what: str) -> None:
    runs: list[str] = []
    app = app_of(runs)
    told = Told(app)

    async def run() -> None:
        async with one_host(app) as (hub, client):
            seen: list[list[str]] = []
            partition = 1 if what == "note" else client._open.partition(client.orchestration("q")._actor)
            hub.stores["a"].before_commit = thief(hub, partition, told, seen)
            if what == "note":
                await client.entity("Desk", key_in(1, "Desk")).call("note")
            else:
                await (await client.start("quick", id="q")).result(60)
            assert len(seen) >= 2, "it was taken away"
            assert seen[:2] == [[], []], "nothing is told before it is committed"

    virtually(run)
    assert runs == [what, what], "it was run again"
    name = {"note": "entity Desk.note", "quick": "orchestration quick"}[what]
    assert told.names.count(name) == 1
    assert "?" not in [above for above, _ in told.edges()]


def test_a_start_that_begins_a_trace_is_told_once_too() -> None:
    runs: list[str] = []
    app = app_of(runs)

    async def run() -> Told:
        async with one_host(app) as (hub, client):
            told = Told(app)  # the client was there before: it does not trace
            partition = client._open.partition(client.orchestration("q")._actor)
            hub.stores["a"].before_commit = thief(hub, partition, told, [])
            await (await client.start("quick", id="q")).result(60)
            return told

    told = virtually(run)
    assert runs == ["quick", "quick"]
    assert told.edges() == [("", "start quick"), ("start quick", "orchestration quick")]


def test_a_host_that_is_drained_tells_all_that_it_did() -> None:
    runs: list[str] = []
    app = app_of(runs)
    told = Told(app)

    async def run() -> None:
        async with one_host(app) as (hub, client):
            for number in range(PARTITIONS):
                await client.entity("Desk", key_in(number, "Desk")).signal("note")
            await hub.drain("a")
            assert len(told.named("entity Desk.note")) == len(runs)
            await hub.start("b")
            await hub.until(lambda: len(runs) == PARTITIONS, "the rest")
            await hub.drain("b")

    virtually(run)
    assert len(told.named("entity Desk.note")) == len(runs) == PARTITIONS


# --- providers -------------------------------------------------------------------------------------


def emitted() -> Span:
    return Span("n", Kind.INTERNAL, CONTEXT.child("x"), CONTEXT, 10, 20, {"k": 1})


class Broken(SpanProcessor):
    def on_end(self, span: ReadableSpan) -> None:
        raise OSError("the collector is away")


def test_a_provider_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    provider = TracerProvider()
    provider.add_span_processor(Broken())
    tracing = OpenTelemetry(provider)
    tracing.emit(emitted())
    tracing.emit(emitted())
    span = tracing.begin("n", Kind.CLIENT, {}, None)
    assert span is not None
    span.end()
    (said,) = caplog.records
    assert "a span is lost" in said.message, "said once and not for each"


def test_ids_are_those_that_were_named() -> None:
    app = lungfish.App("ids")
    told = Told(app)
    assert app.tracing is not None
    app.tracing.emit(emitted())
    live = app.tracing.begin("live", Kind.CLIENT, {}, CONTEXT)
    assert live is not None
    live.end(FailureDetails("builtins.ValueError", "no"))
    ended = told.one("n")
    assert span_id(ended) == int(CONTEXT.child("x").span_id, 16)
    assert (ended.start_time, ended.end_time) == (10, 20)
    assert ended.parent is not None
    assert (ended.parent.trace_id, ended.parent.span_id) == (int(TRACE, 16), int(SPAN, 16))
    assert span_id(told.one("live")) not in (0, span_id(ended))
    lungfish.tracing.install(app, told.provider)
    app.tracing.emit(emitted())
    assert len(told.named("n")) == 2, "installed twice"


def test_a_provider_without_our_ids_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    class OtherTracer(trace.NoOpTracer.__bases__[0]):  # type: ignore[misc, name-defined]
        def start_span(self, *args: Any, **options: Any) -> trace.Span:
            return trace.INVALID_SPAN

        def start_as_current_span(self, *args: Any, **options: Any) -> Any:
            raise NotImplementedError

    class Other(trace.TracerProvider):
        def get_tracer(self, *args: Any, **options: Any) -> trace.Tracer:
            made: trace.Tracer = OtherTracer()
            return made

    tracing = OpenTelemetry(Other())
    tracing.emit(emitted())
    assert tracing.begin("n", Kind.CLIENT, {}, None) is None
    assert "ids of its own" in caplog.text


def test_without_a_provider_nothing_happens() -> None:
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider), "of this process"
    tracing = OpenTelemetry()
    tracing.emit(emitted())
    assert tracing.begin("n", Kind.CLIENT, {}, None) is None
    tracing = OpenTelemetry(trace.NoOpTracerProvider())
    tracing.emit(emitted())
    assert tracing.begin("n", Kind.CLIENT, {}, None) is None


made: list[TracerProvider] = []


def make_provider() -> TracerProvider:
    made.append(TracerProvider())
    return made[-1]


def test_a_function_that_makes_the_provider_travels() -> None:
    app = lungfish.App("away")
    lungfish.tracing.install(app, make_provider)
    assert app.with_hub("other").tracing is app.tracing
    there = unpack_app(tuple(pack_app(app)))
    assert there.tracing is not None
    there.tracing.emit(emitted())
    there.tracing.emit(emitted())
    assert len(made) == 1, "once a process"


def test_a_provider_does_not_travel() -> None:
    app = lungfish.App("away")
    lungfish.tracing.install(app, TracerProvider())
    with pytest.raises(lungfish.UsageError, match="give tracing.install a function"):
        pack_app(app)


def test_what_is_no_provider() -> None:
    with pytest.raises(lungfish.UsageError, match="not 7"):
        lungfish.tracing.install(lungfish.App("bad"), 7)  # type: ignore[arg-type]


def test_without_opentelemetry() -> None:
    code = """
import sys
sys.modules["opentelemetry"] = None
import lungfish, lungfish.tracing
try:
    lungfish.tracing.install(lungfish.App("none"))
except lungfish.UsageError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout == "traces need the package opentelemetry-api: pip install lungfish[otel]\n"


def test_importing_lungfish_does_not_import_opentelemetry() -> None:
    code = """
import sys, lungfish, lungfish.runtime.worker.worker, lungfish.runtime.host.host
import lungfish.orchestrations.processor
print("lungfish.runtime.telemetry.otel" in sys.modules)  # redis imports it where it is installed
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"


# --- logs ------------------------------------------------------------------------------------------


def test_log_lines_name_the_span_around() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("tests.tracing")
    logger.addHandler(handler)
    try:
        with lungfish.sending({"traceparent": PARENT}):
            logger.warning("within")
        with lungfish.sending({"traceparent": "broken"}):
            logger.warning("broken")
        logger.warning("outside")
    finally:
        logger.removeHandler(handler)
    within, broken, outside = map(json.loads, stream.getvalue().splitlines())
    assert (within["trace_id"], within["span_id"]) == (TRACE, SPAN)
    assert "trace_id" not in broken
    assert "trace_id" not in outside


def test_a_provider_that_cannot_be_made_disturbs_nobody_and_is_not_asked_at_every_span(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runs: list[str] = []
    app = app_of(runs)
    asked: list[str] = []

    @app.activity
    def work() -> str:
        return "done"

    @app.orchestration
    async def works(ctx: lungfish.OrchestrationContext) -> str:
        return await ctx.call_activity(work)

    def make() -> TracerProvider:
        asked.append("asked")
        raise RuntimeError("no collector here")

    lungfish.tracing.install(app, make)

    async def run() -> None:
        async with environment(app) as env:
            with lungfish.sending({"traceparent": PARENT}):
                await env.client.entity("Desk", "a").call("note")
                assert await env.client.run("works", timeout=60) == "done"

    with caplog.at_level(logging.ERROR):
        asyncio.run(run())
    assert asked == ["asked"]
    assert [record.getMessage() for record in caplog.records] == ["a span is lost; others may be, too"]


async def test_spans_that_users_begin_are_not_told_where_the_trace_is_not_sampled() -> None:
    app = lungfish.App("unsampled")
    told = Told(app)
    runs: list[str] = []

    def work(what: str) -> str:
        with told.provider.get_tracer("mine").start_as_current_span("mine"):
            runs.append(what)
        return what

    @app.entity
    class Desk(lungfish.Entity):
        def note(self) -> str:
            return work("sync")

        async def note_slowly(self) -> str:
            return work("async")

    @app.activity
    def act() -> str:
        return work("activity")

    @app.activity
    async def act_slowly() -> str:
        return work("async activity")

    @app.orchestration
    async def acts(ctx: lungfish.OrchestrationContext) -> list[str]:
        return [await ctx.call_activity(act), await ctx.call_activity(act_slowly)]

    async with environment(app) as env:
        for flags, spans in (("00", 0), ("01", 4)):
            with lungfish.sending({"traceparent": PARENT[:-2] + flags}):
                await env.client.entity(Desk, "a").call(Desk.note)
                await env.client.entity(Desk, "a").call(Desk.note_slowly)
                await env.client.run("acts", timeout=60)
            assert len(told.named("mine")) == spans
    assert runs == ["sync", "async", "activity", "async activity"] * 2
    assert told.traces() == {int(TRACE, 16)}
