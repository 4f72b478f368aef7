"""One of several servers is away: the partitions on the others go on, and nothing is lost or doubled."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import lungfish
from lungfish.runtime.client.client import Client
from lungfish.runtime.host.host import Host
from lungfish.runtime.ids import ActorId, partition_of
from lungfish.runtime.session.sender import Sender
from lungfish.runtime.store.store import (
    START,
    Append,
    Appended,
    Commit,
    CommitOutcome,
    Committed,
    HubMeta,
    OwnerRow,
    Unknown,
)
from lungfish.runtime.testing.memory_store import MemoryServer, MemoryStore
from tests.virtual import EPOCH_S, virtually

PARTITIONS = 4
app = lungfish.App("away")


@app.entity
class Count(lungfish.Entity):
    value: int = 0

    def add(self, number: int) -> int:
        self.value += number
        return self.value

    def pass_on(self, key: str, number: int) -> None:
        self.context.entity(Count, key).signal(Count.add, number)


def key_in(partition: int, prefix: str = "k") -> str:
    return next(
        key
        for n in range(1_000)
        if partition_of(ActorId("e", "Count", key := f"{prefix}{n}"), PARTITIONS) == partition
    )


class Watched(MemoryStore):
    """Notes which commits are under way; a partition has one at a time."""

    def __init__(self, server: MemoryServer) -> None:
        super().__init__(server, app.hub)
        self.under_way: set[int] = set()
        self.numbers: dict[int, list[int]] = {}

    async def commit(self, commits: Sequence[Commit]) -> list[CommitOutcome]:
        partitions = {commit.partition for commit in commits}
        assert not partitions & self.under_way
        self.under_way |= partitions
        for commit in commits:
            self.numbers.setdefault(commit.partition, []).append(commit.number)
        try:
            await asyncio.sleep(0.001)
            return await super().commit(commits)
        finally:
            self.under_way -= partitions


async def started() -> tuple[MemoryServer, Watched, Host]:
    def now_ms() -> int:
        return int((EPOCH_S + asyncio.get_running_loop().time()) * 1000)

    server = MemoryServer(now_ms, delivers_in_place=False)
    store = Watched(server)
    host = Host(store, app)
    await host.start(HubMeta(PARTITIONS))
    await host.wait_settled()
    return server, store, host


def test_the_store_says_for_each_item_what_is_known() -> None:
    async def test() -> None:
        server = MemoryServer()
        store = MemoryStore(server, "h")
        await store.open(HubMeta(2))
        for partition in range(2):
            await store.claim(partition, "A", "t")
        server.away = {1}
        appends = [Append(f"p:{partition}", "s", 1, (b"m",)) for partition in range(2)]
        assert await store.append(appends) == [Appended.OK, Appended.UNKNOWN]
        commits = [Commit(partition, "t", 1) for partition in range(2)]
        first, second = await store.commit(commits)
        assert first == Committed()
        assert isinstance(second, Unknown)
        assert [row.known for row in await store.owners()] == [True, False]
        found = await store.reader().read({"p:0": START, "p:1": START}, block_ms=0, count=1)
        assert list(found) == ["p:0"]
        server.away = set()
        assert await store.append(appends) == [Appended.OK] * 2
        assert await store.commit(commits) == [Committed()] * 2
        assert (await store.owners())[1] == OwnerRow("A", 1, 1)

    virtually(test)


def test_partitions_of_other_servers_go_on_and_the_rest_follows() -> None:
    async def test() -> None:
        server, store, host = await started()
        async with Client(lambda: MemoryStore(server, app.hub), app) as client:
            counts = [client.entity(Count, key_in(partition)) for partition in range(PARTITIONS)]
            for count in counts:
                assert await count.call(Count.add, 1) == 1
            # One message is in hand, its commit not made, when the server of partition 1 goes.
            waiting = asyncio.create_task(counts[1].call(Count.add, 10))
            while not server.hub(app.hub).stream("p:1", 0).ids:
                await asyncio.sleep(0)
            server.away = {1}
            await counts[0].signal(Count.pass_on, key_in(1), 100)
            for turn in range(2, 30):
                async with asyncio.timeout(5):
                    for partition in (0, 2, 3):
                        assert await counts[partition].call(Count.add, 1) == turn
                await asyncio.sleep(0.3)
            assert not waiting.done()
            assert {partition.number for partition in host.partitions} == set(range(PARTITIONS))
            server.away = set()
            async with asyncio.timeout(20):
                assert await waiting == 11
                while await counts[1].call(Count.add, 0) != 111:
                    await asyncio.sleep(0.1)
            assert all(numbers == sorted(numbers) for numbers in store.numbers.values())
        await host.stop()

    virtually(test)


def test_state_that_cannot_be_loaded_holds_up_its_own_partition_only() -> None:
    async def test() -> None:
        server, _, host = await started()
        async with Client(lambda: MemoryStore(server, app.hub), app) as client:
            there, here = client.entity(Count, key_in(1)), client.entity(Count, key_in(2))
            partition = next(p for p in host.partitions if p.number == 1)
            waiting = asyncio.create_task(there.call(Count.add, 10))
            while not partition.buffered:
                await asyncio.sleep(0)
            server.away = {1}  # read, and the actor is not in memory
            async with asyncio.timeout(5):
                assert await here.call(Count.add, 1) == 1
            await asyncio.sleep(10)
            assert await here.call(Count.add, 1) == 2
            server.away = set()
            async with asyncio.timeout(5):
                assert await waiting == 10
        await host.stop()

    virtually(test)


def test_a_host_that_is_told_nothing_of_an_owner_keeps_its_partition() -> None:
    async def test() -> None:
        server, _, host = await started()
        before = {partition.number: partition for partition in host.partitions}
        server.away = {1}
        await asyncio.sleep(30)
        assert {partition.number: partition for partition in host.partitions} == before
        await host.stop()

    virtually(test)


def test_senders_try_again_where_nothing_is_known() -> None:
    async def test() -> None:
        server = MemoryServer()
        store = MemoryStore(server, app.hub)
        await store.open(HubMeta(2))
        sender = Sender(store, "s", give_up_s=60)
        server.away = {1}
        first, second = sender.put("p:0", []), sender.put("p:1", [])
        await asyncio.sleep(1)
        assert first.done()
        assert not second.done()
        server.away = set()
        await asyncio.sleep(1)
        assert second.done()
        assert len(server.hub(app.hub).stream("p:1", 0).ids) == 1
        await sender.close()

    virtually(test)
