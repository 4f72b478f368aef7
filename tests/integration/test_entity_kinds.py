"""Sorts and options of entities on a real store: each of them once, beside what unit tests say in full."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

import lungfish
from lungfish.runtime.client.client import Client
from tests.integration.polling import until
from tests.local import RunApp

app = lungfish.App("kinds")


@app.entity_function
def counter(context: lungfish.FunctionContext) -> object:
    match context.operation_name:
        case "add":
            context.set_state(context.get_state(lambda: 0) + context.get_input(int))
        case "fail":
            context.set_state(-1)
            raise ValueError("taken back")
        case "reset":
            context.destruct_on_exit()
    return context.get_state(lambda: 0)


@app.entity
class Note(lungfish.Entity, ttl=0.5):
    text: str = ""

    def write(self, text: str) -> None:
        self.text = text


@app.entity
class Account(lungfish.Entity):
    value: int = 0

    def add(self, n: int) -> int:
        self.value += n
        return self.value

    @lungfish.reentrant
    @lungfish.shared
    def limit(self) -> int:
        return 10 * self.value

    async def ask(self, other: str) -> int:
        self.value += 1
        return await self.context.entity(Account, other).call(Account.ask_back, self.key)

    async def ask_back(self, caller: str) -> int:
        return await self.context.entity(Account, caller).call(Account.limit)

    async def circle(self, other: str) -> int:
        return await self.context.entity(Account, other).call(Account.circle_back, self.key)

    async def circle_back(self, caller: str) -> int:
        return await self.context.entity(Account, caller).call(Account.add, 1)


@app.stateless(max_local=2)
class Upper:
    def __init__(self) -> None:
        self.calls = 0

    def of(self, text: str) -> str:
        self.calls += 1
        return text.upper()


@app.orchestration
async def shouts(ctx: lungfish.OrchestrationContext, text: str) -> str:
    return await ctx.stateless(Upper).call(Upper.of, text)


@app.orchestration
async def starts_another(ctx: lungfish.OrchestrationContext, text: str) -> str:
    return ctx.start_orchestration(shouts, text, id=f"{ctx.instance_id} alone")


@pytest.fixture(params=["0", "1"], ids=["live", "always_replay"])
async def client(
    run_app: RunApp, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Client]:
    monkeypatch.setenv("LUNGFISH_ALWAYS_REPLAY", request.param)
    async with run_app(app) as runtime:
        yield runtime.client


async def test_an_entity_that_is_a_function(client: Client) -> None:
    ref = client.entity("counter", "c")
    await ref.signal("add", 5)
    with pytest.raises(lungfish.EntityOperationFailed, match="taken back"):
        await ref.call("fail")
    assert await ref.call("add", 2) == 7
    await ref.call("reset")
    assert await client.count_entities("counter") == 0


async def test_an_entity_that_nobody_uses_goes(client: Client) -> None:
    note = client.entity(Note, "n")
    await note.call(Note.write, "a moment")

    async def gone() -> bool:
        return await note.state() is None

    await until(gone, "the note to go")
    assert await client.count_entities(Note) == 0


async def test_a_read_back_into_the_entity_that_waits(client: Client) -> None:
    assert await client.entity(Account, "a").call(Account.ask, "b") == 10
    with pytest.raises(lungfish.CallCycle, match="Account/a → Account/b → Account/a"):
        await client.entity(Account, "a").call(Account.circle, "b")
    assert await client.entity(Account, "a").call(Account.add, 1) == 2


async def test_a_group_shares_a_partition(client: Client) -> None:
    refs = [client.entity(Account, lungfish.grouped("cust-7", str(n))) for n in range(8)]
    assert len({ref.partition for ref in refs}) == 1
    assert await asyncio.gather(*(ref.call(Account.add, 1) for ref in refs)) == [1] * 8
    assert await client.count_entities(Account, prefix="cust-7|") == 8


async def test_work_without_a_state(client: Client) -> None:
    texts = await asyncio.gather(*(client.stateless(Upper).call(Upper.of, "abc") for _ in range(20)))
    assert texts == ["ABC"] * 20
    assert await client.run(shouts, "from code", timeout=60) == "FROM CODE"


async def test_what_is_started_to_live_by_itself(client: Client) -> None:
    child = await client.run(starts_another, "here", id="s", timeout=60)

    async def there() -> bool:
        return [found.instance_id async for found in client.instances(id_prefix=child)] == [child]

    await until(there, "the other to begin")
    assert await client.orchestration(child).result(timeout=60) == "HERE"
    assert (await client.orchestration(child).status()).parent_id is None
