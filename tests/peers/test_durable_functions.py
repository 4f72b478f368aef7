"""Bugs and traps of Durable Functions and its relatives that this runtime must not share.

Each name tells the bug; docs/known-bugs-of-peers.md says whose it was and where the others are tested.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import math
from collections import Counter as Counts
from collections.abc import AsyncIterator
from typing import Any

import pytest

import lungfish
import lungfish.testing
from lungfish import OrchestrationContext, RetryPolicy, RuntimeStatus
from lungfish.runtime.errors import MESSAGE_CHARS_MAX
from lungfish.testing import Environment, environment

app = lungfish.App("durable-functions", version="7")
HOUR = dt.timedelta(hours=1)

ran: Counts[str] = Counts()
broken: set[str] = set()


@app.activity
def step(name: str) -> str:
    ran[name] += 1
    if name in broken:
        raise OSError(f"{name} is down")
    return name


@app.entity
class Box(lungfish.Entity):
    value: int = 0

    def add(self, n: int) -> int:
        self.value += n
        return self.value

    async def add_slowly(self, n: int) -> int:
        await asyncio.sleep(0.01)
        return self.add(n)

    def rant(self, length: int) -> None:
        self.value += 1
        raise ValueError("x" * length)


@pytest.fixture(params=[True, False], ids=["always_replay", "live"])
async def env(request: pytest.FixtureRequest) -> AsyncIterator[Environment]:
    ran.clear()
    broken.clear()
    async with environment(app, always_replay=request.param) as env:
        yield env


async def failure_of(handle: lungfish.OrchestrationHandle[Any]) -> lungfish.FailureDetails:
    with pytest.raises(lungfish.OrchestrationFailed) as raised:
        await handle.result()
    assert raised.value.details is not None
    return raised.value.details


# --- several tasks ----------------------------------------------------------------------------------


@app.orchestration
async def waits_for_nothing(ctx: OrchestrationContext) -> list[Any]:
    return [await ctx.when_all(), await ctx.when_all([]), await asyncio.gather()]


async def test_waiting_for_all_of_nothing_completes(env: Environment) -> None:
    assert await env.client.run(waits_for_nothing) == [[], [], []]


# --- timers -----------------------------------------------------------------------------------------


@app.orchestration
async def waits_for_ever(ctx: OrchestrationContext, seconds: float) -> str:
    how = [ctx.sleep(dt.timedelta.max), asyncio.sleep(seconds)]
    tasks = [asyncio.ensure_future(each) for each in how]
    async with asyncio.timeout(seconds):
        await ctx.wait_for_external_event("go")
    for task in tasks:
        task.cancel()
    return "went"


@pytest.mark.parametrize("seconds", [1e12, 1e300, math.inf])
async def test_no_wait_is_too_long_for_a_timer(env: Environment, seconds: float) -> None:
    """Timers of at most 6 days; here also those that outlast the calendar, and that never end."""
    handle = await env.client.start(waits_for_ever, seconds)
    env.auto_skip = False
    await env.advance(dt.timedelta(days=100_000))
    assert (await handle.status()).runtime_status is RuntimeStatus.RUNNING
    await handle.raise_event("go")
    assert await handle.result() == "went"


@app.orchestration
async def waits_for_no_number(ctx: OrchestrationContext) -> None:
    await asyncio.sleep(math.nan)


async def test_a_wait_that_is_no_number_fails_where_it_is_asked_for(env: Environment) -> None:
    handle = await env.client.start(waits_for_no_number)
    assert (await failure_of(handle)).error_type == "builtins.ValueError"


# --- failures ---------------------------------------------------------------------------------------


@app.activity
def rants(length: int) -> None:
    raise ValueError("x" * length)


@app.orchestration
async def rants_everywhere(ctx: OrchestrationContext, length: int) -> list[int]:
    lengths = []
    for what in (ctx.call_activity(rants, length), ctx.entity(Box, "a").call(Box.rant, length)):
        try:
            await what
        except lungfish.ExecutionFailed as error:
            lengths.append(len(str(error)))
    try:
        await ctx.call_orchestration(rants_itself, length)
    except lungfish.OrchestrationFailed as error:
        lengths.append(len(str(error)))
    return lengths


@app.orchestration
async def rants_itself(ctx: OrchestrationContext, length: int) -> None:
    raise ValueError("x" * length)


async def test_a_failure_with_a_huge_message_neither_hangs_nor_swells_histories(env: Environment) -> None:
    most = MESSAGE_CHARS_MAX + 500
    handle = await env.client.start(rants_everywhere, 10_000_000)
    lengths = await handle.result()
    assert all(MESSAGE_CHARS_MAX < length < most for length in lengths), lengths
    assert len(lengths) == 3
    assert sum(len(repr(event)) for event in await handle.history()) < 20 * most
    with pytest.raises(lungfish.EntityOperationFailed) as raised:
        await env.client.entity(Box, "a").call(Box.rant, 10_000_000)
    assert len(str(raised.value)) < most


@pytest.mark.parametrize("verb", ["suspend", "resume", "terminate", "cancel", "rewind"])
async def test_a_huge_reason_is_refused_where_it_is_given(env: Environment, verb: str) -> None:
    handle = await env.client.start(waits_for_ever, 1)
    with pytest.raises(lungfish.UsageError, match="5,000,000 characters; the limit is"):
        await getattr(handle, verb)("x" * 5_000_000)


# --- retries ----------------------------------------------------------------------------------------


@app.orchestration
async def child(ctx: OrchestrationContext, name: str) -> str:
    await ctx.call_activity(step, f"version {ctx.version}")
    return await ctx.call_activity(step, name)


@app.orchestration
async def retries_a_child(ctx: OrchestrationContext, policy: RetryPolicy | None, id: str = "") -> str:
    retry = RetryPolicy(4, HOUR, 1.0, retry_timeout=dt.timedelta(hours=2.5)) if policy is None else policy
    if id:
        return await ctx.call_orchestration(child, "work", id=id, retry=retry)
    return await ctx.call_orchestration(child, "work", retry=retry)


async def test_a_retry_timeout_goes_by_the_time_of_the_turn_and_replays_after_it(env: Environment) -> None:
    """By the clock of the machine a replay a day later decides against retries that took place."""
    broken.add("work")
    handle = await env.client.start(retries_a_child, None)
    assert "work is down" in str(await failure_of(handle))
    assert ran["work"] == 3
    await env.advance(dt.timedelta(days=1))
    lungfish.testing.Replayer(app).replay(await lungfish.testing.export_history(handle))


async def test_a_retried_child_keeps_its_version_and_may_keep_its_id(env: Environment) -> None:
    broken.add("work")
    handle = await env.client.start(retries_a_child, RetryPolicy(3, HOUR), "the-child")
    await failure_of(handle)
    assert ran == {"version 7": 3, "work": 3}
    assert (await env.client.orchestration("the-child").status()).runtime_status is RuntimeStatus.FAILED


async def test_no_timer_follows_the_last_failure(env: Environment) -> None:
    broken.add("work")
    handle = await env.client.start(retries_a_child, RetryPolicy(3, HOUR))
    began = env.now()
    await failure_of(handle)
    assert [type(event).__name__ for event in await handle.history()].count("TimerCreated") == 2
    assert env.now() - began < 4 * HOUR


class Never(Exception):
    """Says that a retry cannot help."""

    non_retriable = True


@app.orchestration
async def refuses(ctx: OrchestrationContext) -> None:
    ran["refuses"] += 1 - ctx.is_replaying
    await ctx.sleep(1)
    raise Never("never")


@app.orchestration
async def retries_what_cannot_help(ctx: OrchestrationContext) -> None:
    await ctx.call_orchestration(refuses, retry=RetryPolicy(5, HOUR))


async def test_what_is_not_retriable_is_not_retried_in_a_child_either(env: Environment) -> None:
    handle = await env.client.start(retries_what_cannot_help)
    assert "never" in str(await failure_of(handle))
    assert ran["refuses"] == 1


# --- external events --------------------------------------------------------------------------------


@app.orchestration
async def takes_three(ctx: OrchestrationContext) -> list[int]:
    await ctx.sleep(10)
    return [await ctx.wait_for_external_event("n", int) for _ in range(3)]


async def test_one_early_event_satisfies_one_wait_only(env: Environment) -> None:
    handle = await env.client.start(takes_three)
    await handle.raise_event("n", 1)
    await env.advance(3600)
    assert (await handle.status()).runtime_status is RuntimeStatus.RUNNING
    await handle.raise_event("N", 2)
    await handle.raise_event("n", 3)
    assert await handle.result() == [1, 2, 3]


# --- suspension -------------------------------------------------------------------------------------


async def test_a_second_suspend_does_not_suspend_again_when_it_is_resumed(env: Environment) -> None:
    handle = await env.client.start(takes_three)
    await env.advance(60)
    for _ in range(3):
        await handle.suspend("look")
    for n in range(3):
        await handle.raise_event("n", n)
    await env.advance(HOUR)
    assert (await handle.status()).runtime_status is RuntimeStatus.SUSPENDED
    await handle.resume()
    assert await handle.result() == [0, 1, 2]


# --- rewind -----------------------------------------------------------------------------------------


@app.orchestration
async def long_way(ctx: OrchestrationContext) -> str:
    retry = RetryPolicy(3, HOUR)
    first = await ctx.call_activity(step.options(retry=retry), "first")
    await ctx.sleep(60)
    async with asyncio.timeout(86_400):
        return first + await ctx.call_activity(step.options(retry=retry), "second")


async def test_rewind_copes_with_retries_and_timers(env: Environment) -> None:
    broken.add("second")
    handle = await env.client.start(long_way)
    await failure_of(handle)
    for attempts in (6, 9):
        await handle.rewind()
        await failure_of(handle)
        assert ran == {"first": 1, "second": attempts}
    broken.clear()
    await handle.rewind()
    assert await handle.result() == "firstsecond"
    assert ran == {"first": 1, "second": 10}


async def test_rewind_copes_with_a_child_that_was_retried(env: Environment) -> None:
    broken.add("work")
    handle = await env.client.start(retries_a_child, RetryPolicy(2, HOUR))
    await failure_of(handle)
    broken.clear()
    await handle.rewind()
    assert await handle.result() == "work"


@app.orchestration
async def has_a_child(ctx: OrchestrationContext) -> str:
    return await ctx.call_orchestration(child, "work", id="its-child")


async def test_rewind_runs_a_purged_child_again(env: Environment) -> None:
    broken.add("work")
    handle = await env.client.start(has_a_child)
    await failure_of(handle)
    await env.client.purge("its-child")
    broken.clear()
    await handle.rewind()
    assert await handle.result() == "work"


# --- lives under one id -----------------------------------------------------------------------------


@app.orchestration
async def renews(ctx: OrchestrationContext, round: int) -> list[str]:
    results = [await ctx.call_orchestration(child, f"round {round}"), await ctx.call_activity(step, "a")]
    if round < 3:
        ctx.continue_as_new(round + 1)
    return results


async def test_default_ids_of_children_do_not_collide_after_continue_as_new(env: Environment) -> None:
    assert await env.client.run(renews, 1) == ["round 3", "a"]
    assert {name: count for name, count in ran.items() if name.startswith("round")} == {
        "round 1": 1,
        "round 2": 1,
        "round 3": 1,
    }


held: list[asyncio.Event] = []


@app.activity
async def holds(life: int) -> int:
    while len(held) < life:
        held.append(asyncio.Event())
    await held[life - 1].wait()
    return life


@app.orchestration
async def waits_for_its_own(ctx: OrchestrationContext, life: int) -> int:
    return await ctx.call_activity(holds, life)


async def test_a_result_for_an_earlier_life_under_the_same_id_does_not_count(env: Environment) -> None:
    """Sequence ids begin again: both lives wait for their number 1."""
    held.clear()
    env.auto_skip = False
    first = await env.client.start(waits_for_its_own, 1, id="again")
    async with asyncio.timeout(60):
        while len(held) < 1:
            await asyncio.sleep(0.001)
    await first.terminate()
    second = await env.client.start(waits_for_its_own, 2, id="again", if_exists="restart_if_ended")
    async with asyncio.timeout(60):
        while len(held) < 2:
            await asyncio.sleep(0.001)
    held[0].set()
    await env.client.entity(Box, "later").call(Box.add, 1)
    assert (await second.status()).runtime_status is RuntimeStatus.RUNNING
    held[1].set()
    assert await second.result() == 2


# --- status -----------------------------------------------------------------------------------------


@app.orchestration
async def tells(ctx: OrchestrationContext, round: int) -> None:
    if round == 1:
        ctx.set_custom_status({"round": 0})
        ctx.continue_as_new(2)
        return
    await ctx.wait_for_external_event("go")
    ctx.set_custom_status(None)
    await ctx.wait_for_external_event("go")
    ctx.set_custom_status(0)


async def test_custom_status_is_seen_before_the_end_carried_over_and_cleared(env: Environment) -> None:
    handle = await env.client.start(tells, 1)
    await env.advance(1)
    seen = [(await handle.status()).custom_status]
    for _ in range(2):
        await handle.raise_event("go")
        await env.advance(1)
        seen.append((await handle.status()).custom_status)
    assert seen == [{"round": 0}, None, 0]


# --- entities and locks -----------------------------------------------------------------------------


@app.orchestration
async def leaves_with_a_call_pending(ctx: OrchestrationContext) -> list[int]:
    box = ctx.entity(Box, "locked")
    async with ctx.lock(box, ctx.entity(Box, "other")):
        pending = box.call(Box.add_slowly, 1)
    return [await pending, await box.call(Box.add, 1)]


async def test_a_section_that_is_left_with_a_call_pending_lets_go(env: Environment) -> None:
    assert await env.client.run(leaves_with_a_call_pending) == [1, 2]
    assert await env.client.entity(Box, "locked").call(Box.add, 1) == 3
    assert await env.client.entity(Box, "other").call(Box.add, 1) == 1


@app.orchestration
async def fails_in_a_section(ctx: OrchestrationContext) -> None:
    async with ctx.lock(ctx.entity(Box, "locked")):
        await ctx.sleep(10)
        raise RuntimeError("no way")


async def test_a_failure_in_a_section_lets_go_and_the_next_one_gets_in(env: Environment) -> None:
    handles = [await env.client.start(fails_in_a_section) for _ in range(5)]
    for handle in handles:
        await failure_of(handle)
    assert await env.client.entity(Box, "locked").call(Box.add, 1) == 1


async def test_a_signal_may_be_scheduled_further_away_than_six_days(env: Environment) -> None:
    box = env.client.entity(Box, "later")
    env.auto_skip = False
    await box.signal(Box.add, 5, at=dt.timedelta(days=400))
    await env.advance(dt.timedelta(days=399, hours=23))
    assert await box.state() is None
    await env.advance(HOUR)
    state = await box.state()
    assert state is not None
    assert state.value == 5


# --- starts -----------------------------------------------------------------------------------------


@app.orchestration
async def counts_itself(ctx: OrchestrationContext) -> int:
    await ctx.sleep(1)
    return await ctx.entity(Box, "starts").call(Box.add, 1)


async def test_many_starts_of_one_id_at_once_are_one_start(env: Environment) -> None:
    clients = [env.connect() for _ in range(5)]
    for client in clients:
        await client.__aenter__()
    handles = await asyncio.gather(
        *(client.start(counts_itself, id="single") for client in clients for _ in range(20))
    )
    assert {await handle.result() for handle in handles} == {1}


# --- failures with their causes ---------------------------------------------------------------------


class OutOfStock(Exception):
    """Says its own class."""


@app.activity
def ships() -> None:
    try:
        raise KeyError("shelf 7")
    except KeyError as error:
        raise OutOfStock("none left") from error


@app.orchestration
async def orders(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(ships)


@app.orchestration
async def orders_below(ctx: OrchestrationContext) -> str:
    try:
        await ctx.call_orchestration(orders)
    except lungfish.OrchestrationFailed as error:
        details: Any = error.details
        caused = [details.is_caused_by(each) for each in (OutOfStock, KeyError, "ZeroDivisionError")]
        return f"{caused} {'shelf 7' in str(error)}"
    return "it did not fail"


async def test_type_message_and_chain_of_a_failure_cross_every_boundary(env: Environment) -> None:
    assert await env.client.run(orders_below) == "[True, True, False] True"
