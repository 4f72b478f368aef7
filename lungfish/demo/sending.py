"""The senders: plain Ray actors that turn their share of the table into signals.

They know nothing of partitions and hosts: a sender goes on while a host dies, because a signal is
acknowledged by the store and not by the host.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeAlias

import lungfish

from .app import app
from .flights import Flight, read_flights

#: Consecutive flights that a sender groups by entity before it sends them: about a week's.
FLIGHTS_PER_BATCH: Final = 4_000

#: Name of the entity's class, key, operation → arguments of one signal each.
Signals: TypeAlias = dict[tuple[str, str, str], list[tuple[int, ...]]]


def signals_of(flights: Iterable[Flight]) -> Signals:
    """Group the signals of some flights by entity and operation."""
    found: Signals = defaultdict(list)
    for flight in flights:
        for name, key in flight.subjects():
            if flight.delay is None:
                found[name, key, "cancel"].append(())
            else:
                found[name, key, "depart"].append((flight.delay, flight.air_time, flight.distance))
    return found


def batches(flights: Iterator[Flight]) -> Iterator[list[Flight]]:
    """Cut flights into batches."""
    while batch := list(itertools.islice(flights, FLIGHTS_PER_BATCH)):
        yield batch


class Sender:
    """A plain Ray actor; it finds its entities with nothing but the app."""

    def __init__(self, hub: str, url: str) -> None:
        self._hub = hub
        self._url = url
        self._acknowledged = 0

    async def send(self, first: int, last: int) -> int:
        """Send the signals of rows ``first`` to ``last``; return how many, when all are durable."""
        async with lungfish.connect(app, hub=self._hub, url=self._url) as client:
            for batch in batches(read_flights(first, last)):
                signals = signals_of(batch)
                await asyncio.gather(*(self._send_one(client, *of, each) for of, each in signals.items()))
        return self._acknowledged

    async def _send_one(
        self, client: lungfish.Client, name: str, key: str, operation: str, signals: list[tuple[int, ...]]
    ) -> None:
        await client.entity(name, key).signal_many(operation, signals)
        self._acknowledged += len(signals)

    async def acknowledged(self) -> int:
        """Return how many signals are durable by now."""
        return self._acknowledged


class Senders:
    """Several senders, as the demo drives them."""

    def __init__(self, hub: str, url: str, count: int) -> None:
        import ray

        make: Any = ray.remote(Sender).options(num_cpus=0).remote
        self._actors: list[Any] = [make(hub, url) for _ in range(count)]

    async def send(self, flights: int) -> int:
        """Send the first rows, each sender its share, in parallel; return how many signals that were."""
        shares = len(self._actors)
        bounds = [flights * share // shares for share in range(shares + 1)]
        parts = zip(self._actors, itertools.pairwise(bounds), strict=True)
        return sum(await asyncio.gather(*(actor.send.remote(*bounds) for actor, bounds in parts)))

    async def acknowledged(self) -> int:
        """Return how many signals are durable by now."""
        return sum(await asyncio.gather(*(actor.acknowledged.remote() for actor in self._actors)))
