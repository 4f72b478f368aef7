"""Purges in the simulation: what has gone is gone whole, and does not come back.

Rules:

* ``fleeting`` instances go by age: when everything has come to rest there are none.
* ``lasting`` ones go by hand, after their end. One whose purge was acknowledged does not exist; whether one
  does whose purge was not, nobody can say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import lungfish
from lungfish.runtime.client.client import Client
from lungfish.runtime.testing.memory_server import Hub
from tests.simulation import parcels
from tests.simulation.app import app, nap, step

#: What begins the ids of these instances; the others' checks pass them over.
PREFIX: Final = "purge:"
_GAVE_UP: Final = (lungfish.StoreUnavailable, lungfish.DeadlineExceeded, lungfish.Overloaded)


@app.orchestration
async def fleeting(ctx: lungfish.OrchestrationContext, value: int) -> int:
    """Work, wait, and have a child that goes by age, too."""
    found: int = await ctx.call_activity(step, 0, value)
    if value > 50:
        await ctx.sleep(0.1)
        await ctx.call_orchestration(fleeting, value - 50, id=f"{ctx.instance_id}.0")
    return found


@app.orchestration
async def lasting(ctx: lungfish.OrchestrationContext, value: int) -> int:
    """Work, in a child and beside it."""
    beside = ctx.call_activity(nap, 0, 0.02)
    if value > 50:
        await ctx.call_orchestration(lasting, value - 50, id=f"{ctx.instance_id}.0")
    await beside
    return value


app.retention(orchestration=fleeting, default=0.3)


@dataclass(slots=True)
class Purges:
    """Instances whose purge was acknowledged, each with its children."""

    acknowledged: set[str] = field(default_factory=set)

    def are_gone(self, hub: Hub) -> Iterator[str]:
        """Yield what there still is of them."""
        for rows in hub.partitions.values():
            for instance in rows.instances.keys() | rows.histories.keys():
                if instance.removesuffix(".0") in self.acknowledged:
                    yield f"instance {instance} was purged, and there is something of it"


def leave_out(instances: dict[str, Any]) -> None:
    """Take these instances out of what the other checks look at."""
    for name in [name for name in instances if name.startswith(PREFIX)]:
        del instances[name]


def unrest(hub: Hub) -> Iterator[str]:
    """Yield instances that should have gone by themselves."""
    for rows in list(hub.partitions.values()):
        for instance, row in rows.instances.items():
            if parcels.status_of(rows, instance, row).name == "fleeting":
                yield f"instance {instance} is kept after its time"


async def start_and_purge(client: Client, purges: Purges, name: str, value: int, patience_s: float) -> str:
    """Start an instance and, if it is one that lasts, purge it; return ``ok`` or ``unknown``."""
    name = f"{PREFIX}{name}"
    try:
        if value % 2:
            await client.start(fleeting, value, id=name)
            return "ok"
        handle: Any
        if value % 4:
            handle = await client.start(parcels.parcels, "p" * parcels.SIZE, id=name)
        else:
            handle = await client.start(lasting, value, id=name)
        await handle.result(patience_s)
        await client.purge(name)
    except _GAVE_UP:
        return "unknown"
    purges.acknowledged.add(name)
    return "ok"
