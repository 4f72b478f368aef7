"""What is seen from outside: how far the hub is, who owns what, and how long a takeover takes."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import lungfish
from lungfish.runtime.store.store import Store

from .app import Flown
from .flights import Figures, Subject

if TYPE_CHECKING:
    from lungfish.runtime.on_ray.cluster import Runtime

#: How often owners are looked at during a takeover (s).
_POLL_S: Final = 0.02
#: A takeover that takes longer than this has failed (s).
_TAKEOVER_MAX_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class HostProcess:
    """A host: its id, its process, and the partitions that it owns."""

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

    async def applied(self, partitions: Collection[int] | None = None) -> int:
        """Return how many signals are applied, durably, by now (in some partitions)."""
        keys = [
            (ref.partition, ref.name, ref.key)
            for ref in self._refs.values()
            if partitions is None or ref.partition in partitions
        ]
        rows = await self._store.snapshots(keys)  # in one call: this is asked several times a second
        return sum(Flown.lungfish_state(row, "").flights for row in rows if row is not None)

    async def hosts(self, runtime: Runtime) -> list[HostProcess]:
        """Return the hosts, by id."""
        actors = await asyncio.to_thread(runtime.actors)
        owners = await self._store.owners()
        return [
            HostProcess(host, pid, frozenset(p for p, owner in enumerate(owners) if owner.host == host))
            for host, pid in sorted((host, pid) for name, _, host, pid in actors if ":host:" in name)
        ]

    async def kill(self, victim: HostProcess, total: int) -> Takeover:
        """Kill a host, without a word to it, and watch its partitions come back.

        Args:
            total: with so many signals applied there is no more progress to be seen.

        Raises:
            DeadlineExceeded: they do not.
        """
        os.kill(victim.pid, signal.SIGKILL)
        killed_s = time.monotonic()
        try:
            async with asyncio.timeout(_TAKEOVER_MAX_S):
                before = await self.applied(victim.partitions)
                while not await self._owned_anew(victim):
                    await asyncio.sleep(_POLL_S)
                owned_s = time.monotonic() - killed_s
                while await self.applied(victim.partitions) == before and await self.applied() < total:
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise lungfish.DeadlineExceeded(
                f"nobody took over from host {victim.host} within {_TAKEOVER_MAX_S:.0f} s"
            ) from None
        return Takeover(owned_s, time.monotonic() - killed_s)

    async def _owned_anew(self, victim: HostProcess) -> bool:
        owners = await self._store.owners()
        return all(owners[partition].host not in ("", victim.host) for partition in victim.partitions)


def differences(expected: Mapping[Subject, Figures], states: Mapping[Subject, Flown | None]) -> list[str]:
    """Compare every entity with the direct computation, figure by figure; return what differs."""
    found = []
    for (name, key), figures in expected.items():
        state = states.get((name, key))
        has = state.figures() if state is not None else None
        if has != figures:
            found.append(f"{name}/{key}: the file says {figures}, the entity {has}")
    return found
