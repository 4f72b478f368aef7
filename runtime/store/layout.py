"""The partitions of a hub: those that every host may own, and those of its pools. Pure.

Rules:

* A pool is a range of partitions of its own, behind all that there were when it was added. What the hub's
  meta says of it never changes, and it is never removed: who knows less than all pools knows nothing wrong.
* The pool of an entity is written in its registered name, ``Model@gpu``: whoever sends has kind, name and
  key, and no class. A name without ``@`` belongs to the partitions that the hub was created with.
* A name whose pool is not known here is an error, and never a partition: a guess would make two owners of
  one entity. Clients look at the hub's meta again before they say so.
* A group of keys is one partition in each pool: its members of one pool are together.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from lungfish.runtime.errors import UnknownPool
from lungfish.runtime.ids import ENTITY, GROUP_END, HASH_NAME, ActorId, hash_of

FORMAT_VERSION: Final = 1

#: Ends the class in the registered name of a pinned entity; what follows is the pool.
POOL_MARK: Final = "@"

#: The hosts, and partitions, of no pool.
DEFAULT_POOL: Final = ""

#: What a host says that serves every pool.
EVERY_POOL: Final = "*"

#: Partitions of a pool whose app does not say how many.
POOL_PARTITIONS: Final = 8
POOL_PARTITIONS_MAX: Final = 1_024


@dataclass(frozen=True, slots=True)
class PoolRange:
    """The partitions of a pool: ``count`` of them from ``first`` on."""

    name: str
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class HubMeta:
    """What is fixed when a hub is created, and its pools, which are fixed when they are added.

    Attributes:
        partitions: of no pool.
        pools: in the order of their partitions.
    """

    partitions: int = 32
    format_version: int = FORMAT_VERSION
    hash_name: str = HASH_NAME
    pools: tuple[PoolRange, ...] = ()

    @property
    def total(self) -> int:
        """How many partitions the hub has, with those of its pools."""
        return self.partitions + sum(pool.count for pool in self.pools)

    def with_pools(self, wanted: Mapping[str, int]) -> HubMeta:
        """Return the meta with pools of these partition counts added; those that it has stay as they are."""
        pools = list(self.pools)
        for name, count in wanted.items():
            if all(name != pool.name for pool in pools):
                pools.append(PoolRange(name, self.partitions + sum(pool.count for pool in pools), count))
        return HubMeta(self.partitions, self.format_version, self.hash_name, tuple(pools))


class Layout:
    """Where actors are, as a process knows it; it may learn of new pools at any time."""

    __slots__ = ("_ranges", "meta", "partitions", "total")

    def __init__(self, meta: HubMeta) -> None:
        self.learn(meta)

    def learn(self, meta: HubMeta) -> None:
        """Take over what the hub's meta says."""
        self.meta = meta
        self.partitions = meta.partitions
        self.total = meta.total
        self._ranges = {pool.name: pool for pool in meta.pools}

    def of(self, actor: ActorId) -> int:
        """Return the number of the partition that owns an actor; raises ``UnknownPool``."""
        kind, name, key = actor
        if POOL_MARK in name:
            pool = self._pool(name)
            return pool.first + hash_of(actor) % pool.count
        if GROUP_END in key:
            return hash_of(actor) % self.partitions
        # As ``hash_of`` would: every message that is sent comes along here.
        return zlib.crc32(f"{kind}\x00{name}\x00{key}".encode()) % self.partitions

    def numbers(self, name: str) -> range:
        """Return the partitions that entities of a registered name are in; raises ``UnknownPool``."""
        if POOL_MARK not in name:
            return range(self.partitions)
        pool = self._pool(name)
        return range(pool.first, pool.first + pool.count)

    def _pool(self, name: str) -> PoolRange:
        wanted = pool_in(name)
        found = self._ranges.get(wanted)
        if found is None:
            listed = ", ".join(self._ranges) or "none"
            raise UnknownPool(
                f"{name}: the hub has no pool {wanted!r}; there are: {listed}. "
                "A pool is added by the first host of an app that declares it: App(pools={...})"
            )
        return found

    def by_pool(self) -> dict[str, range]:
        """Return all partitions, by the name of their pool; those of none first, under ``DEFAULT_POOL``."""
        ranges = {DEFAULT_POOL: range(self.partitions)}
        for pool in self.meta.pools:
            ranges[pool.name] = range(pool.first, pool.first + pool.count)
        return ranges

    def pool_of(self, number: int) -> str:
        """Return the name of the pool that a partition is of."""
        for pool in self.meta.pools:
            if pool.first <= number < pool.first + pool.count:
                return pool.name
        return DEFAULT_POOL


@lru_cache(maxsize=64)
def spread_keys(name: str, count: int) -> tuple[str, ...]:
    """Return, for each of ``count`` partitions, the key of an entity of that name that is in it; for ever."""
    found: dict[int, str] = {}
    for number in itertools.count():
        if len(found) == count:
            break
        found.setdefault(hash_of(ActorId(ENTITY, name, str(number))) % count, str(number))
    return tuple(found[partition] for partition in range(count))


def pool_in(name: str) -> str:
    """Return the pool that a registered name belongs to; empty: none."""
    return name.partition(POOL_MARK)[2]


def serves(served: Iterable[str], pool: str) -> bool:
    """Return True if a host that serves these pools takes partitions of ``pool``."""
    return pool in served or EVERY_POOL in served
