"""Everything in asyncio works inside an orchestration, live and with a replay at every turn."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncGenerator, Generator
from typing import Any

import pytest

from lungfish.orchestrations import OrchestrationContext, Task, when_all, when_any
from lungfish.runtime import codec
from lungfish.runtime.declared.app import App
from lungfish.runtime.errors import ActivityFailed, FailureDetails, UsageError
from tests.unit.orchestrations.fakes import FakeHost

app = App("asyncio")


@app.activity
def work(n: int) -> int:
    raise AssertionError("workers are played by the test")


@pytest.fixture(params=["live", "always_replay"])
def host(request: pytest.FixtureRequest) -> FakeHost:
    return FakeHost(app, always_replay=request.param == "always_replay")


def finish_all(host: FakeHost, *, last_first: bool = False) -> None:
    while host.effects.dispatched:
        at = -1 if last_first else 0
        host.finish(_argument(host.effects.dispatched[at][1].args) * 10, at)


def _argument(args: bytes) -> int:
    (first,), _ = codec.decode(args)
    assert isinstance(first, int)
    return first


@app.orchestration
async def gathers(ctx: OrchestrationContext) -> list[int]:
    return await asyncio.gather(*(ctx.call_activity(work, i) for i in range(3)))


@app.orchestration
async def groups(ctx: OrchestrationContext) -> list[int]:
    async def one(i: int) -> int:
        return await ctx.call_activity(work, i)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(i)) for i in range(3)]
    return [task.result() for task in tasks]


@app.orchestration
async def waits(ctx: OrchestrationContext) -> list[int]:
    done, pending = await asyncio.wait([ctx.call_activity(work, i) for i in range(3)])
    assert not pending
    return sorted(task.result() for task in done)


@app.orchestration
async def when_alls(ctx: OrchestrationContext) -> list[int]:
    assert await when_all() == []
    return await when_all([ctx.call_activity(work, i) for i in range(3)])


@app.orchestration
async def queues(ctx: OrchestrationContext) -> list[int]:
    queue: asyncio.Queue[int] = asyncio.Queue(1)

    async def produce() -> None:
        for i in range(3):
            await queue.put(await ctx.call_activity(work, i))

    producer = asyncio.create_task(produce())
    results = [await queue.get() for _ in range(3)]
    await producer
    return results


@app.orchestration
async def locks(ctx: OrchestrationContext) -> list[int]:
    lock, semaphore, results = asyncio.Lock(), asyncio.Semaphore(2), list[int]()

    async def one(i: int) -> None:
        async with semaphore, lock:
            results.append(await ctx.call_activity(work, i))

    await asyncio.gather(*(one(i) for i in range(3)))
    return results


@app.orchestration
async def shields(ctx: OrchestrationContext) -> list[int]:
    return [await asyncio.shield(ctx.call_activity(work, i)) for i in range(3)]


@app.orchestration
async def async_generators(ctx: OrchestrationContext) -> list[int]:
    async def results() -> AsyncGenerator[int, None]:
        for i in range(10):
            yield await ctx.call_activity(work, i)

    taken = []
    async for result in results():
        taken.append(result)
        if len(taken) == 3:
            break
    return taken


@app.orchestration
def generator(ctx: OrchestrationContext) -> Generator[Any, Any, list[int]]:
    first = yield ctx.call_activity(work, 0)
    others = yield when_all(ctx.call_activity(work, 1), ctx.call_activity(work, 2))
    return [first, *others]


ALL = [gathers, groups, waits, when_alls, queues, locks, shields, async_generators, generator]


@pytest.mark.parametrize("last_first", [False, True])
@pytest.mark.parametrize("orchestration", ALL, ids=lambda o: o.name)
def test_fan_out_gives_results_in_order(host: FakeHost, orchestration: Any, last_first: bool) -> None:
    host.start(orchestration.name)
    finish_all(host, last_first=last_first)
    assert host.output() == [0, 10, 20]


@app.orchestration
async def as_completed(ctx: OrchestrationContext) -> list[int]:
    async def one(i: int) -> int:
        return await ctx.call_activity(work, i)

    return [await next_one for next_one in asyncio.as_completed([one(i) for i in range(20)])]


def test_as_completed_schedules_in_the_order_given_and_yields_in_the_order_of_completion(
    host: FakeHost,
) -> None:
    host.start("as_completed")
    assert [_argument(task.args) for _, task in host.effects.dispatched] == list(range(20))
    finish_all(host, last_first=True)
    assert host.output() == [i * 10 for i in reversed(range(20))]


@app.orchestration
async def as_completed_of_a_set(ctx: OrchestrationContext) -> None:
    async def one(i: int) -> int:
        return await ctx.call_activity(work, i)

    for each in asyncio.as_completed({one(i) for i in range(2)}):
        await each


def test_as_completed_of_a_set_of_coroutines_is_refused(host: FakeHost) -> None:
    host.start("as_completed_of_a_set")
    assert "has no order" in str(host.row().failure)


@app.orchestration
async def sleeps(ctx: OrchestrationContext) -> list[float]:
    began = ctx.now()
    took = []
    await asyncio.sleep(0)
    took.append((ctx.now() - began).total_seconds())
    await asyncio.sleep(3600)
    took.append((ctx.now() - began).total_seconds())
    await ctx.sleep(60)
    took.append((ctx.now() - began).total_seconds())
    await ctx.sleep(dt.timedelta(days=1))
    took.append((ctx.now() - began).total_seconds())
    await ctx.create_timer(ctx.now() + dt.timedelta(seconds=5))
    assert asyncio.get_running_loop().time() == ctx.now().timestamp()
    return [*took, (ctx.now() - began).total_seconds()]


def test_sleeps_are_durable_timers_and_never_early(host: FakeHost) -> None:
    host.start("sleeps")
    host.advance(3599.999)
    assert host.row().status == "Running"
    host.advance(100_000)
    assert host.output() == [0, 3600, 3660, 90_060, 90_065]
    assert not host.effects.timers


@app.orchestration
async def times_out(ctx: OrchestrationContext) -> str:
    try:
        async with asyncio.timeout(60):
            return await ctx.wait_for_external_event("go", str)
    except TimeoutError:
        return "too late"


@app.orchestration
async def waits_for(ctx: OrchestrationContext) -> str:
    try:
        return await asyncio.wait_for(ctx.wait_for_external_event("go", str), 60)
    except TimeoutError:
        return "too late"


@pytest.mark.parametrize("name", ["times_out", "waits_for"])
def test_timeout_fires(host: FakeHost, name: str) -> None:
    host.start(name)
    host.advance(60)
    assert host.output() == "too late"


@pytest.mark.parametrize("name", ["times_out", "waits_for"])
def test_timeout_in_time_cancels_its_timer(host: FakeHost, name: str) -> None:
    host.start(name)
    assert host.effects.timers
    host.raise_event("go", "now")
    assert host.output() == "now"
    assert not host.effects.timers


@app.orchestration
async def times_out_an_activity(ctx: OrchestrationContext) -> str:
    try:
        async with asyncio.timeout(60):
            await ctx.call_activity(work, 1)
    except TimeoutError:
        await ctx.sleep(1)
        return "too late"
    return "done"


def test_a_cancelled_activity_is_forgotten(host: FakeHost) -> None:
    host.start("times_out_an_activity")
    host.advance(60)
    assert not host.effects.activities
    host.finish(5)  # late
    host.advance(1)
    assert host.output() == "too late"


@app.orchestration
async def races(ctx: OrchestrationContext) -> str:
    timer, event = ctx.create_timer(60), ctx.wait_for_external_event("go", str)
    winner = await when_any(timer, event)
    if winner is event:
        timer.cancel()
        return event.result()
    event.cancel()
    return "timer"


def test_when_any_yields_the_winning_task(host: FakeHost) -> None:
    host.start("races")
    host.raise_event("go", "event")
    assert host.output() == "event"
    assert not host.effects.timers
    host.start("races", id="other")
    host.advance(60)
    assert host.output("other") == "timer"


@app.orchestration
async def loses(ctx: OrchestrationContext) -> int:
    first = await when_any(ctx.call_activity(work, 1), ctx.call_activity(work, 2))
    return await first


def test_losers_do_not_delay_the_end_and_leave_no_rows(host: FakeHost) -> None:
    host.start("loses")
    host.finish(2, at=1)
    assert host.output() == 2
    assert not host.effects.activities
    host.finish(failure=FailureDetails("builtins.ValueError", "late"))


@app.orchestration
async def collects_failures(ctx: OrchestrationContext) -> list[str]:
    tasks = [ctx.call_activity(work, i) for i in range(3)]
    try:
        await when_all(*tasks)
    except ActivityFailed as error:
        assert all(task.done() for task in tasks)
        return [error.details.message if error.details else ""]
    return []


def test_when_all_waits_for_all_and_raises_the_first_failure(host: FakeHost) -> None:
    host.start("collects_failures")
    host.finish(at=2, failure=FailureDetails("builtins.ValueError", "first"))
    host.finish(at=0, failure=FailureDetails("builtins.ValueError", "second"))
    assert host.row().status == "Running"
    host.finish(1)
    assert host.output() == ["first"]


@app.orchestration
def compensates(ctx: OrchestrationContext) -> Generator[Any, Any, str]:
    try:
        yield ctx.call_activity(work, 1)
    except ActivityFailed as error:
        undone = yield ctx.call_activity(work, 2)
        return f"{undone}: {error.details.message if error.details else ''}"
    return ""


def test_a_generator_catches_failures(host: FakeHost) -> None:
    host.start("compensates")
    host.finish(failure=FailureDetails("builtins.ValueError", "broken"))
    host.finish("undone")
    assert "InvalidArguments" in str(host.row().failure)  # "undone" is not the int that `work` promises
    host.start("compensates", id="good")
    host.finish(failure=FailureDetails("builtins.ValueError", "broken"))
    host.finish(7)
    assert host.output("good") == "7: broken"


@app.orchestration
def yields_nonsense(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
    yield [ctx.call_activity(work, 1)]


def test_a_generator_that_yields_something_else_is_told_so(host: FakeHost) -> None:
    host.start("yields_nonsense")
    assert "yields tasks" in str(host.row().failure)


@app.orchestration
async def group_fails(ctx: OrchestrationContext) -> str:
    async def one(i: int) -> int:
        return await ctx.call_activity(work, i)

    message = ""
    try:
        async with asyncio.TaskGroup() as group:
            for i in range(5):
                group.create_task(one(i))
    except* ActivityFailed as failures:
        message = str(failures.exceptions[0])
    await ctx.sleep(1)
    return message


def test_a_failed_group_cancels_the_others_in_order(host: FakeHost) -> None:
    host.start("group_fails")
    host.finish(at=3, failure=FailureDetails("builtins.ValueError", "broken"))
    assert not host.effects.activities
    host.advance(1)
    assert "broken" in host.output()


@app.orchestration
async def empty_race(ctx: OrchestrationContext) -> str:
    try:
        _ = when_any()
    except UsageError as error:
        return str(error)
    return ""


def test_when_any_of_nothing_is_refused(host: FakeHost) -> None:
    host.start("empty_race")
    assert "for ever" in host.output()


def test_combinators_outside_an_orchestration_are_refused() -> None:
    with pytest.raises(UsageError, match="inside an orchestration"):
        _ = when_all()


@app.orchestration
async def shows(ctx: OrchestrationContext) -> list[str]:
    tasks: list[Task[Any]] = [
        ctx.call_activity(work, 1),
        ctx.create_timer(5),
        ctx.wait_for_external_event("e"),
    ]
    tasks[1].cancel()
    assert tasks[1].cancel() is False
    return [repr(task) for task in tasks]


def test_tasks_have_a_telling_repr(host: FakeHost) -> None:
    host.start("shows")
    assert host.output() == ["<activity 'work' pending>", "<timer cancelled>", "<event 'e' pending>"]


@app.orchestration
async def current(ctx: OrchestrationContext) -> list[str]:
    async def name() -> str:
        task = asyncio.current_task()
        assert task is not None
        return task.get_name()

    loop = asyncio.get_running_loop()
    assert loop.is_running()
    assert not loop.is_closed()
    return [await name(), await asyncio.create_task(name()), await asyncio.create_task(name(), name="mine")]


def test_current_task_is_the_orchestrations_own(host: FakeHost) -> None:
    host.start("current")
    main, first, mine = host.output()
    assert (main, mine) == ("main", "mine")
    assert first.startswith("task-")


def test_barrier_and_condition(host: FakeHost) -> None:
    host.start("rendezvous")
    finish_all(host)
    assert host.output() == [0, 10, 20]


@app.orchestration
async def rendezvous(ctx: OrchestrationContext) -> list[int]:
    barrier, condition, results = asyncio.Barrier(3), asyncio.Condition(), list[int]()
    event = asyncio.Event()

    async def one(i: int) -> None:
        result = await ctx.call_activity(work, i)
        async with barrier:
            pass
        async with condition:
            await condition.wait_for(lambda: len(results) == i)
            results.append(result)
            condition.notify_all()
        if i == 2:
            event.set()

    tasks = [asyncio.create_task(one(i)) for i in range(3)]
    await event.wait()
    await asyncio.gather(*tasks)
    return results
