"""A shopping cart: migrates its old states, is watched by a page, and goes when nobody comes back."""

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any, ClassVar

from pydantic import BaseModel

import lungfish

app = lungfish.App("carts")


class Line(BaseModel):
    """So many of one thing."""

    item: str
    price: Decimal
    count: int = 1


def counted(state: dict[str, Any]) -> dict[str, Any]:
    """Bring a cart of the first release, which repeated a line for each piece, to the second."""
    lines: dict[str, dict[str, Any]] = {}
    for line in state["lines"]:
        lines.setdefault(line["item"], {**line, "count": 0})["count"] += 1
    return {"lines": lines}


@app.entity
class Cart(lungfish.Entity, ttl=timedelta(days=30), state_bytes_max=100_000):
    """What somebody wants to buy."""

    schema_version: ClassVar[int] = 2
    migrations = {1: counted}
    lines: dict[str, Line] = {}

    def put(self, item: str, price: Decimal, count: int = 1) -> Decimal:
        """Add to the cart; return the total."""
        known = self.lines.get(item)
        if count < 1:
            raise ValueError("put at least one")
        self.lines[item] = Line(item=item, price=price, count=count + (known.count if known else 0))
        return self.total()

    @lungfish.shared
    def total(self) -> Decimal:
        """Return what it costs."""
        return sum((line.price * line.count for line in self.lines.values()), Decimal(0))

    def check_out(self) -> Decimal:
        """Empty the cart for good; return what was to be paid."""
        paid = self.total()
        self.context.delete()
        return paid


async def main(client: lungfish.Client) -> list[int | None]:
    """Fill a cart and check out; return how many lines a page that watches it has shown."""
    cart = client.entity(Cart, "ada")
    shown: list[int | None] = []
    async with cart.watch() as watch:
        for step in range(4):
            state = await anext(watch)
            shown.append(len(state.lines) if state is not None else None)
            match step:
                case 0:
                    await cart.call(Cart.put, "tea", Decimal("4.50"), count=2)
                case 1:
                    await cart.call(Cart.put, "milk", Decimal("1.20"))
                case 2:
                    assert await cart.call(Cart.check_out) == Decimal("10.20")
    return shown


async def connected() -> None:
    async with lungfish.connect(app) as client:
        print(await main(client))


if __name__ == "__main__":
    runtime = lungfish.start(app)
    try:
        asyncio.run(connected())
    finally:
        runtime.shutdown()
