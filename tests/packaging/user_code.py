"""A user's module, for ``test_types.py``: it is checked, never run.

A line marked E must be reported by mypy and by pyright; R says what ``reveal_type`` must tell.
Any other report is a failure.
"""

# ruff: noqa
import asyncio
import datetime as dt
from dataclasses import dataclass

from typing_extensions import reveal_type

import lungfish

app = lungfish.App("types")


@dataclass
class Order:
    id: str
    amount: float


@app.entity
class Counter(lungfish.Entity):
    value: int = 0

    def add(self, n: int = 1) -> int:
        self.value += n
        return self.value

    async def describe(self, prefix: str) -> str:
        return f"{prefix}{self.value}"

    @lungfish.shared
    def get(self) -> int:
        return self.value


@app.entity(name="Cart")
class ShoppingCart(lungfish.Entity):
    total: float = 0.0

    async def pay(self) -> None:
        counter = self.context.entity(Counter, "orders")
        reveal_type(await counter.call(Counter.add, 1))  # R: int
        await counter.call(Counter.add, "x")  # E
        counter.signal(Counter.add, 1)
        counter.signal(Counter.add, "x")  # E
        counter.signal(Counter.add, 1, at=dt.timedelta(hours=1))
        self.context.signal((Counter, "orders"), Counter.add, "x")  # E
        self.context.start(process, Order("1", 2.0))


app.entity(Order)  # E


@app.activity
def charge(order: Order, amount: float) -> str:
    return f"{order.id}{amount}"


@app.activity(retry=lungfish.RetryPolicy(max_attempts=3), timeout=dt.timedelta(seconds=5), queue="slow")
async def fetch(url: str) -> bytes:
    return url.encode()


@app.orchestration
async def process(ctx: lungfish.OrchestrationContext, order: Order) -> str:
    reveal_type(await ctx.call_activity(charge, order, 1.5))  # R: str
    reveal_type(await ctx.call_activity(fetch, "url"))  # R: bytes
    reveal_type(await ctx.call_activity(fetch.options(timeout=5), "url"))  # R: bytes
    await ctx.call_activity(charge, order, "much")  # E
    await ctx.call_activity(charge, order)  # E
    await ctx.call_activity(fetch, 5)  # E
    counter = ctx.entity(Counter, "orders")
    reveal_type(await counter.call(Counter.add, 1))  # R: int
    reveal_type(await counter.call(Counter.describe, "x"))  # R: str
    await counter.call(Counter.add, "x")  # E
    counter.signal(Counter.add, 1)
    counter.signal(Counter.add, "x")  # E
    counter.signal(Counter.add, 1, at=ctx.now())
    counter.signal("add", 1)
    reveal_type(await ctx.wait_for_external_event("approved", bool))  # R: bool
    reveal_type(await ctx.call_orchestration(child, 5))  # R: list[int]
    await ctx.call_orchestration(child, "five")  # E
    both = await asyncio.gather(ctx.call_activity(charge, order, 1.0), ctx.call_activity(fetch, "url"))
    reveal_type(both)  # R: tuple[str, bytes]
    reveal_type(ctx.now())  # R: datetime
    answer, due = ctx.wait_for_external_event("answer", bool), ctx.create_timer(60)
    if await ctx.when_any(answer, due) is answer:
        reveal_type(await answer)  # R: bool
    fetched = await ctx.when_all(ctx.call_activity(fetch, "a"), ctx.call_activity(fetch, "b"))
    reveal_type(fetched)  # R: list[bytes]
    await ctx.sleep(dt.timedelta(hours=1))
    async with asyncio.timeout(60):
        await ctx.create_timer(dt.timedelta(seconds=5))
    return order.id


@app.orchestration
async def child(ctx: lungfish.OrchestrationContext, n: int) -> list[int]:
    return [n]


def without_async(ctx: lungfish.OrchestrationContext) -> str:
    return ""


app.orchestration(without_async)  # E


async def use(client: lungfish.Client) -> None:
    counter = client.entity(Counter, "hits")
    reveal_type(await counter.call(Counter.add, 1))  # R: int
    reveal_type(await counter.call(Counter.add, n=1))  # R: int
    reveal_type(await counter.call(Counter.describe, "x"))  # R: str
    reveal_type(await counter.call(Counter.get))  # R: int
    reveal_type(await counter.state())  # R: Counter | None
    await counter.call(Counter.add, "x")  # E
    await counter.call(Counter.add, 1, 2)  # E
    await counter.call(Counter.describe)  # E
    await counter.signal(Counter.add, 5)
    await counter.signal(Counter.add, m=5)  # E
    await counter.signal_many(Counter.add, [(1,), (2,)])
    await client.entity("Counter", "hits").call("add", 1)
    client.entity(Order, "hits")  # E

    started = await client.start(process, Order("1", 2.0), id="order-1")
    reveal_type(await started.result(timeout=60))  # R: str
    reveal_type((await started.status()).created_at)  # R: datetime
    await started.raise_event("approved", True)
    async for instance in client.instances(status="Running", name="process"):
        reveal_type(instance.runtime_status)  # R: RuntimeStatus


async def connected() -> None:
    async with lungfish.connect(app) as client:
        reveal_type(client)  # R: Client
    with lungfish.connect_sync("redis://host:6379", hub="types") as blocking:
        reveal_type(blocking.entity(Counter, "hits").call(Counter.add, 1))  # R: int
        blocking.entity(Counter, "hits").call(Counter.add, "x")  # E
        reveal_type(blocking.start(process, Order("1", 2.0)).result(timeout=5))  # R: str


def plain_calls(order: Order) -> None:
    reveal_type(charge(order, 1.0))  # R: str
    charge(order)  # E
    reveal_type(Counter().add(1))  # R: int
