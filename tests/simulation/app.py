"""The app that simulated processes run: each part does one thing whose effect can be checked exactly.

``Log`` is the measuring device: it appends (sender, number) to a list. Whatever is lost, doubled or out
of order is visible in its final state.
"""

from __future__ import annotations

import asyncio
import datetime as dt

import lungfish
from lungfish.runtime.declared.activity_info import activity_info
from tests.simulation.world import world

#: Where villagers live.
POND = "pond"
app = lungfish.App(
    "sim",
    payloads=lungfish.PayloadSettings(offload_bytes=1_100),
    pools={POND: lungfish.HostPool(partitions=2)},
)

MODULUS = 1_000_003


class Refused(Exception):
    """Raised by operations and activities that are meant to fail."""


# --- entities --------------------------------------------------------------------------


@app.entity
class Log(lungfish.Entity):
    """Remembers who told it what, in order.

    Attributes:
        sent: number of signals sent to each other log.
    """

    entries: list[tuple[str, int]] = []
    sent: dict[str, int] = {}

    def add(self, sender: str, number: int) -> int:
        """Append; return the new length."""
        self.entries.append((sender, number))
        return len(self.entries)

    def fail(self, sender: str, number: int) -> int:
        """Append, tell another, and raise: nothing of it may be seen."""
        self.entries.append((sender, number))
        self.context.entity(Log, "sink").signal(Log.add, sender, number)
        raise Refused(f"{sender} {number}")

    def hop(self, sender: str, number: int, to: str) -> int:
        """Append, and signal another log."""
        count = self.sent[to] = self.sent.get(to, 0) + 1
        self.context.entity(Log, to).signal(Log.add, f"log:{self.key}", count)
        return self.add(sender, number)

    def later(self, sender: str, number: int, to: str, delay_ms: int) -> int:
        """Append, and have another log append later."""
        due = self.context.now() + dt.timedelta(milliseconds=delay_ms)
        due_ms = round(due.timestamp() * 1_000)
        self.context.entity(Log, to).signal(Log.due, f"late:{sender}>{self.key}", number, due_ms, at=due)
        return self.add(sender, number)

    def due(self, sender: str, number: int, due_ms: int) -> int:
        """Append something that was scheduled."""
        world().fired(f"signal {number} of {sender}", due_ms)
        return self.add(sender, number)

    async def ask(self, sender: str, number: int, to: str) -> int:
        """Call another log, then append; return where it stands in the other."""
        at = await self.context.entity(Log, to).call(Log.add, f"ask:{sender}>{self.key}", number)
        self.add(sender, number)
        return at

    async def slow(self, sender: str, number: int, seconds: float) -> int:
        """Append after a while, in which nobody else may be served."""
        length = len(self.entries)
        await asyncio.sleep(seconds)
        if len(self.entries) != length:
            world().report(f"{self.key}: an operation ran while slow was waiting")
        return self.add(sender, number)

    def launch(self, sender: str, number: int, instance: str) -> int:
        """Append, and start an orchestration."""
        self.context.start(chain, 2, number, id=instance)
        return self.add(sender, number)

    @lungfish.shared
    def read(self) -> list[tuple[str, int]]:
        """Return all entries."""
        return list(self.entries)


@app.entity
class Cell(lungfish.Entity):
    """A value that can be deleted."""

    value: int = 0

    def put(self, value: int) -> int:
        """Replace the value; return the old one."""
        old, self.value = self.value, value
        return old

    def clear(self) -> int:
        """Delete this entity; return the old value."""
        self.context.delete()
        return self.value


# --- activities ------------------------------------------------------------------------


def _begun() -> int:
    info = activity_info()
    world().begun(info.idempotency_key, info.attempt)
    return info.attempt


@app.activity
def step(number: int, value: int) -> int:
    """Mix a number into a value."""
    _begun()
    return (value * 31 + number) % MODULUS


@app.activity(retry=lungfish.RetryPolicy(max_attempts=3, initial_interval=dt.timedelta(milliseconds=100)))
def flaky(number: int, failures: int) -> int:
    """Fail a few times first; for good if the policy gives up before."""
    if _begun() <= failures:
        raise Refused(f"attempt fails of {number}")
    return number


@app.activity(queue="slow")
async def nap(number: int, seconds: float) -> int:
    """Take a while."""
    _begun()
    await asyncio.sleep(seconds)
    return number


@app.activity(
    queue="slow",
    timeout=0.2,
    retry=lungfish.RetryPolicy(max_attempts=3, initial_interval=dt.timedelta(milliseconds=50)),
)
async def hang(number: int) -> int:
    """Hang at the first attempt, until the time-out."""
    if _begun() == 1:
        await asyncio.sleep(5.0)
    return number


# --- orchestrations --------------------------------------------------------------------
# What each must come to is said in model.py, without any of the machinery.


@app.orchestration
async def chain(ctx: lungfish.OrchestrationContext, steps: int, value: int) -> int:
    """One activity after the other."""
    for number in range(steps):
        value = await ctx.call_activity(step, number, value)
    return value


@app.orchestration
async def fan(ctx: lungfish.OrchestrationContext, width: int, value: int) -> int:
    """Many activities at once."""
    results = await asyncio.gather(*(ctx.call_activity(step, number, value) for number in range(width)))
    return sum(results) % MODULUS


@app.orchestration
async def stubborn(ctx: lungfish.OrchestrationContext, number: int, failures: int) -> int:
    """An activity that fails at first, and one that hangs at first."""
    first = await ctx.call_activity(flaky, number, failures)
    return first + await ctx.call_activity(hang, number)


@app.orchestration
async def sleeper(ctx: lungfish.OrchestrationContext, naps_ms: list[int]) -> int:
    """One timer after the other."""
    for number, nap_ms in enumerate(naps_ms):
        due_ms = round(ctx.now().timestamp() * 1_000) + nap_ms
        await ctx.sleep(nap_ms / 1_000)
        if not ctx.is_replaying:
            world().fired(f"timer {number} of {ctx.instance_id}", due_ms)
    return len(naps_ms)


@app.orchestration
async def listener(ctx: lungfish.OrchestrationContext, events: int) -> list[int]:
    """Wait for external events, each of a name of its own."""
    return [await ctx.wait_for_external_event(f"event{number}", int) for number in range(events)]


@app.orchestration
async def impatient(ctx: lungfish.OrchestrationContext, wait_ms: int) -> str:
    """An event, or else a time-out."""
    try:
        async with asyncio.timeout(wait_ms / 1_000):
            return str(await ctx.wait_for_external_event("event0", int))
    except TimeoutError:
        return "late"


@app.orchestration
async def racer(ctx: lungfish.OrchestrationContext, number: int, seconds: float, wait_ms: int) -> str:
    """An activity, or else a timer; the loser is cancelled."""
    work = ctx.call_activity(nap, number, seconds)
    timer = ctx.sleep(wait_ms / 1_000)
    winner = await lungfish.when_any(work, timer)
    if winner is work:
        timer.cancel()
        return f"done {await work}"
    work.cancel()
    return "late"


@app.orchestration
async def family(ctx: lungfish.OrchestrationContext, children: int, value: int) -> list[str]:
    """Sub-orchestrations, the last of which fails."""
    tasks = [
        ctx.call_orchestration(chain, number + 1, value, id=f"{ctx.instance_id}.{number}")
        for number in range(children)
    ]
    tasks.append(ctx.call_orchestration(broken, value, id=f"{ctx.instance_id}.broken"))
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    return [type(o).__name__ if isinstance(o, BaseException) else str(o) for o in outcomes]


@app.orchestration
async def broken(ctx: lungfish.OrchestrationContext, value: int) -> int:
    """Raise after a step."""
    await ctx.call_activity(step, 0, value)
    raise Refused(str(value))


@app.orchestration
async def courier(ctx: lungfish.OrchestrationContext, logs: list[str], rounds: int) -> int:
    """Signal logs and call them, in turns."""
    number = 0
    for _ in range(rounds):
        for key in logs:
            number += 1
            ctx.entity(Log, key).signal(Log.add, f"orc:{ctx.instance_id}", number)
            number += 1
            await ctx.entity(Log, key).call(Log.add, f"orc:{ctx.instance_id}", number)
        try:
            await ctx.entity(Log, logs[0]).call(Log.fail, f"orc:{ctx.instance_id}", -number)
        except lungfish.EntityOperationFailed:
            continue
        return -1
    return number


@app.orchestration
async def roller(ctx: lungfish.OrchestrationContext, log: str, number: int, until: int) -> int:
    """Continue as new until a number is reached; signal at each turn."""
    ctx.entity(Log, log).signal(Log.add, f"orc:{ctx.instance_id}", number)
    await ctx.sleep(0.05)
    if number < until:
        ctx.continue_as_new(log, number + 1, until)
    return number


@app.orchestration
async def doomed(ctx: lungfish.OrchestrationContext, children: int) -> int:
    """Wait for ever: it is ended from outside, and its children with it."""
    tasks = [
        ctx.call_orchestration(doomed, 0, id=f"{ctx.instance_id}.{number}") for number in range(children)
    ]
    work = ctx.call_activity(nap, 0, 0.1)
    await ctx.sleep(3_600)
    await asyncio.gather(work, *tasks)
    return 0


@app.orchestration
def steps(ctx: lungfish.OrchestrationContext, width: int, value: int):  # type: ignore[no-untyped-def]
    """A generator."""
    ctx.set_custom_status("begun")
    first = yield ctx.call_activity(step, 0, value)
    yield ctx.create_timer(dt.timedelta(milliseconds=30))
    others = yield lungfish.when_all([ctx.call_activity(step, n, first) for n in range(width)])
    ctx.set_custom_status("done")
    return sum(others) % MODULUS
