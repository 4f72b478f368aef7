"""Late calls: an operation that has called others goes on, and a call back to who has left is answered."""

from __future__ import annotations

import asyncio

import lungfish
from lungfish.entities import Entity
from lungfish.runtime.errors import DeadlineExceeded
from tests.unit.hub import hub_of, key_in
from tests.virtual import virtually

app = lungfish.App("late-calls")


@app.entity
class Purse(Entity):
    money: int = 100

    def take(self, n: int) -> int:
        self.money -= n
        return self.money

    async def fill_from(self, other: str, n: int) -> int:
        await self.context.entity(Purse, other).call(Purse.take, n)
        await asyncio.sleep(1)
        self.money += n
        return self.money


@app.entity
class Asked(Entity):
    value: int = 7

    async def on_activate(self) -> None:
        await asyncio.sleep(0)

    @lungfish.reentrant
    @lungfish.shared
    def read(self) -> int:
        return self.value

    async def ask_briefly(self, other: str) -> None:
        try:
            async with asyncio.timeout(0.3):
                await self.context.entity(Asker, other).call(Asker.call_back, self.context.key)
        except TimeoutError:
            self.value = 8


@app.entity
class Asker(Entity):
    found: int = 0

    async def call_back(self, other: str) -> None:
        await asyncio.sleep(1)
        self.found = await self.context.entity(Asked, other).call(Asked.read)

    def read(self) -> int:
        return self.found


def test_an_interrupted_operation_that_had_called_others_goes_on_behind_its_deadline() -> None:
    async def run() -> None:
        async with hub_of(app) as hub:
            await hub.start_all("a")
            async with hub.client() as client:
                here, there = key_in(1, "Purse"), key_in(2, "Purse")
                full, empty = client.entity(Purse, here), client.entity(Purse, there)
                call = asyncio.ensure_future(full.options(timeout=1.3).call(Purse.fill_from, there, 30))
                while await empty.call(Purse.take, 0) != 70:
                    await asyncio.sleep(0.01)
                await hub.kill("a")
                assert isinstance((await asyncio.gather(call, return_exceptions=True))[0], DeadlineExceeded)
                await hub.start_all("b")
                assert await full.call(Purse.take, 0) == 130
                assert await empty.call(Purse.take, 0) == 70

    virtually(run)


def test_a_call_back_wakes_an_entity_that_was_let_go_meanwhile() -> None:
    async def run() -> None:
        async with hub_of(app) as hub:
            (host,) = await hub.start_all("a")
            async with hub.client() as client:
                asker = client.entity(Asker, key_in(2, "Asker"))
                await client.entity(Asked, key_in(1, "Asked")).call(Asked.ask_briefly, asker.key)
                assert sum(partition.passivate(10**15, 100) for partition in host.partitions) == 1
                assert await asker.call(Asker.read) == 8

    virtually(run)
