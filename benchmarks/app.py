"""The app under test: as small as can be, so that what is measured is the runtime."""

from __future__ import annotations

import asyncio

import lungfish

app = lungfish.App("bench")

CITIES = ("Tokyo", "Seattle", "London", "Cairo", "Lima")


@app.entity
class Counter(lungfish.Entity):
    """A number."""

    value: int = 0

    def add(self, n: int = 1) -> int:
        """Add and return the sum."""
        self.value += n
        return self.value

    def get(self) -> int:
        """Return the sum."""
        return self.value


@app.activity
def say_hello(city: str) -> str:
    """Greet a city."""
    return f"Hello {city}!"


@app.activity
def square(number: int) -> int:
    """Return a square."""
    return number * number


@app.orchestration
async def hello_sequence(ctx: lungfish.OrchestrationContext) -> str:
    """Greet five cities, one after the other."""
    return " ".join([await ctx.call_activity(say_hello, city) for city in CITIES])


@app.orchestration
async def fan_out(ctx: lungfish.OrchestrationContext, count: int) -> int:
    """Square many numbers in parallel and sum up."""
    return sum(await asyncio.gather(*(ctx.call_activity(square, number) for number in range(count))))


@app.orchestration
async def one_step(ctx: lungfish.OrchestrationContext, number: int) -> int:
    """Square one number."""
    return await ctx.call_activity(square, number)


@app.entity
class Account(lungfish.Entity):
    """What a customer of a bank owns; it may be less than nothing here."""

    balance: int = 0

    def add(self, amount: int) -> int:
        """Put money in, or take it out; return what is there."""
        self.balance += amount
        return self.balance


@app.orchestration
async def transfer(ctx: lungfish.OrchestrationContext, source: str, target: str, amount: int) -> None:
    """Move money between two accounts that nobody else uses meanwhile."""
    giver, taker = ctx.entity(Account, source), ctx.entity(Account, target)
    async with ctx.lock(giver, taker):
        await asyncio.gather(giver.call(Account.add, -amount), taker.call(Account.add, amount))
