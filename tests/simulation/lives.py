"""Second lives in the simulation: orchestrations that are cancelled, or fail until they are rewound.

Rules:

* What is cancelled cleans up, in every generation of its family, and ends Canceled.
* What fails does so because the world is ill; once it is mended, a rewound family comes to what a healthy
  one comes to.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any, Final

import lungfish
from lungfish.runtime.client.instance_handle import OrchestrationHandle
from tests.simulation.app import Refused, app, step
from tests.simulation.world import world

#: What clients start: cancelled ones, and ones to be rewound.
CANCELED: Final = frozenset({"tidy"})
REWOUND: Final = frozenset({"ailing"})
#: How often an instance is looked at until it has come to its end.
TRIES: Final = 400
SORTS: Final = (*CANCELED, *REWOUND)


@app.activity
def cure(who: str) -> str:
    """Fail as long as the world is ill for this one."""
    if who not in world().mended:
        raise Refused(f"{who} is ill")
    return who


@app.orchestration
async def tidy(ctx: lungfish.OrchestrationContext, depth: int) -> str:
    """Wait for ever, with a family; clean up when it is cancelled."""
    try:
        if depth:
            await ctx.call_orchestration(tidy, depth - 1, id=f"{ctx.instance_id}.0")
        else:
            await ctx.sleep(3_600)
    except asyncio.CancelledError:
        ctx.set_custom_status(await ctx.call_activity(step, depth, 1))
        raise
    return "not cancelled"


@app.orchestration
async def ailing(ctx: lungfish.OrchestrationContext, depth: int, width: int) -> int:
    """Do some work beside what fails at the bottom of the family."""
    parts = [ctx.call_activity(step, number, depth) for number in range(width)]
    await ctx.sleep(0.01)
    if depth:
        bottom: Any = ctx.call_orchestration(ailing, depth - 1, width, id=f"{ctx.instance_id}.0")
    else:
        bottom = ctx.call_activity(cure, ctx.instance_id.partition(".")[0])
    await ctx.when_all([bottom, *parts])
    return depth + await ctx.call_activity(step, 0, width)


def arguments(name: str, rng: random.Random) -> tuple[Any, ...]:
    """Return arguments for one of them."""
    depth = rng.randint(0, 2)
    return (depth,) if name == "tidy" else (depth, rng.randint(0, 3))


def children(instance: str, name: str, args: tuple[Any, ...]) -> dict[str, tuple[str, tuple[Any, ...]]]:
    """Return all descendants: id → name and arguments."""
    found: dict[str, tuple[str, tuple[Any, ...]]] = {}
    for below in range(args[0]):
        instance = f"{instance}.0"
        found[instance] = (name, (args[0] - 1 - below, *args[1:]))
    return found


async def live_again(name: str, instance: str, handle: OrchestrationHandle[Any]) -> None:
    """Cancel an instance, or mend what it failed of and rewind it; repeatable."""
    if name in CANCELED:
        await _unless_ended(handle.cancel("enough"))
        return
    world().mended.add(instance)
    for _ in range(TRIES):
        status = (await handle.status()).runtime_status.value
        if status in {"Completed", "Terminated"}:
            return
        if status == "Failed":
            await _unless_ended(handle.rewind("the world is mended"))
        await asyncio.sleep(0.05)


async def _unless_ended(verb: Any) -> None:
    try:
        await verb
    except lungfish.UsageError as error:
        if type(error).__name__ not in {"InstanceEnded", "InstanceRunning"}:
            raise
