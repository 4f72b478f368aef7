"""What is seen from outside: how far the hub is, who owns what, and how long a takeover takes."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

import lungfish
from lungfish.runtime.cluster import Runtime
from lungfish.runtime.store import Store

from .app import Flown
from .flights import Figures, Subject

#: How often owners are looked at during a takeover (s).
_POLL_S: Final = 0.02
#: A takeover that takes longer than this has failed (s).
_TAKEOVER_MAX_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Victim:
    """A host to be killed: its id, its process, and the partitions that it owns."""

    host: str
    pid: int
    partitions: frozenset[int]


@dataclass(frozen=True, slots=True)
class Takeover:
    """What a kill came to.

    Attributes:
        owned_s: from the kill until all its partitions had a new owner.
        resumed_s: from the kill until signals were applied there again.
    """

    victim: Victim
    owned_s: float
    resumed_s: float


class Watcher:
    """Looks at a hub as any client may."""

    def __init__(self, client: lungfish.Client, store: Store, subjects: Collection[Subject]) -> None:
        self._store = store
        self._refs = {subject: client.entity(*subject) for subject in subjects}

    async def states(self) -> dict[Subject, Flown | None]:
        """Return the last committed states of all entities; activates nothing."""
        found = await asyncio.gather(*(ref.state() for ref in self._refs.values()))
        return dict(zip(self._refs, found, strict=True))

    async def applied(self) -> int:
        """Return how many signals are applied, durably, by now."""
        return sum(state.flights for state in (await self.states()).values() if state is not None)

    async def victim(self, runtime: Runtime, number: int) -> Victim:
        """Choose one of the hosts."""
        actors = await asyncio.to_thread(runtime.actors)
        hosts = sorted((host, pid) for name, _, host, pid in actors if ":host:" in name)
        host, pid = hosts[number % len(hosts)]
        owners = await self._store.owners()
        return Victim(host, pid, frozenset(p for p, owner in enumerate(owners) if owner.host == host))

    async def kill(self, victim: Victim) -> Takeover:
        """Kill a host, without a word to it, and watch its partitions come back.

        Raises:
            TimeoutError: they do not.
        """
        refs = [ref for ref in self._refs.values() if ref.partition in victim.partitions]

        async def progress() -> int:
            states = await asyncio.gather(*(ref.state() for ref in refs))
            return sum(state.flights for state in states if state is not None)

        os.kill(victim.pid, signal.SIGKILL)
        killed_s = time.monotonic()
        async with asyncio.timeout(_TAKEOVER_MAX_S):
            before = await progress()
            while not await self._owned_anew(victim):
                await asyncio.sleep(_POLL_S)
            owned_s = time.monotonic() - killed_s
            while await progress() == before:
                await asyncio.sleep(_POLL_S)
        return Takeover(victim, owned_s, time.monotonic() - killed_s)

    async def _owned_anew(self, victim: Victim) -> bool:
        owners = await self._store.owners()
        return all(owners[partition].host not in ("", victim.host) for partition in victim.partitions)


def differences(expected: Mapping[Subject, Figures], states: Mapping[Subject, Flown | None]) -> list[str]:
    """Compare every entity with the direct computation, field by field; return what differs."""
    found = []
    for (name, key), figures in expected.items():
        state = states.get((name, key))
        has = state.figures() if state is not None else None
        if has != figures:
            found.append(f"{name}/{key}: the file says {figures}, the entity {has}")
    return found
