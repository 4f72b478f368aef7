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
