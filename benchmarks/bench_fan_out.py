"""How fast is a fan-out to 1,000 activities, with the fan-in of their results?"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import ray

import lungfish

from .app import fan_out
from .baselines import square, square_kept
from .common import FSYNC, FSYNC_EACH, NONE, Benchmark, Contender, Metric, Pass, Role, expect
from .setting import Setting, on_client

STEPS = 1_000
SUM = sum(number * number for number in range(STEPS))


async def orchestrate(client: lungfish.Client) -> Pass:
    """Run one orchestration."""
    began = time.perf_counter()
    handle = await client.start(fan_out, STEPS)
    result = await handle.result(timeout=60)
    took_s = time.perf_counter() - began
    expect(result, SUM, "sum of squares")
    return Pass(STEPS, took_s)


def run_tasks(task: Callable[[int], Any]) -> Pass:
    """Run plain tasks."""
    began = time.perf_counter()
    result = sum(ray.get([task(number) for number in range(STEPS)]))
    took_s = time.perf_counter() - began
    expect(result, SUM, "sum of squares")
    return Pass(STEPS, took_s)


def run_kept_tasks(url: str) -> Pass:
    """Run tasks that write their results to Redis."""
    key = uuid.uuid4().hex
    return run_tasks(lambda number: square_kept.remote(number, key, url))


def benchmarks(setting: Setting) -> list[Benchmark]:
    """Return the question."""
    contenders = [
        Contender(Role.OURS, "Lungfish, one orchestration", FSYNC, on_client(setting, orchestrate)),
        Contender(Role.PLAIN, "Ray tasks", NONE, partial(run_tasks, square.remote)),
        Contender(Role.BY_HAND, "Ray tasks, SET each", FSYNC_EACH, partial(run_kept_tasks, setting.url)),
    ]
    question = f"Fan-out to {STEPS:,} activities and fan-in"
    return [Benchmark("d", question, "activities/s", Metric.RATE, contenders)]
