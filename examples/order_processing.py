"""Order processing: a payment that is tried again, a review by people, an e-mail a day later.

An order runs for days and over several services; this reads as if it ran in a minute on one machine. Two
variants: ``process_order`` compensates when a step fails; ``place_order`` ends early when one says no.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta

import lungfish

app = lungfish.App("orders")

PAYMENT_RETRY = lungfish.RetryPolicy(max_attempts=5, initial_interval=timedelta(seconds=10))
REVIEW_TIME = timedelta(hours=2)
FOLLOW_UP_AFTER = timedelta(hours=24)


@dataclass
class Order:
    """What a customer wants."""

    id: str
    customer_id: str
    items: dict[str, int]
    amount: float


@dataclass
class Payment:
    """What the bank says."""

    transaction_id: str
    status: str = "APPROVED"


@dataclass
class Result:
    """What became of an order."""

    order_id: str
    completed: bool
    reason: str = ""


@dataclass
class Shop:
    """Stands for the services around: warehouse, bank, mail.

    Attributes:
        outages: how many of the next payments fail because the bank is away.
        review_from: payments from here on are looked at by people.
        charged, taken, refunded: by idempotency key: a repeated request is the same request.
    """

    stock: dict[str, int] = field(default_factory=lambda: {"lamp": 10, "sofa": 1})
    outages: int = 0
    review_from: float = 1_000.0
    charged: dict[str, float] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    refunded: set[str] = field(default_factory=set)
    mails: list[str] = field(default_factory=list)


shop = Shop()


class Refused(Exception):
    """A service, or a person, says no: trying again will not help."""

    non_retriable = True


@app.activity
def reserve_inventory(items: dict[str, int]) -> None:
    """Set the items aside."""
    for item, count in items.items():
        if shop.stock.get(item, 0) < count:
            raise Refused(f"not enough {item}s")


@app.activity(retry=PAYMENT_RETRY)
def process_payment(order_id: str, amount: float) -> Payment:
    """Charge the customer once: the bank knows a repeated request by its key."""
    if shop.outages:
        shop.outages -= 1
        raise ConnectionError("the bank does not answer")
    if amount <= 0:
        raise Refused(f"nothing to pay for {order_id}")
    key = lungfish.activity_info().idempotency_key
    shop.charged[key] = amount
    return Payment(key, "REQUIRES_REVIEW" if amount >= shop.review_from else "APPROVED")


@app.activity
def notify_fraud_team(order_id: str) -> None:
    """Ask people to look at it; they answer with the event ``fraudReviewApproved``."""
    shop.mails.append(f"fraud team: review {order_id}")


@app.activity
def deduct_inventory(items: dict[str, int]) -> None:
    """Take the items out of the stock, once, however often this runs."""
    key = lungfish.activity_info().idempotency_key
    if key in shop.taken:
        return
    left = {item: shop.stock[item] - count for item, count in items.items()}
    shop.stock.update(left)
    shop.taken.add(key)  # last: what failed half-way has not been done


@app.activity
def send_order_confirmation_email(customer_id: str, order_id: str) -> None:
    """Tell the customer that it is on its way."""
    shop.mails.append(f"{customer_id}: {order_id} is confirmed")


@app.activity
def send_follow_up_email(customer_id: str, order_id: str) -> None:
    """Ask the customer how it was."""
    shop.mails.append(f"{customer_id}: how was {order_id}?")


@app.activity
def refund_payment(transaction_id: str) -> None:
    """Give the money back; the bank knows what it has refunded."""
    shop.refunded.add(transaction_id)


@app.orchestration
async def process_order(ctx: lungfish.OrchestrationContext, order: Order) -> Result:
    """Reserve, charge, have it reviewed if need be, ship, follow up; refund if anything fails."""
    transaction_id = ""
    try:
        await ctx.call_activity(reserve_inventory, order.items)
        payment = await ctx.call_activity(process_payment, order.id, order.amount)
        transaction_id = payment.transaction_id
        if payment.status == "REQUIRES_REVIEW":
            await review(ctx, order)
        await ctx.call_activity(deduct_inventory, order.items)
        await ctx.call_activity(send_order_confirmation_email, order.customer_id, order.id)
        ctx.set_custom_status("confirmed")
        await ctx.sleep(FOLLOW_UP_AFTER)
        await ctx.call_activity(send_follow_up_email, order.customer_id, order.id)
    except (lungfish.ActivityFailed, Refused) as error:
        if transaction_id:
            await ctx.call_activity(refund_payment, transaction_id)
        details = error.details if isinstance(error, lungfish.ActivityFailed) else None
        return Result(order.id, False, details.message if details is not None else str(error))
    return Result(order.id, True)


async def review(ctx: lungfish.OrchestrationContext, order: Order) -> None:
    """Race the answer of the fraud team against a timer; raise if it is no, or comes too late."""
    await ctx.call_activity(notify_fraud_team, order.id)
    ctx.set_custom_status("under review")
    try:
        async with asyncio.timeout(REVIEW_TIME.total_seconds()):  # a durable timer
            approved = await ctx.wait_for_external_event("fraudReviewApproved", bool)
    except TimeoutError:
        raise Refused("the review took too long") from None
    if not approved:
        raise Refused("the review found fraud")


# --- the simpler variant -----------------------------------------------------------------


@app.activity
def check_inventory(items: dict[str, int]) -> bool:
    """Tell whether there is enough of everything."""
    return all(shop.stock.get(item, 0) >= count for item, count in items.items())


@app.activity
def create_order(order: Order) -> str:
    """Write it down; return its number."""
    return f"#{order.id}"


@app.orchestration
async def place_order(ctx: lungfish.OrchestrationContext, order: Order) -> str:
    """CheckInventory → ProcessPayment → CreateOrder → SendConfirmationEmail; end early if one says no."""
    if not await ctx.call_activity(check_inventory, order.items):
        return "out of stock"
    try:
        await ctx.call_activity(process_payment, order.id, order.amount)
    except lungfish.ActivityFailed as error:
        return f"not paid: {error.details and error.details.message}"
    number = await ctx.call_activity(create_order, order)
    await ctx.call_activity(send_order_confirmation_email, order.customer_id, number)
    return f"order {number} is placed"


async def main(client: lungfish.Client) -> tuple[str, Result]:
    """Place one order; have another one refused by the fraud team."""
    placed = await client.start(place_order, Order("1", "Ada", {"lamp": 1}, 50.0))
    refused = await client.start(process_order, Order("2", "Bob", {"sofa": 1}, 2_000.0))
    await refused.raise_event("fraudReviewApproved", False)
    return await placed.result(timeout=60), await refused.result(timeout=60)


async def connected() -> None:
    async with lungfish.connect(app) as client:
        print(*await main(client), sep="\n")


if __name__ == "__main__":
    runtime = lungfish.start(app)
    try:
        asyncio.run(connected())
    finally:
        runtime.shutdown()
