"""How many calls per second go to 1,000 counters, with 64 calls in flight?"""

from __future__ import annotations

import uuid
from collections import Counter as Tally
from functools import partial
from typing import Any

import lungfish

from .app import Counter
from .baselines import PlainCounters, RedisCounters, in_flight
from .common import FSYNC, FSYNC_EACH, NONE, Benchmark, Contender, Metric, Pass, Role, expect
from .setting import IN_FLIGHT, Setting, each_timed, on_client

COUNTERS = 1_000


def check(results: list[tuple[str, int]], count: int) -> None:
    """Each counter must have answered 1, 2, 3 ... as often as it was called."""
    expect(len(results), count, "answers")
    by_key: dict[str, list[int]] = {}
    for key, value in results:
        by_key.setdefault(key, []).append(value)
    for key, values in by_key.items():
        expect(sorted(values), list(range(1, len(values) + 1)), f"answers of {key}")
    wanted = Tally(number % COUNTERS for number in range(count))
    expect(sorted(map(len, by_key.values())), sorted(wanted.values()), "calls per counter")


async def call_entities(count: int, client: lungfish.Client) -> Pass:
    """Call entities."""
    run = uuid.uuid4().hex
    counters = [client.entity(Counter, f"{run}-{number}") for number in range(COUNTERS)]
    results: list[tuple[str, int]] = []

    async def add(number: int) -> None:
        counter = counters[number % COUNTERS]
        results.append((counter.key, await counter.call(Counter.add, 1)))

    done = await each_timed(add, range(count), IN_FLIGHT)
    check(results, count)
    return done


def call_actor(actor: Any, count: int) -> Pass:
    """Call one actor that has all the counters."""
    run = uuid.uuid4().hex
    keys = [f"{run}-{number % COUNTERS}" for number in range(count)]
    results, done = in_flight((partial(actor.add.remote, key, 1) for key in keys), IN_FLIGHT)
    check(list(zip(keys, results, strict=True)), count)
    return done


def benchmarks(setting: Setting) -> list[Benchmark]:
    """Return the question."""
    plain: Any = PlainCounters.remote()  # type: ignore[attr-defined]
    by_hand: Any = RedisCounters.remote(setting.url)  # type: ignore[attr-defined]
    ours, theirs = setting.size(20_000, 3_000), setting.size(5_000, 1_000)
    contenders = [
        Contender(
            Role.OURS, "Lungfish, 1,000 entities", FSYNC, on_client(setting, partial(call_entities, ours))
        ),
        Contender(Role.PLAIN, "Ray actor with 1,000 counters", NONE, partial(call_actor, plain, theirs)),
        Contender(Role.BY_HAND, "Ray actor, INCRBY each", FSYNC_EACH, partial(call_actor, by_hand, theirs)),
    ]
    question = f"Calls over {COUNTERS:,} counters, {IN_FLIGHT} in flight"
    return [Benchmark("b", question, "calls/s", Metric.RATE, contenders)]
