"""What the HTTP tests run."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

from pydantic import BaseModel

import lungfish

app = lungfish.App("served")


class Order(BaseModel):
    id: str
    amount: Decimal
    at: dt.datetime | None = None


@app.entity
class Counter(lungfish.Entity):
    value: int = 0

    def add(self, n: int = 1) -> int:
        self.value += n
        return self.value

    def fail(self) -> None:
        raise ValueError("it does not work")

    def refuse(self) -> None:
        raise lungfish.Refused("not for you")

    def remove(self) -> None:
        self.context.delete()

    @lungfish.shared
    def get(self) -> int:
        return self.value


@app.entity
class Note(lungfish.Entity):
    text: str = ""

    def write(self, text: str) -> None:
        self.text = text


@app.activity
def greet(city: str) -> str:
    return f"Hello {city}!"


@app.activity
def explode(what: str) -> None:
    raise RuntimeError(f"{what} exploded")


@app.orchestration
async def hello(ctx: lungfish.OrchestrationContext) -> list[str]:
    return [await ctx.call_activity(greet, city) for city in ("Tokyo", "Seattle", "Cairo")]


@app.orchestration
async def echo(ctx: lungfish.OrchestrationContext, value: object = None) -> object:
    ctx.set_custom_status({"seen": True})
    return value


@app.orchestration
async def pay(ctx: lungfish.OrchestrationContext, order: Order, *, twice: bool = False) -> Decimal:
    return order.amount * (2 if twice else 1)


@app.orchestration
async def divide(ctx: lungfish.OrchestrationContext, a: int, b: int) -> float:
    return a / b


@app.orchestration
async def wait(ctx: lungfish.OrchestrationContext) -> str:
    return await ctx.wait_for_external_event("go", str)


@app.orchestration
async def break_down(ctx: lungfish.OrchestrationContext, what: str) -> None:
    await ctx.call_activity(explode, what)


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

    @ctx.on_query("broken")
    def broken_query() -> int:
        return balance // 0

    @ctx.on_update("broken")
    def broken_update(amount: int) -> int:
        return amount // 0

    await ctx.wait_for_external_event("close")
    await ctx.updates_finished()
    return balance


#: Activities named here fail.
BROKEN = set[str]()


@app.activity
def fragile(name: str) -> str:
    if name in BROKEN:
        raise RuntimeError(f"{name} is broken")
    return f"{name} is well"


@app.orchestration
async def visit(ctx: lungfish.OrchestrationContext, name: str) -> list[str]:
    return [await ctx.call_activity(fragile, "first"), await ctx.call_activity(fragile, name)]
