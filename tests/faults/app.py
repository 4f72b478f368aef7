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


@app.orchestration
async def audit(ctx: lungfish.OrchestrationContext, accounts: list[str]) -> int:
    """Add up accounts between which money moves, while it does."""
    refs = [ctx.entity(Account, account) for account in accounts]
    async with ctx.lock(*refs):
        return sum([await ref.call(Account.look) for ref in refs])


@app.orchestration
async def sentry(ctx: lungfish.OrchestrationContext, number: int, patience_s: float) -> list[int]:
    """Wait for an event, for so long; return what it brought, or nothing but the number."""
    try:
        async with asyncio.timeout(patience_s):
            return [number, await ctx.wait_for_external_event("go", int)]
    except TimeoutError:
        return [number]


@app.entity
class Tape(lungfish.Entity):
    """Knows every sender's last number; notes each that is not the next one."""

    last: dict[str, int] = {}
    wrong: list[tuple[str, int, int]] = []

    def note(self, sender: str, number: int) -> None:
        """Take one signal; numbers begin at 1."""
        last = self.last.get(sender, 0)
        if number != last + 1 and len(self.wrong) < 100:
            self.wrong.append((sender, last, number))
        self.last[sender] = max(last, number)
