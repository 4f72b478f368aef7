"""One trace over client, entities, orchestrations and activities, on a real store."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

import lungfish
from lungfish import OrchestrationContext
from lungfish.runtime.on_redis.open_store import open_store
from tests.integration.polling import until
from tests.local import RunApp
from tests.servers import Server
from tests.spans import Told, span_id

app = lungfish.App("tracing")


@app.entity
class Desk(lungfish.Entity):
    seen: int = 0

    def order(self, key: str, fails: int = 0) -> None:
        self.context.start(buy, key, fails, id=key)

    def note(self) -> None:
        self.seen += 1

    async def ask(self, other: str) -> str:
        await self.context.entity(Desk, other).call(Desk.note)
        return lungfish.headers()["traceparent"]

    def refuse(self) -> None:
        raise LookupError("no such thing")


@app.activity(retry=lungfish.RetryPolicy(3, dt.timedelta(milliseconds=10)))
def charge(fails: int) -> str:
    attempt = lungfish.activity_info().attempt
    with trace.get_tracer_provider().get_tracer("user").start_as_current_span("unseen"):
        if attempt <= fails:
            raise ValueError(f"attempt {attempt}")
    return lungfish.headers()["traceparent"]


@app.orchestration
async def child(ctx: OrchestrationContext) -> None:
    await ctx.sleep(0.01)


@app.orchestration
async def buy(ctx: OrchestrationContext, key: str, fails: int) -> str:
    paid = await ctx.call_activity(charge, fails)
    await ctx.call_orchestration(child, id=f"{key}-child")
    await ctx.wait_for_external_event("go")
    await ctx.entity(Desk, "back").call(Desk.note)
    ctx.entity(Desk, "back").signal(Desk.note)
    return paid


@app.orchestration
async def again(ctx: OrchestrationContext, left: int) -> int:
    await ctx.sleep(0.01)
    if left:
        ctx.continue_as_new(left - 1)
    return left


@app.orchestration
async def forever(ctx: OrchestrationContext) -> None:
    await ctx.wait_for_external_event("never")


@app.orchestration
async def picky(ctx: OrchestrationContext) -> str:
    return await ctx.call_activity(refused)


@app.activity
def refused() -> str:
    if not paid:
        raise PermissionError("not paid")
    return "well"


paid: list[bool] = []

BUY = [
    ("", "call Desk.order"),
    ("call Desk.order", "entity Desk.order"),
    ("entity Desk.order", "orchestration buy"),
    ("orchestration buy", "activity charge"),
    ("orchestration buy", "entity Desk.note"),
    ("orchestration buy", "entity Desk.note"),
    ("orchestration buy", "event go"),
    ("orchestration buy", "orchestration child"),
    ("orchestration child", "timer"),
]


@pytest.fixture
def told() -> Iterator[Told]:
    paid.clear()
    yield Told(app)
    app.tracing = None


@pytest.fixture(params=["0", "1"], ids=["live", "always_replay"])
def replays(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUNGFISH_ALWAYS_REPLAY", request.param)


async def noted(client: lungfish.Client, times: int) -> None:
    async def enough() -> bool:
        state = await client.entity(Desk, "back").state()
        return state is not None and state.seen >= times

    await until(enough, f"{times} notes")


def said(span: Any) -> dict[str, Any]:
    return dict(span.attributes or {})


async def buying(client: lungfish.Client, key: str, fails: int = 0) -> Any:
    await client.entity(Desk, "front").call(Desk.order, key, fails)
    return client.orchestration(key)


@pytest.mark.usefixtures("replays")
async def test_one_trace_and_nothing_doubled(run_app: RunApp, told: Told) -> None:
    async with run_app(app) as runtime:
        order = await buying(runtime.client, "o1")
        with lungfish.sending({"traceparent": "nonsense"}):
            await order.raise_event("go")
        # What the activity saw as its headers was its own span.
        assert int((await order.result(60)).split("-")[2], 16) == span_id(told.one("activity charge"))
        await noted(runtime.client, 2)
    sent = told.one("raise_event go")
    assert sorted([*BUY, ("", "raise_event go")]) == told.edges()
    assert len(told.traces()) == 2, "the event is of a trace of its own"
    (link,) = told.one("event go").links
    assert link.context.span_id == span_id(sent)


@pytest.mark.usefixtures("replays")
async def test_over_a_takeover(run_app: RunApp, told: Told) -> None:
    """The host that began everything dies between two steps; what it told is not told again."""
    async with run_app(app, hosts=2) as runtime:
        order = await buying(runtime.client, "o2")

        async def child_ended() -> bool:
            return bool(told.named("orchestration child"))

        await until(child_ended, "the first half")
        partition = runtime.client.entity(Desk, "x")._connection.partition(order._actor)
        owner = next(h for h in runtime.hosts if partition in [p.number for p in h.partitions])
        runtime.hosts.remove(owner)
        await owner.stop(drain=False)
        await order.raise_event("go")
        await order.result(60)
        await noted(runtime.client, 2)
    assert sorted([*BUY, ("", "raise_event go")]) == told.edges()


async def test_each_attempt_is_a_span_with_what_it_failed_with(run_app: RunApp, told: Told) -> None:
    async with run_app(app) as runtime:
        order = await buying(runtime.client, "o3", fails=2)
        await order.raise_event("go")
        await order.result(60)
    attempts = sorted(told.named("activity charge"), key=lambda span: said(span)["lungfish.attempt"])
    assert [said(span)["lungfish.attempt"] for span in attempts] == [1, 2, 3]
    assert [span.status.is_ok for span in attempts] == [False, False, True]
    (failed,) = attempts[1].events
    assert failed.attributes == {
        "exception.type": "builtins.ValueError",
        "exception.message": "attempt 2",
    }
    assert said(attempts[0])["lungfish.queue"] == "default"
    assert said(attempts[0])["lungfish.instance_id"] == "o3"
    assert {span.parent.span_id for span in attempts if span.parent} == {
        span_id(told.one("orchestration buy"))
    }


@pytest.mark.parametrize("flags", ["00", "02"])
async def test_what_is_not_sampled_tells_nothing(run_app: RunApp, told: Told, flags: str) -> None:
    parent = f"00-{'ab' * 16}-{'cd' * 8}-{flags}"
    async with run_app(app) as runtime:
        with lungfish.sending({"traceparent": parent}):
            order = await buying(runtime.client, "o4")
            await order.raise_event("go")
        assert (await order.result(60)).startswith(f"00-{'ab' * 16}-")
        await noted(runtime.client, 2)
    assert told.names == []


async def test_a_sampler_that_says_no_is_asked_once(run_app: RunApp) -> None:
    told = Told(app, ALWAYS_OFF)
    async with run_app(app) as runtime:
        order = await buying(runtime.client, "o5")
        await order.raise_event("go")
        assert not int((await order.result(60)).split("-")[3], 16) & 1
    assert told.names == []
    app.tracing = None


async def test_hosts_and_workers_ask_no_sampler_about_what_is_not_sampled(run_app: RunApp) -> None:
    """One that says yes to everything would have spans without those above them."""
    async with run_app(app) as runtime:  # its client does not trace
        told = Told(app, ALWAYS_ON)
        with lungfish.sending({"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-00"}):
            order = await buying(runtime.client, "o7")
            await order.raise_event("go")
        await order.result(60)
        await noted(runtime.client, 2)
    assert told.names == []
    app.tracing = None


@pytest.mark.parametrize(
    "broken", ["", "00", "x" * 4_000, f"00-{'0' * 32}-{'cd' * 8}-01", f"ff-{'ab' * 16}-{'cd' * 8}-01"]
)
async def test_what_is_no_trace_context_is_ignored(run_app: RunApp, told: Told, broken: str) -> None:
    async with run_app(app) as runtime:
        with lungfish.sending({"traceparent": broken}):
            await runtime.client.entity(Desk, "a").call(Desk.note)
    assert told.edges() == [("", "call Desk.note"), ("call Desk.note", "entity Desk.note")]


async def test_the_span_around_a_call_and_the_operations_that_it_makes(
    run_app: RunApp, told: Told, hub_name: str
) -> None:
    async with run_app(app) as runtime:
        with told.provider.get_tracer("user").start_as_current_span("mine"):
            seen = await runtime.client.entity(Desk, "a").call(Desk.ask, "b")
        with pytest.raises(lungfish.EntityOperationFailed):
            await runtime.client.entity(Desk, "a").call(Desk.refuse)
        await runtime.client.entity(Desk, "c").signal_many(Desk.note, [()] * 500)
        await runtime.client.entity(Desk, "c").call(Desk.note)
    assert int(seen.split("-")[2], 16) == span_id(told.one("entity Desk.ask"))
    edges = told.edges()
    for edge in [
        ("", "mine"),
        ("mine", "call Desk.ask"),
        ("call Desk.ask", "entity Desk.ask"),
        ("entity Desk.ask", "entity Desk.note"),
        ("call Desk.refuse", "entity Desk.refuse"),
        ("signal Desk.note", "entity Desk.note"),
    ]:
        assert edges.count(edge) == 1, edge
    for name in ("call Desk.refuse", "entity Desk.refuse"):
        assert said(told.one(name))["error.type"] == "builtins.LookupError"
        assert not told.one(name).status.is_ok
    assert said(told.one("signal Desk.note"))["messaging.batch.message_count"] == 500
    assert said(told.one("call Desk.ask")) == {
        "rpc.system.name": "lungfish",
        "rpc.method": "Desk/ask",
        "lungfish.entity": "Desk",
        "lungfish.key": "a",
        "lungfish.hub": hub_name,
    }


async def test_an_instance_that_continues_is_a_span_for_each_execution(run_app: RunApp, told: Told) -> None:
    async with run_app(app) as runtime:
        assert await (await runtime.client.start(again, 2)).result(60) == 0
    spans = told.named("orchestration again")
    assert sorted(said(span)["lungfish.status"] for span in spans) == [
        "Completed",
        "ContinuedAsNew",
        "ContinuedAsNew",
    ]
    assert told.edges() == [
        ("", "start again"),
        *[("orchestration again", "timer")] * 3,
        *[("start again", "orchestration again")] * 3,
    ]
    begun = sorted((span.start_time or 0, span.end_time or 0) for span in spans)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(begun)), "one after the other"


async def test_ends_from_outside_and_second_lives(run_app: RunApp, told: Told) -> None:
    async with run_app(app) as runtime:
        instance = await runtime.client.start(forever)
        await instance.terminate("enough")
        with pytest.raises(lungfish.OrchestrationTerminated):
            await instance.result(60)
        wanted = await runtime.client.start(picky)
        with pytest.raises(lungfish.OrchestrationFailed):
            await wanted.result(60)
        paid.append(True)
        await wanted.rewind("it is paid")
        assert await wanted.result(60) == "well"
    assert said(told.one("orchestration forever"))["lungfish.status"] == "Terminated"
    assert told.edges()[-4:] == [
        ("orchestration picky", "activity refused"),
        ("orchestration picky", "orchestration picky"),
        ("start forever", "orchestration forever"),
        ("start picky", "orchestration picky"),
    ]
    assert told.names.count("activity refused") == 2


async def test_what_comes_without_a_trace(run_app: RunApp, told: Told) -> None:
    """A client that does not trace: operations are not told, an orchestration begins a trace."""
    tracing, app.tracing = app.tracing, None
    async with run_app(app) as runtime:
        app.tracing = tracing
        await runtime.client.entity(Desk, "a").call(Desk.note)
        order = await buying(runtime.client, "o6")
        await order.raise_event("go")
        await order.result(60)
        await noted(runtime.client, 2)
    begins = [edge for edge in BUY if "Desk.order" not in "".join(edge)]
    assert told.edges() == sorted([("", "start buy"), ("start buy", "orchestration buy"), *begins])
    assert len(told.traces()) == 1


async def test_a_taken_id_is_no_error(run_app: RunApp, told: Told) -> None:
    async with run_app(app) as runtime:
        await runtime.client.start(forever, id="f")
        await runtime.client.start(forever, id="f")
    first, second = told.named("start forever")
    assert first.status.is_ok
    assert second.status.is_ok
    assert said(second)["lungfish.existed"] is True


async def test_the_blocking_client(run_app: RunApp, told: Told, valkey: Server, hub_name: str) -> None:
    def work() -> None:
        client = lungfish.BlockingClient(lungfish.Client(lambda: open_store(valkey.url, hub_name), app))
        with client, told.provider.get_tracer("user").start_as_current_span("mine"):
            client.entity(Desk, "b").call(Desk.note)

    async with run_app(app):
        await asyncio.to_thread(work)
    assert told.edges() == [
        ("", "mine"),
        ("call Desk.note", "entity Desk.note"),
        ("mine", "call Desk.note"),
    ]
