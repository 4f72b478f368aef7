"""Orchestrations through a whole runtime: with a worker, timers, entities and the store."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections import Counter as Counts
from collections.abc import AsyncIterator, Generator
from typing import Any

import pytest
from pydantic import BaseModel

import lungfish
from lungfish import OrchestrationContext, RuntimeStatus
from lungfish.runtime.entry_points.local import LocalRuntime
from tests.integration.polling import until
from tests.local import RunApp

app = lungfish.App("orchestrations")
MS = dt.timedelta(milliseconds=1)

#: How often an activity was begun, by its argument; idempotency keys that it saw.
begun: Counts[str] = Counts()
keys: dict[str, set[str]] = {}
gates: dict[str, asyncio.Event] = {}


@pytest.fixture(autouse=True)
def forget() -> None:
    begun.clear()
    keys.clear()
    gates.clear()


class Order(BaseModel):
    id: str
    amount: float


@app.entity
class Tally(lungfish.Entity):
    value: int = 0
    lines: list[str] = []

    def add(self, n: int, line: str = "") -> int:
        self.value += n
        self.lines.append(line)
        return self.value

    async def fail(self) -> None:
        raise KeyError("gone")


# --- activities -----------------------------------------------------------------------------------


@app.activity
def square(n: int) -> int:
    begun["square"] += 1
    return n * n


@app.activity
async def slow(name: str, seconds: float = 60.0) -> str:
    begun[name] += 1
    await asyncio.sleep(seconds)
    return name


@app.activity
async def gated(name: str) -> str:
    begun[name] += 1
    await gates[name].wait()
    return name


@app.activity(retry=lungfish.RetryPolicy(4, 5 * MS, 1.0))
def succeeds_at(attempt: int, name: str) -> int:
    begun[name] += 1
    keys.setdefault(name, set()).add(lungfish.activity_info().idempotency_key)
    if begun[name] < attempt:
        raise ConnectionError(f"attempt {begun[name]}")
    return begun[name]


@app.activity(inline=True)
def inlined(order: Order) -> Order:
    return Order(id=order.id.upper(), amount=order.amount * 2)


@app.orchestration
async def squares(ctx: OrchestrationContext, numbers: list[int]) -> int:
    return sum([await ctx.call_activity(square, number) for number in numbers])


@app.orchestration
async def retries(ctx: OrchestrationContext, attempt: int, name: str) -> int:
    return await ctx.call_activity(succeeds_at, attempt, name)


@app.orchestration
async def times_out(ctx: OrchestrationContext, attempts: int, timeout: float) -> str:
    policy = lungfish.RetryPolicy(attempts, MS)
    try:
        return await ctx.call_activity(slow.options(timeout=timeout, retry=policy), "late")
    except lungfish.ActivityTimedOut as error:
        return f"timed out: {error}"


@app.orchestration
async def inlines(ctx: OrchestrationContext, order: Order) -> Order:
    return await ctx.call_activity(inlined, order)


@pytest.fixture(params=["0", "1"], ids=["live", "always_replay"])
async def runtime(
    run_app: RunApp, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[LocalRuntime]:
    monkeypatch.setenv("LUNGFISH_ALWAYS_REPLAY", request.param)
    async with run_app(app) as runtime:
        yield runtime
        assert await (await runtime.client.start(squares, [3])).result(timeout=60) == 9
        assert all(host.failed is not None and not host.failed.done() for host in runtime.hosts)


@pytest.fixture
def client(runtime: LocalRuntime) -> lungfish.Client:
    return runtime.client


async def run(client: lungfish.Client, orchestration: Any, *args: Any, id: str | None = None) -> Any:
    handle = await client.start(orchestration, *args, id=id)
    return await handle.result(timeout=60)


async def status_is(handle: lungfish.OrchestrationHandle[Any], status: RuntimeStatus) -> None:
    async def reached() -> bool:
        return (await handle.status()).runtime_status is status

    await until(reached, f"{handle} to be {status}")


async def custom_status_is(handle: lungfish.OrchestrationHandle[Any], wanted: object) -> None:
    async def reached() -> bool:
        return bool((await handle.status()).custom_status == wanted)

    await until(reached, f"{handle} to say {wanted!r}")


async def test_activities_one_after_the_other(client: lungfish.Client) -> None:
    assert await run(client, squares, [1, 2, 3]) == 14
    assert begun["square"] == 3


async def test_many_instances_at_once(client: lungfish.Client) -> None:
    results = await asyncio.gather(*(run(client, squares, [number] * 3) for number in range(60)))
    assert results == [3 * number * number for number in range(60)]


async def test_a_failed_activity_is_tried_again_under_one_key(client: lungfish.Client) -> None:
    assert await run(client, retries, 3, "third time") == 3
    assert len(keys["third time"]) == 1
    assert await run(client, retries, 1, "first time") == 1


async def test_attempts_run_out(client: lungfish.Client) -> None:
    with pytest.raises(lungfish.OrchestrationFailed) as raised:
        await run(client, retries, 9, "never")
    assert begun["never"] == 4
    details = raised.value.details
    assert details is not None
    assert details.is_caused_by(lungfish.ActivityFailed)
    assert details.is_caused_by(ConnectionError)
    assert "attempt 4" in str(details)


async def test_each_attempt_has_a_time_out(client: lungfish.Client) -> None:
    assert "timed out" in await run(client, times_out, 3, 0.02)
    assert begun["late"] == 3


async def test_an_inline_activity_runs_in_the_turn(client: lungfish.Client) -> None:
    handle = await client.start(inlines, Order(id="a", amount=2))
    assert await handle.result(timeout=60) == Order(id="A", amount=4)


@app.orchestration
async def calls_by_name(ctx: OrchestrationContext, how: str) -> Any:
    name = "\ud800"
    match how:
        case "activity":
            return await ctx.call_activity(name)
        case "orchestration":
            return await ctx.call_orchestration(name)
        case "entity":
            return await ctx.entity(Tally, "a").call(name)
        case "event":
            ctx.send_event("somebody", name)
            return None


@pytest.mark.parametrize("how", ["activity", "orchestration", "entity", "event"])
async def test_a_name_that_is_not_utf8_fails_the_instance_and_nothing_else(
    client: lungfish.Client, how: str
) -> None:
    with pytest.raises(lungfish.OrchestrationFailed):
        await run(client, calls_by_name, how)


# --- time -----------------------------------------------------------------------------------------


@app.orchestration
async def sleeps(ctx: OrchestrationContext, seconds: float) -> float:
    before = ctx.now()
    await ctx.sleep(seconds)
    await ctx.create_timer(ctx.now() + dt.timedelta(seconds=seconds))
    return (ctx.now() - before).total_seconds()


@app.orchestration
async def gives_up(ctx: OrchestrationContext) -> str:
    try:
        async with asyncio.timeout(0.03):
            return str(await ctx.wait_for_external_event("never"))
    except TimeoutError:
        return "gave up"


async def test_timers_are_never_early(client: lungfish.Client) -> None:
    began_s = time.monotonic()
    slept = await asyncio.gather(*(run(client, sleeps, 0.04) for _ in range(20)))
    assert min(slept) >= 0.08
    assert time.monotonic() - began_s >= 0.08


async def test_a_durable_time_out(client: lungfish.Client) -> None:
    assert await run(client, gives_up) == "gave up"


# --- events, entities, children -------------------------------------------------------------------


@app.orchestration
async def waits_for_events(ctx: OrchestrationContext, count: int) -> list[int]:
    ctx.set_custom_status("waiting")
    return [await ctx.wait_for_external_event("number", int) for _ in range(count)]


@app.orchestration
async def waits_for_order(ctx: OrchestrationContext) -> Order:
    return await ctx.wait_for_external_event("order", Order)


@app.orchestration
async def uses_entities(ctx: OrchestrationContext, key: str) -> list[int]:
    tally = ctx.entity(Tally, key)
    tally.signal(Tally.add, 1, "signal 1")
    first = await tally.call(Tally.add, 10, "call")
    tally.signal(Tally.add, n=100, line="signal 2")
    second = await tally.call(Tally.add, 1_000, line="call 2")
    with pytest.raises(lungfish.EntityOperationFailed, match="KeyError"):
        await tally.call(Tally.fail)
    return [first, second]


@app.orchestration
async def parent(ctx: OrchestrationContext, fail: bool) -> str:
    try:
        first = await ctx.call_orchestration(child, "first", False)
        second = await ctx.call_orchestration(child, "second", fail, id=f"{ctx.instance_id}-2")
    except lungfish.OrchestrationFailed as error:
        return f"failed: {error.details}"
    return f"{first} {second}"


@app.orchestration
async def child(ctx: OrchestrationContext, name: str, fail: bool) -> str:
    if fail:
        raise ValueError(f"{name} does not like it")
    return f"{name} of {ctx.parent_id}"


@app.orchestration
async def counts_down(ctx: OrchestrationContext, left: int, seen: list[int]) -> list[int]:
    seen.append(await ctx.wait_for_external_event("number", int))
    if left > 1:
        ctx.continue_as_new(left - 1, seen)
    return seen


async def test_events_are_kept_and_taken_in_order(client: lungfish.Client) -> None:
    handle = await client.start(waits_for_events, 6)
    await handle.raise_event("number", 0)  # perhaps before it waits
    await custom_status_is(handle, "waiting")
    for number in range(1, 6):
        await handle.raise_event("NUMBER", number)
    assert await handle.result(timeout=60) == list(range(6))


async def test_an_event_is_of_its_type(client: lungfish.Client) -> None:
    handle = await client.start(waits_for_order)
    await handle.raise_event("order", {"id": "a", "amount": "2.5"})
    assert await handle.result(timeout=60) == Order(id="a", amount=2.5)


async def test_entities_are_called_and_signalled_in_order(client: lungfish.Client) -> None:
    for key in ("a", "b", "c", "d"):
        assert await run(client, uses_entities, key) == [11, 1_111]
        state = await client.entity(Tally, key).state()
        assert state is not None
        assert state.lines == ["signal 1", "call", "signal 2", "call 2"]


async def test_sub_orchestrations(client: lungfish.Client) -> None:
    assert await run(client, parent, False, id="p") == "first of p second of p"
    assert (await client.orchestration("p-2").status()).parent_id == "p"
    assert "ValueError: second does not like it" in await run(client, parent, True, id="q")


async def test_continue_as_new_loses_no_event(client: lungfish.Client) -> None:
    handle = await client.start(counts_down, 20, [])
    first = (await handle.status()).execution_id
    await asyncio.gather(*(handle.raise_event("number", number) for number in range(20)))
    assert await handle.result(timeout=60) == list(range(20))
    assert (await handle.status()).execution_id != first
    assert len(await handle.history()) < 10


# --- several things at once -----------------------------------------------------------------------


@app.orchestration
async def gathers(ctx: OrchestrationContext) -> list[int]:
    return list(await asyncio.gather(*(ctx.call_activity(square, n) for n in range(10))))


@app.orchestration
async def groups(ctx: OrchestrationContext) -> list[int]:
    async def one(n: int) -> int:
        await ctx.sleep(0.001 * (10 - n))
        return await ctx.call_activity(square, n)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(n)) for n in range(10)]
    return [task.result() for task in tasks]


@app.orchestration
async def waits(ctx: OrchestrationContext) -> list[int]:
    done, pending = await asyncio.wait([ctx.call_activity(square, n) for n in range(10)])
    assert not pending
    return sorted(task.result() for task in done)


@app.orchestration
async def when_all(ctx: OrchestrationContext) -> list[int]:
    return await ctx.when_all([ctx.call_activity(square, n) for n in range(10)])


@app.orchestration
def generator(ctx: OrchestrationContext) -> Generator[Any, Any, list[int]]:
    first = yield ctx.call_activity(square, 0)
    others = yield lungfish.when_all(*(ctx.call_activity(square, n) for n in range(1, 10)))
    yield ctx.sleep(0.001)
    return [first, *others]


@app.orchestration
async def races(ctx: OrchestrationContext, name: str) -> str:
    work, limit = ctx.call_activity(gated, name), ctx.sleep(0.02)
    won = await lungfish.when_any(work, limit)
    work.cancel()
    return "timer" if won is limit else "work"


@app.orchestration
async def waits_for_first(ctx: OrchestrationContext) -> list[int]:
    tasks: list[asyncio.Future[Any]] = [ctx.call_activity(square, 5), ctx.sleep(60)]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    return [task.result() for task in done]


@pytest.mark.parametrize("orchestration", [gathers, groups, waits, when_all, generator])
async def test_fan_out_and_in(client: lungfish.Client, orchestration: Any) -> None:
    assert await run(client, orchestration) == [n * n for n in range(10)]
    assert begun["square"] == 10


async def test_the_first_of_several(client: lungfish.Client) -> None:
    gates["loser"] = asyncio.Event()
    assert await run(client, races, "loser") == "timer"
    gates["loser"].set()
    assert await run(client, waits_for_first) == [25]


# --- looking at instances, and steering them ------------------------------------------------------


@app.orchestration
async def steps(ctx: OrchestrationContext, name: str) -> str:
    ctx.set_custom_status({"step": 1})
    await ctx.call_activity(gated, name)
    ctx.set_custom_status({"step": 2})
    return await ctx.wait_for_external_event("end", str)


async def test_status_result_and_history(client: lungfish.Client) -> None:
    gates["s"] = asyncio.Event()
    began = dt.datetime.now(dt.UTC)
    handle = await client.start(steps, "s", id="s")
    await custom_status_is(handle, {"step": 1})
    status = await handle.status()
    assert (status.instance_id, status.name, status.runtime_status) == ("s", "steps", RuntimeStatus.RUNNING)
    assert (status.output, status.failure, status.parent_id) == (None, None, None)
    assert abs(status.created_at - began) < dt.timedelta(seconds=10)
    with pytest.raises(lungfish.DeadlineExceeded, match="orchestration s: no answer within 0.05 s"):
        await handle.result(timeout=0.05)
    gates["s"].set()
    await custom_status_is(handle, {"step": 2})
    await handle.raise_event("end", "well")
    assert await handle.result(timeout=60) == "well"
    assert await client.orchestration("s", returns=str).result() == "well"
    status = await handle.status()
    assert (status.runtime_status, status.output) == (RuntimeStatus.COMPLETED, "well")
    assert status.created_at < status.updated_at
    kinds = [type(event).__name__ for event in await handle.history()]
    assert [kind for kind in kinds if kind != "TurnStarted"] == [
        "ExecutionStarted",
        "TaskScheduled",
        "TaskCompleted",
        "EventRaised",
        "ExecutionCompleted",
    ]


async def test_an_id_is_taken_once(client: lungfish.Client) -> None:
    handles = await asyncio.gather(*(client.start(squares, [n], id="one") for n in range(1, 20)))
    results = {await handle.result(timeout=60) for handle in handles}
    assert len(results) == 1
    assert begun["square"] == 1
    with pytest.raises(lungfish.InstanceExists):
        await client.start(squares, [1], id="one", if_exists="raise")
    with pytest.raises(lungfish.InstanceExists):
        await client.start(gathers, id="one")


async def test_terminate(client: lungfish.Client) -> None:
    handle = await client.start(waits_for_events, 1)
    waiting = asyncio.create_task(handle.result(timeout=60))
    await custom_status_is(handle, "waiting")
    await handle.terminate("not needed")
    with pytest.raises(lungfish.OrchestrationTerminated, match="not needed"):
        await waiting
    assert (await handle.status()).runtime_status is RuntimeStatus.TERMINATED
    with pytest.raises(lungfish.UsageError, match="ended|Terminated"):
        await handle.suspend()
    await handle.raise_event("number", 1)  # dropped


async def test_suspend_and_resume(client: lungfish.Client) -> None:
    handle = await client.start(waits_for_events, 3)
    await custom_status_is(handle, "waiting")
    await handle.suspend("wait")
    await handle.suspend("twice is once")
    assert (await handle.status()).runtime_status is RuntimeStatus.SUSPENDED
    for number in range(3):
        await handle.raise_event("number", number)
    with pytest.raises(lungfish.DeadlineExceeded):
        await handle.result(timeout=0.1)
    assert (await handle.status()).runtime_status is RuntimeStatus.SUSPENDED
    await handle.resume()
    assert await handle.result(timeout=60) == [0, 1, 2]


async def test_instances_are_listed_once_each(client: lungfish.Client) -> None:
    waiting = [(await client.start(waits_for_events, 1, id=f"w{n}")).id for n in range(40)]
    ended = [f"e{n}" for n in range(30)]
    await asyncio.gather(*(run(client, squares, [], id=id) for id in ended))
    for id in waiting:
        await custom_status_is(client.orchestration(id), "waiting")

    async def found(**wanted: Any) -> list[str]:
        return sorted([status.instance_id async for status in client.instances(**wanted)])

    assert await found() == sorted(waiting + ended)
    assert await found(status="Running") == sorted(waiting)
    assert await found(status=RuntimeStatus.COMPLETED) == sorted(ended)
    assert await found(name="squares") == sorted(ended)
    assert await found(status="Running", name="squares") == []
    with pytest.raises(lungfish.InvalidArguments, match="Sleeping"):
        await found(status="Sleeping")
