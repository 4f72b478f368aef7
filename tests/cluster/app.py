"""The app that cluster tests run."""

from __future__ import annotations

import asyncio
import os

import lungfish

app = lungfish.App("nodes")


def _note(ledger: str, number: int) -> None:
    with open(ledger, "a", encoding="utf-8") as file:
        file.write(f"{number}\n")


@app.entity
class Counter(lungfish.Entity):
    """Counts."""

    value: int = 0

    def add(self, n: int = 1) -> int:
        """Add ``n``; return the new value."""
        self.value += n
        return self.value

    @lungfish.shared
    def get(self) -> int:
        """Return the value."""
        return self.value


@app.entity
class Press(lungfish.Entity):
    """Takes its time."""

    prints: int = 0

    async def print_one(self, ledger: str, seconds: float) -> int:
        """Leave the process id in a file for every run, and be done after a while."""
        _note(ledger, os.getpid())
        await asyncio.sleep(seconds)
        self.prints += 1
        return self.prints


@app.activity
def charge(order: int, ledger: str) -> int:
    """Leave a mark for every run in a file: a second run of a finished step would show."""
    _note(ledger, order)
    return order * 10


@app.orchestration
async def approve(ctx: lungfish.OrchestrationContext, order: int, ledger: str) -> list[int]:
    """A step, a wait for an event, another step."""
    charged = await ctx.call_activity(charge, order, ledger)
    bonus = await ctx.wait_for_external_event("approved", int)
    counted = await ctx.entity(Counter, "orders").call(Counter.add, 1)
    return [charged, bonus, int(counted > 0)]
