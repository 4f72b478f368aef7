"""The app that fault tests run: everything in it can be checked exactly."""

from __future__ import annotations

import asyncio
import time

import lungfish

app = lungfish.App("faults")


@app.entity
class Ledger(lungfish.Entity):
    """Remembers every signal by sender, so that a lost, doubled or reordered one shows."""

    seen: dict[str, list[int]] = {}
    total: int = 0

    def note(self, sender: str, number: int) -> int:
        """Remember one signal."""
        self.seen.setdefault(sender, []).append(number)
        self.total += 1
        return self.total

    def block(self, seconds: float, marks: str) -> None:
        """Keep the host's event loop, as careless code does; leave a mark for every run."""
        with open(marks, "a", encoding="utf-8") as file:
            file.write("run\n")
        time.sleep(seconds)

    @lungfish.shared
    def count(self) -> int:
        """Return how many there were."""
        return self.total


@app.activity
def double(number: int) -> int:
    """Do the work of one step."""
    return 2 * number


@app.activity
async def slow_double(number: int) -> int:
    """Do the same, while other things happen."""
    await asyncio.sleep(0.02)
    return 2 * number


@app.orchestration
async def chain(ctx: lungfish.OrchestrationContext, start: int) -> int:
    """Five steps and one entry in a ledger; the ledger shows whether a step was doubled."""
    value = start
    for step in range(5):
        if step % 2:
            value = await ctx.call_activity(double, value)
        else:
            value = await ctx.call_activity(slow_double, value)
    ledger = ctx.entity(Ledger, "chains")
    await ledger.call(Ledger.note, ctx.instance_id, start)
    return value


@app.orchestration
async def waiter(ctx: lungfish.OrchestrationContext, number: int) -> list[int]:
    """One step, a wait for an event, one more step."""
    first = await ctx.call_activity(double, number)
    given = await ctx.wait_for_external_event("go", int)
    second = await ctx.call_activity(double, given)
    return [first, given, second]


@app.entity
class Account(lungfish.Entity):
    """Money, and what moved it."""

    balance: int = 0
    transfers: list[str] = []

    def move(self, amount: int, transfer: str) -> int:
        """Add an amount, in a transfer."""
        self.balance += amount
        self.transfers.append(transfer)
        return self.balance

    def put(self, value: int) -> int:
        """Replace the balance; return the old one."""
        old, self.balance = self.balance, value
        return old

    @lungfish.shared
    def look(self) -> int:
        """Return the balance."""
        return self.balance


@app.orchestration
async def transfer(ctx: lungfish.OrchestrationContext, source: str, target: str, amount: int) -> int:
    """Move money between two accounts that nobody else uses meanwhile."""
    giver, taker = ctx.entity(Account, source), ctx.entity(Account, target)
    async with ctx.lock(giver, taker):
        before = await giver.call(Account.look)
        left = await giver.call(Account.move, -amount, ctx.instance_id)
        await taker.call(Account.move, amount, ctx.instance_id)
    return before - left
