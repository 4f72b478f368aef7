"""Each feature of entities, with a host that dies before or after any store call: the outcome stays."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import pytest

import lungfish
from lungfish.testing import crash_everywhere

app = lungfish.App("crashes-in-entities")
NEAR = lungfish.grouped("family", "near")


@app.entity
class Diary(lungfish.Entity):
    """Knows what it was told, in order."""

    lines: list[str] = []

    def note(self, line: str) -> int:
        self.lines.append(line)
        return len(self.lines)

    async def note_slowly(self, line: str) -> int:
        await asyncio.sleep(0.01)
        return self.note(line)

    @lungfish.shared
    def read(self) -> list[str]:
        return self.lines

    @lungfish.shared
    async def read_slowly(self) -> list[str]:
        await asyncio.sleep(0.01)
        return self.lines

    async def hand_on(self, line: str, keys: list[str]) -> list[str]:
        """Go along a chain of entities, by calls; come back with who noted it at which place."""
        below: list[str] = []
        if keys:
            below = await self.context.entity(Diary, keys[0]).call(Diary.hand_on, line, keys[1:])
        return [*below, f"{self.key}:{self.note(line)}"]

    def tell(self, line: str, key: str) -> None:
        """Note, and have somebody else note."""
        self.context.signal((Diary, key), Diary.note, line)
        self.note(line)

    async def ask_in_vain(self, key: str) -> str:
        """Ask somebody who is held for longer than this one waits."""
        self.note("asks")
        try:
            await self.context.entity(Diary, key).call(Diary.note, "never", timeout=1)
        except lungfish.DeadlineExceeded:
            return f"late, {self.note('gave up')}"
        return "in time"


@app.entity
class Guest(lungfish.Entity, ttl=dt.timedelta(days=1)):
    """Leaves when nobody talks to it."""

    visits: int = 0

    def visit(self) -> int:
        self.visits += 1
        return self.visits


@app.entity_function
def counter(context: lungfish.FunctionContext) -> Any:
    """Count, tell another, and forget."""
    match context.operation_name:
        case "add":
            context.set_state(context.get_state(lambda: 0) + context.get_input())
            if context.entity_key == "one":
                context.context.signal(("counter", "other"), "add", context.get_input())
        case "reset":
            context.destruct_on_exit()
    return context.get_state(lambda: 0)


@app.orchestration
async def wait(ctx: lungfish.OrchestrationContext, days: float) -> None:
    """Let durable time pass."""
    await ctx.sleep(dt.timedelta(days=days))


@app.orchestration
async def hold(ctx: lungfish.OrchestrationContext, key: str) -> list[str]:
    """Keep an entity for a while; its calls have deadlines."""
    diary = ctx.entity(Diary, key)
    async with ctx.lock(diary):
        await diary.call(Diary.note, "locked")
        await ctx.sleep(60)
        return await diary.call(Diary.read)


async def pass_days(client: lungfish.Client, days: float, name: str) -> None:
    await (await client.start(wait, days, id=name)).result(timeout=60)


async def noted(client: lungfish.Client, *keys: str) -> list[list[str]]:
    return [await client.entity(Diary, key).call(Diary.read) for key in keys]


# --- scenarios ------------------------------------------------------------------------------------


async def expires(client: lungfish.Client) -> list[Any]:
    guest = client.entity(Guest, "g")
    seen = [await guest.call(Guest.visit), await guest.call(Guest.visit)]
    await pass_days(client, 0.5, "half")
    seen.append(await guest.call(Guest.visit))
    await pass_days(client, 3, "long")
    gone = await guest.state() is None
    return [*seen, gone, await guest.call(Guest.visit)]


async def in_a_group(client: lungfish.Client) -> list[list[str]]:
    near = client.entity(Diary, NEAR)
    await near.signal(Diary.tell, "1", lungfish.grouped("family"))
    await near.call(Diary.hand_on, "2", [lungfish.grouped("family")])
    return await noted(client, NEAR, lungfish.grouped("family"))


async def poured_in(client: lungfish.Client) -> tuple[list[list[str]], int]:
    rows = [(f"d{number % 3}", str(number)) for number in range(9)]
    for end in (5, 9, 9):  # what is there already is passed over
        wrote = await client.sink("rows").write(
            Diary, Diary.note, rows[:end], key=lambda row: row[0], args=lambda row: row[1:], batch_rows=2
        )
    return await noted(client, "d0", "d1", "d2"), wrote.position


async def by_functions(client: lungfish.Client) -> list[Any]:
    one, other = client.entity("counter", "one"), client.entity("counter", "other")
    found: list[Any] = [await one.call("add", 2), await one.call("add", 3)]
    await one.signal("reset")
    found.append(await one.call("add", 4))
    while await other.call("add", 0) < 9:
        pass
    return [*found, await other.call("add", 0)]


async def reads_beside_writes(client: lungfish.Client) -> list[Any]:
    diary = client.entity(Diary, "d")
    await diary.signal_many(Diary.note_slowly, [("a",), ("b",)])
    reads = [diary.call(Diary.read_slowly) for _ in range(3)]
    return [
        *await asyncio.gather(*reads),
        await diary.call(Diary.note_slowly, "c"),
        *await noted(client, "d"),
    ]


async def along_a_chain(client: lungfish.Client) -> list[Any]:
    first = await client.entity(Diary, "a").call(Diary.hand_on, "x", ["b", "c", "d"])
    second = await client.entity(Diary, "b").call(Diary.hand_on, "y", ["d"])
    return [first, second, *await noted(client, "a", "b", "c", "d")]


async def too_late(client: lungfish.Client) -> list[Any]:
    """Behind a lock of a minute, a call with a second to live is not begun, whoever dies meanwhile."""
    held = await client.start(hold, "locked", id="h")
    while await client.entity(Diary, "locked").state() is None:
        pass
    answer = await client.entity(Diary, "asks").call(Diary.ask_in_vain, "locked")
    return [answer, await held.result(timeout=60), *await noted(client, "asks", "locked")]


SCENARIOS: dict[Any, Any] = {
    expires: [1, 2, 3, True, 1],
    in_a_group: [["1", "2"], ["1", "2"]],
    poured_in: ([["0", "3", "6"], ["1", "4", "7"], ["2", "5", "8"]], 9),
    by_functions: [2, 5, 4, 9],
    reads_beside_writes: [["a", "b"], ["a", "b"], ["a", "b"], 3, ["a", "b", "c"]],
    along_a_chain: [
        ["d:1", "c:1", "b:1", "a:1"],
        ["d:2", "b:2"],
        ["x"],
        ["x", "y"],
        ["x"],
        ["x", "y"],
    ],
    too_late: ["late, 2", ["locked"], ["asks", "gave up"], ["locked"]],
}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_a_death_at_any_instant_changes_nothing(scenario: Any) -> None:
    report = crash_everywhere(app, scenario)
    assert report.outcome == SCENARIOS[scenario]
    assert report.runs > len(report.calls)
