"""How fast does one hot entity take one-way signals?

The clock runs from the first send until a call that was sent behind them all has been answered: by then
every signal is applied and durable.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from functools import partial
from typing import Any

import ray

import lungfish

from .app import Counter
from .baselines import PlainCounters, RedisCounters
from .common import FSYNC, FSYNC_EACH, NONE, Benchmark, Contender, Metric, Pass, Role, expect
from .setting import Setting, on_client

BATCH = 1_000
#: ``signal_many`` calls, or single signals, under way at a time.
BATCHES_IN_FLIGHT = 16
SIGNALS_IN_FLIGHT = 1_000


async def signal_in_batches(batches: int, client: lungfish.Client) -> Pass:
    """Send batches with ``signal_many``."""
    counter = client.entity(Counter, uuid.uuid4().hex)
    left = iter(range(batches))
    batch = [(1,)] * BATCH

    async def send() -> None:
        for _ in left:
            await counter.signal_many(Counter.add, batch)

    began = time.perf_counter()
    await asyncio.gather(*(send() for _ in range(BATCHES_IN_FLIGHT)))
    value = await counter.call(Counter.get)
    took_s = time.perf_counter() - began
    expect(value, batches * BATCH, "signals applied")
    return Pass(value, took_s)


async def signal_singly(count: int, client: lungfish.Client) -> Pass:
    """Send signals one by one, each awaited by somebody."""
    counter = client.entity(Counter, uuid.uuid4().hex)
    left = iter(range(count))

    async def send() -> None:
        for _ in left:
            await counter.signal(Counter.add, 1)

    began = time.perf_counter()
    await asyncio.gather(*(send() for _ in range(SIGNALS_IN_FLIGHT)))
    value = await counter.call(Counter.get)
    took_s = time.perf_counter() - began
    expect(value, count, "signals applied")
    return Pass(value, took_s)


def call_one_way(actor: Any, count: int) -> Pass:
    """Call an actor without looking at the answers."""
    key = uuid.uuid4().hex
    began = time.perf_counter()
    for _ in range(count):
        actor.add.remote(key, 1)
    value: int = ray.get(actor.get.remote(key))
    took_s = time.perf_counter() - began
    expect(value, count, "calls applied")
    return Pass(value, took_s)


def call_in_batches(actor: Any, batches: int) -> Pass:
    """Call an actor with lists of numbers to add."""
    key = uuid.uuid4().hex
    began = time.perf_counter()
    for _ in range(batches):
        actor.add_many.remote(key, [1] * BATCH)
    value: int = ray.get(actor.get.remote(key))
    took_s = time.perf_counter() - began
    expect(value, batches * BATCH, "calls applied")
    return Pass(value, took_s)


def benchmarks(setting: Setting) -> list[Benchmark]:
    """Return the question."""
    plain: Any = PlainCounters.remote()  # type: ignore[attr-defined]
    by_hand: Any = RedisCounters.remote(setting.url)  # type: ignore[attr-defined]
    batches, singly, calls = setting.size(300, 50), setting.size(20_000, 3_000), setting.size(5_000, 1_000)
    contenders = [
        Contender(
            Role.OURS,
            f"Lungfish, signal_many of {BATCH:,}",
            FSYNC,
            on_client(setting, partial(signal_in_batches, batches)),
        ),
        Contender(
            Role.OURS,
            f"Lungfish, signal, {SIGNALS_IN_FLIGHT:,} in flight",
            FSYNC,
            on_client(setting, partial(signal_singly, singly)),
        ),
        Contender(Role.PLAIN, "Ray actor, pipelined calls", NONE, partial(call_one_way, plain, calls)),
        Contender(
            Role.OTHER,
            f"Ray actor, batched by hand, {BATCH:,} a call",
            NONE,
            partial(call_in_batches, plain, batches),
        ),
        Contender(
            Role.BY_HAND,
            "Ray actor, pipelined, INCRBY each",
            FSYNC_EACH,
            partial(call_one_way, by_hand, calls),
        ),
    ]
    return [Benchmark("a", "One-way signals to one hot entity", "signals/s", Metric.RATE, contenders)]
