"""Which actors are busiest: a sketch of constant size, fed with samples. Pure.

Space-saving (Metwally, Agrawal, El Abbadi 2005): ``k`` counters; who has none takes over the smallest and
inherits its count as his possible error. An actor with more than 1/k of all samples is always among them,
and no count is too low. Counts are halved every minute, so that they tell of the last minutes. Keys of
users appear here and nowhere as labels of metrics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgpack

from lungfish.runtime.ids import ENTITY, ActorId

#: Counters of a host, and how many of them its heartbeat tells.
COUNTERS: Final = 64
TOLD: Final = 8
#: One in so many runs of an actor is counted.
SAMPLED: Final = 16
HALVED_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class HotEntity:
    """An entity that was among the busiest of its host in the last minutes.

    Attributes:
        entity, key: which one.
        host: where it runs.
        share: about which part of the host's turns were its (0 to 1); never too low.
    """

    entity: str
    key: str
    host: str
    share: float


class Hottest:
    """The sketch of one host."""

    def __init__(self, counters: int = COUNTERS) -> None:
        self._counters = counters
        self._counts: dict[ActorId, int] = {}
        self._total = 0
        self._halved_ms = 0

    def add(self, actor: ActorId) -> None:
        """Count a sample."""
        counts = self._counts
        self._total += 1
        known = counts.get(actor)
        if known is not None:
            counts[actor] = known + 1
        elif len(counts) < self._counters:
            counts[actor] = 1
        else:
            least = min(counts, key=counts.__getitem__)
            counts[actor] = counts.pop(least) + 1

    def told(self, now_ms: int) -> list[tuple[str, str, float]]:
        """Return the busiest entities with their share, the busiest first."""
        if now_ms - self._halved_ms >= HALVED_MS:
            self._halved_ms = now_ms
            self._total //= 2
            self._counts = {actor: count // 2 for actor, count in self._counts.items() if count > 1}
        top = sorted(self._counts.items(), key=lambda pair: -pair[1])[:TOLD]
        total = max(1, self._total)
        return [
            (actor.name, actor.key, min(1.0, count / total)) for actor, count in top if actor.kind == ENTITY
        ]


def pack_hot(told: list[tuple[str, str, float]]) -> bytes:
    """Return what ``Hottest.told`` said as a heartbeat carries it."""
    packed: bytes = msgpack.packb(told)
    return packed


def read_hot(host: str, record: bytes) -> list[HotEntity]:
    """Return what a host's heartbeat tells; nothing for a record of another release."""
    try:
        found: Any = msgpack.unpackb(record)
        told = msgpack.unpackb(found.get("hot") or b"\x90")
        return [HotEntity(name, key, host, share) for name, key, share in told]
    except (ValueError, TypeError, AttributeError):
        return []
