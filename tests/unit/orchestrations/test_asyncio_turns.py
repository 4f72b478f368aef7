"""asyncio's tools over several turns: each does what it does anywhere, and replay repeats it.

Every case runs live, with a replay at every turn, and with a crash after every turn; what it returns must be
the same, and so must be the history.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from lungfish.orchestrations import OrchestrationContext, events
from lungfish.runtime import codec
from lungfish.runtime.declared.app import App
from lungfish.runtime.errors import FailureDetails
from tests.unit.orchestrations.fakes import FakeHost, instance

Code = Callable[[OrchestrationContext], Coroutine[Any, Any, Any]]


async def _work(ctx: OrchestrationContext, n: int) -> int:
    result: int = await ctx.call_activity("work", n)
    return result


# --- several at once ---


async def gather_keeps_the_order(ctx: OrchestrationContext) -> Any:
    return await asyncio.gather(*(_work(ctx, n) for n in range(4)))


async def gather_raises_the_first_failure(ctx: OrchestrationContext) -> Any:
    others = [asyncio.ensure_future(_work(ctx, n)) for n in (1, 2)]
    try:
        await asyncio.gather(_work(ctx, -1), *others)
    except Exception as error:
        return [type(error).__name__, await others[0], await others[1]]


async def gather_returns_exceptions(ctx: OrchestrationContext) -> Any:
    found = await asyncio.gather(*(_work(ctx, n) for n in (1, -2, 3, -4)), return_exceptions=True)
    return [each if isinstance(each, int) else type(each).__name__ for each in found]


async def gather_nests(ctx: OrchestrationContext) -> Any:
    async def row(n: int) -> list[int]:
        return await asyncio.gather(*(_work(ctx, 10 * n + m) for m in range(2)))

    return await asyncio.gather(row(1), asyncio.gather(row(2), row(3)))


async def gather_with_a_cancelled_child(ctx: OrchestrationContext) -> Any:
    children = [asyncio.ensure_future(_work(ctx, n)) for n in range(3)]
    together = asyncio.gather(*children, return_exceptions=True)
    await ctx.call_activity("first", 0)
    children[1].cancel()
    return [type(each).__name__ for each in await together]


async def gather_is_cancelled_whole(ctx: OrchestrationContext) -> Any:
    together = asyncio.gather(*(_work(ctx, n) for n in range(3)))
    await ctx.call_activity("first", 0)
    together.cancel()
    try:
        await together
    except asyncio.CancelledError:
        return "cancelled"


def _waits(return_when: str) -> Code:
    async def code(ctx: OrchestrationContext) -> Any:
        tasks = [asyncio.create_task(_work(ctx, n), name=f"t{n}") for n in (1, -2, 3)]
        done, pending = await asyncio.wait(tasks, return_when=return_when)
        for task in pending:
            task.cancel()
        return [sorted(task.get_name() for task in done), len(pending), await ctx.call_activity("after", 1)]

    return code


async def wait_with_a_timeout(ctx: OrchestrationContext) -> Any:
    tasks = [asyncio.create_task(_work(ctx, n)) for n in range(3)]
    done, pending = await asyncio.wait(tasks, timeout=0.5)
    results = await asyncio.gather(*tasks)
    return [len(done), len(pending), results]


async def as_completed_plain(ctx: OrchestrationContext) -> Any:
    return [await each for each in asyncio.as_completed([_work(ctx, n) for n in range(4)])]


async def as_completed_with_a_timeout(ctx: OrchestrationContext) -> Any:
    seen = []
    try:
        for each in asyncio.as_completed([_work(ctx, 1), asyncio.sleep(50, 2)], timeout=10):
            seen.append(await each)  # noqa: PERF401 - the loop is what is tested
    except TimeoutError:
        return [*seen, "timeout"]


async def as_completed_async(ctx: OrchestrationContext) -> Any:
    tasks = [ctx.call_activity("work", n) for n in range(4)]
    found = []
    async for task in asyncio.as_completed(tasks):  # type: ignore[attr-defined, unused-ignore]
        found.append([tasks.index(task), await task])  # noqa: PERF401
    return found


async def group_gives_results(ctx: OrchestrationContext) -> Any:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_work(ctx, n)) for n in range(3)]
    return [task.result() for task in tasks]


async def group_cancels_siblings(ctx: OrchestrationContext) -> Any:
    ended = []

    async def sibling(n: int) -> None:
        try:
            await ctx.wait_for_external_event("never")
        finally:
            ended.append(n)

    try:
        async with asyncio.TaskGroup() as group:
            for n in range(3):
                group.create_task(sibling(n))
            group.create_task(_work(ctx, -1))
    except* Exception as errors:
        ended.append(len(errors.exceptions))
    return ended


# --- time ---


async def sleeps(ctx: OrchestrationContext) -> Any:
    began = ctx.now()
    value = await asyncio.sleep(30, "slept")
    return [value, (ctx.now() - began).total_seconds()]


async def timeout_fires(ctx: OrchestrationContext) -> Any:
    scope = asyncio.timeout(5)
    try:
        async with scope:
            await ctx.wait_for_external_event("never")
    except TimeoutError:
        return [scope.expired(), await _work(ctx, 1)]


async def timeout_at_is_moved(ctx: OrchestrationContext) -> Any:
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with asyncio.timeout_at(began + 5) as scope:
            await _work(ctx, 1)
            scope.reschedule(loop.time() + 100)
            await ctx.wait_for_external_event("never")
    except TimeoutError:
        return 100 <= loop.time() - began < 106


async def wait_for_in_time(ctx: OrchestrationContext) -> Any:
    return await asyncio.wait_for(_work(ctx, 7), 1_000)


async def wait_for_too_late(ctx: OrchestrationContext) -> Any:
    try:
        await asyncio.wait_for(ctx.wait_for_external_event("never"), 3)
    except TimeoutError:
        return await _work(ctx, 2)


async def calls_later(ctx: OrchestrationContext) -> Any:
    loop, seen = asyncio.get_running_loop(), list[str]()
    all_there = loop.create_future()
    loop.call_later(20, seen.append, "20")
    loop.call_at(loop.time() + 10, seen.append, "10")
    loop.call_later(5, seen.append, "cancelled").cancel()
    loop.call_soon(seen.append, "soon")
    loop.call_later(30, all_there.set_result, None)
    await all_there
    return seen


# --- synchronisation ---


async def queue_hands_over(ctx: OrchestrationContext) -> Any:
    queue: asyncio.Queue[int] = asyncio.Queue(1)

    async def produce() -> None:
        for n in range(4):
            await queue.put(await _work(ctx, n))
        await queue.join()

    async def consume(seen: list[int]) -> None:
        for _ in range(2):
            seen.append(await queue.get())
            await _work(ctx, 100)
            queue.task_done()

    one, two = list[int](), list[int]()
    await asyncio.gather(produce(), consume(one), consume(two))
    return [one, two]


async def priority_queue(ctx: OrchestrationContext) -> Any:
    queue: asyncio.PriorityQueue[int] = asyncio.PriorityQueue()
    for n in (3, 1, 2):
        await queue.put(await _work(ctx, n))
    return [queue.get_nowait() for _ in range(3)]


async def lock_is_fair(ctx: OrchestrationContext) -> Any:
    lock, order = asyncio.Lock(), list[int]()

    async def one(n: int) -> None:
        async with lock:
            order.append(n)
            await _work(ctx, n)

    await asyncio.gather(*(one(n) for n in range(3)))
    return order


async def semaphore_bounds(ctx: OrchestrationContext) -> Any:
    semaphore, inside, most = asyncio.BoundedSemaphore(2), 0, 0

    async def one(n: int) -> None:
        nonlocal inside, most
        async with semaphore:
            inside += 1
            most = max(most, inside)
            await _work(ctx, n)
            inside -= 1

    await asyncio.gather(*(one(n) for n in range(5)))
    return most


async def event_wakes_all(ctx: OrchestrationContext) -> Any:
    event, woken = asyncio.Event(), list[int]()

    async def one(n: int) -> None:
        await event.wait()
        woken.append(n)
        await _work(ctx, n)

    tasks = [asyncio.create_task(one(n)) for n in range(3)]
    await _work(ctx, 9)
    event.set()
    await asyncio.gather(*tasks)
    return woken


async def condition_notifies(ctx: OrchestrationContext) -> Any:
    condition, seen, total = asyncio.Condition(), list[int](), 0

    async def watcher(least: int) -> None:
        async with condition:
            await condition.wait_for(lambda: total >= least)
            seen.append(least)

    tasks = [asyncio.create_task(watcher(n)) for n in (30, 10)]
    for n in (1, 2):
        result = await _work(ctx, n)
        async with condition:
            total += result
            condition.notify_all()
    await asyncio.gather(*tasks)
    return seen


async def barrier_meets(ctx: OrchestrationContext) -> Any:
    barrier, order = asyncio.Barrier(3), list[int]()

    async def one(n: int) -> None:
        await _work(ctx, n)
        place = await barrier.wait()
        order.append(place)
        await _work(ctx, 10 + place)

    await asyncio.gather(*(one(n) for n in range(3)))
    return order


# --- tasks ---


async def shield_protects(ctx: OrchestrationContext) -> Any:
    inner = asyncio.create_task(_work(ctx, 4))
    outer = asyncio.create_task(_shielded(inner))
    await ctx.call_activity("first", 0)
    outer.cancel()
    results = await asyncio.gather(outer, return_exceptions=True)
    return [type(results[0]).__name__, await inner]


async def _shielded(inner: asyncio.Task[int]) -> int:
    return await asyncio.shield(inner)


async def tasks_have_names_and_contexts(ctx: OrchestrationContext) -> Any:
    async def tell() -> list[Any]:
        await _work(ctx, 1)
        task = asyncio.current_task()
        assert task is not None
        variable.set("inner")
        return [task.get_name(), before.get(variable)]

    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    variable.set("outer")
    before = contextvars.copy_context()
    named = asyncio.create_task(tell(), name="mine", context=before)
    plain = asyncio.create_task(tell())
    first, (number, _) = await named, await plain
    return [first, number.startswith("task-"), variable.get(), before[variable]]


async def callbacks_and_cancellation(ctx: OrchestrationContext) -> Any:
    seen: list[str] = []

    async def cleans_up() -> None:
        try:
            await ctx.wait_for_external_event("never")
        except asyncio.CancelledError:
            seen.append(f"cleaned {await _work(ctx, 5)}")
            raise

    task = asyncio.create_task(cleans_up())
    task.add_done_callback(lambda done: seen.append(f"cancelled {done.cancelled()}"))
    await _work(ctx, 1)
    task.cancel("why")
    await asyncio.wait([task])
    return seen


async def async_generators_finish(ctx: OrchestrationContext) -> Any:
    seen: list[int] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            for n in range(5):
                yield await _work(ctx, n)
        finally:
            seen.append(-1)

    async for n in numbers():
        seen.append(n)  # noqa: PERF401
    return seen


CASES: dict[str, tuple[Code, Any]] = {
    "gather": (gather_keeps_the_order, [0, 10, 20, 30]),
    "gather, failure": (gather_raises_the_first_failure, ["ActivityFailed", 10, 20]),
    "gather, return_exceptions": (gather_returns_exceptions, [10, "ActivityFailed", 30, "ActivityFailed"]),
    "gather, nested": (gather_nests, [[100, 110], [[200, 210], [300, 310]]]),
    "gather, child cancelled": (gather_with_a_cancelled_child, None),
    "gather, cancelled": (gather_is_cancelled_whole, None),
    "wait, all": (_waits(asyncio.ALL_COMPLETED), [["t-2", "t1", "t3"], 0, 10]),
    "wait, first": (_waits(asyncio.FIRST_COMPLETED), None),
    "wait, exception": (_waits(asyncio.FIRST_EXCEPTION), None),
    "wait, timeout": (wait_with_a_timeout, None),
    "as_completed": (as_completed_plain, None),
    "as_completed, timeout": (as_completed_with_a_timeout, [10, "timeout"]),
    "TaskGroup": (group_gives_results, [0, 10, 20]),
    "TaskGroup, failure": (group_cancels_siblings, [0, 1, 2, 1]),
    "sleep": (sleeps, None),
    "timeout": (timeout_fires, [True, 10]),
    "timeout_at": (timeout_at_is_moved, True),
    "wait_for": (wait_for_in_time, 70),
    "wait_for, late": (wait_for_too_late, 20),
    "call_later": (calls_later, ["soon", "10", "20"]),
    "Queue": (queue_hands_over, None),
    "PriorityQueue": (priority_queue, [10, 20, 30]),
    "Lock": (lock_is_fair, [0, 1, 2]),
    "Semaphore": (semaphore_bounds, 2),
    "Event": (event_wakes_all, [0, 1, 2]),
    "Condition": (condition_notifies, [10, 30]),
    "Barrier": (barrier_meets, None),
    "shield": (shield_protects, None),
    "create_task": (tasks_have_names_and_contexts, [["mine", "inner"], True, "outer", "inner"]),
    "cancellation": (callbacks_and_cancellation, ["cleaned 50", "cancelled True"]),
    "async generator": (async_generators_finish, [0, 10, 20, 30, 40, -1]),
}
if sys.version_info >= (3, 13):
    CASES["as_completed, async"] = (as_completed_async, None)


def play(code: Code, how: str, *, last_first: bool) -> tuple[Any, list[events.Event]]:
    """Run an orchestration to its end, one answer a turn; return its result and its history."""
    app = App("asyncio")
    for name in ("work", "first", "after"):
        app.activity(name=name)(_played_by_the_test)
    app.orchestration(name="main")(code)
    host = FakeHost(app, always_replay=how == "always_replay")
    host.start("main")
    for _ in range(200):
        if host.row().terminal:
            break
        if how == "crashes":
            host.crash()
        if host.effects.dispatched:
            _answer(host, -1 if last_first else 0)
        else:
            host.advance(1)
    return host.output(), events.unpack_all(host.effects.histories[instance("i")])


def _played_by_the_test(n: int) -> int:
    raise AssertionError


def _answer(host: FakeHost, at: int) -> None:
    (n,), _ = codec.decode(host.effects.dispatched[at][1].args)
    if n < 0:
        host.finish(at=at, failure=FailureDetails("builtins.ValueError", "negative"))
    else:
        host.finish(n * 10, at)


@pytest.mark.parametrize("last_first", [False, True], ids=["in order", "last first"])
@pytest.mark.parametrize("case", CASES)
def test_it_works_and_replay_repeats_it(case: str, last_first: bool) -> None:
    code, expected = CASES[case]
    result, history = play(code, "live", last_first=last_first)
    if expected is not None:
        assert result == expected
    if case in ("gather, cancelled", "shield") and not last_first:
        assert "cancelled" in str(result).lower()
    assert play(code, "always_replay", last_first=last_first) == (result, history)
    assert play(code, "crashes", last_first=last_first) == (result, history)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_eager_tasks_of_the_hosts_loop_change_nothing() -> None:
    async def run() -> Any:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined, unused-ignore]
        await asyncio.sleep(0)
        return play(group_cancels_siblings, "always_replay", last_first=False)

    assert asyncio.run(run()) == play(group_cancels_siblings, "live", last_first=False)


async def eager(ctx: OrchestrationContext) -> None:
    asyncio.get_running_loop().set_task_factory(None)


def test_a_task_factory_of_ones_own_is_refused_with_file_and_line() -> None:
    app = App("factory")
    app.orchestration(name="main")(eager)
    host = FakeHost(app)
    host.start("main")
    failure = str(host.row().failure)
    assert (
        f"loop.set_task_factory() at {__file__}:{eager.__code__.co_firstlineno + 1} cannot be used" in failure
    )
