"""Concurrent branches of one operation: what they called is found again, in whatever order answers came."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from lungfish.entities import Entity
from lungfish.runtime.errors import FailureDetails
from tests.unit.entities.fakes import Host, error, value, virtually

FAILURE = FailureDetails("builtins.ValueError", "no")
SECOND: Callable[[str], str] = lambda key: key  # noqa: E731


class Shelf(Entity):
    count: int = 0

    def take(self, n: int) -> int:
        self.count -= n
        return n


class Picker(Entity):
    picked: int = 0

    async def one(self, key: str) -> int:
        shelf = self.context.entity(Shelf, key)
        first = await shelf.call(Shelf.take, 1)
        return first + await self.context.entity(Shelf, SECOND(key)).call(Shelf.take, first)

    async def pick(self) -> int:
        found = await asyncio.gather(*(self._pick(key) for key in "abc"))
        self.picked = sum(found)
        last = await self.context.entity(Shelf, "last").call(Shelf.take, 1)
        return self.picked + last

    async def _pick(self, key: str) -> int:
        return await Picker.one(self, key)

    async def pick_grouped(self) -> int:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._pick(key)) for key in "abc"]
        return sum(task.result() for task in tasks)

    async def first_failure(self) -> str:
        try:
            await asyncio.gather(self._pick("a"), self._pick("b"))
        except Exception as failed:
            return type(failed).__name__
        return "well"


def request_of(host: Host, key: str, number: int) -> str:
    """Return the request of the n-th call of a shelf."""
    return [call.request for call in host.calls if call.target.key == key][number]


async def answer(host: Host, key: str, number: int) -> None:
    host.respond(request_of(host, key, number), 1)
    await host.settle()


Order = Callable[[Host], Awaitable[None]]


@pytest.mark.parametrize("operation", ["pick", "pick_grouped"])
@pytest.mark.parametrize("crash_after", range(7))
@pytest.mark.parametrize(
    "order",
    [
        ["c0", "b0", "a0", "c1", "b1", "a1"],
        ["b0", "b1", "a0", "a1", "c0", "c1"],
        ["a0", "c0", "c1", "b0", "b1", "a1"],
    ],
)
def test_a_rerun_finds_the_calls_of_every_branch(operation: str, crash_after: int, order: list[str]) -> None:
    async def scenario() -> None:
        host = Host(Picker, Shelf)
        request = host.ask(operation)
        await host.settle()
        for at, step in enumerate(order):
            if at == crash_after:
                await host.crash()
                await host.settle()
            await answer(host, step[0], int(step[1]))
        if crash_after == len(order):
            await host.crash()
            await host.settle()
        if operation == "pick":
            await answer(host, "last", 0)
        assert value(host.answer(request)) == (7 if operation == "pick" else 6)
        asked = sorted(call.target.key for call in host.calls)
        assert asked == sorted([*"aabbcc", *(["last"] if operation == "pick" else [])]), "each once"

    virtually(scenario())


def test_a_branch_that_was_given_up_need_not_come_as_far_again() -> None:
    """Its sibling's failure ends the wait at once in the re-run; the answer came later in the first run."""

    async def scenario() -> None:
        host = Host(Picker, Shelf)
        request = host.ask("first_failure")
        await host.settle()
        await answer(host, "b", 0)  # b goes on to its second call
        await host.crash()
        await host.settle()
        host.respond(request_of(host, "a", 0), failure=FAILURE)
        await host.settle()
        assert value(host.answer(request)) == "EntityOperationFailed"

    virtually(scenario())


def test_a_branch_that_takes_another_path_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        host = Host(Picker, Shelf)
        request = host.ask("pick_grouped")
        await host.settle()
        for key in "abc":
            await answer(host, key, 0)
        await host.crash()
        monkeypatch.setattr("tests.unit.entities.test_branches.SECOND", lambda key: f"{key}-other")
        await host.settle()
        for call in host.calls:
            if call.target.key.endswith("-other"):
                host.respond(call.request, 1)
        await host.settle()
        assert error(host.answer(request)) == "NonDeterminism"

    virtually(scenario())
