"""States edited and purged by hand: in order, validated, on record, in one commit."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import pytest

import lungfish
from lungfish import OrchestrationContext
from lungfish.runtime.client.editing import BEFORE_BYTES_MAX, EDITS_KEPT
from lungfish.testing import Environment, crash_everywhere, environment

app = lungfish.App("editing")
HOUR = dt.timedelta(hours=1)


@app.entity
class Counter(lungfish.Entity, ttl=24 * HOUR):
    value: int = 0
    notes: dict[str, dt.datetime] = {}
    text: str = ""

    def add(self, n: int = 1) -> int:
        self.value += n
        return self.value

    async def dawdle(self) -> int:
        await asyncio.sleep(0.05)
        self.value *= 2
        return self.value

    def remind(self) -> None:
        self.context.set_reminder("tick", HOUR, operation=Counter.add)

    def clear_and_add(self) -> None:
        self.context.delete()

    def clear(self) -> None:
        self.context.delete()


@app.entity
class Small(lungfish.Entity, state_bytes_max=1_000):
    text: str = ""

    def write(self, text: str) -> str:
        self.text = text
        return text


@app.orchestration
async def hold(ctx: OrchestrationContext, key: str) -> int:
    counter = ctx.entity(Counter, key)
    async with ctx.lock(counter):
        await counter.call(Counter.add, 1)
        await ctx.wait_for_external_event("let go")
        return await counter.call(Counter.add, 1)


def stored_rows(env: Environment) -> int:
    parts = env._server.hub(app.hub).partitions.values()
    return sum(len(part.snapshots) for part in parts)


async def test_an_edit_replaces_the_state_and_is_on_record() -> None:
    async with environment(app) as env:
        counter = env.client.entity(Counter, "c")
        await counter.call(Counter.add, 5)
        await counter.edit({"value": 70}, reason="it was wrong", by="ada")
        assert await counter.call(Counter.add, 1) == 71
        await counter.edit(Counter(value=3, text="x"), reason="again")
        state = await counter.state()
        assert (state.value, state.text) == (3, "x") if state else False
        first, second = await counter.edits()
        assert (first.number, first.reason, first.by, first.before["value"]) == (0, "it was wrong", "ada", 5)
        assert (second.number, second.reason, second.by, second.before["value"]) == (1, "again", "", 71)
        assert len(first.after_hash) == 64
        assert first.before_hash != first.after_hash != second.before_hash
        assert first.at.tzinfo is not None
        status = await counter.inspect()
        assert (status.edits, status.size > 0) == (2, True)


async def test_an_edit_can_be_the_first_of_an_entity() -> None:
    async with environment(app) as env:
        counter = env.client.entity(Counter, "new")
        await counter.edit({"value": 1}, reason="seed")
        (edit,) = await counter.edits()
        assert (edit.before, edit.before_hash) == (None, "")
        assert await counter.call(Counter.add) == 2
        assert [found.key async for found in env.client.entities("Counter")] == ["new"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"value": "many"}, "value"),
        ({"nothing": 1}, "nothing"),
        ({"notes": {"a": "not a time"}}, "notes.a"),
    ],
)
async def test_what_does_not_fit_is_refused(fields: dict[str, Any], says: str) -> None:
    async with environment(app) as env:
        counter = env.client.entity(Counter, "c")
        await counter.call(Counter.add, 5)
        with pytest.raises(lungfish.InvalidArguments, match=says):
            await counter.edit(fields, reason="a try")
        assert await counter.call(Counter.add, 1) == 6
        assert await counter.edits() == []


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ([1], {"reason": "x"}),
        ({1: 2}, {"reason": "x"}),
        ({}, {"reason": " "}),
        ({}, {"reason": "x" * 1_001}),
        ({}, {"reason": 7}),
        ({}, {"reason": "x", "by": None}),
        ({"value": object()}, {"reason": "x"}),
    ],
)
async def test_bad_input_is_refused_at_the_call_site(state: Any, words: dict[str, Any]) -> None:
    async with environment(app) as env:
        with pytest.raises(lungfish.UsageError):
            await env.client.entity(Counter, "c").edit(state, **words)


async def test_a_state_over_the_limit_is_refused() -> None:
    async with environment(app) as env:
        counter = env.client.entity(Small, "c")
        await counter.call(Small.write, "a")
        with pytest.raises(lungfish.PayloadTooLarge):
            await counter.edit({"text": "x" * 1_001}, reason="large")
        assert await counter.call(Small.write, "ab") == "ab"
        assert (await counter.inspect()).edits == 0


async def test_it_waits_its_turn() -> None:
    async with environment(app) as env:
        counter = env.client.entity(Counter, "c")
        await counter.call(Counter.add, 5)
        slow = asyncio.create_task(counter.call(Counter.dawdle))
        await asyncio.sleep(0)
        edit = asyncio.create_task(counter.edit({"value": 1}, reason="in between"))
        await asyncio.sleep(0)
        last = asyncio.create_task(counter.call(Counter.add))
        await edit
        assert (await slow, await last) == (10, 2)


async def test_a_critical_section_keeps_it_out() -> None:
    async with asyncio.timeout(60), environment(app) as env:
        counter = env.client.entity(Counter, "c")
        handle = await env.client.start(hold, "c", id="holder")
        while (await counter.inspect()).holder is None:
            await asyncio.sleep(0.1)
        unhurried = counter.options(timeout=None)
        edit = asyncio.create_task(unhurried.edit({"value": 100}, reason="later"))
        while not (await counter.inspect()).operations:
            await asyncio.sleep(0.1)
        await handle.raise_event("let go")
        assert await handle.result() == 2
        await edit
        assert await counter.call(Counter.add) == 101


async def test_one_that_nobody_waits_for_is_not_applied() -> None:
    async with environment(app) as env:
        counter = env.client.entity(Counter, "c")
        handle = await env.client.start(hold, "c", id="holder")
        while (await counter.inspect()).holder is None:
            await asyncio.sleep(0.1)
        with pytest.raises(lungfish.DeadlineExceeded):
            await counter.options(timeout=1).edit({"value": 100}, reason="in vain")
        await handle.raise_event("let go")
        assert await handle.result() == 2
        assert await counter.call(Counter.add) == 3
        assert await counter.edits() == []


async def test_reminders_survive_an_edit_and_not_a_purge() -> None:
    async with environment(app, auto_skip=False) as env:
        counter = env.client.entity(Counter, "c")
        await counter.call(Counter.remind)
        await counter.edit({"value": 10}, reason="x")
        await env.advance(HOUR + dt.timedelta(seconds=1))
        assert await counter.call(Counter.add) == 12
        await counter.call(Counter.remind)
        await counter.purge(reason="x")
        assert await counter.reminders() == {}
        await env.advance(2 * HOUR)
        assert await counter.state() is None


async def test_the_last_records_are_kept() -> None:
    async with environment(app) as env:
        counter = env.client.entity(Counter, "c")
        for number in range(EDITS_KEPT + 5):
            await counter.edit({"value": number}, reason=f"edit {number}")
        edits = await counter.edits()
        assert [edit.number for edit in edits] == list(range(5, EDITS_KEPT + 5))
        assert [edit.before["value"] for edit in edits] == list(range(4, EDITS_KEPT + 4))


async def test_a_large_state_before_is_only_hashed() -> None:
    async with environment(app) as env:
        counter = env.client.entity(Counter, "c")
        await counter.edit({"text": "x" * BEFORE_BYTES_MAX}, reason="x")
        await counter.edit({}, reason="x")
        _, edit = await counter.edits()
        assert edit.before is None
        assert len(edit.before_hash) == 64


@pytest.mark.parametrize("how", ["purge", "delete", "delete and go on", "ttl"])
async def test_records_go_with_the_entity(how: str) -> None:
    async with environment(app, auto_skip=False) as env:
        counter = env.client.entity(Counter, "c")
        for number in range(3):
            await counter.edit({"value": number}, reason="x")
        match how:
            case "purge":
                await counter.purge(reason="gone")
            case "delete":
                await counter.call(Counter.clear)
            case "delete and go on":
                await asyncio.gather(counter.call(Counter.clear), counter.call(Counter.add))
            case _:
                await env.advance(30 * HOUR)
        assert await counter.edits() == []
        assert stored_rows(env) == (1 if how == "delete and go on" else 0)
        await counter.edit({"value": 1}, reason="anew")
        assert [edit.number for edit in await counter.edits()] == [0]


async def test_watchers_are_told() -> None:
    async with environment(app) as env:
        counter = env.client.entity(Counter, "c")
        async with counter.watch() as watch:
            assert await anext(watch) is None
            await counter.edit({"value": 9}, reason="x")
            state = await anext(watch)
            assert state is not None
            assert state.value == 9
            await counter.purge(reason="x")
            assert await anext(watch) is None


async def test_an_entity_that_is_not_there_can_be_purged() -> None:
    async with environment(app) as env:
        await env.client.entity(Counter, "none").purge(reason="to be sure")
        with pytest.raises(lungfish.NotRegistered):
            await env.client.entity("Nothing", "none").purge(reason="to be sure")


def test_a_crash_anywhere_changes_nothing() -> None:
    async def scenario(client: lungfish.Client) -> Any:
        counter = client.entity(Counter, "c")
        await counter.call(Counter.add, 5)
        await counter.edit({"value": 70}, reason="one", by="ada")
        total = await counter.call(Counter.add, 1)
        await counter.edit({"value": 5}, reason="two")
        await counter.call(Counter.add, 1)
        records = [(edit.number, edit.reason, edit.before["value"]) for edit in await counter.edits()]
        await counter.purge(reason="end")
        return total, records, await counter.edits(), await counter.state()

    report = crash_everywhere(app, scenario)
    assert report.outcome == (71, [(0, "one", 5), (1, "two", 71)], [], None)
