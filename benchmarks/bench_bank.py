"""How many transfers per second between 1,000 accounts, each holding two of them, from 64 clients?

``python -m benchmarks --only bank``. A transfer is an orchestration with a critical section over both:
two locks, two calls, two releases, all durable. By hand: a lock per account in Redis (``SET NX``), in order.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from functools import partial
from typing import Any

import ray

import lungfish

from .app import Account, transfer
from .baselines import PlainBank, RedisBank, in_flight
from .common import FSYNC, FSYNC_EACH, NONE, Benchmark, Contender, Metric, Pass, Role, expect
from .setting import IN_FLIGHT, Setting, each_timed, on_client

ACCOUNTS = 1_000


def pairs(count: int) -> list[tuple[int, int, int]]:
    """Return who pays whom how much."""
    chance = random.Random(1)
    chosen = [chance.sample(range(ACCOUNTS), 2) for _ in range(count)]
    return [(source, target, chance.randint(1, 9)) for source, target in chosen]


def balances(moves: list[tuple[int, int, int]]) -> list[int]:
    """Return what all accounts hold afterwards."""
    held = [0] * ACCOUNTS
    for source, target, amount in moves:
        held[source] -= amount
        held[target] += amount
    return held


async def orchestrate(count: int, client: lungfish.Client) -> Pass:
    """Run one orchestration per transfer."""
    run, moves = uuid.uuid4().hex[:8], pairs(count)

    async def move(item: tuple[int, int, int]) -> None:
        source, target, amount = item
        handle = await client.start(transfer, f"{run}-{source}", f"{run}-{target}", amount)
        await handle.result(timeout=60)

    done = await each_timed(move, moves, IN_FLIGHT)
    refs = [client.entity(Account, f"{run}-{number}") for number in range(ACCOUNTS)]
    found = await asyncio.gather(*(ref.call(Account.add, 0) for ref in refs))
    expect(list(found), balances(moves), "balances")
    return done


def call_actor(bank: Any, count: int) -> Pass:
    """Have one actor, or several threads of one, do the transfers."""
    run, moves = uuid.uuid4().hex[:8], pairs(count)
    began = time.perf_counter()
    calls = (partial(bank.transfer.remote, run, source, target, amount) for source, target, amount in moves)
    _, done = in_flight(calls, IN_FLIGHT)
    expect(ray.get(bank.balances.remote(run, ACCOUNTS)), balances(moves), "balances")
    assert done.took_s <= time.perf_counter() - began
    return done


def benchmarks(setting: Setting) -> list[Benchmark]:
    """Return the question."""
    plain: Any = PlainBank.remote()  # type: ignore[attr-defined]
    by_hand: Any = RedisBank.options(max_concurrency=16).remote(setting.url)  # type: ignore[attr-defined]
    ours, theirs = setting.size(3_000, 600), setting.size(2_000, 500)
    contenders = [
        Contender(
            Role.OURS, "Lungfish, ctx.lock(a, b)", FSYNC, on_client(setting, partial(orchestrate, ours))
        ),
        Contender(Role.PLAIN, "Ray actor with 1,000 accounts", NONE, partial(call_actor, plain, theirs)),
        Contender(
            Role.BY_HAND, "Ray actor, locks in Redis", FSYNC_EACH, partial(call_actor, by_hand, theirs)
        ),
    ]
    question = f"Transfers over {ACCOUNTS:,} accounts, both held, {IN_FLIGHT} in flight"
    return [Benchmark("bank", question, "transfers/s", Metric.RATE, contenders)]
