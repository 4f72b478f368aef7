"""What one shard has forgotten, and instances elsewhere wait for, is asked for again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

import lungfish
from lungfish.runtime.client.client import Client
from lungfish.runtime.host.recall import RECENT_MS, Losses
from lungfish.runtime.ids import ORCHESTRATION, ActorId, partition_of
from lungfish.runtime.store.host_record import HostRecord
from lungfish.runtime.store.store import OwnerRow
from tests.unit.hub import PARTITIONS, Hub, hub_of
from tests.virtual import virtually

app = lungfish.App("recall")
PATROL_MS = 1_000
#: How long a child takes (s).
LIFE_S = 30.0
begun: list[str] = []


@app.orchestration
async def parent(ctx: lungfish.OrchestrationContext, child_id: str, fails: bool) -> int:
    try:
        return await ctx.call_orchestration(child, fails, id=child_id)
    except lungfish.OrchestrationFailed:
        return -1


@app.orchestration
async def child(ctx: lungfish.OrchestrationContext, fails: bool) -> int:
    if not ctx.is_replaying:
        begun.append(ctx.instance_id)
    await ctx.sleep(LIFE_S)
    if fails:
        raise ValueError("as told")
    return 7


@app.entity
class Room(lungfish.Entity):
    """Something to lock."""

    value: int = 0

    def get(self) -> int:
        return self.value


@app.orchestration
async def tenant(ctx: lungfish.OrchestrationContext, key: str) -> str:
    async with ctx.lock(ctx.entity(Room, key)):
        await ctx.sleep(LIFE_S)
    return "left"


def id_in(partition: int, prefix: str) -> str:
    ids = (f"{prefix}{number}" for number in range(1_000))
    return next(id for id in ids if partition_of(ActorId(ORCHESTRATION, "", id), PARTITIONS) == partition)


PARENT, CHILD = id_in(0, "parent"), id_in(1, "child")

Test = Callable[[Hub, Client], Awaitable[None]]


@asynccontextmanager
async def cluster() -> AsyncIterator[tuple[Hub, Client]]:
    begun.clear()
    async with hub_of(app, delivers_in_place=False) as hub:
        await hub.start_all("a", "b", patrol_ms=PATROL_MS)
        async with hub.client() as client:
            yield hub, client


def on_a_cluster(test: Test) -> Callable[[], None]:
    def run() -> None:
        async def main() -> None:
            async with cluster() as (hub, client):
                await test(hub, client)

        virtually(main)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@on_a_cluster
async def test_a_child_that_its_shard_forgot_is_started_again(hub: Hub, client: Client) -> None:
    before = hub.server.checkpoint()
    handle = await client.start(parent, CHILD, False, id=PARENT)
    await hub.until(lambda: begun, "begun")
    hub.server.rollback(before, [1])
    assert await handle.result(timeout=60) == 7
    assert begun == [CHILD, CHILD]
    assert len(await handle.history()) == 6, "at no cost to history"


@pytest.mark.parametrize("error", [lungfish.Overloaded("p:0 is full"), lungfish.StoreUnavailable("away")])
def test_an_inbox_that_takes_nothing_is_tried_again_and_kills_no_host(
    error: lungfish.LungfishError, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with cluster() as (hub, client):
            refused: list[str] = []
            for host in hub.hosts.values():
                sender = host._recall._sender

                async def send(target: str, news: Any, *, kept: Any = sender.send) -> None:
                    if not refused:
                        refused.append(target)
                        raise error
                    await kept(target, news)

                monkeypatch.setattr(sender, "send", send)
            before = hub.server.checkpoint()
            handle = await client.start(parent, CHILD, False, id=PARENT)
            await hub.until(lambda: begun, "begun")
            hub.server.rollback(before, [1])
            assert await handle.result(timeout=60) == 7
            assert refused == ["p:0"]
            assert [host.failed is None or host.failed.done() for host in hub.hosts.values()] == [
                False,
                False,
            ]

    virtually(main)


@on_a_cluster
async def test_a_child_that_is_there_is_left_alone(hub: Hub, client: Client) -> None:
    """Its parent is told in vain by hand here: looking finds that the child runs."""
    await client.start(parent, CHILD, False, id=PARENT)
    await hub.until(lambda: begun, "begun")
    before = hub.server.checkpoint()
    await client.entity(Room, "x").call(Room.get)
    hub.server.rollback(before, range(PARTITIONS))
    for host in hub.hosts.values():
        host._ownership.notice()
    await asyncio.sleep(5)
    assert [host._recall.told for host in hub.hosts.values()] == [0, 0]
    assert await client.orchestration(PARENT).result(timeout=60) == 7
    assert begun == [CHILD]


@pytest.mark.parametrize("fails", [False, True])
def test_an_outcome_that_was_told_and_forgotten_is_told_again(fails: bool) -> None:
    async def main() -> None:
        async with cluster() as (hub, client):
            handle = await client.start(parent, CHILD, fails, id=PARENT)
            await hub.until(lambda: begun, "begun")
            await asyncio.sleep(1)
            before = hub.server.checkpoint()
            outcome = await handle.result(timeout=60)
            hub.server.rollback(before, [0])
            assert (await handle.status()).runtime_status.value == "Running"
            assert await handle.result(timeout=60) == outcome == (-1 if fails else 7)
            assert begun == [CHILD]

    virtually(main)


@on_a_cluster
async def test_an_id_that_was_taken_meanwhile_is_somebody_elses(hub: Hub, client: Client) -> None:
    before = hub.server.checkpoint()
    handle = await client.start(parent, CHILD, False, id=PARENT)
    await hub.until(lambda: begun, "begun")
    hub.server.rollback(before, [1])
    other = await client.start(child, True, id=CHILD)
    with pytest.raises(lungfish.OrchestrationFailed, match="InstanceExists"):
        await handle.result(timeout=20)  # as if it had come second at first
    assert (await other.status()).runtime_status.value == "Running"


@app.orchestration
async def again_and_again(ctx: lungfish.OrchestrationContext, child_id: str) -> int:
    return sum([await ctx.call_orchestration(child, False, id=child_id) for _ in range(2)])


@on_a_cluster
async def test_the_next_child_under_an_id_is_not_taken_for_the_one_before(hub: Hub, client: Client) -> None:
    handle = await client.start(again_and_again, CHILD, id=PARENT)
    await hub.until(lambda: begun, "begun")
    before = hub.server.checkpoint()

    def ended() -> bool:
        nonlocal before
        if len(begun) == 1:
            before = hub.server.checkpoint()
        return len(begun) == 2

    await hub.until(ended, "the second one begun", step_s=0.05)
    hub.server.rollback(before, [1])
    assert await handle.result(timeout=90) == 14


@on_a_cluster
async def test_a_lock_that_nobody_knows_to_be_wanted_is_asked_for_again(hub: Hub, client: Client) -> None:
    room = next(k for k in map(str, range(99)) if partition_of(ActorId("entity", "Room", k), PARTITIONS) == 1)
    first = await client.start(tenant, room, id=id_in(2, "first"))
    await asyncio.sleep(1)
    before = hub.server.checkpoint()
    second = await client.start(tenant, room, id=id_in(2, "second"))
    await asyncio.sleep(1)
    hub.server.rollback(before, [1])
    assert await first.result(timeout=90) == await second.result(timeout=90) == "left"


@on_a_cluster
async def test_all_hosts_look_that_hear_of_it_with_the_heartbeat(hub: Hub, client: Client) -> None:
    assert [host._ownership.lost_ms for host in hub.hosts.values()] == [0, 0]
    hub.hosts["a"]._ownership.notice()
    lost_ms = hub.hosts["a"]._ownership.lost_ms
    await hub.until(lambda: hub.hosts["b"]._ownership.lost_ms == lost_ms > 0, "heard")
    assert hub.hosts["b"]._ownership.noticed_ms == 0, "each says only what it noticed itself"
    late = await hub.start("c", patrol_ms=PATROL_MS)
    assert late._ownership.lost_ms == lost_ms


@on_a_cluster
async def test_nothing_is_read_while_nothing_was_lost(hub: Hub, client: Client) -> None:
    host = hub.hosts["a"]
    reads: list[object] = []

    async def scan(*args: object, **kwargs: object) -> list[object]:
        reads.append(args)
        return []

    host._recall._store.scan_index = scan  # type: ignore[method-assign,assignment]
    await asyncio.sleep(10)
    await hub.drain("b")  # another owner is no loss
    await asyncio.sleep(10)
    host._ownership.lost_ms = host._clock.now_ms() - RECENT_MS - 1
    await asyncio.sleep(10)
    assert not reads


def test_a_partition_that_goes_back_is_noticed_whoever_owns_it() -> None:
    losses = Losses()
    assert losses.saw([OwnerRow("a", 1, 5), OwnerRow("a", 1, 9)]) == []
    assert losses.saw([OwnerRow("b", 2, 5), OwnerRow("", 0, 0, known=False)]) == []
    assert losses.saw([OwnerRow("b", 2, 4), OwnerRow("a", 1, 9)]) == [0]
    assert losses.saw([OwnerRow("b", 2, 4), OwnerRow("a", 1, 9)]) == [], "once"
    assert losses.saw([OwnerRow("a", 1, 4), OwnerRow("a", 1, 10)]) == [0]


def test_a_host_of_an_earlier_release_has_noticed_nothing() -> None:
    assert HostRecord.decode(HostRecord(lost_ms=5).encode()).lost_ms == 5
    assert HostRecord.decode(b"\x80").lost_ms == 0
