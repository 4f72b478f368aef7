"""How long does one call take on an idle system, and an orchestration of one step?"""

from __future__ import annotations

import time
import uuid
from functools import partial
from typing import Any

import lungfish

from .app import Counter, one_step
from .baselines import PlainCounters, RedisCounters, one_by_one, square, square_kept
from .common import FSYNC, FSYNC_EACH, NONE, Benchmark, Contender, Metric, Pass, Role, expect
from .setting import Setting, each_timed, on_client


async def call_entity(count: int, client: lungfish.Client) -> Pass:
    """Call one entity, again and again."""
    counter = client.entity(Counter, uuid.uuid4().hex)

    async def add(number: int) -> None:
        expect(await counter.call(Counter.add, 1), number + 1, "answer")

    return await each_timed(add, range(count), 1)


def call_blocking(setting: Setting, count: int) -> Pass:
    """Call one entity with the client for code without an event loop."""
    with setting.runtime.client_sync() as client:
        counter = client.entity(Counter, uuid.uuid4().hex)
        counter.call(Counter.get)
        latencies: list[float] = []
        for number in range(count):
            began = time.perf_counter()
            value = counter.call(Counter.add, 1)
            latencies.append(time.perf_counter() - began)
            expect(value, number + 1, "answer")
    return Pass(count, sum(latencies), latencies)


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
    plain: Any = PlainCounters.remote()  # type: ignore[attr-defined]
    by_hand: Any = RedisCounters.remote(setting.url)  # type: ignore[attr-defined]
    calls, runs = setting.size(500, 100), setting.size(200, 40)
    of_calls = [
        Contender(Role.OURS, "Lungfish, call", FSYNC, on_client(setting, partial(call_entity, calls))),
        Contender(
            Role.OURS, "Lungfish, call, blocking client", FSYNC, partial(call_blocking, setting, calls)
        ),
        Contender(Role.PLAIN, "Ray actor, call", NONE, partial(call_actor, plain, calls)),
        Contender(Role.BY_HAND, "Ray actor, call, INCRBY", FSYNC_EACH, partial(call_actor, by_hand, calls)),
    ]
    of_runs = [
        Contender(
            Role.OURS,
            "Lungfish, orchestration of one activity",
            FSYNC,
            on_client(setting, partial(orchestrate, runs)),
        ),
        Contender(Role.PLAIN, "Ray task", NONE, partial(run_tasks, runs)),
        Contender(Role.BY_HAND, "Ray task, SET", FSYNC_EACH, partial(run_kept_tasks, setting.url, runs)),
    ]
    return [
        Benchmark("e", "One call at a time", "ms a call", Metric.LATENCY, of_calls),
        Benchmark("e", "One orchestration of one step at a time", "ms a run", Metric.LATENCY, of_runs),
    ]
