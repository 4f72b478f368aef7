"""How long a takeover takes, and who is never taken over: several hosts on a virtual clock.

A kill gives no notice here: only the lease tells.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import lungfish
from lungfish.runtime.errors import StoreUnavailable
from lungfish.runtime.store.host_record import HostRecord
from lungfish.runtime.store.store import ClusterView
from tests.unit.hub import HEARTBEAT_MS, LEASE_MS, PARTITIONS, SETTINGS, Hub, hub_of
from tests.virtual import virtually

app = lungfish.App("takeover")

LEASE_S, HEARTBEAT_S = LEASE_MS / 1_000, HEARTBEAT_MS / 1_000
EVERYTHING = set(range(PARTITIONS))
#: From the end of a killed host's lease until others run all of its partitions, on a store that answers at
#: once: the look at the millisecond after the lease, the leader's placement, one look more of the others.
REPLACED_S = 0.03
#: When in the course of the heartbeats a host is killed: parts of one.
PHASES = (0.0, 0.23, 0.51, 0.77, 0.97)


@app.entity
class Counter(lungfish.Entity):
    value: int = 0


def with_hub(test: Callable[[Hub], Coroutine[Any, Any, None]]) -> None:
    """Run a test with a hub, on a virtual clock."""

    async def run() -> None:
        async with hub_of(app) as hub:
            await test(hub)

    virtually(run)


async def start_steady(hub: Hub, *names: str) -> None:
    """Start hosts whose heartbeats are spread over the interval, and let each be heard for a whole lease."""
    for name in names:
        await hub.start(name)
        await asyncio.sleep(HEARTBEAT_S / len(names))
    await hub.settled()
    await asyncio.sleep(2 * LEASE_S)


def lease_left_s(hub: Hub, name: str) -> float:
    """Return how long a host that is killed now still counts as alive."""
    beaten_ms, _record = hub.state.hosts[name]
    return (beaten_ms + LEASE_MS - hub.server.now_ms()) / 1_000


async def overtime_s(hub: Hub, victim: str) -> float:
    """Kill a host; return how long after the end of its lease all of its partitions were run by others."""
    left_s = lease_left_s(hub, victim)
    await hub.kill(victim)
    took_s = await hub.until(
        lambda: set().union(*hub.running().values()) == EVERYTHING, "a takeover", step_s=0.001
    )
    return took_s - left_s


def follower_of(hub: Hub) -> str:
    return next(name for name in hub.hosts if name != hub.state.leader)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("leads", [True, False], ids=["leader", "follower"])
def test_a_killed_host_is_replaced_at_once_when_its_lease_ends(leads: bool, phase: float) -> None:
    """Whoever it is: the leader's lease and its host's lease end together, and cost one wait."""

    async def test(hub: Hub) -> None:
        await start_steady(hub, "a", "b", "c")
        await asyncio.sleep(phase * HEARTBEAT_S)
        victim = hub.state.leader if leads else follower_of(hub)
        assert 0.0 < await overtime_s(hub, victim) <= REPLACED_S
        assert hub.state.leader in hub.hosts

    with_hub(test)


@pytest.mark.parametrize("phase", PHASES)
def test_a_newcomer_leaves_the_lead_to_those_who_may_judge(phase: float) -> None:
    """It has not been heard for a lease: a takeover that it led would wait until it has."""

    async def test(hub: Hub) -> None:
        await start_steady(hub, "a", "b")
        leader = hub.state.leader
        left_s = lease_left_s(hub, leader)
        await hub.kill(leader)
        (heir,) = hub.hosts
        await asyncio.sleep(left_s / 2 + phase * HEARTBEAT_S)
        for name in ("n1", "n2", "n3", "n4"):
            await hub.start(name)
            await asyncio.sleep(0.003)
        spent_s = left_s / 2 + phase * HEARTBEAT_S + 4 * 0.003
        took_s = await hub.until(
            lambda: set().union(*hub.running().values()) == EVERYTHING, "a takeover", step_s=0.001
        )
        assert hub.state.leader == heir
        assert spent_s + took_s - left_s <= REPLACED_S

    with_hub(test)


def test_two_kills_at_once_take_one_lease() -> None:
    async def test(hub: Hub) -> None:
        await start_steady(hub, "a", "b", "c", "d")
        follower = follower_of(hub)
        left_s = max(lease_left_s(hub, follower), lease_left_s(hub, hub.state.leader))
        await hub.kill(follower)
        await hub.kill(hub.state.leader)
        took_s = await hub.until(
            lambda: set().union(*hub.running().values()) == EVERYTHING, "a takeover", step_s=0.001
        )
        assert took_s - left_s <= REPLACED_S

    with_hub(test)


def test_the_only_one_left_that_is_new_leads_when_nobody_else_can() -> None:
    async def test(hub: Hub) -> None:
        await start_steady(hub, "a")
        await hub.kill("a")
        await hub.start("b")
        took_s = await hub.until(lambda: hub.running()["b"] == EVERYTHING, "a takeover", step_s=0.001)
        # It must be heard for a lease first: all it knows is that the store has just answered.
        assert LEASE_S <= took_s <= LEASE_S + REPLACED_S

    with_hub(test)


def test_the_first_host_of_a_hub_leads_with_its_first_look() -> None:
    async def test(hub: Hub) -> None:
        await hub.start("a")
        assert hub.state.leader == "a"
        await hub.start("b")
        assert hub.state.leader == "a"

    with_hub(test)


def count_calls(hub: Hub, method: str) -> dict[str, int]:
    """Count how often the hosts that run now call a method of the store."""
    counts = dict.fromkeys(hub.hosts, 0)

    def counted(name: str, genuine: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **options: Any) -> Any:
            counts[name] += 1
            return await genuine(*args, **options)

        return call

    for name in hub.hosts:
        setattr(hub.stores[name], method, counted(name, getattr(hub.stores[name], method)))
    return counts


def test_nobody_looks_more_often_than_it_beats_while_all_are_heard() -> None:
    async def test(hub: Hub) -> None:
        await start_steady(hub, "a", "b", "c")
        looks, owners = count_calls(hub, "heartbeat"), count_calls(hub, "owners")
        await asyncio.sleep(100 * HEARTBEAT_S)
        assert all(99 <= count <= 101 for count in looks.values()), looks
        assert owners == looks

    with_hub(test)


def test_a_takeover_costs_a_few_looks_and_no_more() -> None:
    async def test(hub: Hub) -> None:
        await start_steady(hub, "a", "b", "c")
        victim = follower_of(hub)
        looks, owners = count_calls(hub, "heartbeat"), count_calls(hub, "owners")
        await hub.kill(victim)
        await asyncio.sleep(100 * HEARTBEAT_S)
        for name in hub.hosts:
            assert 99 <= looks[name] <= 110
            # What a dead host had is claimed by what the look found, without asking for each again.
            assert owners[name] == looks[name]

    with_hub(test)


# --- who is never taken over -----------------------------------------------------------------


async def stay(hub: Hub, before: dict[str, set[int]]) -> None:
    """Nothing moves, and nobody is forgotten, for as long as any judgement could take."""
    await asyncio.sleep(10 * LEASE_S)
    assert hub.log == []
    assert hub.running() == before
    assert set(hub.state.hosts) == set(hub.hosts)


@pytest.mark.parametrize("first", ["leader", "follower"])
@pytest.mark.parametrize("stall", [0.6, 0.85, 0.95, 1.0, 1.05, 2.0, 9.0])
def test_a_store_that_stands_still_is_nobodys_death(stall: float, first: str) -> None:
    """Commands that were sent meanwhile are answered afterwards: one host's after the other."""

    async def test(hub: Hub) -> None:
        await start_steady(hub, "a", "b", "c")
        leader, before = hub.state.leader, hub.running()
        hub.log.clear()
        order = sorted(hub.hosts, key=lambda name: (name != leader) == (first == "leader"))
        moves_s = asyncio.get_running_loop().time() + stall * LEASE_S

        def stalled(turn: int, name: str) -> Any:
            genuine = hub.stores[name].heartbeat

            async def heartbeat(*args: Any, **options: Any) -> ClusterView:
                await asyncio.sleep(max(0.0, moves_s + turn * 0.002 - asyncio.get_running_loop().time()))
                return await genuine(*args, **options)

            return heartbeat

        for turn, name in enumerate(order):
            hub.stores[name].heartbeat = stalled(turn, name)  # type: ignore[method-assign]
        await stay(hub, before)

    with_hub(test)


@pytest.mark.parametrize("late_s", [0.005, 0.02])
@pytest.mark.parametrize("outage", [0.6, 0.75, 0.85, 0.95, 1.05, 2.0])
def test_one_that_was_refused_just_before_the_store_came_back_is_not_dead(
    outage: float, late_s: float
) -> None:
    """It tries again a heartbeat later, and connects first: the leader, who came in time, waits."""

    async def test(hub: Hub) -> None:
        await start_steady(hub, "a", "b", "c")
        refused, before = follower_of(hub), hub.running()
        hub.log.clear()
        back_s = asyncio.get_running_loop().time() + outage * LEASE_S

        def away(name: str) -> Any:
            genuine, tries = hub.stores[name].heartbeat, itertools.count(1)

            async def heartbeat(*args: Any, **options: Any) -> ClusterView:
                await asyncio.sleep(max(0.0, back_s - asyncio.get_running_loop().time()))
                if name == refused:
                    if next(tries) == 1:
                        raise StoreUnavailable("refused")
                    await asyncio.sleep(late_s)
                return await genuine(*args, **options)

            return heartbeat

        for name in hub.hosts:
            hub.stores[name].heartbeat = away(name)  # type: ignore[method-assign]
        await stay(hub, before)

    with_hub(test)


@pytest.mark.parametrize("jump", [0.9, 1.1, 100.0])
def test_a_jump_of_the_stores_clock_is_nobodys_death(jump: float) -> None:
    async def test(hub: Hub) -> None:
        await start_steady(hub, "a", "b", "c")
        before, genuine = hub.running(), hub.server.now_ms
        hub.log.clear()
        hub.server.now_ms = lambda: genuine() + round(jump * LEASE_MS)
        await stay(hub, before)

    with_hub(test)


@pytest.mark.parametrize("name", ["leader", "follower"])
def test_one_that_is_heard_again_before_its_lease_ends_keeps_all(name: str) -> None:
    """Every host looks at the very moment at which the lease would end: not a millisecond sooner."""

    async def test(hub: Hub) -> None:
        await start_steady(hub, "a", "b", "c")
        slow = hub.state.leader if name == "leader" else follower_of(hub)
        before = hub.running()
        hub.log.clear()
        genuine, late = hub.stores[slow].heartbeat, itertools.chain([True], itertools.repeat(False))

        async def heartbeat(*args: Any, **options: Any) -> ClusterView:
            if next(late):
                await asyncio.sleep(lease_left_s(hub, slow) - 0.002)
            return await genuine(*args, **options)

        hub.stores[slow].heartbeat = heartbeat  # type: ignore[method-assign]
        await stay(hub, before)

    with_hub(test)


def test_a_leader_that_was_replaced_does_not_bury_the_living() -> None:
    """It stood still between its look and what follows from it; whom it thought dead is back."""

    async def test(hub: Hub) -> None:
        await start_steady(hub, "a", "b", "c")
        leader = hub.state.leader
        quiet = follower_of(hub)
        store, removed = hub.stores[leader], list[str]()
        genuine_place, genuine_remove = store.place, store.remove_host

        async def late_place(host: str, version: int, placement: bytes) -> bool:
            hub.stores[quiet].cut_off = False
            await asyncio.sleep(2 * LEASE_S)
            return await genuine_place(host, version, placement)

        async def noted_remove(host: str, seen_ms: int | None = None) -> bool:
            removed.append(host)
            return await genuine_remove(host, seen_ms)

        store.place = late_place  # type: ignore[assignment, method-assign]
        store.remove_host = noted_remove  # type: ignore[method-assign]
        hub.stores[quiet].cut_off = True
        await hub.until(lambda: hub.state.leader not in ("", leader), "another leader")
        store.place = genuine_place  # type: ignore[method-assign]
        await asyncio.sleep(4 * LEASE_S)
        assert quiet not in removed
        assert set(hub.state.hosts) == {"a", "b", "c"}

    with_hub(test)


def test_a_leader_does_not_bury_a_host_that_came_back_meanwhile() -> None:
    """It still leads, and stood still for a moment between its placement and what follows from it."""

    async def test(hub: Hub) -> None:
        await start_steady(hub, "a", "b", "c")
        quiet, store = follower_of(hub), hub.stores[hub.state.leader]
        genuine, answers = store.remove_host, list[bool]()

        async def late(host: str, seen_ms: int | None = None) -> bool:
            beaten_ms, _record = hub.state.hosts[quiet]
            hub.stores[quiet].cut_off = False
            await hub.until(lambda: hub.state.hosts[quiet][0] > beaten_ms, "a beat of who came back")
            answers.append(await genuine(host, seen_ms))
            return answers[-1]

        store.remove_host = late  # type: ignore[method-assign]
        hub.stores[quiet].cut_off = True
        await hub.until(lambda: answers, "the burial")
        assert answers == [False]
        assert set(hub.state.hosts) == {"a", "b", "c"}
        await hub.settled()

    with_hub(test)


def test_only_who_has_been_heard_for_a_lease_says_that_it_may_judge() -> None:
    async def test(hub: Hub) -> None:
        await hub.start_all("a")

        def says() -> bool:
            return HostRecord.decode(hub.state.hosts["a"][1]).steady

        assert not says()
        await asyncio.sleep(SETTINGS.lease_ms / 1_000 + 2 * HEARTBEAT_S)
        assert says()

    with_hub(test)


def test_a_thread_that_beats_for_a_blocked_loop_does_not_say_that_it_may_judge() -> None:
    """The lead would be left to a host that cannot take it."""

    async def test(hub: Hub) -> None:
        (host,) = await hub.start_all("a")
        told = list[bytes]()
        host._ownership._beaten = told.append
        await asyncio.sleep(2 * LEASE_S)
        assert HostRecord.decode(hub.state.hosts["a"][1]).steady
        assert told
        assert not any(HostRecord.decode(record).steady for record in told)

    with_hub(test)
