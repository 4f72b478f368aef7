"""Broadcasts in the simulation: criers cry, and every villager hears each cry once.

Rules:

* Who had settled before a cry, as far as the crier was told, hears it once if the crier was told that it is
  durable. If nobody knows, all of them hear it, or none.
* Nobody hears a cry twice, whenever he settled.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import lungfish
from lungfish.entities import broadcast
from lungfish.runtime.client.client import Client
from tests.simulation.app import POND, app

# A walk shall have many pages, though there are few villagers.
broadcast.PAGE = 2  # type: ignore[misc]


@app.entity(pool=POND)
class Villager(lungfish.Entity):
    """Hears cries."""

    heard: list[str] = []

    def settle(self) -> None:
        """Begin to exist."""

    def hear(self, cry: str) -> None:
        """Remember a cry."""
        self.heard.append(cry)

    def cry(self, cry: str, prefix: str) -> None:
        """Cry oneself."""
        self.context.broadcast(Villager, Villager.hear, cry, prefix=prefix)


@dataclass(slots=True)
class Cry:
    """A broadcast.

    Attributes:
        present: the villagers who must hear it.
        outcome: ``ok`` or ``unknown``.
    """

    name: str
    prefix: str
    present: tuple[str, ...]
    outcome: str = "unknown"


@dataclass(slots=True)
class Cries:
    """All of them, and who has settled for certain."""

    all: list[Cry] = field(default_factory=list)
    settled: list[str] = field(default_factory=list)


class Crying:
    """What one client does with villagers."""

    def __init__(self, name: str, cries: Cries) -> None:
        self._name = name
        self._cries = cries
        self._count = 0

    async def go(self, client: Client, rng: random.Random, patience_s: float) -> str:
        """Have villagers settle, or cry; return how that ended."""
        self._count += 1
        name, village = f"{self._name}-{self._count}", rng.choice("ab")
        if self._count == 1 or rng.random() < 0.3:
            for number in range(3):
                key = f"{village}/{name}-{number}"
                await client.entity(Villager, key).options(timeout=patience_s).call(Villager.settle)
                self._cries.settled.append(key)
            return "ok"
        prefix = rng.choice(("", f"{village}/"))
        present = tuple(key for key in self._cries.settled if key.startswith(prefix))
        cry = Cry(name, prefix, present)
        self._cries.all.append(cry)
        if present and rng.random() < 0.3:
            crier = client.entity(Villager, rng.choice(present))
            await crier.signal(Villager.cry, name, prefix)
        else:
            await client.broadcast(Villager, Villager.hear, name, prefix=prefix)
        cry.outcome = "ok"
        return "ok"


def check(cries: Cries, villagers: Mapping[str, Villager]) -> Iterator[str]:
    """Yield who missed a cry, or heard one more than once."""
    heard = {key: Counter(villager.heard) for key, villager in villagers.items()}
    for cry in cries.all:
        times = {key: counts.pop(cry.name, 0) for key, counts in heard.items()}
        yield from (f"{key} heard {cry.name} {n} times" for key, n in times.items() if n > 1)
        yield from (
            f"{key} heard {cry.name}, which was for {cry.prefix!r}"
            for key, n in times.items()
            if n and not key.startswith(cry.prefix)
        )
        if cry.outcome == "ok" or any(times.values()):
            yield from (
                f"{key} missed {cry.name} ({cry.outcome})" for key in cry.present if not times.get(key)
            )
    for key, counts in heard.items():
        yield from (f"unexpected: {key} heard {name}, which nobody cried" for name, n in counts.items() if n)
