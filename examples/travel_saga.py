"""A saga: train, flight and hotel, all or nothing.

Each step that succeeds puts down how to undo it; when one fails for good, what was done is undone in
reverse. A saga is plain code: a list, a ``try`` and a ``for``. It survives crashes because the
orchestration does, in the middle of the compensations, too.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta

import lungfish

app = lungfish.App("travel")

HOTEL_RETRY = lungfish.RetryPolicy(
    max_attempts=3, initial_interval=timedelta(seconds=1), backoff_coefficient=2.0
)


@dataclass
class Trip:
    """What is wanted. The results say how each provider will answer: ``success`` or ``fail``."""

    buy_train_ticket_result: str = "success"
    reserve_flight_result: str = "success"
    reserve_hotel_result: str = "success"


@dataclass
class Outcome:
    """What came of it."""

    booked: bool
    transactions: dict[str, str] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    reason: str = ""


class Refused(Exception):
    """The provider says no."""


def book(what: str, answer: str) -> str:
    """Ask a provider. It knows a repeated request by the idempotency key, so nothing is booked twice."""
    if answer != "success":
        raise Refused(f"no {what} to be had")
    return f"{what}-{lungfish.activity_info().idempotency_key}"


@app.activity
def buy_train_ticket(trip: Trip) -> str:
    """Return the transaction id."""
    return book("train", trip.buy_train_ticket_result)


@app.activity
def reserve_flight(trip: Trip) -> str:
    """Return the transaction id."""
    return book("flight", trip.reserve_flight_result)


@app.activity(retry=HOTEL_RETRY)
def reserve_hotel(trip: Trip) -> str:
    """Return the transaction id; tried three times."""
    return book("hotel", trip.reserve_hotel_result)


@app.activity
def cancel_train_ticket(transaction: str) -> str:
    """Give the ticket back."""
    return transaction


@app.activity
def cancel_flight(transaction: str) -> str:
    """Give the seat back."""
    return transaction


@app.activity
def order_failed(reason: str) -> str:
    """Tell the customer."""
    return f"We are sorry: {reason}"


@app.activity
def order_succeeded(transactions: dict[str, str]) -> None:
    """Tell the customer."""


@app.orchestration
async def travel(ctx: lungfish.OrchestrationContext, trip: Trip) -> Outcome:
    """Book all three, or none."""
    outcome = Outcome(booked=False)
    undo: list[tuple[lungfish.Activity[[str], str], str]] = []
    try:
        train = await ctx.call_activity(buy_train_ticket, trip)
        undo.append((cancel_train_ticket, train))
        flight = await ctx.call_activity(reserve_flight, trip)
        undo.append((cancel_flight, flight))
        hotel = await ctx.call_activity(reserve_hotel, trip)
    except lungfish.ActivityFailed as error:
        for cancel, transaction in reversed(undo):
            outcome.cancelled.append(await ctx.call_activity(cancel, transaction))
        outcome.reason = await ctx.call_activity(order_failed, str(error.details and error.details.message))
        return outcome
    outcome.booked = True
    outcome.transactions = {"train": train, "flight": flight, "hotel": hotel}
    await ctx.call_activity(order_succeeded, outcome.transactions)
    return outcome


async def main(client: lungfish.Client) -> list[Outcome]:
    """One trip that works out, one without a hotel."""
    trips = [Trip(), Trip(reserve_hotel_result="fail")]
    started = [await client.start(travel, trip) for trip in trips]
    return [await instance.result(timeout=60) for instance in started]


async def connected() -> None:
    async with lungfish.connect(app) as client:
        print(*await main(client), sep="\n")


if __name__ == "__main__":
    runtime = lungfish.start(app)
    try:
        asyncio.run(connected())
    finally:
        runtime.shutdown()
