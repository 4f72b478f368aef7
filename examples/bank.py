"""A bank: accounts are entities, transfers are orchestrations that hold both accounts.

Money is neither made nor lost, whatever crashes at whatever instant: while a transfer holds two accounts,
nobody else changes them, and each of its two steps happens exactly once. An audit holds several accounts at
once, so it never sees money that is on its way.
"""

import asyncio
import random

import lungfish

app = lungfish.App("bank")


class InsufficientFunds(Exception):
    """The account does not hold that much."""


@app.entity
class Account(lungfish.Entity):
    """What one customer owns, and which transfers made it so."""

    balance: int = 0
    transfers: list[str] = []

    def open(self, balance: int) -> None:
        """Pay in for the first time."""
        self.balance = balance

    def withdraw(self, amount: int, transfer: str) -> int:
        """Take money out; raises if there is not enough."""
        if amount > self.balance:
            raise InsufficientFunds(f"{self.key} has {self.balance}, not {amount}")
        self.balance -= amount
        self.transfers.append(transfer)
        return self.balance

    def deposit(self, amount: int, transfer: str) -> int:
        """Put money in."""
        self.balance += amount
        self.transfers.append(transfer)
        return self.balance

    @lungfish.shared
    def statement(self) -> list[str]:
        """Return the ids of all transfers, oldest first."""
        return self.transfers


@app.orchestration
async def transfer(ctx: lungfish.OrchestrationContext, source: str, target: str, amount: int) -> bool:
    """Move money; False if there is not enough of it."""
    giver, taker = ctx.entity(Account, source), ctx.entity(Account, target)
    async with ctx.lock(giver, taker):
        try:
            await giver.call(Account.withdraw, amount, ctx.instance_id)
        except lungfish.EntityOperationFailed:
            return False
        await taker.call(Account.deposit, amount, ctx.instance_id)
    return True


@app.orchestration
async def audit(ctx: lungfish.OrchestrationContext, accounts: list[str]) -> int:
    """Return what some accounts hold together, at one moment."""
    refs = [ctx.entity(Account, key) for key in accounts]
    async with ctx.lock(*refs):
        statements = await asyncio.gather(*(ref.call(Account.deposit, 0, ctx.instance_id) for ref in refs))
    return sum(statements)


async def main(client: lungfish.Client, transfers: int = 40) -> tuple[int, list[int]]:
    """Move money between four accounts, all at once, while auditors look; return the sum and the audits."""
    keys = ["ann", "bob", "cat", "dan"]
    await asyncio.gather(*(client.entity(Account, key).call(Account.open, 100) for key in keys))
    chance = random.Random(1)

    async def move(number: int) -> bool:
        source, target = chance.sample(keys, 2)
        handle = await client.start(transfer, source, target, chance.randint(1, 60), id=f"transfer-{number}")
        return await handle.result(timeout=60)

    async def look(number: int) -> int:
        return await (await client.start(audit, keys, id=f"audit-{number}")).result(timeout=60)

    _, audits = await asyncio.gather(
        asyncio.gather(*(move(number) for number in range(transfers))),
        asyncio.gather(*(look(number) for number in range(3))),
    )
    return await look(3), audits


async def connected() -> None:
    async with lungfish.connect(app) as client:
        print(await main(client))


if __name__ == "__main__":
    runtime = lungfish.start(app)
    try:
        asyncio.run(connected())
    finally:
        runtime.shutdown()
