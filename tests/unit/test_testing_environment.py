"""The environment for users' tests: durable time passes as told, and only then."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

import lungfish
import lungfish.testing
from lungfish.testing import Environment, environment

ROOT = Path(__file__).resolve().parents[2]
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

app = lungfish.App("testing")


@app.entity
class Bell(lungfish.Entity):
    rung: int = 0

    def ring(self) -> int:
        self.rung += 1
        return self.rung

    async def ring_slowly(self, seconds: float) -> int:
        await asyncio.sleep(seconds)
        return self.ring()


@app.activity
def echo(value: int) -> int:
    return value


@app.activity
async def work(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "worked"


tries: list[int] = []


@app.activity(retry=lungfish.RetryPolicy(max_attempts=4, initial_interval=HOUR))
def flaky() -> int:
    tries.append(1)
    if len(tries) < 4:
        raise ConnectionError("not yet")
    return len(tries)


@app.orchestration
async def sleep(ctx: lungfish.OrchestrationContext, duration: timedelta) -> dt.datetime:
    await ctx.sleep(duration)
    return ctx.now()


@app.orchestration
async def a_month(ctx: lungfish.OrchestrationContext) -> int:
    total = 0
    for day in range(30):
        await ctx.sleep(DAY)
        total += await ctx.call_activity(echo, day)
    return total


@app.orchestration
async def approve(ctx: lungfish.OrchestrationContext) -> str:
    answer = ctx.wait_for_external_event("answer", str)
    due = ctx.create_timer(timedelta(hours=72))
    if await ctx.when_any(answer, due) is answer:
        due.cancel()
        return await answer
    return "nobody answered"


@app.orchestration
async def work_and_race(ctx: lungfish.OrchestrationContext, seconds: float) -> str:
    working = ctx.call_activity(work, seconds)
    due = ctx.create_timer(HOUR)
    return await working if await ctx.when_any(working, due) is working else "too slow"


@app.orchestration
async def call_flaky(ctx: lungfish.OrchestrationContext) -> int:
    return await ctx.call_activity(flaky)


@app.orchestration
async def wait_for_ever(ctx: lungfish.OrchestrationContext) -> None:
    await ctx.wait_for_external_event("never")


turns: list[bool] = []


@app.orchestration
async def two_turns(ctx: lungfish.OrchestrationContext) -> None:
    turns.append(ctx.is_replaying)
    await ctx.call_activity(echo, 1)


# --- skipping --------------------------------------------------------------------------------


async def test_three_days_pass_in_no_time() -> None:
    async with environment(app) as env:
        began, began_s = env.now(), time.process_time()
        instance = await env.client.start(approve)
        assert await instance.result(timeout=60) == "nobody answered"
        assert env.now() - began == timedelta(hours=72)
        assert time.process_time() - began_s < 1


async def test_a_month_of_daily_timers_passes_in_no_time() -> None:
    async with environment(app) as env:
        began, began_s = env.now(), time.process_time()
        instance = await env.client.start(a_month)
        assert await instance.result(timeout=60) == sum(range(30))
        assert env.now() - began == 30 * DAY
        assert time.process_time() - began_s < 2


async def test_timers_fire_at_their_time_and_in_order() -> None:
    async with environment(app) as env:
        began = env.now()
        instances = [await env.client.start(sleep, n * HOUR) for n in (3, 1, 2)]
        woke = await asyncio.gather(*(instance.result(timeout=60) for instance in instances))
        assert [at - began for at in woke] == [3 * HOUR, HOUR, 2 * HOUR]


async def test_retries_wait_in_durable_time() -> None:
    tries.clear()
    async with environment(app) as env:
        began = env.now()
        assert await (await env.client.start(call_flaky)).result(timeout=60) == 4
        assert env.now() - began == 7 * HOUR


async def test_nothing_is_skipped_while_nobody_waits() -> None:
    async with environment(app) as env:
        began = env.now()
        instance = await env.client.start(approve)
        await asyncio.sleep(0.1)
        assert env.now() == began
        await instance.raise_event("answer", "yes")
        assert await instance.result(timeout=60) == "yes"
        assert env.now() == began


async def test_nothing_is_skipped_for_those_who_gave_up() -> None:
    async with environment(app, auto_skip=False) as env:
        began = env.now()
        instance = await env.client.start(sleep, HOUR)
        waiting = asyncio.create_task(instance.result())
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        env.auto_skip = True
        await asyncio.sleep(0.1)
        assert env.now() == began
        # The client asks for an outcome once, whoever waits for it: nothing reaches the store now.
        assert await instance.result(timeout=60) == began + HOUR


async def test_nothing_is_skipped_while_an_activity_runs() -> None:
    async with environment(app) as env:
        began = env.now()
        instance = await env.client.start(work_and_race, 0.05)
        assert await instance.result(timeout=60) == "worked"
        assert env.now() == began


async def test_nothing_is_skipped_while_an_operation_runs() -> None:
    async with environment(app) as env:
        began = env.now()
        instance = await env.client.start(sleep, HOUR)
        bell = env.client.entity(Bell, "slow")
        rung, _ = await asyncio.gather(bell.call(Bell.ring_slowly, 0.05), asyncio.sleep(0.02))
        assert (rung, env.now()) == (1, began)
        assert await instance.result(timeout=60) == began + HOUR


# --- advancing -------------------------------------------------------------------------------


async def test_advance_stops_at_the_millisecond() -> None:
    async with environment(app, auto_skip=False) as env:
        instance = await env.client.start(approve)
        await env.advance(timedelta(hours=72) - timedelta(milliseconds=1))
        assert (await instance.status()).runtime_status == "Running"
        await env.advance(0.001)
        assert (await instance.status()).output == "nobody answered"


async def test_advance_fires_every_timer_on_the_way() -> None:
    async with environment(app, auto_skip=False) as env:
        instance = await env.client.start(a_month)
        await env.advance(30 * DAY)
        assert (await instance.status()).output == sum(range(30))


async def test_without_auto_skip_only_advance_moves_time() -> None:
    async with environment(app, auto_skip=False) as env:
        instance = await env.client.start(approve)
        with pytest.raises(lungfish.DeadlineExceeded):
            await instance.result(timeout=0.05)
        env.auto_skip = True
        assert await instance.result(timeout=60) == "nobody answered"


async def test_advance_beside_a_result_raises_an_event_in_time() -> None:
    async with environment(app) as env:
        instance = await env.client.start(approve)

        async def answer() -> None:
            await env.advance(timedelta(hours=71))
            await instance.raise_event("answer", "just in time")

        result, _ = await asyncio.gather(instance.result(timeout=60), answer())
        assert result == "just in time"


async def test_several_advance_at_once() -> None:
    async with environment(app) as env:
        began = env.now()
        order = []

        async def after(duration: timedelta) -> None:
            await env.advance(duration)
            order.append(env.now() - began)

        cancelled = asyncio.create_task(env.advance(HOUR / 2))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.gather(*(after(n * HOUR) for n in (3, 1, 2)))
        assert order == [HOUR, 2 * HOUR, 3 * HOUR]


async def test_refusals() -> None:
    with pytest.raises(lungfish.UsageError, match="time zone"):
        environment(app, start=dt.datetime(2026, 1, 1))  # noqa: DTZ001
    with pytest.raises(lungfish.UsageError, match="at least one host"):
        environment(app, hosts=0)
    async with environment(app) as env:
        with pytest.raises(lungfish.UsageError, match="go back"):
            await env.advance(-1)
    with pytest.raises(RuntimeError, match="not open"):
        await env.advance(1)


# --- the rest --------------------------------------------------------------------------------


async def test_every_run_begins_at_the_same_time_unless_told() -> None:
    async with environment(app) as one:
        async with environment(app) as other:
            assert one.now() == other.now()
    start = dt.datetime(2024, 2, 28, 23, tzinfo=dt.UTC)
    async with environment(app, start=start) as env:
        instance = await env.client.start(sleep, DAY)
        assert await instance.result(timeout=60) == start + DAY
        assert (await instance.status()).created_at == start


@pytest.mark.parametrize("always", [True, False])
async def test_orchestrations_are_replayed_at_every_turn(always: bool) -> None:
    turns.clear()
    async with environment(app, always_replay=always) as env:
        await (await env.client.start(two_turns)).result(timeout=60)
    assert turns == ([False, True] if always else [False])


async def test_several_hosts_share_the_work_and_survive_months() -> None:
    async with environment(app, hosts=3, workers=2) as env:
        assert len({id(host) for host in env._hosts.values() if host.partitions}) == 3
        instances = [await env.client.start(a_month) for _ in range(5)]
        totals = [await instance.result(timeout=60) for instance in instances]
        assert totals == [sum(range(30))] * 5
        await asyncio.sleep(0.1)  # heartbeats: nobody is taken for dead after the jumps
        assert all(host.partitions for host in env._hosts.values())


async def test_further_clients_count_as_waiting() -> None:
    async with environment(app) as env, env.connect() as other:
        instance = await other.start(sleep, HOUR)
        assert await instance.result(timeout=60) == env.now()


async def test_it_says_so_when_nothing_can_end_the_wait(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lungfish.runtime.testing.clock.HINT_S", 0.02)
    async with environment(app) as env:
        instance = await env.client.start(wait_for_ever)
        with caplog.at_level(logging.WARNING), pytest.raises(lungfish.DeadlineExceeded):
            await instance.result(timeout=0.2)
    assert [record.message for record in caplog.records if "external event" in record.message]


async def test_it_ends_at_once_whatever_still_runs() -> None:
    began_s = time.perf_counter()
    async with environment(app) as env:
        await env.client.start(work_and_race, 60.0)
        await env.client.entity(Bell, "slow").signal(Bell.ring_slowly, 60.0)
        await asyncio.sleep(0.02)
    assert time.perf_counter() - began_s < 1


async def test_what_the_test_raises_comes_out() -> None:
    async def fail() -> None:
        async with environment(app) as env:
            await env.client.start(approve)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()


def test_it_runs_on_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def month(env: Environment) -> int:
        async with env:
            return await (await env.client.start(a_month)).result(timeout=60)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(month(environment(app))) == sum(range(30))


def test_the_names_are_sorted_and_documented() -> None:
    assert lungfish.testing.__all__ == sorted(lungfish.testing.__all__)
    for name in lungfish.testing.__all__:
        assert getattr(lungfish.testing, name).__doc__, name


# --- the plugin ------------------------------------------------------------------------------

PLUGIN_TEST = """
import sys

def test_without():
    assert "lungfish" not in sys.modules

def test_with(lungfish_environment):
    import lungfish.testing
    assert lungfish_environment is lungfish.testing.environment

def test_all_of_them(lungfish_crash_everywhere, lungfish_replayer):
    import lungfish.testing
    assert lungfish_crash_everywhere is lungfish.testing.crash_everywhere
    assert lungfish_replayer is lungfish.testing.Replayer

def test_twice(lungfish_always_replay, request):
    assert request.node.name.endswith("[always_replay]" if lungfish_always_replay else "[live]")
"""


def test_the_plugin_costs_nothing_until_it_is_used(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(PLUGIN_TEST)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "_lungfish_pytestplugin", "-c", "/dev/null", "."]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "5 passed" in done.stdout, done.stdout + done.stderr
