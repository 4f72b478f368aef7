"""Long activities in the simulation: they heartbeat, fail half-way, and share a queue of few slots.

Rules:

* An attempt goes on at a page that an earlier one, or a former run of the same one, has said.
* The first attempts fail, after they have said something: so who comes after a failure finds something.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from collections.abc import Iterator
from typing import Any, Final

import lungfish
from tests.simulation.app import app
from tests.simulation.world import world

#: Name of an orchestration → the share of its plans that are terminated from outside.
SORTS: Final = {"film": 0.2}
PAGE_S: Final = 0.05

app.queue("films", concurrency=3, worker_concurrency=2)


@app.activity(
    queue="films",
    retry=lungfish.RetryPolicy(
        max_attempts=0,
        initial_interval=dt.timedelta(milliseconds=20),
        max_interval=dt.timedelta(milliseconds=200),
        retry_on=(OSError,),
        jitter=0.5,
    ),
)
async def convert(pages: int, failures: int) -> int:
    """Convert page by page; the first attempts fail half-way."""
    info = lungfish.activity_info()
    world().begun(info.idempotency_key, info.attempt)
    said = world().said[info.idempotency_key]
    found: int | None = info.heartbeat_details(int)
    if found is None and info.attempt > 1:
        world().report(f"attempt {info.attempt} of {info.idempotency_key} has lost what the heartbeats said")
    if found is not None and found not in said:
        world().report(f"{info.idempotency_key} finds page {found}, which was never said: {sorted(said)}")
    for page in range(found or 0, pages):
        await asyncio.sleep(PAGE_S)
        said.add(page + 1)
        info.heartbeat(page + 1)
        if info.attempt <= failures:
            raise OSError(f"the disk is full at page {page + 1}")
    return pages


@app.orchestration
async def film(ctx: lungfish.OrchestrationContext, pages: int, failures: int, priority: int) -> int:
    """Convert one film."""
    done = await ctx.call_activity(convert.options(priority=priority), pages, failures)
    return done + failures


def arguments(rng: random.Random) -> tuple[Any, ...]:
    """Return arguments for one of them; at least as many pages as failures."""
    failures = rng.randint(0, 3)
    return (failures + rng.randint(1, 5), failures, rng.choice((0, 5, 5, 9)))


def outputs(args: tuple[Any, ...]) -> Iterator[int]:
    """Yield what they may come to."""
    pages, failures, _ = args
    yield pages + failures
