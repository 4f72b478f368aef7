"""Why somebody waits: each kind of waiting, made on the real store and asked for by a client."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

import lungfish
from lungfish import OrchestrationContext, Why
from lungfish.runtime.client.client import Client
from lungfish.runtime.entry_points.local import LocalRuntime
from lungfish.runtime.on_redis.open_store import open_store
from tests.integration.polling import until
from tests.local import RunApp
from tests.servers import Server

app = lungfish.App("reasons")
old = lungfish.App("reasons")
app.queue("gpu", concurrency=1)

#: What operations and activities of the present test wait for.
gates: list[asyncio.Event] = []


@app.entity
class Cart(lungfish.Entity):
    total: int = 0

    async def pay(self) -> int:
        await gates[-1].wait()
        self.total += 1
        return self.total

    def add(self) -> None:
        self.total += 1


@app.activity
async def works() -> None:
    await gates[-1].wait()


@app.activity(queue="gpu")
async def renders() -> None:
    await gates[-1].wait()


@app.activity(queue="nobody-serves")
def never() -> None:
    pass


@app.activity(
    retry=lungfish.RetryPolicy(max_attempts=10, initial_interval=dt.timedelta(hours=1)),
)
def charge() -> None:
    raise ConnectionError("the bank is closed")


@app.orchestration
async def order(ctx: OrchestrationContext) -> None:
    await ctx.wait_for_external_event("Approved")


@app.orchestration
async def limited(ctx: OrchestrationContext) -> None:
    async with asyncio.timeout(7_200):
        await ctx.wait_for_external_event("approved")


@app.orchestration
async def sleeper(ctx: OrchestrationContext) -> None:
    await ctx.sleep(3_600)


@app.orchestration
async def listener(ctx: OrchestrationContext) -> None:
    ctx.on_update("add", lambda: None)
    ctx.on_update("close", lambda: None)
    await asyncio.Event().wait()


@app.orchestration
async def parent(ctx: OrchestrationContext, child: str) -> None:
    await ctx.call_orchestration(order, id=child)


@app.orchestration
async def calls(ctx: OrchestrationContext, name: str) -> None:
    await ctx.call_activity(name)


@app.orchestration
async def holds(ctx: OrchestrationContext, key: str) -> None:
    async with ctx.lock(ctx.entity(Cart, key)):
        await ctx.wait_for_external_event("done")


@app.orchestration
async def pays(ctx: OrchestrationContext, key: str) -> None:
    await ctx.entity(Cart, key).call(Cart.pay)


@app.orchestration
async def impatient(ctx: OrchestrationContext, key: str) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            await ctx.entity(Cart, key).call(Cart.pay)
    await ctx.wait_for_external_event("go")


@app.orchestration
async def cleans_up(ctx: OrchestrationContext) -> None:
    try:
        await ctx.sleep(3_600)
    finally:
        await ctx.wait_for_external_event("cleaned")


@app.orchestration
async def fails(ctx: OrchestrationContext) -> None:
    raise ValueError("no stock")


@pytest.fixture(params=[False, True], ids=["live", "replayed"])
async def runtime(
    run_app: RunApp, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[LocalRuntime]:
    monkeypatch.setenv("LUNGFISH_ALWAYS_REPLAY", "1" if request.param else "0")
    gates.append(asyncio.Event())
    async with run_app(app) as runtime:
        yield runtime
        gates[-1].set()


@pytest.fixture
def client(runtime: LocalRuntime) -> lungfish.Client:
    return runtime.client


async def asked(ask: Callable[[], Awaitable[Why]], words: str) -> Why:
    """Ask until the words are in the answer, and return it."""
    last: list[Why] = []

    async def said() -> bool:
        last[:] = [await ask()]
        return words in last[0].text

    try:
        await until(said, words)
    except AssertionError as error:
        raise AssertionError(f"{words!r} was not said, but: {last}") from error
    return last[0]


async def why(client: Client, target: str, words: str) -> Why:
    return await asked(lambda: client.why(target), words)


def kinds(found: Why) -> list[tuple[int, str]]:
    return [(reason.depth, reason.kind) for reason in found.chain]


async def test_an_external_event(client: Client) -> None:
    before = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=5)
    handle = await client.start(order, id="order-17")
    found = await asked(handle.why, "order-17 waits for the external event 'Approved' since ")
    (reason,) = found.chain
    assert reason.since is not None
    assert reason.until is None
    assert before < reason.since <= found.at
    assert reason.who == "raise event 'Approved' for order-17"
    await handle.raise_event("approved")
    await handle.result(20)
    assert (await handle.why()).chain[0].kind == "ended"


async def test_a_time_limit_is_told_with_what_it_limits(client: Client) -> None:
    handle = await client.start(limited, id="l")
    found = await asked(handle.why, "event 'approved'")
    assert [reason.kind for reason in found.chain] == ["event", "timer"]
    event, timer = found.chain
    assert event.until == timer.until
    assert timer.until is not None
    assert timer.until - found.at > dt.timedelta(hours=1, minutes=59)
    assert "(a timer fires at " in found.text


async def test_a_timer(client: Client) -> None:
    await client.start(sleeper, id="s")
    found = await why(client, "s", "s waits for a timer since")
    assert kinds(found) == [(0, "timer")]
    assert "(it fires at" in found.text


async def test_an_update(client: Client) -> None:
    await client.start(listener, id="u")
    found = await why(client, "u", "u waits for an update: add, close")
    assert kinds(found) == [(0, "update")]


async def test_a_sub_orchestration_and_what_that_waits_for(client: Client) -> None:
    await client.start(parent, "the-child", id="p")
    found = await why(client, "p", "sub-orchestration the-child since ")
    found = await why(client, "p", "which waits for the external event 'Approved' since ")
    assert kinds(found) == [(0, "child"), (1, "event")]


async def test_a_pending_start(client: Client) -> None:
    handle = await client.start(order, id="later", at=3_600)
    found = await handle.why()
    assert kinds(found) == [(0, "pending")]
    assert "later waits for its start time since" in found.text
    assert found.chain[0].until is not None


async def test_a_suspension_comes_before_what_it_waits_for(client: Client) -> None:
    handle = await client.start(order, id="sus")
    await asked(handle.why, "Approved")
    await handle.suspend("audit")
    found = await handle.why()
    assert [reason.kind for reason in found.chain] == ["suspended", "event"]
    assert "sus is suspended (audit) since " in found.text
    assert found.chain[0].who == "resume sus"


async def test_a_cancellation_that_is_not_done(client: Client) -> None:
    handle = await client.start(cleans_up, id="c")
    await asked(handle.why, "timer")
    await handle.cancel("too late")
    found = await asked(handle.why, "c was asked to end (too late), and cleans up")
    assert [reason.kind for reason in found.chain] == ["cancel", "event"]


async def test_the_end(client: Client) -> None:
    handle = await client.start(fails, id="f")
    with pytest.raises(lungfish.OrchestrationFailed):
        await handle.result(20)
    found = await handle.why()
    assert found.text.startswith("f has ended: Failed, ValueError: no stock since ")
    assert found.chain[0].who == "rewind f"


async def test_an_activity_that_runs(client: Client) -> None:
    await client.start(calls, "works", id="a")
    found = await why(client, "a", "1 live worker; 0 wait, 1 run")
    assert found.text.startswith("a waits for activity works: attempt 1 of 1 since ")
    assert kinds(found) == [(0, "activity"), (1, "queue")]


async def test_an_activity_that_is_tried_again(client: Client) -> None:
    await client.start(calls, "charge", id="a")
    found = await why(client, "a", "attempt 2 of 10, last error ConnectionError: the bank is closed since ")
    (reason,) = found.chain
    assert reason.until is not None
    # The attempt may have failed after ``found.at`` was read, but not after this.
    later = (await client.hub_status()).now_ms / 1_000
    assert dt.timedelta(minutes=59) < reason.until - found.at
    assert reason.until.timestamp() <= later + 3_600
    assert "(the next attempt begins at " in found.text


async def test_an_activity_that_nobody_serves(runtime: LocalRuntime) -> None:
    client = runtime.client
    for worker in runtime.workers:
        await worker.stop()
    await client.start(calls, "never", id="a")
    found = await why(client, "a", "queue nobody-serves has 0 live workers; 1 wait, 0 run")
    assert kinds(found) == [(0, "activity"), (1, "no-workers")]
    queue = await client.queue("nobody-serves").why()
    assert queue.text == "queue nobody-serves has 0 live workers; 1 wait, 0 run"
    assert (await client.why("q:nobody-serves")).text == queue.text


async def test_a_paused_and_a_limited_queue(client: Client) -> None:
    for n in range(3):
        await client.start(calls, "renders", id=f"g{n}")
    found = await asked(client.queue("gpu").why, "runs as many as it may (1); 2 wait, 1 run")
    assert [reason.kind for reason in found.chain] == ["limit", "queue"]
    await client.queue("gpu").pause()
    found = await client.why("q:gpu")
    assert found.text.startswith("queue gpu is paused; 2 wait, 1 run")
    assert found.chain[0].who == "resume queue gpu"
    assert (await client.why("g2")).chain[1].kind == "paused"


async def test_a_locked_entity_and_who_holds_it(client: Client) -> None:
    await client.start(holds, "7", id="order-17")
    await why(client, "order-17", "event 'done'")
    await client.start(holds, "7", id="order-18")
    found = await why(client, "order-18", "order-18 waits for a lock on Cart/7 since")
    assert "and entity Cart/7 is locked by order-17 since" in found.text
    assert "which waits for the external event 'done'" in found.text
    assert kinds(found)[:3] == [(0, "lock"), (1, "lock"), (2, "event")]
    entity = await client.entity(Cart, "7").why()
    assert entity.text.startswith("entity Cart/7 is locked by order-17 since ")
    assert "is waited for, to be locked, by order-18" in "\n".join(entity.lines())


async def test_a_call_of_an_entity_that_works(client: Client) -> None:
    await client.start(pays, "8", id="p")
    found = await why(client, "p", "and entity Cart/8 runs pay")
    assert kinds(found)[:2] == [(0, "call"), (1, "running")]
    await client.entity(Cart, "8").signal(Cart.add)
    await asked(client.entity(Cart, "8").why, "and 1 more reason")
    gates[-1].set()
    await asked(client.entity(Cart, "8").why, "entity Cart/8 is idle")


async def test_a_call_that_the_code_gave_up_is_not_waited_for(client: Client) -> None:
    await client.start(impatient, "9", id="i")
    found = await why(client, "i", "i waits for the external event 'go'")
    assert kinds(found) == [(0, "event")]


async def test_entities_that_nobody_wrote_to(client: Client) -> None:
    found = await client.why("Cart/none")
    assert found.text == "entity Cart/none does not exist, and nothing waits there"


async def test_an_instance_whose_id_looks_like_an_entity(client: Client) -> None:
    await client.start(order, id="eu/17")
    await why(client, "eu/17", "eu/17 waits for the external event")


async def test_who_is_not_there(client: Client) -> None:
    with pytest.raises(lungfish.InstanceNotFound, match="no orchestration instance 'nobody'"):
        await client.why("nobody")


async def test_no_host(client: Client, runtime: LocalRuntime) -> None:
    await client.start(sleeper, id="s")
    await why(client, "s", "timer")
    for host in runtime.hosts:
        await host.stop()
    runtime.hosts.clear()
    found = await client.why("s")
    assert [reason.kind for reason in found.chain] == ["no-host", "timer"]
    assert "which no live host runs" in found.text
    assert found.chain[0].who.startswith("start a host")
    entity = await client.entity(Cart, "1").why()
    assert [reason.kind for reason in entity.chain] == ["no-host"]


async def test_no_host_has_the_code(run_app: RunApp) -> None:
    async with run_app(app) as runtime:
        await runtime.client.start(order, id="o")
        await why(runtime.client, "o", "Approved")
    async with run_app(old) as runtime:
        found = await runtime.client.why("o")
        assert kinds(found) == [(0, "code")]
        assert "o is held: no host has its code:" in found.text
        assert found.chain[0].who.startswith("deploy")


async def test_messages_that_were_set_aside(run_app: RunApp, valkey: Server, hub_name: str) -> None:
    async with (
        run_app(app) as runtime,
        Client(
            lambda: open_store(valkey.url, hub_name)
        ) as other,  # it does not know what operations there are
    ):
        await other.entity("Cart", "5").signal("no_such_operation")
        found = await why(runtime.client, "Cart/5", "misses 1 message, set aside")
        assert found.chain[-1].kind == "dead-letters"


async def test_the_name_of_the_question_is_reserved(run_app: RunApp) -> None:
    mine = lungfish.App("mine")

    @mine.orchestration
    async def takes(ctx: OrchestrationContext) -> None:
        ctx.on_query("lungfish.waits", lambda: None)

    async with run_app(mine) as runtime:
        handle = await runtime.client.start(takes, id="t")
        with pytest.raises(
            lungfish.OrchestrationFailed, match="names that begin with 'lungfish.' are reserved"
        ):
            await handle.result(20)


async def test_a_question_changes_nothing(client: Client) -> None:
    handle = await client.start(order, id="o")
    await asked(handle.why, "Approved")
    before = (await handle.history(), await handle.status())
    await handle.why()
    assert (await handle.history(), await handle.status()) == before


async def test_without_await(run_app: RunApp, valkey: Server, hub_name: str) -> None:
    async with run_app(app) as runtime:
        await runtime.client.start(sleeper, id="s")
        await why(runtime.client, "s", "timer")
        blocking = lungfish.BlockingClient(Client(lambda: open_store(valkey.url, hub_name), app))

        def ask() -> list[Any]:
            with blocking:
                return [
                    blocking.why("s").text,
                    blocking.orchestration("s").why().text,
                    blocking.entity(Cart, "0").why().text,
                    blocking.queue("gpu").why().text,
                ]

        first, second, entity, queue = await asyncio.to_thread(ask)
        assert first.startswith("s waits for a timer")
        assert second.startswith("s waits for a timer")
        assert entity == "entity Cart/0 does not exist, and nothing waits there"
        assert queue == "queue gpu has 1 live worker; 0 wait, 0 run"
