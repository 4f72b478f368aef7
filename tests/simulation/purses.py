"""Critical sections in the simulation: purses that orchestrations hold, several at a time.

Rules:

* Whoever is in a section writes ``enter`` and then ``leave`` into each purse that it holds. In a purse
  they must stand side by side: nobody else ran in between.
* Money only moves: the sum over all purses is nothing at the end.
* Meddlers write without a lock, as calls and signals; they must wait.
* When all is at rest no lock is held by, or waits for, an instance that has ended.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import lungfish
from lungfish.runtime.messages.messages import LockRequest
from lungfish.runtime.partitions.mailbox_rows import unpack_item
from lungfish.runtime.testing.memory_server import Hub
from tests.simulation import parcels
from tests.simulation.app import app

PURSES: Final = ("p0", "p1", "p2", "p3")
ENTER, LEAVE, MEDDLE = 1, 2, 3

#: Name of an orchestration → the share of its plans that are terminated from outside.
SORTS: Final = {"pay": 0.0, "crowd": 0.2, "hasty": 0.2, "revolve": 0.2, "meddle": 0.1}


@app.entity
class Purse(lungfish.Entity):
    """Money, and who was there."""

    balance: int = 0
    entries: list[tuple[str, int]] = []

    def enter(self, who: str, amount: int) -> int:
        """Put money in, or take it out, at the beginning of a section."""
        self.balance += amount
        self.entries.append((who, ENTER))
        return self.balance

    async def enter_slowly(self, who: str, amount: int) -> int:
        """Do the same, across an await."""
        await asyncio.sleep(0.02)
        return self.enter(who, amount)

    async def enter_both(self, who: str, amount: int, other: str) -> int:
        """Enter here and, by a call, in another purse of the section."""
        await self.context.entity(Purse, other).call(Purse.enter, who, -amount)
        return self.enter(who, amount)

    def leave(self, who: str) -> int:
        """End a section here."""
        self.entries.append((who, LEAVE))
        return self.balance

    def meddle(self, who: str) -> None:
        """Be here without a lock."""
        self.entries.append((who, MEDDLE))

    @lungfish.shared
    def look(self) -> int:
        """Read, which no lock forbids."""
        return self.balance


# --- orchestrations ----------------------------------------------------------------------


@app.orchestration
async def pay(ctx: lungfish.OrchestrationContext, source: str, target: str, amount: int, how: int) -> str:
    """Move money between two purses."""
    a, b, who = ctx.entity(Purse, source), ctx.entity(Purse, target), ctx.instance_id
    async with ctx.lock(a, b):
        match how:
            case 0:
                await a.call(Purse.enter, who, -amount)
                await b.call(Purse.enter, who, amount)
            case 1:
                await asyncio.gather(
                    a.call(Purse.enter_slowly, who, -amount), b.call(Purse.enter_slowly, who, amount)
                )
            case 2:
                await a.call(Purse.enter_both, who, -amount, target)
            case _:
                a.signal(Purse.enter, who, -amount)
                b.signal(Purse.enter, who, amount)
                await ctx.sleep(0.05)
        a.signal(Purse.leave, who)
        b.signal(Purse.leave, who)
    return "paid"


@app.orchestration
async def crowd(ctx: lungfish.OrchestrationContext, purses: list[str], nap_ms: int) -> int:
    """Hold several purses for a while."""
    refs, who = [ctx.entity(Purse, key) for key in purses], ctx.instance_id
    async with ctx.lock(*refs):
        await asyncio.gather(*(ref.call(Purse.enter, who, 0) for ref in refs))
        await ctx.sleep(nap_ms / 1_000)
        await asyncio.gather(*(ref.call(Purse.leave, who) for ref in refs))
    return len(purses)


@app.orchestration
async def hasty(ctx: lungfish.OrchestrationContext, purses: list[str], wait_ms: int) -> str:
    """Give up when it takes too long."""
    refs, who = [ctx.entity(Purse, key) for key in purses], ctx.instance_id
    try:
        async with asyncio.timeout(wait_ms / 1_000) as patience, ctx.lock(*refs):
            patience.reschedule(None)
            for ref in refs:
                ref.signal(Purse.enter, who, 0)
                ref.signal(Purse.leave, who)
    except TimeoutError:
        return "late"
    return "in"


@app.orchestration
async def revolve(ctx: lungfish.OrchestrationContext, purses: list[str], number: int, until: int) -> int:
    """Continue as new from inside a section."""
    refs, who = [ctx.entity(Purse, key) for key in purses], f"{ctx.instance_id}/{number}"
    async with ctx.lock(*refs):
        await refs[0].call(Purse.enter, who, 0)
        await refs[0].call(Purse.leave, who)
        if number < until:
            ctx.continue_as_new(purses, number + 1, until)
        return number


@app.orchestration
async def meddle(ctx: lungfish.OrchestrationContext, purses: list[str]) -> int:
    """Write into purses that others may hold."""
    for key in purses:
        ref = ctx.entity(Purse, key)
        ref.signal(Purse.meddle, ctx.instance_id)
        await ref.call(Purse.look)
        await ref.call(Purse.meddle, ctx.instance_id)
    return len(purses)


def arguments(name: str, rng: random.Random) -> tuple[Any, ...]:
    """Return arguments for one of them."""
    some = rng.sample(PURSES, rng.randint(1, len(PURSES)))
    match name:
        case "pay":
            source, target = rng.sample(PURSES, 2)
            return (source, target, rng.randint(1, 9), rng.randint(0, 3))
        case "crowd":
            return (some, rng.choice((0, 30, 400)))
        case "hasty":
            return (some, rng.choice((1, 50, 500)))
        case "revolve":
            return (some, 1, rng.randint(1, 3))
        case _:
            return (some,)


def outputs(name: str, args: tuple[Any, ...]) -> list[Any]:
    """Return what an orchestration may return."""
    match name:
        case "pay":
            return ["paid"]
        case "hasty":
            return ["in", "late"]
        case "revolve":
            return [args[2]]
        case _:
            return [len(args[0])]


# --- what must hold ----------------------------------------------------------------------


def check(
    purses: Mapping[str, Purse], plans: Iterable[tuple[str, str, tuple[Any, ...], str]]
) -> Iterator[str]:
    """Yield what no run with locks can come to.

    Args:
        plans: of every instance that exists its id, orchestration, arguments and status.
    """
    total = sum(purse.balance for purse in purses.values())
    if total:
        yield f"purses: the sum is {total}"
    for key, purse in purses.items():
        yield from _sections(key, purse.entries)
    for instance, name, args, status in plans:
        if status != "Completed":
            continue
        for key, who, times in _expected(instance, name, args):
            entries = purses[key].entries if key in purses else []
            found = [kind for writer, kind in entries if writer == who]
            if found != times:
                yield f"purses: {key} has {found} of {who} ({name}), not {times}"


def _sections(key: str, entries: list[tuple[str, int]]) -> Iterator[str]:
    inside = ""
    for who, kind in entries:
        # One that was terminated inside never leaves; whoever comes next was let in properly.
        leaves = who == inside or (inside, LEAVE) in entries
        if inside and leaves and (who, kind) != (inside, LEAVE):
            yield f"exclusion: in {key}, {who} was there while {inside} was in its section"
        inside = who if kind == ENTER else ""


def _expected(instance: str, name: str, args: tuple[Any, ...]) -> Iterator[tuple[str, str, list[int]]]:
    match name:
        case "pay":
            yield args[0], instance, [ENTER, LEAVE]
            yield args[1], instance, [ENTER, LEAVE]
        case "crowd":
            for key in args[0]:
                yield key, instance, [ENTER, LEAVE]
        case "revolve":
            for number in range(args[1], args[2] + 1):
                yield args[0][0], f"{instance}/{number}", [ENTER, LEAVE]
        case "meddle":
            for key in args[0]:
                yield key, instance, [MEDDLE, MEDDLE]
        case _:
            return


def orphans(hub: Hub) -> Iterator[str]:
    """Yield locks that are held by, or wait for, instances that have ended, or do not exist."""
    rows = hub.partitions.values()
    statuses = {
        name: parcels.status_of(one, name, row) for one in rows for name, row in one.instances.items()
    }
    for one in rows:
        items = (unpack_item(int(row, 16), packed) for row, packed in one.mailbox.items())
        for item in items:
            if item is None or not isinstance(item.message, LockRequest):
                continue
            status = statuses.get(item.message.owner.key)
            if status is None or status.runtime_status.is_terminal:
                state = "holds" if item.record else "waits for"
                yield f"lock: {item.message.owner.key}, which has ended, {state} {item.message.target}"


async def call_on_all(client: lungfish.Client) -> None:
    """Want something of every purse, as somebody will some day: a lock of nobody is found then."""
    await asyncio.gather(
        *(client.entity(Purse, key).options(timeout=60).call(Purse.leave, "") for key in PURSES)
    )
