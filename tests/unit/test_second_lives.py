"""Rewind, restart and fork: what is run again, and what is not."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections import Counter as Counts
from collections.abc import AsyncIterator, Generator
from typing import Any

import pytest

import lungfish
from lungfish import OrchestrationContext, RuntimeStatus
from lungfish.orchestrations import events
from lungfish.runtime.errors import InstanceEnded, InstanceRunning
from lungfish.testing import Environment, crash_everywhere, environment

app = lungfish.App("second-lives")

ran: Counts[str] = Counts()
keys: dict[str, set[str]] = {}
#: Names of activities that fail now.
broken: set[str] = set()
#: What slow operations wait for.
gates: list[asyncio.Event] = []


@app.activity
def step(name: str) -> str:
    ran[name] += 1
    keys.setdefault(name, set()).add(lungfish.activity_info().idempotency_key)
    if name in broken:
        raise OSError(f"{name} is down")
    return name


@app.activity(inline=True)
def tiny(name: str) -> str:
    if name in broken:
        raise OSError(f"{name} is down")
    return name


@app.entity
class Till(lungfish.Entity):
    total: int = 0

    def add(self, n: int) -> int:
        self.total += n
        return self.total

    async def add_slowly(self, n: int) -> int:
        await gates[-1].wait()
        self.total += n
        return self.total


@pytest.fixture(params=[True, False], ids=["always_replay", "live"])
async def env(request: pytest.FixtureRequest) -> AsyncIterator[Environment]:
    forget()
    async with environment(app, always_replay=request.param) as env:
        yield env


def forget(*names: str) -> None:
    ran.clear()
    keys.clear()
    broken.clear()
    broken.update(names)


async def fails(handle: lungfish.OrchestrationHandle[Any]) -> str:
    with pytest.raises(lungfish.OrchestrationFailed) as raised:
        await handle.result(timeout=1000)
    return str(raised.value)


async def kinds(handle: lungfish.OrchestrationHandle[Any]) -> list[str]:
    return [type(event).__name__ for event in await handle.history()]


# --- rewind -----------------------------------------------------------------------------------------


@app.orchestration
async def chain(ctx: OrchestrationContext, names: list[str]) -> list[str]:
    return [await ctx.call_activity(step, name) for name in names]


@app.orchestration
def generated(ctx: OrchestrationContext, names: list[str]) -> Generator[Any, Any, list[str]]:
    done: list[str] = []
    while len(done) < len(names):
        done.append((yield ctx.call_activity(step, names[len(done)])))
    return done


@app.orchestration
async def fan(ctx: OrchestrationContext, names: list[str]) -> list[str]:
    return await ctx.when_all([ctx.call_activity(step, name) for name in names])


@app.orchestration
async def group(ctx: OrchestrationContext, names: list[str]) -> list[str]:
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(branch(ctx, name)) for name in names]
    return [task.result() for task in running]


async def branch(ctx: OrchestrationContext, name: str) -> str:
    await ctx.sleep(10)
    return await ctx.call_activity(step, name)


@pytest.mark.parametrize("orchestration", ["chain", "generated", "fan", "group"])
async def test_what_failed_is_run_again_and_what_did_not_is_not(env: Environment, orchestration: str) -> None:
    broken.add("b")
    handle = await env.client.start(orchestration, ["a", "b", "c"])
    await fails(handle)
    before = ran.copy()
    broken.clear()
    await handle.rewind("b is up again")
    assert await handle.result(timeout=1000) == ["a", "b", "c"]
    assert ran["b"] == before["b"] + 1
    if orchestration != "group":  # there, a and c may have been cancelled
        assert ran["a"] == 1
        assert ran["c"] == 1
    assert {name: len(found) for name, found in keys.items()} == dict.fromkeys(keys, 1)
    assert (await handle.status()).failure is None
    *_, mark = (event for event in await handle.history() if isinstance(event, events.Rewound))
    assert mark.reason == "b is up again"


async def test_all_that_failed_alike_is_taken_out_at_once(env: Environment) -> None:
    names = [f"n{number}" for number in range(10)]
    broken.update(names[3:8])
    handle = await env.client.start(fan, names)
    await fails(handle)
    broken.clear()
    await handle.rewind()
    assert await handle.result(timeout=1000) == names
    assert ran == Counts({name: 2 if name in names[3:8] else 1 for name in names})


async def test_a_rewound_instance_may_fail_and_be_rewound_again(env: Environment) -> None:
    broken.add("b")
    handle = await env.client.start(chain, ["a", "b"])
    for attempt in range(1, 4):
        assert "b is down" in await fails(handle)
        assert ran["b"] == attempt
        await handle.rewind(f"attempt {attempt}")
    await fails(handle)
    broken.clear()
    await handle.rewind()
    assert await handle.result(timeout=1000) == ["a", "b"]
    assert ran["a"] == 1


@app.orchestration
async def saga(ctx: OrchestrationContext) -> list[str]:
    done: list[str] = []
    try:
        done.append(await ctx.call_activity(step, "book"))
        done.append(await ctx.call_activity(step, "pay"))
    except lungfish.ActivityFailed as error:
        done.append(await ctx.call_activity(step, "refund"))
        raise RuntimeError("not booked") from error
    done.append(await ctx.call_activity(step, "ship"))
    return done


@app.orchestration
async def tiny_ones(ctx: OrchestrationContext) -> None:
    await asyncio.gather(
        ctx.call_activity(tiny, "a"), ctx.call_activity(tiny, "b"), ctx.call_activity(step, "c")
    )


async def test_what_ends_again_while_it_is_rewound_leaves_nothing_behind(env: Environment) -> None:
    broken.update({"a", "b"})
    handle = await env.client.start(tiny_ones, id="t")
    assert "a is down" in await fails(handle)
    await handle.rewind()
    assert "a is down" in await fails(handle)
    assert ran["c"] == 1
    broken.clear()
    again = await env.client.start(tiny_ones, id="t", if_exists="restart_if_ended")
    await again.result()
    assert ran["c"] == 2


async def test_what_followed_from_the_failure_goes_with_it(env: Environment) -> None:
    broken.add("pay")
    handle = await env.client.start(saga)
    assert "not booked" in await fails(handle)
    broken.clear()
    await handle.rewind()
    assert await handle.result(timeout=1000) == ["book", "pay", "ship"]
    assert ran == Counts({"book": 1, "pay": 2, "refund": 1, "ship": 1})
    assert keys["refund"].isdisjoint(keys["ship"])


@app.orchestration
async def tolerant(ctx: OrchestrationContext) -> list[str]:
    done: list[str] = []
    try:
        await ctx.call_activity(step, "primary")
    except lungfish.ActivityFailed:
        done.append(await ctx.call_activity(step, "fallback"))
    other = asyncio.ensure_future(branch(ctx, "beside"))
    done.append(await ctx.call_activity(step, "last"))
    return [*done, await other]


async def test_a_failure_that_was_dealt_with_stays(env: Environment) -> None:
    broken.update({"primary", "last"})
    handle = await env.client.start(tolerant)
    await fails(handle)
    broken.clear()
    await handle.rewind()
    assert await handle.result(timeout=1000) == ["fallback", "last", "beside"]
    assert ran == Counts({"primary": 1, "fallback": 1, "last": 2, "beside": 1})


mended = False


@app.orchestration
async def has_a_bug(ctx: OrchestrationContext) -> str:
    word = await ctx.wait_for_external_event("word", str)
    done = await ctx.call_activity(step, word)
    if not mended:
        raise KeyError("a bug")
    return await ctx.call_activity(step, f"{done}!")


async def test_code_that_failed_by_itself_runs_its_last_turn_again(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = await env.client.start(has_a_bug)
    await handle.raise_event("word", "go")
    assert "a bug" in await fails(handle)
    await handle.rewind("perhaps it is better now")
    assert "a bug" in await fails(handle)
    monkeypatch.setattr(f"{__name__}.mended", True)
    await handle.rewind("it is")
    assert await handle.result(timeout=1000) == "go!"
    assert ran == Counts({"go": 1, "go!": 1})


@app.orchestration
async def waits_beside(ctx: OrchestrationContext) -> list[Any]:
    timer = ctx.create_timer(dt.timedelta(days=2))
    word = asyncio.ensure_future(ctx.wait_for_external_event("word", str))
    call = ctx.entity(Till, "till").call(Till.add_slowly, 5)
    done = await ctx.call_activity(step, "first")
    await timer
    return [done, await word, await call, await ctx.call_activity(tiny, "tiny")]


@pytest.mark.parametrize("late", [False, True], ids=["answered before", "answered after"])
async def test_what_was_under_way_goes_on(env: Environment, late: bool) -> None:
    broken.add("first")
    gates.append(asyncio.Event())
    handle = await env.client.start(waits_beside)
    await fails(handle)
    if not late:
        gates[-1].set()
    while not late and "EntityResponded" not in await kinds(
        handle
    ):  # the entity answers an instance that has failed
        await asyncio.sleep(0)
    broken.clear()
    began = env.now()
    await handle.rewind()
    gates[-1].set()
    await handle.raise_event("word", "heard")
    assert await handle.result(timeout=1000) == ["first", "heard", 5, "tiny"]
    assert env.now() - began >= dt.timedelta(days=1)
    state = await env.client.entity(Till, "till").state()
    assert state is not None
    assert state.total == 5


@app.orchestration
async def unconsumed(ctx: OrchestrationContext) -> list[str]:
    await ctx.wait_for_external_event("go")
    done = await ctx.call_activity(step, "first")
    return [done, await ctx.wait_for_external_event("word", str)]


async def test_events_that_waited_are_not_lost(env: Environment) -> None:
    broken.add("first")
    handle = await env.client.start(unconsumed)
    await handle.raise_event("word", "early")
    await handle.raise_event("go")
    await fails(handle)
    broken.clear()
    await handle.rewind()
    assert await handle.result(timeout=1000) == ["first", "early"]


# --- rewind of families -----------------------------------------------------------------------------


@app.orchestration
async def grandparent(ctx: OrchestrationContext) -> list[str]:
    return await ctx.call_orchestration(parent, id=f"{ctx.instance_id}.p")


@app.orchestration
async def parent(ctx: OrchestrationContext) -> list[str]:
    first = await ctx.call_activity(step, "before")
    parts = await asyncio.gather(
        *(ctx.call_orchestration(leaf, name, id=f"{ctx.instance_id}.{name}") for name in "xyz")
    )
    return [first, *parts]


@app.orchestration
async def leaf(ctx: OrchestrationContext, name: str) -> str:
    first = await ctx.call_activity(step, f"{name}1")
    await ctx.sleep(60)
    return first + await ctx.call_activity(step, f"{name}2")


WHOLE = ["before", "x1x2", "y1y2", "z1z2"]


async def test_families_are_rewound_as_deep_as_they_failed(env: Environment) -> None:
    broken.add("y1")
    handle = await env.client.start(grandparent, id="g")
    await fails(handle)
    broken.clear()
    await handle.rewind("once more")
    assert await handle.result(timeout=1000) == WHOLE
    assert ran["before"] == 1
    assert ran["y1"] == 2
    assert ran["x1"] <= 2  # its orchestration may have been cancelled while it ran
    for name in ("g.p", "g.p.y"):
        assert "Rewound" in await kinds(env.client.orchestration(name))
    # Other ends than its own do not matter to the finished ones.
    assert (await env.client.orchestration("g.p.z").status()).runtime_status is RuntimeStatus.COMPLETED


def test_rewind_survives_a_crash_at_every_call() -> None:
    async def scenario(client: lungfish.Client) -> tuple[list[str], int]:
        forget("y2")
        handle = await client.start(parent, id="p")
        with contextlib.suppress(lungfish.OrchestrationFailed):
            await handle.result(timeout=60)
        broken.clear()
        await handle.rewind()
        return await handle.result(timeout=60), len(keys["before"])

    assert crash_everywhere(app, scenario).outcome == (WHOLE, 1)


async def test_rewind_is_for_what_failed(env: Environment) -> None:
    with pytest.raises(lungfish.InstanceNotFound):
        await env.client.orchestration("nobody").rewind()
    done = await env.client.start(chain, ["a"])
    await done.result()
    with pytest.raises(InstanceEnded, match="did not fail"):
        await done.rewind()
    waits = await env.client.start(unconsumed)
    with pytest.raises(InstanceRunning):
        await waits.rewind()


@app.orchestration
async def locks(ctx: OrchestrationContext) -> None:
    async with ctx.lock(ctx.entity(Till, "till")):
        await ctx.call_activity(step, "inside")


async def test_a_critical_section_cannot_be_rewound_into(env: Environment) -> None:
    broken.add("inside")
    handle = await env.client.start(locks)
    await fails(handle)
    broken.clear()
    with contextlib.suppress(lungfish.UsageError):
        await handle.rewind()
        raise AssertionError("it should be refused")
    assert (await handle.status()).runtime_status is RuntimeStatus.FAILED
    await handle.restart()
    await handle.result(timeout=100)


# --- restart ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3000], ids=["small input", "large input"])
async def test_restart_takes_the_same_input(env: Environment, size: int) -> None:
    name = "n" * size
    handle = await env.client.start(chain, [name], id="r")
    assert await handle.result() == [name]
    first = (await handle.status()).execution_id
    again = await handle.restart()
    assert again.id == "r"
    assert await again.result(timeout=100) == [name]
    assert (await handle.status()).execution_id != first
    other = await handle.restart(new_id=True)
    assert other.id != "r"
    assert await other.result(timeout=100) == [name]
    assert ran[name] == 3
    waits = await env.client.start(unconsumed)
    for new_id in (False, True):
        with pytest.raises(InstanceRunning):
            await waits.restart(new_id=new_id)


# --- fork -------------------------------------------------------------------------------------------


@app.orchestration
async def chancy(ctx: OrchestrationContext, names: list[str]) -> list[str]:
    done = [str(ctx.uuid4())]
    for name in names:
        done.append(await ctx.call_activity(step, name))
        done.append(str(ctx.uuid4()))
        done.append(await ctx.call_orchestration(leaf, f"{name}-"))
    return done


async def test_a_fork_begins_with_what_the_other_one_did(env: Environment) -> None:
    handle = await env.client.start(chancy, ["a", "b"])
    whole = await handle.result(timeout=1000)
    history = await handle.history()
    ends = [at for at, event in enumerate(history) if isinstance(event, events.SubOrchestrationCompleted)]
    before = ran.copy()
    fork = await handle.fork(at=ends[0] + 2, id="fork")
    other = await fork.result(timeout=1000)
    assert ran["a"] == before["a"] == 1
    assert ran["b"] == 2
    # Chance is the other one's up to there, and its own from there on.
    assert [one == two for one, two in zip(whole, other, strict=True)] == [True] * 4 + [True, False, True]
    assert any(isinstance(event, events.Forked) for event in await fork.history())
    assert await handle.result() == whole
    for id in ("fork", "fork"):
        with pytest.raises(lungfish.InstanceExists):
            await handle.fork(at=ends[0] + 2, id=id)


async def test_a_fork_asks_again_for_what_was_under_way(env: Environment) -> None:
    handle = await env.client.start(chancy, ["a"])
    await handle.result(timeout=1000)
    history = await handle.history()
    (asked,) = (at for at, event in enumerate(history) if isinstance(event, events.SubOrchestrationCreated))
    fork = await handle.fork(at=asked + 1)
    assert len(await fork.result(timeout=1000)) == 4
    assert ran["a"] == 1
    assert ran["a-1"] == 2


@pytest.mark.parametrize("at", [-1, 0, 1, 3, 99, True, "2"])
async def test_a_position_must_be_between_two_steps(env: Environment, at: Any) -> None:
    handle = await env.client.start(chain, ["a", "b"])
    await handle.result()
    if at == 3:  # the activity that was asked for when it began
        assert isinstance((await handle.history())[2], events.TaskScheduled)
        at = 2
    with pytest.raises(lungfish.UsageError):
        await handle.fork(at=at)


async def test_a_fork_needs_code_that_repeats_the_history(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = await env.client.start(depends, id="d")
    await handle.result(timeout=100)
    history = await handle.history()
    at = next(at for at, event in enumerate(history) if isinstance(event, events.TaskCompleted)) + 2
    monkeypatch.setattr(f"{__name__}.mended", True)
    with pytest.raises(lungfish.UsageError, match="another path"):
        await handle.fork(at=at, id="d2")
    with pytest.raises(lungfish.InstanceNotFound):
        await env.client.orchestration("d2").status()


@app.orchestration
async def depends(ctx: OrchestrationContext) -> str:
    if mended:
        await ctx.sleep(1)
    return await ctx.call_activity(step, "a") + await ctx.call_activity(step, "b")
