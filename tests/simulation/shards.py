"""One shard of a Cluster goes back in time: some partitions forget, others remember what those had sent.

Rules:

* What was sent before is lost, or heard once: at rest there is nothing that could be done again.
* All that is sent afterwards is heard, exactly once, whoever forgot what. No target may take it for a repeat.
* Nobody waits for ever: a child that is forgotten is started again, an outcome that is forgotten is told
  again, a lock that is not known to be wanted is asked for again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Final

import lungfish
from lungfish.runtime.client.client import Client
from lungfish.runtime.messages.status import OrchestrationStatus
from lungfish.runtime.testing.memory_server import Hub
from tests.simulation import parcels
from tests.simulation.app import app

#: Enough for every pair of the six partitions of the largest run to be likely.
TELLERS: Final = 10
#: Orchestrations that wait for a child each.
FOREBEARS: Final = 6
#: Orchestrations that want the first so many tellers for themselves.
KEEPERS: Final = 3
KEPT: Final = 3
#: How long such a child lives (virtual s).
LIFE_S: Final = 15.0
#: How often each tells each before the failover: as many numbers are forgotten.
BEFORE: Final = 3


@app.entity
class Teller(lungfish.Entity):
    """Hears, and tells others."""

    heard: list[str] = []

    def tell(self, word: str) -> None:
        """Tell everybody else."""
        for number in range(TELLERS):
            if str(number) != self.key:
                self.context.signal((Teller, str(number)), Teller.hear, f"{word} {self.key}")

    def hear(self, word: str) -> None:
        """Hear something."""
        self.heard.append(word)


@app.orchestration
async def forebear(ctx: lungfish.OrchestrationContext, number: int) -> int:
    """Wait for a child."""
    return await ctx.call_orchestration(offspring, number, id=f"{ctx.instance_id}.child")


@app.orchestration
async def offspring(ctx: lungfish.OrchestrationContext, number: int) -> int:
    """Take a while: longer than it takes the store to fail over."""
    await ctx.sleep(LIFE_S)
    return number


@app.orchestration
async def keeper(ctx: lungfish.OrchestrationContext, number: int) -> int:
    """Have some tellers for itself for a while; others wait meanwhile."""
    async with ctx.lock(*(ctx.entity(Teller, str(n)) for n in range(KEPT))):
        await ctx.sleep(LIFE_S / KEEPERS)
    return number


async def begin(client: Client) -> None:
    """Start keepers and forebears, and see that children are there."""
    for number in range(KEEPERS):
        await client.start(keeper, number, id=f"keeper{number}")
    for number in range(FOREBEARS):
        await client.start(forebear, number, id=f"forebear{number}")
    for number in range(FOREBEARS):
        while True:
            with contextlib.suppress(lungfish.InstanceNotFound):
                await client.orchestration(f"forebear{number}.child").status()
                break
            await asyncio.sleep(0.1)


async def tell(client: Client, when: str, times: int) -> None:
    """Have everybody tell everybody else, so many times."""
    for time in range(times):
        for number in range(TELLERS):
            await client.entity(Teller, str(number)).signal(Teller.tell, f"{when} {time}")


def leave_out(instances: dict[str, OrchestrationStatus]) -> None:
    """Take these instances out of an account that knows of no failover."""
    for name in [name for name in instances if name.startswith(("forebear", "keeper"))]:
        del instances[name]


def check(hub: Hub) -> Iterator[str]:
    """Yield what was lost afterwards, or doubled."""
    tellers = {
        key: Teller.lungfish_state(snapshot, key)
        for rows in hub.partitions.values()
        for (name, key), snapshot in rows.snapshots.items()
        if name == "Teller"
    }
    for rows in hub.partitions.values():
        for instance, row in rows.instances.items():
            status = parcels.status_of(rows, instance, row)
            if status.name in ("forebear", "keeper") and status.output != int(instance[len(status.name) :]):
                yield f"{instance} is {status.runtime_status.value}: {status.failure}"
    for number in range(TELLERS):
        teller = tellers.get(str(number))
        heard = Counter(teller.heard if teller is not None else ())
        doubled = [word for word, count in heard.items() if count > 1]
        if doubled:
            yield f"teller {number} heard twice: {doubled}"
        missing = [f"after 0 {n}" for n in range(TELLERS) if n != number and not heard[f"after 0 {n}"]]
        if missing:
            yield f"teller {number} never heard: {missing}"
