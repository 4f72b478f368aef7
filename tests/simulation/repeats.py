"""A commit arrives again when later ones are there: it was long on its way, or was sent twice.

Rules:

* It is from the owner, and its number was applied: it is answered as the first time, and changes nothing.
* What users have is looked at, not what the store has: every cell is what was put there last.
"""

from __future__ import annotations

import asyncio
import copy
import datetime as dt
from typing import Final

from lungfish.runtime.client.client import Client
from lungfish.runtime.store.store import Commit
from tests.simulation.app import Cell

#: Enough for every partition of the largest run to be likely.
CELLS: Final = 10
#: The store refuses the repeat of a commit that consumed what the inbox has not any more: of timers it has
#: nothing but the number to know it by.
LATER: Final = dt.timedelta(seconds=0.2)


class Noted:
    """Commits that came to a server while this was in its place."""

    def __init__(self) -> None:
        self._commits: list[tuple[str, Commit]] = []

    def add(self, hub: str, commit: Commit) -> None:
        """Keep a commit as it came."""
        self._commits.append((hub, copy.deepcopy(commit)))

    def latest_first(self) -> list[tuple[str, Commit]]:
        """Return them; the last of them to be repeated is the first that there was."""
        return self._commits[::-1]


async def put(client: Client, value: int) -> None:
    """Put a value into every cell; return when it is there."""
    for number in range(CELLS):
        await client.entity(Cell, f"repeated{number}").signal(Cell.put, value, at=LATER)
    while await wrong(client, value):
        await asyncio.sleep(LATER.total_seconds())


async def wrong(client: Client, value: int) -> list[str]:
    """Return the cells that are not what was put there last."""
    states = {number: await client.entity(Cell, f"repeated{number}").state() for number in range(CELLS)}
    return [
        f"repeats: cell {number} is {state and state.value}, and {value} was acknowledged"
        for number, state in states.items()
        if state is None or state.value != value
    ]
