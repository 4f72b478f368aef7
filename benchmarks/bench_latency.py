"""How long does one call take on an idle system, and an orchestration of one step?"""

from __future__ import annotations

import uuid
from functools import partial
from typing import Any

import lungfish

from .app import Counter, one_step
from .baselines import PlainCounters, RedisCounters, one_by_one, square, square_kept
from .common import FSYNC, FSYNC_EACH, NONE, Benchmark, Contender, Metric, Pass, expect
from .setting import Setting, each_timed, on_client


async def call_entity(count: int, client: lungfish.Client) -> Pass:
    """Call one entity, again and again."""
    counter = client.entity(Counter, uuid.uuid4().hex)

    async def add(number: int) -> None:
        expect(await counter.call(Counter.add, 1), number + 1, "answer")

    return await each_timed(add, range(count), 1)


async def orchestrate(count: int, client: lungfish.Client) -> Pass:
    """Run orchestrations one after the other."""

    async def run(number: int) -> None:
        handle = await client.start(one_step, number)
        expect(await handle.result(timeout=60), number * number, "result")

    return await each_timed(run, range(count), 1)


def call_actor(actor: Any, count: int) -> Pass:
    """Call one actor, again and again."""
    key = uuid.uuid4().hex
    results, done = one_by_one(partial(actor.add.remote, key, 1) for _ in range(count))
    expect(results, list(range(1, count + 1)), "answers")
    return done


def run_tasks(count: int) -> Pass:
    """Run tasks one after the other."""
    results, done = one_by_one(partial(square.remote, number) for number in range(count))
    expect(results, [number * number for number in range(count)], "results")
    return done


def run_kept_tasks(url: str, count: int) -> Pass:
    """Run tasks that write their results to Redis, one after the other."""
    key = uuid.uuid4().hex
    results, done = one_by_one(partial(square_kept.remote, number, key, url) for number in range(count))
    expect(results, [number * number for number in range(count)], "results")
    return done


def benchmarks(setting: Setting) -> list[Benchmark]:
    """Return both questions."""
    plain = PlainCounters.remote()  # type: ignore[attr-defined]
    by_hand = RedisCounters.remote(setting.url)  # type: ignore[attr-defined]
    calls, runs = setting.size(500, 200), setting.size(200, 60)
    of_calls = [
        Contender("Lungfish, call", FSYNC, on_client(setting, partial(call_entity, calls))),
        Contender("Ray actor, call", NONE, partial(call_actor, plain, calls), is_base=True),
        Contender("Ray actor, call, INCRBY", FSYNC_EACH, partial(call_actor, by_hand, calls)),
    ]
    of_runs = [
        Contender(
            "Lungfish, orchestration of one activity", FSYNC, on_client(setting, partial(orchestrate, runs))
        ),
        Contender("Ray task", NONE, partial(run_tasks, runs), is_base=True),
        Contender("Ray task, SET", FSYNC_EACH, partial(run_kept_tasks, setting.url, runs)),
    ]
    return [
        Benchmark("e", "One call at a time", "ms a call", Metric.LATENCY, of_calls),
        Benchmark("e", "One orchestration of one step at a time", "ms a run", Metric.LATENCY, of_runs),
    ]
