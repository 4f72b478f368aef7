"""What the browser looks at: a shop."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt

import lungfish

app = lungfish.App("shop")

#: Set by a test that wants ``Stock.count`` to go on.
counted = asyncio.Event()
#: Carriers named here refuse.
STRIKES = set[str]()


@app.entity
class Cart(lungfish.Entity):
    items: dict[str, int] = {}

    def add(self, item: str, number: int = 1) -> int:
        self.items[item] = self.items.get(item, 0) + number
        return self.items[item]

    @lungfish.shared
    def size(self) -> int:
        return sum(self.items.values())


@app.entity
class Stock(lungfish.Entity):
    units: int = 100
    reserved: dict[str, int] = {}

    def reserve(self, order: str, number: int) -> int:
        if number > self.units:
            raise ValueError(f"only {self.units} left")
        self.units -= number
        self.reserved[order] = number
        return self.units

    async def count(self) -> int:
        await counted.wait()
        return self.units


@app.activity
async def charge(order: str, amount: float) -> str:
    await asyncio.sleep(0.25)
    return f"receipt-{order}"


@app.activity
async def pick(item: str) -> str:
    await asyncio.sleep(0.1 + len(item) / 40)
    return item


@app.activity(retry=lungfish.RetryPolicy(max_attempts=3, initial_interval=dt.timedelta(milliseconds=100)))
async def hand_over(carrier: str) -> str:
    if carrier in STRIKES:
        raise ConnectionError(f"{carrier} does not answer")
    await asyncio.sleep(0.15)
    return f"{carrier}-4711"


@app.orchestration
async def ship(ctx: lungfish.OrchestrationContext, carrier: str) -> str:
    await ctx.sleep(0.2)
    return await ctx.call_activity(hand_over, carrier)


@app.orchestration
async def fulfil(
    ctx: lungfish.OrchestrationContext, order: str, items: list[str], carrier: str = "dove"
) -> str:
    ctx.set_custom_status("reserving")
    await ctx.entity(Stock, "berlin").call(Stock.reserve, order, len(items))
    await ctx.when_all([ctx.call_activity(pick, item) for item in items])
    ctx.set_custom_status("waiting for the payment")
    amount = await ctx.wait_for_external_event("paid", float)
    await ctx.call_activity(charge, order, amount)
    ctx.set_custom_status("on its way")
    return await ctx.call_orchestration(ship, carrier)


@app.orchestration
async def stocktaking(ctx: lungfish.OrchestrationContext, store: str) -> int:
    return await ctx.entity(Stock, store).call(Stock.count)


@app.orchestration
async def echo(ctx: lungfish.OrchestrationContext, value: object = None) -> object:
    return value


@app.activity(inline=True)
def add(total: int, number: int) -> int:
    return total + number


@app.orchestration
async def long(ctx: lungfish.OrchestrationContext, steps: int) -> int:
    total = 0
    for number in range(steps):
        total = await ctx.call_activity(add, total, number)
    return total


@app.orchestration
async def account(ctx: lungfish.OrchestrationContext) -> int:
    balance = 0

    @ctx.on_query
    def current() -> int:
        return balance

    @ctx.on_update
    async def deposit(amount: int) -> int:
        nonlocal balance
        balance += amount
        return balance

    await ctx.wait_for_external_event("close")
    return balance


@app.orchestration
async def locking(ctx: lungfish.OrchestrationContext, store: str) -> None:
    async with ctx.lock(ctx.entity(Stock, store)):
        await ctx.wait_for_external_event("go")


@app.activity
def explode(what: str) -> None:
    raise RuntimeError(f"{what} exploded")


@app.orchestration
async def break_down(ctx: lungfish.OrchestrationContext, what: str) -> None:
    ctx.set_custom_status(what)
    await ctx.call_activity(explode, what)


@app.orchestration
async def stumble(ctx: lungfish.OrchestrationContext) -> None:
    with contextlib.suppress(lungfish.ActivityFailed):
        await ctx.call_activity(explode, "it")
    await ctx.wait_for_external_event("go")
    await ctx.wait_for_external_event("go")
