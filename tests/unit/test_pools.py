"""Entities that are pinned to a pool of hosts, with hosts in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import lungfish
from lungfish.runtime.client.client import Client
from lungfish.runtime.host.keepalive import Keepalive
from lungfish.runtime.ids import ActorId, hash_of
from lungfish.runtime.on_ray import processes
from lungfish.runtime.store.host_record import HostRecord
from lungfish.runtime.store.layout import HubMeta, Layout
from lungfish.runtime.store.store import ClusterView, Store
from lungfish.runtime.telemetry.overview import HubStatus, read_hub
from lungfish.runtime.testing.memory_store import MemoryStore
from lungfish.runtime.why import walk
from tests.unit.hub import Hub, hub_of
from tests.virtual import virtual_server, virtually

POOLS = {"gpu": lungfish.HostPool(partitions=3), "zone": lungfish.HostPool(partitions=1)}
app = lungfish.App("pools", pools=POOLS, payloads=lungfish.PayloadSettings(offload_bytes=1_100))
OPTIONS: list[dict[str, Any]] = [
    {"partitions": 0},
    {"partitions": 1.5},
    {"hosts_per_node": -1},
    {"resources": {"GPU": 0}},
]
GPU, ZONE, REST = ["gpu"], ["zone"], [""]


@app.entity(pool="gpu")
class Model(lungfish.Entity):
    """Lives in a pool; ``seen`` is what it was told."""

    seen: list[str] = []

    def load(self, what: str) -> int:
        """Remember."""
        self.seen.append(what)
        return len(self.seen)

    async def count_notes(self, key: str) -> int:
        """Call an entity outside of the pool."""
        return await self.context.entity(Desk, key).call(Desk.count)

    def tell(self, key: str, what: str) -> None:
        """Tell an entity outside of the pool."""
        self.context.entity(Desk, key).signal(Desk.note, what)


@app.entity
class Desk(lungfish.Entity):
    """Lives in no pool."""

    notes: list[str] = []

    def note(self, what: str) -> None:
        """Remember."""
        self.notes.append(what)

    def count(self) -> int:
        """Tell how many notes there are."""
        return len(self.notes)

    async def ask(self, model: str, what: str) -> int:
        """Call an entity in the pool."""
        return await self.context.entity(Model, model).call(Model.load, what)

    def stray(self) -> None:
        """Name a pool that there is not."""
        self.context.entity("Model@fpga", "k").signal("load", "x")


@app.entity_function(pool="zone")
def tally(context: Any) -> int:
    """Count, in a pool."""
    context.set_state(context.get_state(int, 0) + 1)
    return int(context.get_state(int))


@app.orchestration
async def train(ctx: lungfish.OrchestrationContext, model: str) -> int:
    """Call an entity in the pool."""
    ctx.entity(Model, model).signal(Model.load, "signal")
    return await ctx.entity(Model, model).call(Model.load, "call")


@app.stateless(pool="gpu")
class Embedder:
    """Stateless, in a pool."""

    def embed(self, text: str) -> int:
        """Return a number."""
        return len(text)


def keys(count: int) -> list[str]:
    return [f"m{number}" for number in range(count)]


async def seen_by(model: lungfish.EntityRef[Model]) -> list[str]:
    state = await model.state()
    return [] if state is None else state.seen


async def notes_of(desk: lungfish.EntityRef[Desk]) -> list[str]:
    state = await desk.state()
    return [] if state is None else state.notes


def pool_numbers(hub: Hub, pool: str) -> set[int]:
    assert hub.state.meta is not None
    return {
        n
        for each in hub.state.meta.pools
        if each.name == pool
        for n in range(each.first, each.first + each.count)
    }


def with_hub(test: Callable[[Hub], Any]) -> None:
    async def run() -> None:
        async with hub_of(app) as hub:
            await test(hub)

    virtually(run)


def test_each_host_runs_the_partitions_of_its_pools_and_no_others() -> None:
    async def test(hub: Hub) -> None:
        await hub.start("a", REST)
        await hub.start("g", GPU)
        await hub.start("z", ZONE)
        await hub.settled()
        await hub.start("b", REST)
        await hub.start("h", GPU)
        await hub.settled()
        running = hub.running()
        assert running["a"] | running["b"] == {0, 1, 2, 3}
        assert running["g"] | running["h"] == pool_numbers(hub, "gpu")
        assert running["z"] == pool_numbers(hub, "zone")
        assert all(running.values())

    with_hub(test)


def test_pinned_entities_are_asked_from_everywhere_and_live_in_their_pool() -> None:
    async def test(hub: Hub) -> None:
        await hub.start("a", REST)
        await hub.start("g", GPU)
        await hub.start("z", ZONE)
        await hub.settled()
        async with hub.client() as client:
            for key in keys(12):
                assert await client.entity(Model, key).call(Model.load, "x") == 1
                assert client.entity(Model, key).partition in pool_numbers(hub, "gpu")
            assert await client.entity(Desk, "d").call(Desk.ask, "m0", "from a desk") == 2
            assert await (await client.start(train, "m0")).result() == 4
            await client.entity(Model, "m0").call(Model.tell, "d", "back")
            large = "y" * 5_000
            assert await client.entity(Model, "m1").call(Model.load, large) == 2
            await client.entity(Model, "m1").call(Model.tell, "d", large)
            desk = client.entity(Desk, "d")
            async with asyncio.timeout(60):
                while len(notes := await notes_of(desk)) < 2:
                    await asyncio.sleep(0.01)
            assert notes == ["back", large]
            assert await client.entity("tally@zone", "t").call("anything") == 1
            await client.broadcast(Model, Model.load, "all")
            models = [client.entity(Model, key) for key in keys(12)]
            async with asyncio.timeout(60):
                while any("all" not in seen for seen in [await seen_by(model) for model in models]):
                    await asyncio.sleep(0.01)
            assert [(await seen_by(model)).count("all") for model in models] == [1] * 12
            assert await client.count_entities(Model) == 12
            assert sorted([each.key async for each in client.entities(Model)]) == sorted(keys(12))
            assert [each.key async for each in client.entities("Model@gpu", prefix="m1")] == [
                "m1",
                "m10",
                "m11",
            ]
            assert await client.count_entities("Model") == 0
        for name, rows in hub.state.partitions.items():
            for entity, _ in rows.snapshots:
                assert (name in pool_numbers(hub, "gpu")) == (entity == "Model@gpu")

    with_hub(test)


def test_a_pools_partitions_are_taken_over_only_inside_of_it() -> None:
    async def test(hub: Hub) -> None:
        for name, pools in (("a", REST), ("b", REST), ("g", GPU), ("h", GPU)):
            await hub.start(name, pools)
        await hub.settled()
        async with hub.client() as client:
            for key in keys(6):
                await client.entity(Model, key).call(Model.load, "before")
            await hub.kill("g")
            for key in keys(6):
                assert await client.entity(Model, key).options(timeout=60).call(Model.load, "after") == 2
        running = hub.running()
        assert running["h"] == pool_numbers(hub, "gpu")
        assert running["a"] | running["b"] == {0, 1, 2, 3}

    with_hub(test)


def test_what_is_sent_to_a_pool_without_hosts_waits_and_nothing_is_lost() -> None:
    async def test(hub: Hub) -> None:
        await hub.start("a", REST)
        await hub.settled()
        async with hub.client() as client:
            model, desk = client.entity(Model, "m"), client.entity(Desk, "d")
            for number in range(20):
                await model.signal(Model.load, str(number))
                await desk.signal(Desk.note, str(number))
            with pytest.raises(lungfish.DeadlineExceeded):
                await model.options(timeout=2).call(Model.load, "call")
            assert len(await notes_of(desk)) == 20
            why = await client.entity(Model, "m").why()
            assert "lives in pool 'gpu', which has no live host" in str(why)
            status = await client.hub_status()
            assert status.pools == ("gpu", "zone")
            assert status.hosts_of("gpu") == ()
            assert len(status.hosts_of("")) == 1
            assert status.load_of("gpu").inbox > 0
            await hub.start("g", GPU)
            async with asyncio.timeout(60):
                while len(seen := await seen_by(model)) < 20:
                    await asyncio.sleep(0.01)
            assert seen[:20] == [str(number) for number in range(20)]

    with_hub(test)


def test_the_last_host_of_a_pool_leaves_at_once_and_its_entities_wait() -> None:
    async def test(hub: Hub) -> None:
        await hub.start("a", REST)
        await hub.start("g", GPU)
        await hub.settled()
        async with hub.client() as client:
            await client.entity(Model, "m").call(Model.load, "x")
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            await hub.drain("g")
            assert loop.time() - began_s < 1.0  # nobody is there to take them: nobody is waited for
            assert hub.running() == {"a": {0, 1, 2, 3}}
            assert {hub.row(number).host for number in pool_numbers(hub, "gpu")} == {""}
            await client.entity(Model, "m").signal(Model.load, "y")
            await hub.start("g2", GPU)
            assert await client.entity(Model, "m").options(timeout=60).call(Model.load, "z") == 3

    with_hub(test)


def test_a_host_that_serves_every_pool_shares_with_those_that_do_not() -> None:
    async def test(hub: Hub) -> None:
        await hub.start("every")
        await hub.settled()
        assert hub.running() == {"every": set(range(8))}
        await hub.start("g", GPU)
        await hub.settled()
        running = hub.running()
        assert running["g"] < pool_numbers(hub, "gpu")
        assert running["every"] | running["g"] == set(range(8))

    with_hub(test)


def test_hosts_and_clients_that_were_there_before_a_pool_learn_of_it() -> None:
    old = lungfish.App("pools")
    old.entity(Desk)

    async def test() -> None:
        async with hub_of(old) as hub:
            await hub.start("old", REST)
            await hub.settled()
            async with Client(hub.store) as client:  # knows no app, only names
                model = client.entity("Model@gpu", "m")
                with pytest.raises(lungfish.UnknownPool, match="no pool 'gpu'; there are: none"):
                    await model.call("load", "x")
                with pytest.raises(lungfish.UnknownPool):
                    await model.signal("load", "x")
                with pytest.raises(lungfish.UnknownPool):
                    await model.state()
                with pytest.raises(lungfish.UnknownPool):
                    await client.count_entities("Model@gpu")
                hub.app = app
                await hub.start("new", GPU)
                # The old host leads; it learns of the partitions by its heartbeat, and places them.
                assert await model.options(timeout=60).call("load", "x") == 1
                assert await model.state() == {"seen": ["x"]}
                assert await client.count_entities("Model@gpu") == 1
                assert hub.state.leader == "old"
                assert hub.running()["new"] == pool_numbers(hub, "gpu")
                status = await read_hub(client._open.store)
                assert len(status.partitions) == 8

    virtually(test)


def test_a_pool_begins_when_every_live_host_knows_it_so_that_no_answer_to_it_is_lost() -> None:
    old = lungfish.App("pools")
    old.entity(Desk)

    async def test() -> None:
        async with hub_of(old) as hub:
            await hub.start("leads", REST)
            slow = await hub.start("slow", REST, heartbeat_ms=400, lease_ms=4_000)
            await hub.until(lambda: slow.partitions, "the slow one has its share")
            await hub.settled()
            hub.app = app
            await hub.start("new", GPU)
            async with hub.client() as client:
                calls = [
                    client.entity(Model, key).options(timeout=60).call(Model.count_notes, key)
                    for key in keys(20)
                ]
                assert await asyncio.gather(*calls) == [0] * 20
                asked = {client.entity(Desk, key).partition for key in keys(20)}
                assert asked & {part.number for part in slow.partitions}
                assert [each async for each in client.dead_letters()] == []

    virtually(test)


def test_what_was_set_aside_for_an_unknown_pool_goes_there_when_it_is_sent_again() -> None:
    old = lungfish.App("pools")
    old.entity(Desk)

    async def test() -> None:
        async with hub_of(old) as hub:
            await hub.start("old", REST)
            await hub.settled()
            async with hub.client() as client:
                await client.topic("news").subscribe(client.entity("Model@gpu", "k"), "load")
                await client.topic("news").publish("x")
                async with asyncio.timeout(60):
                    while not (letters := [each async for each in client.dead_letters()]):
                        await asyncio.sleep(0.01)
                with pytest.raises(lungfish.UnknownPool):
                    await letters[0].replay()
                hub.app = app
                await hub.start("new")
                await hub.settled()
                assert await client.entity("Model@gpu", "k").call("load", "y") == 1
                await letters[0].replay()
                async with asyncio.timeout(60):
                    while await client.entity("Model@gpu", "k").state() != {"seen": ["y", "x"]}:
                        await asyncio.sleep(0.01)
                assert [each async for each in client.dead_letters()] == []
        for name, rows in hub.state.partitions.items():
            assert name in pool_numbers(hub, "gpu") or not any(e == "Model@gpu" for e, _ in rows.snapshots)

    virtually(test)


def test_stateless_workers_of_a_pool_that_was_added_after_the_client_was_opened() -> None:
    old = lungfish.App("pools")
    old.entity(Desk)

    async def test() -> None:
        async with hub_of(old) as hub:
            await hub.start("old", REST)
            await hub.settled()
            async with Client(hub.store, app) as client:
                with pytest.raises(lungfish.UnknownPool):
                    await client.stateless(Embedder).call(Embedder.embed, "four")
                hub.app = app
                await hub.start("new", GPU)
                await hub.settled()
                assert await client.stateless(Embedder).call(Embedder.embed, "four") == 4

    virtually(test)


@pytest.mark.parametrize("learned", [False, True])
def test_a_sink_writes_to_a_pool_that_was_added_after_it_began(learned: bool) -> None:
    old = lungfish.App("pools")
    old.entity(Desk)

    async def test() -> None:
        async with hub_of(old) as hub:
            await hub.start("old", REST)
            await hub.settled()
            async with Client(hub.store, app) as client:

                async def rows() -> AsyncIterator[str]:
                    hub.app = app
                    await hub.start("new", GPU)
                    await hub.settled()
                    if learned:
                        assert await client.count_entities(Model) == 0
                    for key in keys(5):
                        yield key

                written = await client.sink("late").write(Model, Model.load, rows(), key=str)
                assert (written.accepted, written.position) == (5, 5)
                async with asyncio.timeout(60):
                    while [await seen_by(client.entity(Model, key)) for key in keys(5)] != [
                        [key] for key in keys(5)
                    ]:
                        await asyncio.sleep(0.01)

    virtually(test)


def test_the_position_of_a_sink_for_one_entity_stays_when_a_pool_is_added() -> None:
    old = lungfish.App("pools")
    old.entity(Desk)

    async def test() -> None:
        async with hub_of(old) as hub:
            await hub.start("old", REST)
            await hub.settled()
            async with Client(hub.store, old) as client:
                sink = client.sink("rows")
                await sink.write(Desk, Desk.note, keys(5), key=str)
                assert await sink.position() == await sink.position(Desk) == 5
                hub.app = app
                await hub.start("new", GPU)
                await hub.settled()
                assert (await sink.position(), await sink.position(Desk), await sink.position("Desk")) == (
                    0,
                    5,
                    5,
                )
                assert await sink.position("Model@gpu") == 0

    virtually(test)


def test_a_process_that_starts_says_what_it_serves_with_its_first_beat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[HostRecord] = []

    class Noting(MemoryStore):
        async def heartbeat(
            self, host: str, record: bytes, *, lease_ms: int, lead: bool = True
        ) -> ClusterView:
            if host:
                told.append(HostRecord.decode(record))
            return await super().heartbeat(host, record, lease_ms=lease_ms, lead=lead)

    async def test() -> None:
        server = virtual_server()
        monkeypatch.setattr(processes, "open_store", lambda *_, **__: Noting(server, "pools"))
        monkeypatch.setattr(Keepalive, "start", lambda _: None)
        process = processes.HostProcess(processes.Deployment("pools", ""), app, slot="s", pools=GPU)
        await process.start()
        await process.stop()

    virtually(test)
    assert {record.pools for record in told} == {("gpu",)}


def test_why_sees_a_pool_that_is_added_while_it_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    old = lungfish.App("pools")
    old.entity(Desk)

    async def test() -> None:
        async with hub_of(old) as hub:
            await hub.start("old", REST)
            await hub.settled()
            async with Client(hub.store, app) as client:

                async def and_add(store: Store) -> HubStatus:
                    monkeypatch.undo()
                    seen = await read_hub(store)
                    assert hub.state.meta is not None
                    hub.state.meta = hub.state.meta.with_pools({"gpu": 3})
                    return seen

                monkeypatch.setattr(walk, "read_hub", and_add)
                why = await client.entity(Model, "m").why()
                assert "lives in pool 'gpu', which has no live host" in str(why)

    virtually(test)


def test_a_pool_keeps_its_partition_count() -> None:
    async def test(hub: Hub) -> None:
        await hub.start("a", REST)
        hub.app = lungfish.App("pools", pools={"gpu": lungfish.HostPool(partitions=9)})
        with pytest.raises(lungfish.HubMismatch, match="pool 'gpu' has 3 partitions, this app wants 9"):
            await hub.start("b", REST)
        assert set(hub.hosts) == {"a"}

    with_hub(test)


def test_pools_that_the_store_has_lost_are_added_again_with_the_same_numbers() -> None:
    async def test(hub: Hub) -> None:
        await hub.start("a", REST)
        await hub.start("g", GPU)
        await hub.settled()
        async with hub.client() as client:
            await client.entity(Model, "m").call(Model.load, "x")
            before = hub.state.meta
            assert before is not None
            hub.state.meta = HubMeta(before.partitions)  # as after a failover
            await hub.until(lambda: hub.state.meta == before, "the pools are back")
            assert await client.entity(Model, "m").call(Model.load, "y") == 2

    with_hub(test)


def test_a_host_that_knows_other_pools_than_the_hub_ends() -> None:
    async def run() -> None:
        async with hub_of(app) as hub:
            host = await hub.start("a", REST)
            await hub.settled()
            hub.state.meta = HubMeta(4).with_pools({"zone": 1, "gpu": 3})
            assert host.failed is not None
            with pytest.raises(lungfish.HubMismatch, match="not what they were"):
                await asyncio.wait_for(host.failed, 60)
            await hub.kill("a")

    virtually(run)


def test_an_operation_that_names_a_pool_that_there_is_not_fails_and_its_host_goes_on() -> None:
    async def test(hub: Hub) -> None:
        await hub.start("a")
        await hub.settled()
        async with hub.client() as client:
            with pytest.raises(lungfish.NotRegistered, match="no entity named 'Model@fpga'"):
                await client.entity(Desk, "d").call(Desk.stray)
            # Somebody who is named by a string that a client sends on, such as a topic's subscriber.
            await client.topic("news").subscribe(client.entity("Model@fpga", "k"), "load")
            await client.topic("news").publish("x")
            await client.entity(Desk, "d").call(Desk.note, "alive")
            async with asyncio.timeout(60):
                while not (letters := [each async for each in client.dead_letters()]):
                    await asyncio.sleep(0.01)
            assert "no pool 'fpga'" in letters[0].reason
            assert letters[0].target == "Model@fpga/k"

    with_hub(test)


def test_what_cannot_be_registered() -> None:
    class Other(lungfish.Entity):
        """No matter."""

    with pytest.raises(lungfish.UsageError, match="no pool 'fpga'; there are: gpu, zone"):
        app.entity(pool="fpga")(Other)
    with pytest.raises(lungfish.UsageError, match="no '@' in a name"):
        app.entity(name="Other@gpu")(Other)
    with pytest.raises(lungfish.UsageError, match="no pool 'fpga'"):
        app.entity_function(pool="fpga")(lambda context: None)
    for name in ("a@b", "a b", "", "ü", "a:b", "*"):
        with pytest.raises(lungfish.UsageError):
            lungfish.App("pools", pools={name: lungfish.HostPool()})
    for options in OPTIONS:
        with pytest.raises(lungfish.UsageError):
            lungfish.HostPool(**options)


def test_an_app_for_another_hub_has_the_same_pools() -> None:
    other = app.with_hub("other")
    assert other.pools == app.pools
    assert "Model@gpu" in other.entities


def test_a_record_of_a_host_that_knows_no_pools_is_of_none() -> None:
    record = HostRecord(node="n", pools=("gpu",))
    assert HostRecord.decode(record.encode()) == record
    assert HostRecord.decode(b"\x81\xa4node\xa1n").pools == ("",)


class OldLayout(Layout):
    """As a release without pools computes: ``@`` is a letter like any other."""

    def of(self, actor: ActorId) -> int:
        return hash_of(actor) % self.partitions


@pytest.mark.parametrize("hosts", [[REST, GPU], [REST, GPU, ["*"]]])
def test_what_an_old_release_sends_to_a_pinned_entity_comes_to_where_that_is(hosts: list[list[str]]) -> None:
    no_pools = lungfish.App(app.hub, payloads=app.payloads)

    async def test(hub: Hub) -> None:
        for number, pools in enumerate(hosts):
            await hub.start(f"h{number}", pools)
        await hub.settled()
        async with hub.client() as new, Client(hub.store, no_pools) as old:
            assert hub.state.meta is not None
            assert old._connection is not None
            old._connection.layout = OldLayout(hub.state.meta)
            for key in keys(4):
                await new.entity(Model, key).call(Model.load, "new")
                await old.entity("Model@gpu", key).signal("load", "signal")
                assert await old.entity("Model@gpu", key).call("load", "call") == 3
                assert await seen_by(new.entity(Model, key)) == ["new", "signal", "call"]
                await old.entity("Model@gpu", key).call("load", "large " + "x" * 2_000)
                with pytest.raises(lungfish.NotRegistered):
                    await old.entity("Model@gpu", key).call("no_such_operation")
            assert {number for number in range(hub.state.meta.total) if snapshots_of(hub, number)} <= {
                *pool_numbers(hub, "gpu")
            }, "no entity has a second state"
            total = hub.state.meta.total
            await hub.until(
                lambda: not any(hub.state.partition(number).mailbox for number in range(total)),
                "nothing is left to be passed on again",
            )

    with_hub(test)


def snapshots_of(hub: Hub, number: int) -> list[str]:
    return [key for name, key in hub.state.partition(number).snapshots if name == "Model@gpu"]
