"""How many orchestrations of five activities in sequence end per second, with 64 in flight?"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import lungfish

from .app import CITIES, hello_sequence
from .baselines import PlainSteps, RedisSteps, greet, in_flight
from .common import FSYNC, FSYNC_EACH, NONE, Benchmark, Contender, Metric, Pass, Role, expect
from .setting import IN_FLIGHT, Setting, each_timed, on_client

GREETINGS = " ".join(f"Hello {city}!" for city in CITIES)


async def orchestrate(count: int, client: lungfish.Client) -> Pass:
    """Start orchestrations and wait for their results."""

    async def one(_: int) -> None:
        handle = await client.start(hello_sequence)
        expect(await handle.result(timeout=60), GREETINGS, "result")

    return await each_timed(one, range(count), IN_FLIGHT)


def chain(step: Callable[[Any, str, str], Any]) -> Any:
    """Call five times, each time with the reference that the call before returned."""
    key = uuid.uuid4().hex
    so_far: Any = ""
    for city in CITIES:
        so_far = step(so_far, city, key)
    return so_far


def call_chains(step: Callable[[Any, str, str], Any], count: int) -> Pass:
    """Keep chains in flight."""
    results, done = in_flight((partial(chain, step) for _ in range(count)), IN_FLIGHT)
    expect(results, [GREETINGS] * count, "results")
    return done


def benchmarks(setting: Setting) -> list[Benchmark]:
    """Return the question."""
    plain: Any = PlainSteps.remote()  # type: ignore[attr-defined]
    by_hand: Any = RedisSteps.remote(setting.url)  # type: ignore[attr-defined]
    ours, theirs = setting.size(1_000, 200), setting.size(500, 100)
    contenders = [
        Contender(
            Role.OURS, "Lungfish, orchestration", FSYNC, on_client(setting, partial(orchestrate, ours))
        ),
        Contender(
            Role.PLAIN, "Ray actor, chained calls", NONE, partial(call_chains, plain.greet.remote, theirs)
        ),
        Contender(Role.OTHER, "Ray tasks, chained", NONE, partial(call_chains, greet.remote, theirs)),
        Contender(
            Role.BY_HAND,
            "Ray actor, chained calls, SET each",
            FSYNC_EACH,
            partial(call_chains, by_hand.greet.remote, theirs),
        ),
    ]
    question = f"Five steps in sequence, {IN_FLIGHT} sequences in flight"
    return [Benchmark("c", question, "sequences/s", Metric.RATE, contenders)]
