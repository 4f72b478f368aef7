"""A host: what it does when something breaks, and that nothing leaves before it is durable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

import lungfish
from lungfish.runtime import codec
from lungfish.runtime.entry_points.local import LocalRuntime
from lungfish.runtime.errors import DeadlineExceeded, HubMismatch, StoreUnavailable
from lungfish.runtime.host import host as host_module
from lungfish.runtime.host.host import Host
from lungfish.runtime.ids import ENTITY, ActorId
from lungfish.runtime.messages.messages import Signal
from lungfish.runtime.partitions.kinds import Effects, Item
from lungfish.runtime.partitions.mailbox_rows import unpack_item
from lungfish.runtime.settings import HostSettings
from lungfish.runtime.store.store import Commit, HubMeta, partition_target
from lungfish.runtime.testing.memory_store import MemoryStore
from tests.unit.fakes import FakeActivation, FakeKind
from tests.unit.hub import HEARTBEAT_MS, PARTITIONS, Hub, hub_of, key_in
from tests.virtual import virtually

app = lungfish.App("host")
HEARTBEAT_S = HEARTBEAT_MS / 1_000


@app.entity
class Counter(lungfish.Entity):
    value: int = 0

    def add(self, n: int = 1) -> int:
        self.value += n
        return self.value

    def tell(self, key: str) -> None:
        self.context.signal(("Counter", key), "add")

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


#: Entities of one partition, and one of another.
HERE, ALSO_HERE, THERE = key_in(1, "Counter"), key_in(1, "Counter", "also"), key_in(2, "Counter")

Test = Callable[[Hub], Coroutine[Any, Any, None]]


def with_hub(test: Test) -> Callable[[], None]:
    """Run a test with a hub, on a virtual clock."""

    async def run() -> None:
        async with hub_of(app) as hub:
            await test(hub)

    def test_run() -> None:
        virtually(run)

    test_run.__name__, test_run.__doc__ = test.__name__, test.__doc__
    return test_run


async def values(client: lungfish.Client, *keys: str) -> list[int | None]:
    states = [await client.entity(Counter, key).state() for key in keys]
    return [state.value if state is not None else None for state in states]


def epoch(hub: Hub) -> int:
    return hub.row(1).epoch


# --- the output gate ------------------------------------------------------------------------------


@with_hub
async def test_nothing_leaves_before_the_commit_is_acknowledged(hub: Hub) -> None:
    await hub.start_all("a")
    async with hub.client() as client:
        hub.stores["a"].commits_pass.clear()
        call = asyncio.create_task(client.entity(Counter, HERE).call(Counter.add))
        await client.entity(Counter, HERE).signal(Counter.tell, THERE)
        await asyncio.sleep(5)
        assert not call.done()
        assert await values(client, HERE, THERE) == [None, None]
        assert hub.state.streams[partition_target(2)].last == (0, 0)
        hub.stores["a"].commits_pass.set()
        assert await call == 1
        await hub.until(lambda: hub.row(2).snapshots, "the signal to arrive")
        assert await values(client, HERE, THERE) == [1, 1]


@with_hub
async def test_rounds_go_on_while_a_commit_is_under_way(hub: Hub) -> None:
    """And what they did is one commit then, however many there were."""
    await hub.start_all("a")
    async with hub.client() as client:
        ref = client.entity(Counter, HERE)
        await ref.call(Counter.add)
        number = hub.row(1).number
        hub.stores["a"].commits_pass.clear()
        calls = []
        for _ in range(20):
            calls.append(asyncio.create_task(ref.call(Counter.add)))
            await asyncio.sleep(0.1)
        hub.stores["a"].commits_pass.set()
        assert await asyncio.gather(*calls) == list(range(2, 22))
        assert hub.row(1).number - number <= 3


@with_hub
async def test_a_broken_connection_applies_nothing_twice(hub: Hub) -> None:
    await hub.start_all("a")
    numbers: list[list[int]] = []
    failures = [True, True, False, True, False]

    def sometimes(commits: Sequence[Commit]) -> None:
        numbers.append([commit.number for commit in commits])
        if failures and failures.pop(0):
            raise StoreUnavailable("broken")

    hub.stores["a"].before_commit = sometimes
    async with hub.client() as client:
        ref = client.entity(Counter, HERE)
        assert [await ref.call(Counter.add) for _ in range(3)] == [1, 2, 3]
        assert await values(client, HERE) == [3]
    assert numbers[0] == numbers[1] == numbers[2]
    assert epoch(hub) == 1


@with_hub
async def test_an_answer_that_was_lost_applies_nothing_twice(hub: Hub) -> None:
    await hub.start_all("a")
    store = hub.stores["a"]
    commit, lost = store.commit, [3]

    async def loses_answers(commits: Sequence[Commit]) -> Any:
        outcomes = await commit(commits)
        if lost[0]:
            lost[0] -= 1
            raise StoreUnavailable("after it was applied")
        return outcomes

    store.commit = loses_answers  # type: ignore[method-assign]
    async with hub.client() as client:
        ref = client.entity(Counter, HERE)
        assert [await ref.call(Counter.add) for _ in range(3)] == [1, 2, 3]
        assert await values(client, HERE) == [3]
    assert (lost, epoch(hub)) == ([0], 1)


# --- fencing --------------------------------------------------------------------------------------


@with_hub
async def test_a_lost_lease_drops_the_memory_and_nothing_leaves(hub: Hub) -> None:
    (host,) = await hub.start_all("a")
    async with hub.client() as client:
        ref = client.entity(Counter, HERE)
        await ref.call(Counter.add)
        (mine,) = [p for p in host.partitions if p.number == 1]
        hub.stores["a"].commits_pass.clear()
        call = asyncio.create_task(ref.call(Counter.add, 10))
        tell = asyncio.create_task(ref.signal(Counter.tell, THERE))
        await hub.until(lambda: mine.uncommitted == 0 and not mine.buffered, "the round", 1)
        await tell
        # Another host takes the partition and writes to it.
        image = hub.server.claim(hub.name, 1, "other", "its token")
        state = hub.row(1).snapshots["Counter", HERE]
        for number, at in ((image.commit_number + 1, None), (image.commit_number + 2, None)):
            hub.server.commit(hub.name, Commit(1, "its token", number, position=at))
        hub.stores["a"].commits_pass.set()
        await hub.until(lambda: mine.dropped, "the memory to be dropped", 1)
        assert hub.row(1).snapshots["Counter", HERE] == state
        # It is ours by placement, so it is claimed again, and what was unfinished is done, once.
        assert await call == 11
        await hub.until(lambda: hub.row(2).snapshots, "the signal to arrive")
        assert await values(client, HERE, THERE) == [11, 1]
        assert epoch(hub) == 3


@with_hub
async def test_a_running_operation_of_a_lost_partition_ends_without_a_trace(hub: Hub) -> None:
    (host,) = await hub.start_all("a")
    async with hub.client() as client:
        ref = client.entity(Counter, HERE)
        await ref.signal(Counter.wait, 1.0)
        (mine,) = [p for p in host.partitions if p.number == 1]
        await hub.until(lambda: mine.running, "the operation to run")
        hub.server.claim(hub.name, 1, "other", "its token")
        await hub.until(lambda: mine.dropped, "the memory to be dropped", 2)
        await hub.settled()
        assert mine.activations == 0
        assert await ref.call(Counter.add) == 1


# --- the store lost writes ------------------------------------------------------------------------


async def lose_writes(hub: Hub, client: lungfish.Client) -> None:
    """Let a failover lose four acknowledged writes: the counter is 5, and then it is 1."""
    ref = client.entity(Counter, HERE)
    await ref.call(Counter.add)
    old = hub.server.checkpoint()
    assert [await ref.call(Counter.add) for _ in range(4)] == [2, 3, 4, 5]
    hub.server.rollback(old)


@with_hub
async def test_a_store_behind_memory_is_believed_at_the_next_commit(hub: Hub) -> None:
    """Newer memory is not written over it. Heartbeats, which would find out as well, are far apart here."""
    (host,) = await hub.start_all("a", heartbeat_ms=5_000, lease_ms=20_000)
    async with hub.client() as client:
        await lose_writes(hub, client)
    (mine,) = [p for p in host.partitions if p.number == 1]
    async with hub.client() as client:
        ref = client.entity(Counter, HERE)
        call = asyncio.create_task(ref.call(Counter.add, 100))
        await hub.until(lambda: mine.dropped, "the memory to be dropped", 1.0)
        assert await values(client, HERE) == [1]
        assert await call == 101
        assert await values(client, HERE) == [101]
    assert epoch(hub) == 2


@with_hub
async def test_a_store_behind_memory_is_believed_also_where_nothing_is_committed(hub: Hub) -> None:
    (host,) = await hub.start_all("a")
    async with hub.client() as client:
        await lose_writes(hub, client)
        (mine,) = [p for p in host.partitions if p.number == 1]
        await hub.until(lambda: mine.dropped, "the memory to be dropped", 3 * HEARTBEAT_S)
        await hub.settled()
    async with hub.client() as client:
        assert await client.entity(Counter, HERE).call(Counter.add, 100) == 101


# --- a commit that is refused ---------------------------------------------------------------------


@with_hub
async def test_a_refused_commit_loses_the_partition_at_fault_and_no_message(hub: Hub) -> None:
    (host,) = await hub.start_all("a")
    refused: list[int] = []

    def refuse(commits: Sequence[Commit]) -> None:
        if len(refused) < 4 and any(commit.partition == 1 for commit in commits):
            refused.append(len(commits))
            raise ValueError("the store does not take this")

    async with hub.client() as client:
        refs = [client.entity(Counter, key) for key in (HERE, THERE)]
        await asyncio.gather(*(ref.call(Counter.add) for ref in refs))
        there = next(p for p in host.partitions if p.number == 2)
        hub.stores["a"].before_commit = refuse
        assert await asyncio.gather(*(ref.call(Counter.add) for ref in refs)) == [2, 2]
        assert await values(client, HERE, THERE) == [2, 2]
        assert not there.dropped
    assert len(refused) == 4
    assert epoch(hub) > 1
    assert hub.row(2).epoch == 1


# --- a kind that breaks ---------------------------------------------------------------------------


class Bug(RuntimeError):
    pass


def breaking_kind(broken: ActorId, *, when: str) -> FakeKind:
    """A kind with a bug that one actor meets; the others note what they are told."""

    def handle(activation: FakeActivation, item: Item, effects: Effects) -> None:
        if activation.actor == broken:
            raise Bug
        assert isinstance(item.message, Signal)
        effects.snapshot(activation.actor, item.message.batch)
        effects.done(item)

    class Kind(FakeKind):
        def activate(self, actor: ActorId, stored: Any) -> FakeActivation:
            if actor == broken and when == "activating":
                raise Bug
            return super().activate(actor, stored)

    return Kind(handle)


def test_an_actor_that_cannot_be_activated_is_left_alone_and_its_neighbours_go_on() -> None:
    broken, neighbour = ActorId(ENTITY, "Counter", HERE), ActorId(ENTITY, "Counter", ALSO_HERE)

    async def run() -> None:
        async with hub_of(app) as hub:
            host = await hub.start("a")
            host._kinds[ENTITY] = breaking_kind(broken, when="activating")
            await hub.settled()
            async with hub.client() as client:
                for number in range(3):
                    await client.entity("Counter", broken.key).signal("add", number)
                    await client.entity("Counter", neighbour.key).signal("add", number)
                last = client.entity("Counter", neighbour.key)
                await last.signal("add", LAST)
                found = await _snapshot(hub, neighbour)
            assert codec.encode(LAST) in found
            # Once for the first message, and never again: the others wait, in order, for a fixed release.
            assert epoch(hub) == 2
            rows = [hub.row(1).mailbox[row] for row in sorted(hub.row(1).mailbox)]
            kept = [unpack_item(number, row) for number, row in enumerate(rows)]
            assert [item.message for item in kept if item is not None] == [
                Signal(broken, "add", codec.encode([[number]])) for number in range(3)
            ]
            await hub.kill("a")
            await hub.start_all("fixed")
            async with hub.client() as client:
                with pytest.raises(lungfish.InvalidArguments):  # b"0" is no int, but it is run
                    await client.entity("Counter", broken.key).call("add", b"x")
            assert hub.row(1).mailbox == {}

    virtually(run)


def test_messages_that_break_their_actor_are_set_aside_one_by_one_and_neighbours_go_on() -> None:
    broken, neighbour = ActorId(ENTITY, "Counter", HERE), ActorId(ENTITY, "Counter", ALSO_HERE)

    async def run() -> None:
        async with hub_of(app) as hub:
            host = await hub.start("a")
            host._kinds[ENTITY] = breaking_kind(broken, when="running")
            await hub.settled()
            async with hub.client() as client:
                for number in range(2):
                    await client.entity("Counter", broken.key).signal("add", number)
                    await client.entity("Counter", neighbour.key).signal("add", number)
                await client.entity("Counter", neighbour.key).signal("add", LAST)
                assert codec.encode(LAST) in await _snapshot(hub, neighbour)
                await hub.until(lambda: len(hub.row(1).dead.ids) == 2, "both to be set aside")
                letters = [letter async for letter in client.dead_letters("Counter")]
                assert [letter.target for letter in letters] == [str(broken)] * 2
                assert hub.row(1).mailbox == {}
                # With a fixed release they are applied, once.
                await hub.kill("a")
                await hub.start_all("fixed")
                assert await client.dead_letters().replay() == 2
                assert await client.entity("Counter", broken.key).call("add", 0) == 1
                assert [letter async for letter in client.dead_letters()] == []

    virtually(run)


#: Found again in what a scripted neighbour keeps.
LAST = 987_654_321


async def _snapshot(hub: Hub, actor: ActorId) -> bytes:
    key = (actor.name, actor.key)
    await hub.until(
        lambda: codec.encode(LAST) in hub.row(1).snapshots.get(key, b""), "the neighbour to be served", 10
    )
    return hub.row(1).snapshots[key]


# --- a host's own loops ---------------------------------------------------------------------------


def test_a_host_without_one_of_its_loops_says_so() -> None:
    async def run() -> None:
        store = MemoryStore(Hub(app).server, app.hub)
        host = Host(store, app)
        await host.start()

        async def broken(*_: object, **__: object) -> None:
            raise ValueError("a bug")

        store.heartbeat = broken  # type: ignore[assignment, method-assign]
        assert host.failed is not None
        async with asyncio.timeout(60):
            with pytest.raises(ValueError, match="a bug"):
                await host.failed
        await host.stop(drain=False)

    virtually(run)


class ClosingStore(MemoryStore):
    closed = False
    cut_off = False

    async def open(self, wanted: HubMeta | None = None, *, create: bool = True) -> HubMeta:
        if self.cut_off:
            raise StoreUnavailable("cut off")
        return await super().open(wanted, create=create)

    async def close(self) -> None:
        self.closed = True
        await super().close()


def test_when_a_part_of_a_local_runtime_cannot_start_the_others_stop() -> None:
    async def run() -> None:
        hub = Hub(app)
        stores: list[ClosingStore] = []

        def open_store() -> ClosingStore:
            stores.append(ClosingStore(hub.server, app.hub))
            return stores[-1]

        runtime = LocalRuntime(app, open_store, hosts=2, workers=0)
        stores[1].cut_off = True
        with pytest.raises(StoreUnavailable):
            await runtime.__aenter__()
        assert [store.closed for store in stores] == [True, True]
        assert hub.state.hosts == {}

    virtually(run)


def test_a_host_that_disagrees_with_the_hub_does_not_join() -> None:
    async def run() -> None:
        hub = Hub(app)
        await hub.start_all("a")
        store = ClosingStore(hub.server, app.hub)
        other = Host(store, app, host_id="b")
        with pytest.raises(HubMismatch, match=f"{PARTITIONS}"):
            await other.start(HubMeta(partitions=PARTITIONS + 1))
        assert set(hub.state.hosts) == {"a"}
        assert store.closed
        await hub.kill("a")

    virtually(run)


# --- passivation ----------------------------------------------------------------------------------


def test_what_is_not_used_goes_and_comes_back() -> None:
    async def run() -> None:
        async with hub_of(app) as hub:
            (host,) = await hub.start_all("a", idle_ms=60_000)
            async with hub.client() as client:
                refs = [client.entity(Counter, f"idle-{number}") for number in range(10)]
                assert [await ref.call(Counter.add) for ref in refs] == [1] * 10
                assert sum(p.activations for p in host.partitions) == 10
                for _ in range(20):  # one of them is in use
                    await asyncio.sleep(5)
                    await refs[0].call(Counter.add)
                assert sum(p.activations for p in host.partitions) == 1
                assert [await ref.call(Counter.add) for ref in refs] == [22] + [2] * 9

    virtually(run)


def test_memory_has_a_cap_and_the_least_recently_used_go_first() -> None:
    async def run() -> None:
        async with hub_of(app) as hub:
            (host,) = await hub.start_all("a", activations_max=5)
            async with hub.client() as client:
                refs = [client.entity(Counter, f"many-{number}") for number in range(40)]
                for ref in refs:
                    await ref.call(Counter.add)
                    await asyncio.sleep(0.01)
                await asyncio.sleep(host_module.PASSIVATION_S + HEARTBEAT_S)
                assert 4 <= sum(p.activations for p in host.partitions) <= 5
                assert await asyncio.gather(*(ref.call(Counter.add) for ref in refs)) == [2] * 40

    virtually(run)


def test_an_operation_that_runs_keeps_its_activation() -> None:
    async def run() -> None:
        async with hub_of(app) as hub:
            (host,) = await hub.start_all("a", idle_ms=1_000)
            async with hub.client() as client:
                task = asyncio.create_task(client.entity(Counter, HERE).call(Counter.wait, 25.0))
                await asyncio.sleep(20)
                assert sum(p.activations for p in host.partitions) == 1
                await task

    virtually(run)


# --- sweeping -------------------------------------------------------------------------------------


def test_old_producers_are_forgotten_and_may_come_back() -> None:
    async def run() -> None:
        async with hub_of(app) as hub:
            await hub.start_all("a", producer_idle_ms=600_000, heartbeat_ms=10_000, lease_ms=60_000)
            async with hub.client() as client:
                ref = client.entity(Counter, HERE)
                assert await ref.call(Counter.add) == 1
                target = partition_target(1)
                assert len(hub.state.producers[target]) == 1
                await hub.until(lambda: not hub.state.producers[target], "it to be forgotten", 2_000, 1.0)
                assert await ref.call(Counter.add) == 2

    virtually(run)


# --- the client's side of it ----------------------------------------------------------------------


def test_a_call_without_any_host_ends_in_time_and_says_why() -> None:
    async def run() -> None:
        hub = Hub(app)
        await hub.store().open(HubMeta(partitions=PARTITIONS))
        async with hub.client() as client:
            ref = client.entity(Counter, HERE).options(timeout=3)
            with pytest.raises(
                DeadlineExceeded, match="no answer within 3 s.*outcome|unknown.*host of this hub"
            ):
                await ref.call(Counter.add)
            # Nobody waits for it any more, so it is not done when a host comes.
            await hub.start_all("a")
            assert await client.entity(Counter, HERE).call(Counter.add) == 1
            await hub.kill("a")

    virtually(run)


def test_settings_that_would_take_a_late_host_for_dead_are_refused() -> None:
    with pytest.raises(lungfish.UsageError, match="at least twice"):
        HostSettings(heartbeat_ms=500, lease_ms=999)
