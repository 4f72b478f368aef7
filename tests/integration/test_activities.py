"""Activities and queues through a whole runtime, on a real store."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import pytest

import lungfish
from lungfish import OrchestrationContext
from lungfish.runtime.entry_points.local import LocalRuntime
from lungfish.runtime.on_redis.keys import Keys
from lungfish.runtime.settings import HostSettings
from lungfish.runtime.worker.worker import Worker
from tests.integration import polling
from tests.local import RunApp
from tests.servers import Server, ask

app = lungfish.App("activities")
app.queue("narrow", concurrency=2)


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition holds."""

    async def holds() -> object:
        return condition()

    await polling.until(holds, what)


#: What the activities note of themselves.
notes: list[object] = []
#: How many attempts of ``narrow`` run now, and how many ever ran at once.
at_once = {"now": 0, "most": 0}
stop = threading.Event()


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    notes.clear()
    stop.clear()
    at_once.update(now=0, most=0)
    yield
    stop.set()


@pytest.fixture(autouse=True, params=[False, True], ids=["live", "replayed"])
def replayed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUNGFISH_ALWAYS_REPLAY", "1" if request.param else "0")


@app.activity
async def convert() -> list[int]:
    info = lungfish.activity_info()
    found: list[int] | None = info.heartbeat_details(list[int])
    notes.append(("began", info.attempt, found))
    if found is None:
        info.heartbeat([1, 2, 3])
        await asyncio.sleep(3_600)
    return found or []


@app.activity
async def wait_async() -> None:
    notes.append("async began")
    try:
        await asyncio.sleep(3_600)
    except asyncio.CancelledError:
        notes.append("async cancelled")
        raise


@app.activity
def wait_sync() -> None:
    notes.append("sync began")
    info = lungfish.activity_info()
    while not stop.is_set():
        time.sleep(0.01)
        if info.cancelled:
            notes.append("sync cancelled")
            return


@app.activity(queue="narrow")
async def narrow(n: int) -> int:
    at_once["now"] += 1
    at_once["most"] = max(at_once.values())
    notes.append(n)
    await asyncio.sleep(0.02)
    at_once["now"] -= 1
    return n


@app.activity
async def quick(n: int) -> int:
    return n


@app.orchestration
async def convert_one(ctx: OrchestrationContext) -> list[int]:
    return await ctx.call_activity(convert)


@app.orchestration
async def wait_for_both(ctx: OrchestrationContext) -> None:
    await lungfish.when_all([ctx.call_activity(wait_async), ctx.call_activity(wait_sync)])


@app.orchestration
async def lose_patience(ctx: OrchestrationContext) -> str:
    task = ctx.call_activity(wait_async)
    await ctx.sleep(0.1)
    task.cancel()
    await ctx.wait_for_external_event("end")
    return "done"


@app.orchestration
async def spread(ctx: OrchestrationContext, priorities: list[int]) -> list[int]:
    tasks = [
        ctx.call_activity(narrow.options(priority=priority), at) for at, priority in enumerate(priorities)
    ]
    return await lungfish.when_all(tasks)


@app.orchestration
async def one(ctx: OrchestrationContext, n: int) -> str:
    try:
        return f"got {await ctx.call_activity(quick.options(schedule_to_start=0.3), n)}"
    except lungfish.ActivityTimedOut as error:
        return error.timeout


@app.orchestration
async def simple(ctx: OrchestrationContext, n: int) -> int:
    return await ctx.call_activity(quick, n)


async def test_details_outlive_worker_and_host(run_app: RunApp) -> None:
    """Both die while the attempt runs; another worker of another host goes on with what was said."""
    async with run_app(app, hosts=2, workers=2) as runtime:
        handle = await runtime.client.start(convert_one)
        await until(lambda: len(notes) == 1, "begun")
        (busy,) = [worker for worker in runtime.workers if worker.running]

        def kept() -> bool:
            return any(attempt.kept for attempt in busy._runner.open)

        await until(kept, "details are stored")
        await busy.kill()
        busy._held.clear()  # else the end of the runtime would wait ten seconds for what the dead one holds
        runtime.workers.remove(busy)
        await runtime.hosts.pop(0).stop(drain=False)
        assert await handle.result(timeout=60) == [1, 2, 3]
        assert notes == [("began", 1, None), ("began", 1, [1, 2, 3])]


async def test_termination_reaches_running_code(run_app: RunApp) -> None:
    async with run_app(app) as runtime:
        handle = await runtime.client.start(wait_for_both)
        await until(lambda: len(notes) == 2, "both run")
        await handle.terminate("enough")
        await until(lambda: len(notes) == 4, "both were told")
        assert set(notes[2:]) == {"async cancelled", "sync cancelled"}
        await until(lambda: runtime.workers[0].counts.cancelled == 2, "both are counted")

        async def is_empty() -> bool:
            info = await runtime.client.queue("default").info()
            return (info.backlog, info.running) == (0, 0)

        await polling.until(is_empty, "their entries are gone")


async def test_a_cancelled_task_reaches_running_code(run_app: RunApp) -> None:
    async with run_app(app) as runtime:
        handle = await runtime.client.start(lose_patience)
        await until(lambda: "async cancelled" in notes, "it was told")
        await handle.raise_event("end")
        assert await handle.result(timeout=30) == "done"


async def test_limits_hold_over_workers_and_change_live(run_app: RunApp) -> None:
    async with run_app(app, workers=3) as runtime:
        queue = runtime.client.queue("narrow")
        assert (await queue.info()).limits.concurrency == 2
        handle = await runtime.client.start(spread, [5] * 30)
        assert await handle.result(timeout=60) == list(range(30))
        assert at_once["most"] == 2
        await queue.set(concurrency=None)
        handle = await runtime.client.start(spread, [5] * 30)
        assert await handle.result(timeout=60) == list(range(30))
        assert at_once["most"] > 2


async def test_the_urgent_go_first(run_app: RunApp) -> None:
    async with run_app(app) as runtime:
        queue = runtime.client.queue("narrow")
        await queue.set(concurrency=1)
        await queue.pause()
        handle = await runtime.client.start(spread, [5, 9, 0, 5, 1])

        async def waiting() -> bool:
            return (await queue.info()).by_priority == {0: 1, 1: 1, 5: 2, 9: 1}

        await polling.until(waiting, "all wait")
        assert notes == []
        await queue.resume()
        await handle.result(timeout=30)
        assert notes == [2, 4, 0, 3, 1]


async def test_nobody_begins_it(run_app: RunApp) -> None:
    async with run_app(app, workers=0) as runtime:
        handle = await runtime.client.start(one, 3)
        assert await handle.result(timeout=30) == "schedule_to_start"
    async with run_app(app) as runtime:
        assert await (await runtime.client.start(one, 3)).result(timeout=30) == "got 3"


async def test_a_lost_queue_is_noticed(run_app: RunApp, valkey: Server, hub_name: str) -> None:
    settings = HostSettings(patrol_ms=300)
    async with run_app(app, workers=0, settings=settings) as runtime:
        handles = [await runtime.client.start(simple, n) for n in range(5)]
        queue = runtime.client.queue("default")

        async def queued() -> bool:
            return (await queue.info()).backlog == 5

        await polling.until(queued, "dispatched")
        stream = Keys(hub_name).queue("default")
        ask(valkey.port, f"DEL {stream} {stream}:producers")
        await polling.until(queued, "dispatched again")
        worker = await start_worker(runtime)
        assert [await handle.result(timeout=30) for handle in handles] == list(range(5))
        await worker.stop()


async def start_worker(runtime: LocalRuntime) -> Worker:
    made = Worker(runtime._open_store(), app, worker_id="late")
    await made.start()
    return made
