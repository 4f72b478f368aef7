"""What the demo does on what is up: send, kill, wait, compare, report."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import lungfish
from lungfish.runtime.on_redis.open_store import open_store

from .app import Flown, rank_carriers
from .flights import Figures, Subject
from .screen import Screen
from .sending import Senders
from .watching import HostProcess, Takeover, Watcher, differences

if TYPE_CHECKING:
    from lungfish.runtime.on_ray.cluster import Runtime

SENDERS: Final = 4
#: How often progress is looked at (s).
_LOOK_S: Final = 0.25
#: Differences that are named one by one.
_NAMED_MAX: Final = 10
#: Without any progress for this long, something is lost for good (s).
_STALLED_S: Final = 60.0


@dataclass(slots=True)
class Timing:
    """How the sending went, in seconds from its begin."""

    acknowledged_s: float = 0.0
    applied_s: float = 0.0
    takeover: Takeover | None = None


def _seen(done: asyncio.Future[Any]) -> None:
    """Look at how a task ended: an interrupt that hits it is told once, by the command itself."""
    if not done.cancelled():
        done.exception()


class Tour:
    """One run, in one hub."""

    def __init__(
        self,
        screen: Screen,
        runtime: Runtime,
        hub: str,
        expected: dict[Subject, Figures],
        *,
        flights: int,
    ) -> None:
        self._screen = screen
        self._runtime = runtime
        self._hub = hub
        self._expected = expected
        self._flights = flights
        self._total = sum(figures.flights for figures in expected.values())

    async def run(self, chance: random.Random | None) -> bool:
        """Return whether every figure of every entity is exact.

        Args:
            chance: chooses the host that is killed half-way; None: none is.
        """
        store = open_store(self._runtime.url, self._hub)
        try:
            await store.open()
            async with self._runtime.client() as client:
                watcher = Watcher(client, store, self._expected)
                hosts = await self._hosts(watcher)
                senders = Senders(self._hub, self._runtime.url, SENDERS)
                await senders.acknowledged()  # they are up: starting processes is no part of sending
                with self._screen.bars(self._total):
                    timing = await self._send(watcher, senders, chance.choice(hosts) if chance else None)
                self._say_timing(timing)
                exact = self._compare(await watcher.states())
                await self._report(client)
        finally:
            await store.close()
        return exact

    async def _hosts(self, watcher: Watcher) -> list[HostProcess]:
        hosts = await watcher.hosts(self._runtime)
        self._screen.say(
            "Ray",
            f"{len(hosts)} hosts with {sum(len(host.partitions) for host in hosts)} partitions; "
            f"{SENDERS} plain Ray actors send",
        )
        return hosts

    async def _send(self, watcher: Watcher, senders: Senders, victim: HostProcess | None) -> Timing:
        timing, began_s = Timing(), time.monotonic()
        sending = asyncio.ensure_future(senders.send(self._flights))
        sending.add_done_callback(_seen)
        killing: asyncio.Future[Takeover] | None = None
        applied, moved_s = 0, began_s
        while applied < self._total or not sending.done():
            acknowledged = sending.result() if sending.done() else await senders.acknowledged()
            now_s = time.monotonic()
            if sending.done() and not timing.acknowledged_s:
                timing.acknowledged_s = now_s - began_s
            if victim is not None and killing is None and acknowledged >= self._total // 2:
                killing = asyncio.ensure_future(self._kill(watcher, victim))
                killing.add_done_callback(_seen)
            before, applied = applied, await watcher.applied()
            if applied != before:
                moved_s = now_s
            elif now_s - moved_s > _STALLED_S:
                break
            self._screen.show(acknowledged, applied)
            await asyncio.sleep(_LOOK_S)
        timing.applied_s = time.monotonic() - began_s
        timing.takeover = await killing if killing is not None else None
        return timing

    async def _kill(self, watcher: Watcher, victim: HostProcess) -> Takeover:
        self._screen.say(
            "kill -9",
            f"a host (pid {victim.pid}) with {len(victim.partitions)} partitions; the senders go on",
        )
        takeover = await watcher.kill(victim, self._total)
        self._screen.say(
            "takeover",
            f"its partitions have an owner again after {takeover.owned_s:.1f} s, "
            f"and signals are applied there again after {takeover.resumed_s:.1f} s",
        )
        return takeover

    def _say_timing(self, timing: Timing) -> None:
        crash = ", crash included" if timing.takeover is not None else ""
        for what, took_s in (("durable", timing.acknowledged_s), ("applied", timing.applied_s)):
            self._screen.say(
                what,
                f"{self._total:,} signals in {took_s:.1f} s: "
                f"{self._total / max(took_s, 0.001):,.0f}/s{crash}",
            )

    def _compare(self, states: dict[Subject, Flown | None]) -> bool:
        wrong = differences(self._expected, states)
        right = len(self._expected) - len(wrong)
        self._screen.say(
            "exact", f"{right:,} of {len(self._expected):,} entities agree with the file, figure by figure"
        )
        for text in wrong[:_NAMED_MAX]:
            self._screen.say("WRONG", text)
        if len(wrong) > _NAMED_MAX:
            self._screen.say("WRONG", f"and {len(wrong) - _NAMED_MAX:,} more")
        return not wrong

    async def _report(self, client: lungfish.Client) -> None:
        codes = sorted(key for name, key in self._expected if name == "Carrier")
        began_s = time.monotonic()
        report = await client.start(rank_carriers, codes, id="report")
        ranks = await report.result(timeout=60)
        took_s = time.monotonic() - began_s
        self._screen.say(
            "report",
            f"an orchestration asked {len(codes)} carriers and ran {len(codes)} activities "
            f"in {took_s:.2f} s; delays in minutes:",
        )
        self._screen.ranking(ranks)
