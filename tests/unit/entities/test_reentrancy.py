"""Cycles of calls fail at once and name the chain; what is reentrant runs inside the operation that waits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import lungfish
from lungfish.entities import Entity
from lungfish.runtime.errors import UsageError
from lungfish.runtime.testing.loop import run_virtually
from lungfish.testing import Environment, crash_everywhere, environment
from tests.unit.entities.fakes import Host, value, virtually

app = lungfish.App("circles")


@app.entity
class Node(Entity):
    value: int = 0

    async def visit(self, path: list[str], last: str) -> int:
        """Call the next node on a path; the last one calls ``last`` on the first."""
        self.value += 1
        if not path:
            return 0
        following = self.context.entity(Node, path[0])
        if len(path) > 1:
            return await following.call(Node.visit, path[1:], last)
        return int(await following.call(last))

    async def visit_and_fail(self, path: list[str], last: str) -> int:
        self.value += 100
        found = await self.context.entity(Node, path[0]).call(Node.visit, path[1:], last)
        raise ValueError(str(found))

    @lungfish.reentrant
    @lungfish.shared
    def peek(self) -> int:
        return self.value

    @lungfish.reentrant
    @lungfish.shared
    def peek_and_raise(self) -> int:
        raise KeyError("no")

    @lungfish.reentrant
    @lungfish.shared
    def poke(self) -> int:
        """Change the state, which is not kept."""
        self.value += 1_000
        return self.value

    @lungfish.shared
    def look(self) -> int:
        return self.value

    def bump(self) -> int:
        self.value += 1
        return self.value


async def visit(env: Environment, path: list[str], last: str) -> int:
    return await env.client.entity(Node, "a").call(Node.visit, path, last)


@pytest.mark.parametrize("last", ["look", "bump"])
async def test_a_cycle_fails_at_once_and_names_the_whole_chain(last: str) -> None:
    async with environment(app) as env:
        env.auto_skip = False
        with pytest.raises(lungfish.CallCycle) as caught:
            await visit(env, ["b", "c", "a"], last)
        assert "Node/a → Node/b → Node/c → Node/a" in str(caught.value)
        for key in "abc":
            assert await env.client.entity(Node, key).call(Node.look) == 0, "all of it was rolled back"


@app.orchestration
async def calls_a_cycle(ctx: lungfish.OrchestrationContext) -> None:
    await ctx.entity(Node, "a").call(Node.visit, ["b", "a"], "look")


async def test_the_chain_names_the_orchestration_that_waits() -> None:
    async with environment(app) as env:
        with pytest.raises(lungfish.OrchestrationFailed) as caught:
            await (await env.client.start(calls_a_cycle, id="top")).result(20)
        assert "orchestration top → Node/a → Node/b → Node/a" in str(caught.value)


@pytest.mark.parametrize("path", [["a"], ["b", "a"], ["b", "c", "a"]])
async def test_a_reentrant_read_runs_inside(path: list[str]) -> None:
    async with environment(app) as env:
        a = env.client.entity(Node, "a")
        assert await visit(env, path, "peek") == 1, "it sees what the operation that waits has done so far"
        assert await a.call(Node.look) == 1
        with pytest.raises(lungfish.ReadOnly, match="poke is @shared.*changed value"):
            await visit(env, path, "poke")
        assert await a.call(Node.look) == 1, "what a shared operation changes is not kept"


async def test_what_it_saw_may_be_rolled_back() -> None:
    async with environment(app) as env:
        a = env.client.entity(Node, "a")
        with pytest.raises(lungfish.EntityOperationFailed, match="ValueError: 100"):
            await a.call(Node.visit_and_fail, ["b", "a"], "peek")
        assert await a.call(Node.look) == 0


async def test_a_reentrant_read_that_raises_fails_alone() -> None:
    async with environment(app) as env:
        with pytest.raises(lungfish.EntityOperationFailed, match="KeyError"):
            await visit(env, ["b", "a"], "peek_and_raise")
        assert await env.client.entity(Node, "a").call(Node.bump) == 1


async def test_others_do_not_come_in_through_it() -> None:
    async with environment(app) as env:
        results = await asyncio.gather(
            visit(env, ["b", "a"], "peek"), *(env.client.entity(Node, "a").call(Node.peek) for _ in range(5))
        )
        assert results[0] == 1


def test_only_reads_are_reentrant() -> None:
    class Writes(Entity):
        @lungfish.reentrant
        def add(self) -> None: ...

    class Waits(Entity):
        @lungfish.reentrant
        @lungfish.shared
        async def get(self) -> None: ...

    for cls in (Writes, Waits):
        with pytest.raises(UsageError, match="cannot be reentrant"):
            lungfish.App("x").entity(cls)


async def circle(client: lungfish.Client) -> tuple[int, int]:
    found = await client.entity(Node, "a").call(Node.visit, ["b", "a"], "peek")
    return found, await client.entity(Node, "a").call(Node.look)


def test_a_crash_at_any_instant_changes_nothing() -> None:
    assert not crash_everywhere(app, circle).findings


# --- whose operation it is inside of ------------------------------------------------------------

slow = lungfish.App("slow-circles")


@slow.entity
class Slow(Entity):
    value: int = 0
    seen: int = -1

    async def visit(self, key: str) -> int:
        await asyncio.sleep(1)
        self.value += 1
        await asyncio.sleep(1)
        return int(await self.context.entity(Slow, key).call(Slow.ask_back, self.key, 0))

    async def visit_beside(self, key: str) -> int:
        await asyncio.sleep(1)
        self.value += 1
        (found,) = await asyncio.gather(self._ask(key))
        return found

    async def _ask(self, key: str) -> int:
        await asyncio.sleep(1)
        return int(await self.context.entity(Slow, key).call(Slow.ask_back, self.key, 0))

    async def visit_and_give_up(self, key: str) -> str:
        try:
            async with asyncio.timeout(1):
                await self.context.entity(Slow, key).call(Slow.ask_back, self.key, 2)
        except TimeoutError:
            return "gave up"
        return "was answered"

    async def ask_back(self, key: str, seconds: float) -> int:
        await asyncio.sleep(seconds)
        self.seen = await self.context.entity(Slow, key).call(Slow.peek)
        return self.seen

    async def change_and_fail(self) -> None:
        self.value += 100
        await asyncio.sleep(5)
        raise ValueError("no")

    @lungfish.reentrant
    @lungfish.shared
    def peek(self) -> int:
        return self.value


@pytest.mark.parametrize("visits", [Slow.visit, Slow.visit_beside])
def test_it_waits_for_an_operation_that_is_run_again_to_come_as_far_as_it_was(visits: Any) -> None:
    async def slow_circle(client: lungfish.Client) -> Any:
        return await client.entity(Slow, "a").call(visits, "b")

    assert crash_everywhere(slow, slow_circle).outcome == 1


#: True: what is run again takes another way than before.
FICKLE: list[bool] = []


class Fickle(Entity):
    value: int = 0

    async def visit(self) -> None:
        if FICKLE:
            await asyncio.sleep(1)
            raise ValueError("another way")
        await self.context.entity(Fickle, "b").call(Fickle.visit)

    @lungfish.reentrant
    @lungfish.shared
    def peek(self) -> int:
        return self.value


@pytest.mark.parametrize("ends", ["by itself", "dropped"])
def test_what_waits_for_an_operation_to_come_as_far_does_not_outlive_it(ends: str) -> None:
    async def test() -> None:
        FICKLE.clear()
        host = Host(Fickle)
        host.ask("visit")
        await host.settle()
        await host.crash()
        FICKLE.append(True)
        peek = host.ask("peek", chain=("Fickle/k", "Fickle/b"))
        host.run()
        assert not host.answered(peek)
        if ends == "dropped":
            host.activation.drop()
        await asyncio.sleep(2)
        if ends == "by itself":
            host.run()
            assert value(host.answer(peek)) == 0
            await asyncio.sleep(0.1)
        assert all(task.done() for task in host.effects.spawned)

    virtually(test())


def test_it_is_not_inside_of_another_operation_than_the_one_that_waited_for_it() -> None:
    run_virtually(gives_up)


async def gives_up() -> None:
    async with environment(slow) as env:
        a, b = (env.client.entity(Slow, key) for key in "ab")
        gave_up = asyncio.ensure_future(a.call(Slow.visit_and_give_up, "b"))
        await asyncio.sleep(0)
        with pytest.raises(lungfish.EntityOperationFailed, match="ValueError: no"):
            await a.call(Slow.change_and_fail)
        assert await gave_up == "gave up"
        assert await b.call(Slow.peek) == 0
        state = await b.state()
        assert state is not None
        assert state.seen == 0, "b has kept only what was committed"


# --- a whole class ------------------------------------------------------------------------------

whole = lungfish.App("reentrant-class")


@whole.entity
class Open(Entity, reentrant=True):
    value: int = 0

    async def ask(self, key: str, operation: str) -> int:
        self.value += 1
        return int(await self.context.entity(Open, key).call(Open.ask_back, self.key, operation))

    async def ask_back(self, key: str, operation: str) -> int:
        return int(await self.context.entity(Open, key).call(operation))

    @lungfish.shared
    def look(self) -> int:
        return self.value

    @lungfish.shared
    async def look_slowly(self) -> int:
        await asyncio.sleep(0)
        return self.value

    def bump(self) -> int:
        self.value += 1
        return self.value


@whole.entity
class Closed(Open, reentrant=False):
    async def ask(self, key: str, operation: str) -> int:
        return int(await self.context.entity(Closed, key).call(Closed.ask_back, self.key, operation))

    async def ask_back(self, key: str, operation: str) -> int:
        return int(await self.context.entity(Closed, key).call(operation))


async def test_the_sync_shared_operations_of_a_reentrant_class_are_reentrant() -> None:
    async with environment(whole) as env:
        a = env.client.entity(Open, "a")
        assert await a.call(Open.ask, "b", "look") == 1, "it sees what the operation around it has done"
        for operation in ("bump", "look_slowly"):
            with pytest.raises(lungfish.CallCycle):
                await a.call(Open.ask, "b", operation)
        assert await a.call(Open.look) == 1


async def test_a_subclass_may_take_it_back() -> None:
    async with environment(whole) as env:
        with pytest.raises(lungfish.CallCycle):
            await env.client.entity(Closed, "a").call(Closed.ask, "b", "look")


def test_a_reentrant_class_is_right_whenever_its_host_dies() -> None:
    async def scenario(client: lungfish.Client) -> list[int]:
        a = client.entity(Open, "a")
        return [await a.call(Open.ask, "b", "look"), await a.call(Open.look)]

    assert not crash_everywhere(whole, scenario).findings


def test_a_reentrant_class_needs_something_that_can_be() -> None:
    class Writes(Entity, reentrant=True):
        def add(self) -> None: ...

        @lungfish.shared
        async def look(self) -> None: ...

    with pytest.raises(UsageError, match="reentrant=True needs"):
        lungfish.App("refused").entity(Writes)
    with pytest.raises(UsageError, match="True or False"):

        class Wrong(Entity, reentrant="yes"):
            pass
