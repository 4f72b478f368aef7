"""Who owns what: several hosts in one loop, on a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgpack
import pytest

import lungfish
from lungfish.runtime.errors import StoreUnavailable
from lungfish.runtime.store.host_record import HostRecord
from lungfish.runtime.store.store import PartitionImage
from tests.unit.hub import HEARTBEAT_MS, LEASE_MS, PARTITIONS, SETTINGS, Hub, hub_of, key_in
from tests.virtual import virtually

app = lungfish.App("ownership")
#: How often the body of ``slow`` was begun, by key; and how long it takes (s).
began: dict[str, int] = {}
SLOW_S = 0.7

LEASE_S, HEARTBEAT_S = LEASE_MS / 1_000, HEARTBEAT_MS / 1_000
EVERYTHING = set(range(PARTITIONS))


@app.entity
class Counter(lungfish.Entity):
    value: int = 0

    def add(self, n: int = 1) -> int:
        self.value += n
        return self.value

    async def slow(self, seconds: float = SLOW_S) -> int:
        began[self.key] = began.get(self.key, 0) + 1
        await asyncio.sleep(seconds)
        self.value += 1
        return self.value


KEYS = [key_in(number, "Counter") for number in range(PARTITIONS)]

Test = Callable[[Hub], Coroutine[Any, Any, None]]


def with_hub(test: Test) -> Callable[[], None]:
    """Run a test with a hub, on a virtual clock."""

    async def run() -> None:
        began.clear()
        async with hub_of(app) as hub:
            await test(hub)

    def test_run() -> None:
        virtually(run)

    test_run.__name__, test_run.__doc__ = test.__name__, test.__doc__
    return test_run


async def add_everywhere(client: lungfish.Client) -> list[int]:
    return list(await asyncio.gather(*(client.entity(Counter, key).call(Counter.add) for key in KEYS)))


def moves(hub: Hub, number: int) -> list[tuple[str, str]]:
    return [(host, what) for host, what, of in hub.log if of == number]


@with_hub
async def test_a_lone_host_takes_everything(hub: Hub) -> None:
    await hub.start_all("a")
    assert hub.running() == {"a": EVERYTHING}
    assert set(hub.owners().values()) == {"a"}
    assert hub.state.leader == "a"


@with_hub
async def test_hosts_that_start_together_share(hub: Hub) -> None:
    await hub.start_all("a", "b")
    counts = [len(numbers) for numbers in hub.running().values()]
    assert counts == [PARTITIONS // 2] * 2
    assert set.union(*hub.running().values()) == EVERYTHING


@with_hub
async def test_scale_out_moves_as_little_as_balances(hub: Hub) -> None:
    await hub.start_all("a")
    before = hub.running()["a"]
    await hub.start_all("b")
    assert len(hub.running()["b"]) == PARTITIONS // 2
    assert hub.running()["a"] | hub.running()["b"] == before
    await hub.start_all("c")
    assert sorted(len(numbers) for numbers in hub.running().values()) == [1, 1, 2]


@with_hub
async def test_a_planned_move_is_a_release_and_then_a_claim(hub: Hub) -> None:
    await hub.start_all("a")
    async with hub.client() as client:
        await add_everywhere(client)
        hub.log.clear()
        await hub.start_all("b")
        moved = hub.running()["b"]
        for number in range(PARTITIONS):
            expected = [("a", "releases"), ("b", "claims")] if number in moved else []
            assert moves(hub, number) == expected
        assert await add_everywhere(client) == [2] * PARTITIONS


@with_hub
async def test_a_release_that_did_not_arrive_is_made_again(hub: Hub) -> None:
    """Else who is to have the partition waits for as long as it has patience, and nobody runs it."""
    await hub.start_all("a")
    store, failed = hub.stores["a"], list[int]()
    genuine = store.release

    async def release(partition: int, token: str) -> bool:
        if partition not in failed:
            failed.append(partition)
            raise StoreUnavailable("broken")
        return await genuine(partition, token)

    store.release = release  # type: ignore[method-assign]
    began_s = asyncio.get_running_loop().time()
    await hub.start_all("b")
    assert failed
    assert asyncio.get_running_loop().time() - began_s < SETTINGS.release_grace_ms / 1_000
    async with hub.client() as client:
        assert await add_everywhere(client) == [1] * PARTITIONS


@with_hub
async def test_a_planned_move_waits_for_a_running_operation(hub: Hub) -> None:
    await hub.start_all("a")
    async with hub.client() as client:
        calls = [asyncio.create_task(client.entity(Counter, key).call(Counter.slow)) for key in KEYS]
        await hub.until(lambda: len(began) == PARTITIONS, "the operations to begin")
        hub.log.clear()
        await hub.start_all("b")
        assert await asyncio.gather(*calls) == [1] * PARTITIONS
        assert set(began.values()) == {1}
        assert len(hub.running()["b"]) == PARTITIONS // 2
        assert not [move for move in hub.log if move[:2] == ("a", "claims")]


@with_hub
async def test_a_planned_move_does_not_wait_for_ever(hub: Hub) -> None:
    """An operation that takes longer than the grace is begun again at the new owner, and counts once."""
    await hub.start_all("a", release_grace_ms=1_000)
    async with hub.client() as client:
        moving = client.entity(Counter, KEYS[-1])
        call = asyncio.create_task(moving.call(Counter.slow, 3.0))
        await hub.until(lambda: began, "the operation to begin")
        await hub.start_all("b", release_grace_ms=1_000)
        assert hub.owners()[PARTITIONS - 1] == "b"
        assert (await call, began) == (1, {KEYS[-1]: 2})
        state = await moving.state()
        assert state is not None
        assert state.value == 1


@with_hub
async def test_a_dead_host_is_taken_over_and_nothing_acknowledged_is_lost(hub: Hub) -> None:
    await hub.start_all("a", "b", "c")
    await asyncio.sleep(2 * LEASE_S)
    async with hub.client() as client:
        await add_everywhere(client)
        for _ in range(10):
            await asyncio.gather(*(client.entity(Counter, key).signal(Counter.add) for key in KEYS))
        await hub.kill("b")
        took_s = await hub.until(
            lambda: set.union(*hub.running().values()) == EVERYTHING, "the dead host's partitions to be taken"
        )
        assert took_s <= LEASE_S + 3 * HEARTBEAT_S
        assert await add_everywhere(client) == [12] * PARTITIONS
    assert "b" not in hub.owners().values()
    assert "b" not in hub.state.hosts


@with_hub
async def test_nobody_is_dead_before_its_lease_is_over(hub: Hub) -> None:
    await hub.start_all("a", "b")
    await asyncio.sleep(2 * LEASE_S)
    hub.log.clear()
    hub.stores["b"].cut_off = True
    await asyncio.sleep(LEASE_S - 2 * HEARTBEAT_S)
    hub.stores["b"].cut_off = False
    await asyncio.sleep(3 * LEASE_S)
    assert hub.log == []


@with_hub
async def test_a_dead_leader_is_replaced(hub: Hub) -> None:
    await hub.start_all("a", "b", "c")
    leader = hub.state.leader
    assert leader in hub.hosts
    await hub.kill(leader)
    await hub.until(
        lambda: hub.state.leader in hub.hosts and set.union(*hub.running().values()) == EVERYTHING,
        "another leader, and its placement",
        timeout_s=2 * LEASE_S + LEASE_S + 4 * HEARTBEAT_S,
    )
    await hub.settled()
    assert leader not in hub.owners().values()


@with_hub
async def test_the_last_host_takes_everything_after_one_crash_upon_another(hub: Hub) -> None:
    await hub.start_all("a", "b", "c", "d")
    async with hub.client() as client:
        await add_everywhere(client)
        await hub.kill("a")
        # The second one dies while it takes over from the first, before it runs anything.
        claimed = len(hub.log)
        await hub.until(lambda: len(hub.log) > claimed, "the first claim of the takeover")
        await hub.kill(hub.log[-1][0])
        await hub.until(
            lambda: set.union(*hub.running().values()) == EVERYTHING, "the others to take all", timeout_s=5
        )
        assert await add_everywhere(client) == [2] * PARTITIONS


@with_hub
async def test_a_stop_of_the_store_is_nobodys_death(hub: Hub) -> None:
    await hub.start_all("a", "b", "c")
    await asyncio.sleep(2 * LEASE_S)
    before = hub.running()
    hub.log.clear()
    for store in hub.stores.values():
        store.cut_off = True
    await asyncio.sleep(20 * LEASE_S)
    for store in hub.stores.values():
        store.cut_off = False
        await asyncio.sleep(HEARTBEAT_S)  # they do not come back all at once
    await asyncio.sleep(10 * LEASE_S)
    assert hub.log == []
    assert hub.running() == before


@with_hub
async def test_a_host_that_comes_back_lets_go_of_what_others_took(hub: Hub) -> None:
    await hub.start_all("a", "b")
    await asyncio.sleep(2 * LEASE_S)
    async with hub.client() as client:
        await add_everywhere(client)
        away = next(name for name in hub.hosts if name != hub.state.leader)
        there = hub.state.leader
        kept = hub.hosts[away].partitions
        hub.stores[away].cut_off = True
        await hub.until(lambda: hub.running()[there] == EVERYTHING, "the other to take all")
        assert await add_everywhere(client) == [2] * PARTITIONS
        hub.stores[away].cut_off = False
        await hub.until(lambda: all(partition.dropped for partition in kept), "it to notice", 1.0)
        await hub.settled()
        assert [len(numbers) for numbers in hub.running().values()] == [PARTITIONS // 2] * 2
        assert await add_everywhere(client) == [3] * PARTITIONS


@with_hub
async def test_an_idle_partition_that_another_host_claimed_is_dropped(hub: Hub) -> None:
    """Without a message there is no commit that would tell."""
    (host,) = await hub.start_all("a")
    (partition,) = [p for p in host.partitions if p.number == 1]
    hub.server.claim(hub.name, 1, "stranger", "a token")
    await hub.until(lambda: partition.dropped, "the host to notice", 2 * HEARTBEAT_S)
    await hub.settled()
    assert hub.owners()[1] == "a"
    assert hub.row(1).epoch == 3


@with_hub
async def test_a_draining_host_gives_everything_to_the_others(hub: Hub) -> None:
    await hub.start_all("a", "b")
    async with hub.client() as client:
        await add_everywhere(client)
        calls = [asyncio.create_task(client.entity(Counter, key).call(Counter.slow)) for key in KEYS]
        await hub.until(lambda: len(began) == PARTITIONS, "the operations to begin")
        hub.log.clear()
        given = hub.running()["a"]
        await hub.drain("a")
        assert not given & {number for number, owner in hub.owners().items() if owner == "a"}
        await hub.settled()
        assert hub.running() == {"b": EVERYTHING}
        for number in given:
            assert moves(hub, number) == [("a", "releases"), ("b", "claims")]
        assert await asyncio.gather(*calls) == [2] * PARTITIONS
        assert set(began.values()) == {1}
        assert "a" not in hub.state.hosts


@with_hub
async def test_the_last_host_leaves_nothing_behind_that_must_be_waited_for(hub: Hub) -> None:
    await hub.start_all("a")
    async with hub.client() as client:
        await add_everywhere(client)
        hub.log.clear()
        await hub.drain("a")
        assert hub.owners() == dict.fromkeys(range(PARTITIONS), "")
        assert hub.state.hosts == {}
        assert [what for _, what, _ in hub.log] == ["releases"] * PARTITIONS
        began_s = asyncio.get_running_loop().time()
        await hub.start_all("b")
        assert asyncio.get_running_loop().time() - began_s < LEASE_S
        assert await add_everywhere(client) == [2] * PARTITIONS


@with_hub
async def test_a_draining_host_takes_nothing_not_even_what_it_has_just_released(hub: Hub) -> None:
    (host,) = await hub.start_all("a")
    hub.log.clear()
    store = hub.stores["a"]
    release = store.release

    async def slow_release(partition: int, token: str) -> bool:
        done = await release(partition, token)
        await asyncio.sleep(5 * HEARTBEAT_S)
        return done

    store.release = slow_release  # type: ignore[method-assign]
    await hub.drain("a")
    assert [what for _, what, _ in hub.log] == ["releases"] * PARTITIONS
    assert hub.owners() == dict.fromkeys(range(PARTITIONS), "")
    assert host.partitions == []


@with_hub
async def test_a_claim_that_is_under_way_when_draining_begins_is_seen_through_and_released(hub: Hub) -> None:
    """Cancelled, it would arrive all the same, and leave a partition to a host that is gone."""
    await hub.start_all("a")
    await hub.start("b")
    store = hub.stores["b"]
    claim, claims = store.claim, list[int]()

    async def slow_claim(partition: int, host: str, token: str) -> PartitionImage:
        claims.append(partition)
        on_its_way = asyncio.create_task(claim(partition, host, token))
        await asyncio.sleep(3 * HEARTBEAT_S)
        return await on_its_way

    store.claim = slow_claim  # type: ignore[method-assign]
    await hub.until(lambda: claims, "a claim")
    await hub.drain("b")
    assert "b" not in hub.owners().values()
    for number in claims:
        assert [what for who, what in moves(hub, number) if who == "b"] == ["claims", "releases"]


@with_hub
async def test_draining_ends_in_time_when_an_operation_does_not(hub: Hub) -> None:
    await hub.start_all("a", "b")
    async with hub.client() as client:
        calls = [asyncio.create_task(client.entity(Counter, key).call(Counter.slow, 8.0)) for key in KEYS]
        await hub.until(lambda: len(began) == PARTITIONS, "the operations to begin")
        began_s = asyncio.get_running_loop().time()
        await hub.drain("a")
        assert asyncio.get_running_loop().time() - began_s < 8.0
        assert await asyncio.gather(*calls) == [1] * PARTITIONS


# --- records --------------------------------------------------------------------------------


def test_a_record_comes_back() -> None:
    record = HostRecord(True, "node", 17, 3, 400, 5_000)
    assert HostRecord.decode(record.encode()) == record


def test_a_record_of_another_release_is_read_as_far_as_it_is_known() -> None:
    data = msgpack.packb({"draining": True, "colour": "red"})
    assert HostRecord.decode(data) == HostRecord(draining=True)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x01", b"\x90", b"\xc0", b"\x81"])
def test_a_record_that_cannot_be_read_is_an_empty_one(data: bytes) -> None:
    assert HostRecord.decode(data) == HostRecord()


@with_hub
async def test_a_placement_that_cannot_be_read_is_written_anew_and_nothing_moves(hub: Hub) -> None:
    await hub.start_all("a", "b")
    before, version = hub.running(), hub.state.placement_version
    hub.state.placement = b"\xc1"
    await hub.until(lambda: hub.state.placement_version > version, "a new placement", 10 * HEARTBEAT_S)
    await hub.settled()
    assert hub.running() == before
