"""The demo's app: three sorts of entities that add up flights, and an orchestration that ranks carriers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import lungfish

from .flights import Figures, read_airlines

app = lungfish.App("flights")


class Flown(lungfish.Entity):
    """What some flights add up to (whole minutes and miles: exact in any order)."""

    flights: int = 0
    cancelled: int = 0
    delayed: int = 0
    delay: int = 0
    worst_delay: int = 0
    air_time: int = 0
    distance: int = 0

    def depart(self, delay: int, air_time: int, distance: int) -> None:
        """Take in a flight that left."""
        self.flights += 1
        self.delayed += delay > 0
        self.delay += delay
        self.worst_delay = max(self.worst_delay, delay)
        self.air_time += air_time
        self.distance += distance

    def cancel(self) -> None:
        """Take in a flight that did not leave."""
        self.flights += 1
        self.cancelled += 1

    @lungfish.shared
    def figures(self) -> Figures:
        """Return what it all comes to by now."""
        return Figures(**self.model_dump())


@app.entity
class Carrier(Flown):
    """All flights of one airline."""


@app.entity
class Route(Flown):
    """All flights from one airport to another."""


@app.entity
class Plane(Flown):
    """All flights of one aircraft, by tail number."""


@dataclass(frozen=True, slots=True)
class Rank:
    """A line of the report."""

    code: str
    name: str
    figures: Figures


@app.activity
def airline_name(code: str) -> str:
    """Look a carrier up in a file: a side effect, so it is an activity's job."""
    return read_airlines().get(code, code)


@app.orchestration
async def rank_carriers(ctx: lungfish.OrchestrationContext, codes: list[str]) -> list[Rank]:
    """Ask all carriers at once and rank them by mean departure delay, worst first."""

    async def look_at(code: str) -> Rank:
        figures = await ctx.entity(Carrier, code).call(Carrier.figures)
        return Rank(code, await ctx.call_activity(airline_name, code), figures)

    ranks = await asyncio.gather(*map(look_at, codes))
    return sorted(ranks, key=lambda rank: (-rank.figures.mean_delay, rank.code))
