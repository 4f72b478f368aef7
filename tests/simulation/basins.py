"""Sinks, hooks and watches in the simulation: several clients pour the same rows, and look at what they fill.

Rules:

* All pour one source through one sink: row ``n`` is the number ``n``, for basin ``n % 3``. Whoever dies, or
  is overtaken, every row is there once and in order; what a ``write`` accepted is there at the end.
* A basin is asleep until its ``on_activate`` has ended well, which now and then it does not: then no
  operation has run. What a hook writes and sends is one commit: a witness hears once of each awakening that
  counts.
* Who watches a basin sees it fill: each state begins with the one before, and was there.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from pydantic import PrivateAttr

import lungfish
from lungfish.runtime.client.client import Client
from tests.simulation.app import app
from tests.simulation.world import world

BASINS: Final = 3
#: The name of the sink.
SINK: Final = "spring"
#: Most rows that one ``write`` adds.
MORE_MAX: Final = 12
#: Each so many tries, ``on_activate`` fails.
FAILS_EACH: Final = 5


@app.entity
class Basin(lungfish.Entity):
    """Takes rows, when it is awake."""

    rows: list[int] = []
    asleep: list[int] = []
    woken: int = 0
    _awake: bool = PrivateAttr(default=False)

    async def on_activate(self) -> None:
        """Wake up, slowly, and tell the witness."""
        await asyncio.sleep(0.004)
        self.woken += 1
        self.context.signal((Witness, self.key), Witness.hear, self.woken)
        tries = world().awakenings
        tries[self.key] += 1
        if tries[self.key] % FAILS_EACH == 0:
            raise ConnectionError("simulated: no water")
        self._awake = True

    def take(self, row: int) -> None:
        """Take a row."""
        self.rows.append(row)
        if not self._awake:
            self.asleep.append(row)


@app.entity
class Witness(lungfish.Entity):
    """Knows each awakening of a basin."""

    heard: list[int] = []

    def hear(self, number: int) -> None:
        """Hear of one."""
        self.heard.append(number)


@dataclass(slots=True)
class Basins:
    """What clients did.

    Attributes:
        asked: how many rows were ever poured; accepted: so many are durable, as somebody was told.
        seen: what was seen: basin, rows; wrong: what was seen and cannot be.
    """

    asked: int = 0
    accepted: int = 0
    seen: list[tuple[str, list[int]]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


async def pour(basins: Basins, client: Client, rng: random.Random, patience_s: float) -> str:
    """Pour all rows there ever were, and some more."""
    basins.asked += rng.randint(1, MORE_MAX)
    end = basins.asked
    wrote = await client.sink(SINK).write(
        Basin,
        Basin.take,
        range(end),
        key=lambda row: f"basin{row % BASINS}",
        batch_rows=rng.choice((1, 3, 500)),
        timeout=patience_s,
    )
    basins.accepted = max(basins.accepted, end)
    if wrote.position < end:
        basins.wrong.append(f"{end} rows were poured, and the position is {wrote.position}")
    return "ok"


async def gaze(basins: Basins, client: Client, rng: random.Random, patience_s: float) -> str:
    """Look at a basin for a while."""
    key = f"basin{rng.randrange(BASINS)}"
    ref = client.entity(Basin, key).options(timeout=patience_s)
    before: list[int] = []
    watch = ref.watch()  # who crashes does not close it
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(rng.choice((0.1, 2.0))):
            async for state in watch:
                rows = [] if state is None else state.rows
                if rows[: len(before)] != before:
                    basins.wrong.append(f"{key} was seen to go back from {before} to {rows}")
                before = rows
    await watch.aclose()
    basins.seen.append((key, before))
    return "ok"


def check(basins: Basins, filled: Mapping[str, Basin], witnesses: Mapping[str, Witness]) -> Iterator[str]:
    """Yield what is missing, doubled or out of order."""
    yield from basins.wrong
    for number in range(BASINS):
        key = f"basin{number}"
        basin = filled.get(key, Basin())
        whole = list(range(number, basins.asked, BASINS))
        if basin.rows != whole[: len(basin.rows)]:
            yield f"{key} holds {basin.rows}"
        missing = [row for row in whole if row < basins.accepted][len(basin.rows) :]
        if missing:
            yield f"{key} lacks {missing}, which were accepted"
        if basin.asleep:
            yield f"{key} took {basin.asleep} before it was awake"
        heard = witnesses.get(key, Witness()).heard
        if heard != list(range(1, basin.woken + 1)):
            yield f"{key} woke {basin.woken} times, and its witness heard {heard}"
    for key, rows in basins.seen:
        if filled.get(key, Basin()).rows[: len(rows)] != rows:
            yield f"somebody saw {rows} in {key}, which never was"
