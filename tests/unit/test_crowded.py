"""A partition whose mailbox is full refuses what clients send to entities; all else gets through."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import lungfish
from lungfish.runtime.client.client import Client
from lungfish.runtime.host.host import Host
from lungfish.runtime.store.store import HubMeta
from lungfish.runtime.testing.memory_server import MemoryServer
from lungfish.runtime.testing.memory_store import MemoryStore
from tests.virtual import EPOCH_S, virtually

#: Rows that the only partition's mailbox takes.
ROWS_MAX = 6

app = lungfish.App("crowded")


@app.entity
class Account(lungfish.Entity):
    entries: list[int] = []

    def add(self, number: int) -> int:
        self.entries.append(number)
        return len(self.entries)


@app.orchestration
async def hold(ctx: lungfish.OrchestrationContext) -> int:
    """Hold an account until told, write into it meanwhile, and let go."""
    account = ctx.entity(Account, "a")
    async with ctx.lock(account):
        await ctx.wait_for_external_event("go")
        return await account.call(Account.add, -1)


def crowded(test: Callable[[Client, MemoryServer], Coroutine[Any, Any, None]]) -> None:
    """Run a test with one partition, whose account ``a`` is held."""

    async def main() -> None:
        server = MemoryServer(
            lambda: int((EPOCH_S + asyncio.get_running_loop().time()) * 1000), mailbox_length_max=ROWS_MAX
        )
        host = Host(MemoryStore(server, app.hub), app)
        await host.start(HubMeta(partitions=1))
        await host.wait_settled()
        async with Client(lambda: MemoryStore(server, app.hub), app) as client:
            await client.start(hold, id="holder")
            while not server.hub(app.hub).partition(0).mailbox:
                await asyncio.sleep(0.1)
            await test(client, server)
        await host.stop()

    virtually(main)


async def fill(client: Client, key: str = "a") -> list[int]:
    """Send signals one by one until one is refused; return those that were accepted."""
    accepted: list[int] = []
    account = client.entity(Account, key)
    for number in range(2 * ROWS_MAX):
        try:
            await account.signal(Account.add, number)
        except lungfish.Overloaded:
            return accepted
        accepted.append(number)
        await asyncio.sleep(0.1)
    raise AssertionError("nothing is refused")


def test_signals_beyond_the_bound_are_refused_and_none_that_was_accepted_is_lost() -> None:
    async def test(client: Client, server: MemoryServer) -> None:
        accepted = await fill(client)
        rows = server.hub(app.hub).partition(0).mailbox
        assert len(rows) == ROWS_MAX, "the lock and what waits for it"
        assert len(accepted) == ROWS_MAX - 1
        # What ends the waiting comes through, and so does what the holder does.
        holder: Any = client.orchestration("holder")
        await holder.raise_event("go")
        assert await holder.result(timeout=60) == 1
        assert await client.entity(Account, "a").call(Account.add, 100) == ROWS_MAX + 1
        state = await client.entity(Account, "a").state()
        assert state is not None
        assert state.entries == [-1, *accepted, 100]

    crowded(test)


def test_calls_and_other_entities_of_the_partition_are_refused_too() -> None:
    async def test(client: Client, _: MemoryServer) -> None:
        await fill(client)
        began_s = asyncio.get_running_loop().time()
        with pytest.raises(lungfish.Overloaded, match="wait there unfinished"):
            await client.entity(Account, "b").call(Account.add, 1)
        assert asyncio.get_running_loop().time() - began_s < 10, "long before it would be given up otherwise"

    crowded(test)


def test_a_signal_waits_for_room_that_comes_soon() -> None:
    async def test(client: Client, _: MemoryServer) -> None:
        await fill(client)
        late = asyncio.create_task(client.entity(Account, "a").signal(Account.add, 100))
        await asyncio.sleep(1.0)
        assert not late.done()
        await client.orchestration("holder").raise_event("go")
        await late

    crowded(test)


def test_orchestrations_are_started_told_and_asked_while_it_is_full() -> None:
    async def test(client: Client, _: MemoryServer) -> None:
        await fill(client)
        second: Any = await client.start(hold, id="second")
        assert (await second.status()).instance_id == "second"
        await second.terminate("no use")
        with pytest.raises(lungfish.OrchestrationTerminated):
            await second.result(timeout=60)
        assert "holder" in str(await client.why("Account/a")), "asking what it waits for does not wait"

    crowded(test)


def test_calls_that_were_given_up_make_room_again() -> None:
    async def test(client: Client, server: MemoryServer) -> None:
        account = client.entity(Account, "a").options(timeout=10)
        calls = [asyncio.create_task(account.call(Account.add, number)) for number in range(ROWS_MAX)]
        rows = server.hub(app.hub).partition(0).mailbox
        while len(rows) < ROWS_MAX:
            await asyncio.sleep(0.1)
        assert not [call for call in calls if call.done()]
        await asyncio.gather(*calls, return_exceptions=True)
        await asyncio.sleep(10)
        assert len(rows) == 1, "the lock; nobody waits for the calls any more"
        await client.entity(Account, "b").call(Account.add, 1)

    crowded(test)


def test_a_state_that_nobody_can_read_is_mended_while_its_signals_fill_the_mailbox() -> None:
    async def test(client: Client, server: MemoryServer) -> None:
        broken = client.entity(Account, "broken")
        server.hub(app.hub).partition(0).snapshots["Account", "broken"] = b"what is this"
        accepted = await fill(client, "broken")
        assert len(accepted) == ROWS_MAX - 1, "beside the lock of another"
        await broken.edit({"entries": []}, reason="it could not be read")
        assert await broken.call(Account.add, 100) == ROWS_MAX

    crowded(test)
