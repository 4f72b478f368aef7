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


#: Cuts of an account that are kept: of more there is no audit under way.
CUTS_MAX = 4


@app.entity
class Account(lungfish.Entity):
    """Money, and what moved it; and what there was when an epoch began, for audits that stop nobody.

    Attributes:
        cuts: by epoch, the balance at its beginning, with all transfers whose giver was in an earlier one.
    """

    balance: int = 0
    transfers: list[str] = []
    epoch: int = 0
    cuts: dict[int, int] = {}

    def withdraw(self, amount: int, transfer: str) -> tuple[int, int]:
        """Give money; return what is left, and the epoch in which it was given."""
        self.balance -= amount
        self.transfers.append(transfer)
        return self.balance, self.epoch

    def deposit(self, amount: int, transfer: str, epoch: int) -> int:
        """Take money that was given in an epoch."""
        self.advance(epoch)
        self.balance += amount
        self.transfers.append(transfer)
        for begun in self.cuts:
            if begun > epoch:  # it was on its way across that cut
                self.cuts[begun] += amount
        return self.balance

    def advance(self, epoch: int) -> None:
        """Begin an epoch, if it has not begun here."""
        for begun in range(self.epoch + 1, epoch + 1):
            self.cuts[begun] = self.balance
            self.cuts.pop(begun - CUTS_MAX, None)
        self.epoch = max(self.epoch, epoch)

    def put(self, value: int) -> int:
        """Replace the balance; return the old one."""
        old, self.balance = self.balance, value
        return old

    @lungfish.shared
    def look(self) -> int:
        """Return the balance."""
        return self.balance

    @lungfish.shared
    def at(self, epoch: int) -> int:
        """Return the balance at the beginning of an epoch."""
        return self.cuts[epoch]


@app.orchestration
async def transfer(ctx: lungfish.OrchestrationContext, source: str, target: str, amount: int) -> int:
    """Move money between two accounts that nobody else uses meanwhile."""
    giver, taker = ctx.entity(Account, source), ctx.entity(Account, target)
    async with ctx.lock(giver, taker):
        before = await giver.call(Account.look)
        left, epoch = await giver.call(Account.withdraw, amount, ctx.instance_id)
        await taker.call(Account.deposit, amount, ctx.instance_id, epoch)
    return before - left


@app.orchestration
async def audit(ctx: lungfish.OrchestrationContext, accounts: list[str]) -> int:
    """Add up accounts between which money moves, while it does not: all are held."""
    refs = [ctx.entity(Account, account) for account in accounts]
    async with ctx.lock(*refs):
        return sum([await ref.call(Account.look) for ref in refs])


@app.orchestration
async def census(ctx: lungfish.OrchestrationContext, accounts: int, epoch: int) -> int:
    """Add up all accounts as they were at one cut through all transfers, while money moves. Nothing is held.

    An account that is held begins the epoch when its transfer is through. So when all have begun it, every
    transfer of an earlier epoch is through, and what it moved is on one side of the cut, at both ends.
    """
    refs = [ctx.entity(Account, f"a{number}") for number in range(accounts)]
    await asyncio.gather(*(ref.call(Account.advance, epoch) for ref in refs))
    return sum(await asyncio.gather(*(ref.call(Account.at, epoch) for ref in refs)))


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
