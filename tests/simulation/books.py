"""Updates and queries in the simulation: books that are written line by line, by updates under ids.

Rules:

* Every line is sent twice, under one id; it must stand in the book once, and both must hear the same.
* What a query tells, once heard, stays: nobody hears of a line that a crash then undoes.
* A book ends when it is full, and tells its lines; some continue as new half-way, with lines under way.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any, Final

import lungfish
from tests.simulation.app import app
from tests.simulation.world import world

SORTS: Final = ("book",)
_UPDATE: Final = "line:"


@app.orchestration
async def book(ctx: lungfish.OrchestrationContext, lines: int, turn_at: int, written: list[int]) -> list[int]:
    """Take lines until there are enough."""
    full = asyncio.Event()

    def not_negative(value: int) -> None:
        if value < 0:
            raise ValueError("negative")

    @ctx.on_update(validator=not_negative)
    async def write(value: int) -> int:
        if value % 2:
            await ctx.sleep(0.05)
        written.append(value)
        if len(written) >= lines or len(written) == turn_at:
            full.set()
        return value + 1

    ctx.on_query("lines", lambda: sorted(written))
    await full.wait()
    await ctx.updates_finished()
    if len(written) < lines:
        ctx.continue_as_new(lines, 0, written)
    return sorted(written)


def arguments(rng: random.Random) -> tuple[Any, ...]:
    """Return arguments for one."""
    lines = rng.randint(1, 4)
    return (lines, rng.randint(0, lines - 1), [])


def owed(args: tuple[Any, ...], rng: random.Random) -> tuple[tuple[str, int], ...]:
    """Return the lines that somebody owes to a book."""
    return tuple((f"{_UPDATE}{number}", rng.randrange(100)) for number in range(args[0]))


async def give(handle: lungfish.OrchestrationHandle[Any], event: str, value: int) -> None:
    """Give an instance what it is owed: an external event, or a line."""
    if not event.startswith(_UPDATE):
        await handle.raise_event(event, value)
        return
    both = (handle.update("write", value, id=event) for _ in range(2))
    said: list[Any] = await asyncio.gather(*both, return_exceptions=True)
    for error in said:
        if isinstance(error, BaseException):
            raise error
    if said != [value + 1] * 2:
        world().report(f"update {event} of {handle.id} was told {said}, not {value + 1} twice")
    if value not in await handle.query("lines") and not world().lossy:
        world().report(f"{handle.id} has taken the line {value}, and a query does not show it")
