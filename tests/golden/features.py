"""Orchestrations that together use every step there is; their histories of each release are kept.

Never change one of these: it would no longer be what made its history. Add another.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import datetime as dt
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import lungfish
from lungfish import OrchestrationContext

app = lungfish.App("golden", version="1")

Scenario = Callable[[lungfish.Client, "lungfish.OrchestrationHandle[Any]"], Awaitable[None]]

#: By name: the orchestration's arguments, and what happens to the instance before its history is recorded.
SCENARIOS: dict[str, tuple[Any, tuple[Any, ...], Scenario]] = {}


#: By name, where it is not the plain one: what the id of the instance whose history is recorded ends with.
HISTORY_OF: dict[str, str] = {}
#: By name, where it is not the usual one: the size from which on values are kept beside the history (bytes).
OFFLOADED: dict[str, int] = {}


def recorded(
    *args: Any, play: Scenario | None = None, history_of: str = "", offload_bytes: int = 0
) -> Callable[[Any], Any]:
    """Record what an orchestration does with these arguments while ``play`` plays the outside."""

    def register(orchestration: Any) -> Any:
        SCENARIOS[orchestration.name] = (orchestration, args, play or to_its_end)
        if history_of:
            HISTORY_OF[orchestration.name] = history_of
        if offload_bytes:
            OFFLOADED[orchestration.name] = offload_bytes
        return orchestration

    return register


async def to_its_end(_: lungfish.Client, handle: lungfish.OrchestrationHandle[Any]) -> None:
    with contextlib.suppress(lungfish.OrchestrationFailed):
        await handle.result()


@app.entity
class Account(lungfish.Entity):
    """Money, and a way to fail."""

    balance: int = 0

    def add(self, n: int) -> int:
        self.balance += n
        return self.balance

    def refuse(self) -> None:
        raise ValueError("refused")


@app.activity
def work(n: int) -> int:
    if n < 0:
        raise ValueError(f"{n} is negative")
    return n * 10


@app.activity
async def slow(_: int) -> None:
    await asyncio.sleep(3_600)


@app.activity(inline=True)
def inlined(n: int) -> int:
    return n + 1


@recorded(3)
@app.orchestration
async def sequence(ctx: OrchestrationContext, count: int) -> list[int]:
    return [await ctx.call_activity(work, n) for n in range(count)]


@recorded(4)
@app.orchestration
async def fan_out(ctx: OrchestrationContext, count: int) -> list[Any]:
    found = await asyncio.gather(
        *(ctx.call_activity(work, n - 1) for n in range(count)), return_exceptions=True
    )
    return [each if isinstance(each, int) else type(each).__name__ for each in found]


@recorded()
@app.orchestration
def by_generator(ctx: OrchestrationContext) -> Generator[Any, Any, list[int]]:
    first = yield ctx.call_activity(work, 1)
    both = yield ctx.when_all(ctx.call_activity(work, 2), ctx.call_activity(inlined, 3))
    return [first, *both]


@recorded()
@app.orchestration
async def time_limits(ctx: OrchestrationContext) -> list[str]:
    seen = []
    try:
        async with asyncio.timeout(60):
            await ctx.call_activity(work.options(retry=lungfish.RetryPolicy(2, dt.timedelta(days=1))), -1)
    except TimeoutError:
        seen.append("the code's")
    try:
        await ctx.call_activity(slow.options(timeout=0.05), 1)
    except lungfish.ActivityTimedOut:
        seen.append("the activity's")
    async with asyncio.timeout(60):
        await ctx.call_activity(work, 1)
    await asyncio.sleep(86_400)
    await ctx.create_timer(ctx.now() + dt.timedelta(hours=1))
    return seen


@recorded()
@app.orchestration
async def races(ctx: OrchestrationContext) -> list[Any]:
    winner = await ctx.when_any(ctx.create_timer(1_000), ctx.call_activity(work, 1))
    done, pending = await asyncio.wait(
        [ctx.create_timer(500), ctx.wait_for_external_event("never")], return_when=asyncio.FIRST_COMPLETED
    )
    for task in pending:
        task.cancel()
    return [await winner, len(done), len(pending)]


async def _send_events(_: lungfish.Client, handle: lungfish.OrchestrationHandle[Any]) -> None:
    for n in range(3):
        await handle.raise_event("Number" if n else "number", n)
    await handle.result()


@recorded(play=_send_events)
@app.orchestration
async def events(ctx: OrchestrationContext) -> list[int]:
    first = await ctx.wait_for_external_event("number", int)
    ctx.send_event("nobody", "told", first)
    await ctx.sleep(10)
    return [first, *[await ctx.wait_for_external_event("NUMBER", int) for _ in range(2)]]


@app.orchestration
async def child(ctx: OrchestrationContext, n: int) -> int:
    if n < 0:
        raise ValueError("no such child")
    return await ctx.call_activity(work, n)


@recorded()
@app.orchestration
async def children(ctx: OrchestrationContext) -> list[Any]:
    results: list[Any] = [await ctx.call_orchestration(child, 1, id="golden-child")]
    try:
        await ctx.call_orchestration("child", -1)
    except lungfish.OrchestrationFailed as error:
        results.append(type(error).__name__)
    ctx.start_orchestration(child, 5, id="golden-alone")
    given_up = ctx.call_orchestration("events", id="golden-waits")
    await ctx.sleep(5)
    given_up.cancel()
    return results


@recorded()
@app.orchestration
async def entities(ctx: OrchestrationContext) -> list[Any]:
    one, two = ctx.entity(Account, "one"), ctx.entity(Account, "two")
    one.signal(Account.add, 5)
    results: list[Any] = [await one.call(Account.add, 1)]
    try:
        await two.call(Account.refuse)
    except lungfish.EntityOperationFailed as error:
        results.append(type(error).__name__)
    async with ctx.lock(one, two):
        await one.call(Account.add, -2)
        results.append(await two.call(Account.add, 2))
    return results


@recorded()
@app.orchestration
async def chance(ctx: OrchestrationContext) -> None:
    if ctx.patched("wider"):
        await ctx.call_activity(work, ctx.random.randrange(100))
    for n in range(ctx.random.randrange(1, 4)):
        await ctx.call_activity(work, n)
    await ctx.call_orchestration(child, 1, id=str(ctx.uuid4()))


@recorded(1)
@app.orchestration
async def renews(ctx: OrchestrationContext, round: int) -> int:
    await ctx.sleep(1)
    if round < 3:
        ctx.continue_as_new(round + 1)
    return round


async def _update(_: lungfish.Client, handle: lungfish.OrchestrationHandle[Any]) -> None:
    await handle.update("add", 3, id="first")
    with contextlib.suppress(lungfish.UpdateFailed):
        await handle.update("add", -3, id="second")
    await handle.update("end", id="third")
    await handle.result()


@recorded(play=_update)
@app.orchestration(version="2")
async def updates(ctx: OrchestrationContext) -> int:
    total, ended = 0, asyncio.Event()

    @ctx.on_update
    async def add(n: int) -> int:
        nonlocal total
        total += await ctx.call_activity(work, n)
        return total

    ctx.on_update("end", ended.set)
    ctx.on_query("total", lambda: total)
    await ended.wait()
    await ctx.updates_finished()
    return total


async def _pause(_: lungfish.Client, handle: lungfish.OrchestrationHandle[Any]) -> None:
    await handle.suspend("look")
    await handle.raise_event("go")
    await handle.resume("looked")
    await handle.result()


@recorded(play=_pause)
@app.orchestration
async def paused(ctx: OrchestrationContext) -> None:
    ctx.set_custom_status("waits")
    await ctx.wait_for_external_event("go")


async def _terminate(_: lungfish.Client, handle: lungfish.OrchestrationHandle[Any]) -> None:
    await handle.terminate("enough")


@recorded(play=_terminate)
@app.orchestration
async def terminated(ctx: OrchestrationContext) -> None:
    await asyncio.gather(ctx.sleep(1e6), ctx.call_activity(work, 1))


async def _cancel(client: lungfish.Client, handle: lungfish.OrchestrationHandle[Any]) -> None:
    await handle.cancel("changed our mind")
    await to_its_end(client, handle)


@recorded(play=_cancel)
@app.orchestration
async def cancelled(ctx: OrchestrationContext) -> None:
    try:
        await ctx.wait_for_external_event("never")
    finally:
        await ctx.call_activity(work, 7)


@recorded()
@app.orchestration
async def failed(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(work, -1)


async def _leave(_: lungfish.Client, handle: lungfish.OrchestrationHandle[Any]) -> None:
    await handle.status()


@recorded(play=_leave)
@app.orchestration
async def waiting(ctx: OrchestrationContext) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(1e6))
        await ctx.wait_for_external_event("never")


_failed_once: set[str] = set()


@app.activity
def mends(key: str) -> str:
    if key not in _failed_once:
        _failed_once.add(key)
        raise ValueError("not yet")
    return "mended"


async def _rewind(client: lungfish.Client, handle: lungfish.OrchestrationHandle[Any]) -> None:
    await to_its_end(client, handle)
    await handle.rewind("it will do now")
    await handle.result()


@recorded("golden", play=_rewind)
@app.orchestration
async def rewound(ctx: OrchestrationContext, key: str) -> list[Any]:
    first = await ctx.call_activity(work, 1)
    async with asyncio.timeout(60):
        return [first, await ctx.call_activity(mends, key)]


async def _fork(client: lungfish.Client, handle: lungfish.OrchestrationHandle[Any]) -> None:
    await handle.raise_event("go", "first")
    await handle.result()
    events_of_it = await handle.history()
    position = next(at for at, event in enumerate(events_of_it) if type(event).__name__ == "EventRaised")
    fork = await handle.fork(at=position, id=f"{handle.id}-fork")
    await fork.raise_event("go", "other")
    await fork.result()


@recorded(play=_fork, history_of="-fork")
@app.orchestration
async def forked(ctx: OrchestrationContext) -> list[Any]:
    first, before = await ctx.call_activity(work, 1), ctx.random.random()
    word = await ctx.wait_for_external_event("go", str)
    await ctx.call_activity(work, ctx.random.randrange(100))
    return [first, before, word, ctx.random.random(), str(ctx.uuid4())]


@app.activity
def reads(size: int) -> bytes:
    return bytes(range(256)) * (size // 256)


async def _large_event(_: lungfish.Client, handle: lungfish.OrchestrationHandle[Any]) -> None:
    await handle.raise_event("document", "y" * 3_000)
    await handle.result()


@recorded("x" * 2_000, play=_large_event, offload_bytes=1_024)
@app.orchestration
async def large_values(ctx: OrchestrationContext, text: str) -> str:
    document: str = await ctx.wait_for_external_event("document", str)
    data: bytes = await ctx.call_activity(reads, 4_096)
    below: str = await ctx.call_orchestration("echoes", document, id="golden-echo")
    return text + below + data.hex()


@app.orchestration
async def echoes(ctx: OrchestrationContext, text: str) -> str:
    return text


@recorded()
@app.orchestration
async def in_a_group(ctx: OrchestrationContext) -> list[int]:
    one, two = (ctx.entity(Account, lungfish.grouped("golden", key)) for key in ("one", "two"))
    two.signal(Account.add, 3, at=dt.timedelta(seconds=5))
    async with ctx.lock(two, one):
        first = await one.call(Account.add, 1)
        two.signal(Account.add, 4)
    child_id = lungfish.grouped("golden", "child")
    return [first, await ctx.call_orchestration(child, 1, id=child_id), await two.call(Account.add, 0)]


async def _go_twice(_: lungfish.Client, handle: lungfish.OrchestrationHandle[Any]) -> None:
    for status in ("waits", "holds"):
        while (await handle.status()).custom_status != status:
            await asyncio.sleep(0)
        await handle.raise_event("go")
    await handle.result()


@recorded(play=_go_twice)
@app.orchestration
async def gives_up(ctx: OrchestrationContext) -> list[str]:
    """Cancel one of everything that can be waited for."""

    async def hold() -> None:
        async with ctx.lock(ctx.entity(Account, "held")):
            ctx.set_custom_status("holds")
            await ctx.wait_for_external_event("never")

    given_up: list[Any] = [
        ctx.call_activity(slow, 1),
        ctx.create_timer(1e6),
        ctx.wait_for_external_event("never"),
        ctx.call_orchestration("events", id="golden-given-up"),
        ctx.entity(Account, "given-up").call(Account.add, 1),
    ]
    ctx.set_custom_status("waits")
    await ctx.wait_for_external_event("go")
    for task in given_up:
        task.cancel()
    ended = await asyncio.gather(*given_up, return_exceptions=True)
    holding = asyncio.ensure_future(hold())
    await ctx.wait_for_external_event("go")
    holding.cancel()
    return [type(each).__name__ for each in [*ended, *await asyncio.gather(holding, return_exceptions=True)]]


async def _patch(_: lungfish.Client, handle: lungfish.OrchestrationHandle[Any]) -> None:
    await handle.raise_event("go")
    while (await handle.status()).custom_status != "halfway":
        await asyncio.sleep(0)
    await handle.raise_event("go")
    await handle.result()


@recorded(play=_patch)
@app.orchestration(version="3")
async def patched(ctx: OrchestrationContext) -> list[Any]:
    done: list[Any] = [ctx.version]
    for patch in ("first", "second"):
        await ctx.wait_for_external_event("go")
        ctx.set_custom_status("halfway")
        if ctx.patched(patch):
            done.append(await ctx.call_activity(work, len(patch)))
        done.append(ctx.patched(patch))
    return done


#: Travels along with what begins in its context; empty everywhere but in one scenario.
tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant")
app.propagate(tenant)


async def _with_a_child(_: lungfish.Client, handle: lungfish.OrchestrationHandle[Any]) -> None:
    await handle.result()


@recorded(play=_with_a_child, history_of="-child")
@app.orchestration
async def parent(ctx: OrchestrationContext) -> int:
    """The history that is recorded is the child's: it names its parent, and what travelled along."""
    tenant.set("acme")
    return await ctx.call_orchestration(child, 3, id=f"{ctx.instance_id}-child")


async def _update_and_renew(_: lungfish.Client, handle: lungfish.OrchestrationHandle[Any]) -> None:
    await handle.update("note", "a", id="first")
    await handle.raise_event("renew")
    while (await handle.status()).custom_status != 2:
        await asyncio.sleep(0)
    await handle.update("note", "b", id="second")
    await handle.raise_event("renew")
    await handle.result()


@recorded(1, play=_update_and_renew)
@app.orchestration
async def renews_with_updates(ctx: OrchestrationContext, round: int) -> list[str]:
    notes: list[str] = []
    ctx.on_update("note", notes.append)
    ctx.set_custom_status(round)
    await ctx.wait_for_external_event("renew")
    if round < 2:
        ctx.continue_as_new(round + 1)
    return notes


#: Whether the release is out that has the patch: histories of the one before are replayed by it.
_release = {"is_out": True}


async def _before_the_release(_: lungfish.Client, handle: lungfish.OrchestrationHandle[Any]) -> None:
    _release["is_out"] = False
    try:
        await handle.raise_event("go")
        await handle.result()
    finally:
        _release["is_out"] = True


@recorded(play=_before_the_release)
@app.orchestration
async def patched_later(ctx: OrchestrationContext) -> list[int]:
    done = [await ctx.call_activity(work, 1)]
    await ctx.wait_for_external_event("go")
    if _release["is_out"] and ctx.patched("later"):
        done.append(await ctx.call_activity(work, 2))
    return [*done, await ctx.call_activity(work, 3)]
