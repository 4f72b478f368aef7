"""How fast a long history is replayed, and how much memory that takes: ``python -m benchmarks.replay``.

No store, no host: the history is made in memory by the engine itself, packed as it is stored, and
replayed from those bytes. That is what a host does when it takes over an instance.
"""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections.abc import Sequence
from typing import Any

import click

from lungfish import App, OrchestrationContext
from lungfish.orchestrations import actions, events
from lungfish.orchestrations.replay import Execution
from lungfish.runtime import codec
from lungfish.runtime.declared.signatures import encode_arguments

app = App("replay")


@app.activity
def work(n: int) -> int:
    """Stand for anything; the answers are made up below."""
    return n


@app.orchestration
async def one_by_one(ctx: OrchestrationContext, count: int) -> int:
    """Await one activity after the other: three events each."""
    return sum([await ctx.call_activity(work, n) for n in range(count)])


@app.orchestration
async def fan_outs(ctx: OrchestrationContext, count: int) -> int:
    """Await a hundred activities at a time: two events each, and the turns."""
    total = 0
    for start in range(0, count, 100):
        total += sum(await asyncio.gather(*(ctx.call_activity(work, n) for n in range(start, start + 100))))
    return total


@app.orchestration
async def with_time_limits(ctx: OrchestrationContext, count: int) -> int:
    """Await each activity with a time limit: five events each."""
    total = 0
    for n in range(count):
        async with asyncio.timeout(60):
            total += await ctx.call_activity(work, n)
    return total


def recorded(orchestration: Any, count: int) -> list[bytes]:
    """Return the history of an instance that has run to its end, in batches as they are stored."""
    execution = Execution(app, orchestration, "long")
    arrived: list[events.Arrived] = [
        events.ExecutionStarted("x", orchestration.name, encode_arguments((count,), {}, ""), 0)
    ]
    batches, now_ms = [], 0
    while execution.ended is None:
        now_ms += 1
        turn = execution.turn(now_ms, arrived)
        batches.append(events.pack(turn.events))
        scheduled = [action for action in turn.actions if isinstance(action, actions.ScheduleActivity)]
        arrived = [events.TaskCompleted(action.id, codec.encode(1)) for action in scheduled]
    assert execution.ended.status == "Completed", execution.ended
    return batches


def replayed(orchestration: Any, batches: Sequence[bytes]) -> int:
    """Replay a stored history; return the number of its events."""
    history = events.unpack_all(batches)
    execution = Execution(app, orchestration, "long")
    execution.replay(history)
    assert execution.ended is not None
    assert execution.ended.status == "Completed", execution.ended
    return len(history)


def peak_mb(orchestration: Any, batches: Sequence[bytes]) -> float:
    """Return what a replay needs at most (MB)."""
    tracemalloc.start()
    replayed(orchestration, batches)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / 1e6


CASES: tuple[tuple[Any, int], ...] = (
    (one_by_one, 3),
    (fan_outs, 2),
    (with_time_limits, 5),
)


@click.command(help=__doc__)
@click.option("--events", "wanted", default=100_000, show_default=True, type=click.IntRange(min=1_000))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(min=1))
def main(wanted: int, rounds: int) -> None:
    """Measure each case in processor time; the best round counts, as others share the machine."""
    for orchestration, events_each in CASES:
        batches = recorded(orchestration, wanted // events_each // 100 * 100)
        seconds, count = list[float](), 0
        for _ in range(rounds):
            began = time.process_time()
            count = replayed(orchestration, batches)
            seconds.append(time.process_time() - began)
        rate = count / min(seconds)
        stored_mb = sum(map(len, batches)) / 1e6
        peak = peak_mb(orchestration, batches)
        click.echo(
            f"{orchestration.name:>18}: {count:,} events, {stored_mb:.1f} MB stored, "
            f"{min(seconds):.2f} s of one core, {rate:,.0f} events/s, peak {peak:.0f} MB"
        )


if __name__ == "__main__":
    main()
