"""The controller beside a Ray that is a fake: whoever cannot run holds up nobody, and is told of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
import ray as real_ray
from ray.exceptions import ActorUnschedulableError

import lungfish
from lungfish.runtime.on_ray import actors
from lungfish.runtime.on_ray.actors import Controller
from lungfish.runtime.on_ray.processes import Deployment
from lungfish.runtime.on_ray.topology import POOL_HOST_S, TOLD_S, Goal, RunningActor
from lungfish.runtime.testing.memory_store import MemoryStore
from tests.virtual import virtual_server, virtually

POOLS = {"gpu": lungfish.HostPool(resources={"GPU": 1}), "fpga": lungfish.HostPool(resources={"fpga": 1})}
GOAL = Goal(workers_per_node=0, pools=POOLS)


class Method:
    """A method of an actor: ``handle.ping.remote()``."""

    def __init__(self, call: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        self._call = call

    def remote(self, *args: Any) -> asyncio.Future[Any]:
        return asyncio.ensure_future(self._call(*args))


@dataclass(eq=False)
class FakeActor:
    """A host; it runs from the moment on at which its resources are free."""

    name: str
    ray: FakeRay
    needs: dict[str, float]
    runs: asyncio.Event = field(default_factory=asyncio.Event)
    notes: list[dict[str, str]] = field(default_factory=list)
    stopped: bool = False

    def __getattr__(self, method: str) -> Method:
        return Method(getattr(self, f"_{method}"))

    @property
    def node(self) -> str:
        parsed = RunningActor.parse(self.name)
        assert parsed is not None
        return parsed.node

    async def _ping(self) -> tuple[str, int]:
        await self.runs.wait()
        return self.name, 1

    async def _ready(self) -> None:
        await self.runs.wait()

    async def _run(self) -> None:
        await asyncio.Event().wait()

    async def _stop(self) -> None:
        await self.runs.wait()
        self.stopped = True

    async def _tell_pools(self, notes: dict[str, str]) -> None:
        self.notes.append(notes)


class FakeRay:
    """Nodes with resources, and actors that hold them."""

    def __init__(self, **nodes: dict[str, float]) -> None:
        self.resources = nodes
        self.actors: dict[str, FakeActor] = {}

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": name, "Resources": has, "Alive": True} for name, has in self.resources.items()]

    def listed(self, **_: Any) -> list[dict[str, str]]:
        return [{"name": name, "namespace": actors.NAMESPACE} for name in self.actors]

    def get_actor(self, name: str, _: str) -> FakeActor:
        if name not in self.actors:
            raise ValueError(name)
        return self.actors[name]

    def remote(self, _: Any) -> Any:
        ray, chosen = self, dict[str, Any]()

        class Maker:
            def options(self, **options: Any) -> Maker:
                chosen.update(options)
                return self

            def remote(self, *_: Any) -> FakeActor:
                gpus = {"GPU": chosen["num_gpus"]} if "num_gpus" in chosen else {}
                actor = FakeActor(chosen["name"], ray, {**chosen.get("resources", {}), **gpus})
                ray.actors[actor.name] = actor
                ray.place()
                return actor

        return Maker()

    def kill(self, actor: FakeActor, *, no_restart: bool) -> None:
        assert no_restart
        self.actors.pop(actor.name, None)
        self.place()

    def place(self) -> None:
        """Let run whoever has room now."""
        for actor in self.actors.values():
            free = dict(self.resources[actor.node])
            for other in self.actors.values():
                if other is not actor and other.node == actor.node and other.runs.is_set():
                    for name, amount in other.needs.items():
                        free[name] -= amount
            if all(free.get(name, 0) >= amount for name, amount in actor.needs.items()):
                actor.runs.set()

    def running(self) -> set[str]:
        """Return pool and node of the hosts that run, with the generation of their code."""
        found = [RunningActor.parse(actor.name) for actor in self.actors.values() if actor.runs.is_set()]
        return {f"{each.pool or '-'}:{each.node}:{each.generation}" for each in found if each is not None}


def with_controller(ray: FakeRay, test: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    """Run a test with a controller of a hub on a cluster, in virtual time."""

    async def run() -> None:
        controller = Controller.__new__(Controller)
        await Controller.__init__(controller, Deployment("hub", "memory"), GOAL)
        controller._loop.cancel()
        try:
            await test(controller)
        finally:
            controller._watch.follow(())

    with pytest.MonkeyPatch.context() as patch:
        server = virtual_server()
        patch.setattr(actors, "open_store", lambda *_: MemoryStore(server, "hub"))
        for name in ("nodes", "get_actor", "remote", "kill"):
            patch.setattr(real_ray, name, getattr(ray, name))
        patch.setattr(actors, "list_named_actors", ray.listed)
        # Ray's own wants ids of its own form.
        patch.setattr(actors, "NodeAffinitySchedulingStrategy", lambda node, *, soft: (node, soft))
        virtually(run)


def now_s() -> float:
    return asyncio.get_running_loop().time()


def test_a_pool_whose_resource_is_taken_holds_up_no_start_and_is_told_within_seconds() -> None:
    ray = FakeRay(n1={"CPU": 1}, n2={"CPU": 1, "GPU": 1})
    other = FakeActor("another:host@gpu:n2:0:g1", ray, {"GPU": 1})
    other.runs.set()
    ray.actors[other.name] = other

    async def test(controller: Any) -> None:
        began_s = now_s()
        notes = await controller.ready()
        assert now_s() - began_s < TOLD_S + 1
        assert ray.running() == {"-:n1:1", "-:n2:1", "gpu:n2:1"}
        assert notes == {
            "fpga": "no node of the Ray cluster has fpga: 1",
            "gpu": "a host of it waits for GPU: 1 on node n2: others hold it, or it is slow",
        }
        await controller.reconcile()
        hosts = [actor for actor in ray.actors.values() if "host:" in actor.name]
        await asyncio.sleep(0)
        assert [actor.notes[-1] for actor in hosts] == [notes, notes], "they say so for whoever asks"
        ray.kill(other, no_restart=True)
        ray.resources["n3"] = {"fpga": 1}
        began_s = now_s()
        assert await controller.ready() == {}
        assert now_s() - began_s < 1, "nobody is waited for"
        await controller.reconcile()
        await asyncio.sleep(0)
        assert [actor.notes[-1] for actor in hosts] == [{}, {}]

    with_controller(ray, test)


def test_hosts_that_cannot_run_delay_the_repair_of_no_other() -> None:
    ray = FakeRay(n1={"CPU": 1}, **{f"g{number}": {"GPU": 1.0} for number in range(5)})
    for number in range(5):
        other = FakeActor(f"another:host@gpu:g{number}:0:g1", ray, {"GPU": 1})
        other.runs.set()
        ray.actors[other.name] = other

    async def test(controller: Any) -> None:
        began_s = now_s()
        await controller.reconcile()
        lost = next(actor for actor in ray.actors.values() if actor.name.startswith("hub:host:n1:"))
        ray.kill(lost, no_restart=True)
        await controller.reconcile()
        assert lost.name in ray.actors
        assert now_s() - began_s < 1

    with_controller(ray, test)


def test_new_code_of_a_pool_waits_for_what_the_old_one_holds_and_then_takes_its_place() -> None:
    ray = FakeRay(n1={"CPU": 1, "GPU": 1, "fpga": 2})

    async def test(controller: Any) -> None:
        await controller.ready()
        began_s = now_s()
        await controller.deploy(Deployment("hub", "memory", code="new"), GOAL)
        assert {"-:n1:2", "fpga:n1:2", "gpu:n1:1"} <= ray.running(), "nobody waits for the GPU"
        assert await controller.ready() == {}
        assert POOL_HOST_S <= now_s() - began_s < POOL_HOST_S + 5
        assert ray.running() == {"-:n1:2", "fpga:n1:2", "gpu:n1:2"}

    with_controller(ray, test)


def test_what_is_drained_goes_at_once_though_it_never_began() -> None:
    ray = FakeRay(n1={"CPU": 1}, n2={"CPU": 1, "GPU": 1})
    other = FakeActor("another:host@gpu:n2:0:g1", ray, {"GPU": 1})
    other.runs.set()
    ray.actors[other.name] = other

    async def test(controller: Any) -> None:
        await controller.ready()
        began_s = now_s()
        await controller.drain("n2")
        assert now_s() - began_s < 5
        assert [name for name in ray.actors if name.startswith("hub:")] == ["hub:host:n1:0:g1"]

    with_controller(ray, test)


def test_a_node_that_is_gone_and_still_listed_fails_no_start() -> None:
    ray = FakeRay(n1={"CPU": 1}, gone={"CPU": 1})

    class Lost(FakeActor):
        """Of a node that Ray lists, and has no more."""

        async def _ping(self) -> tuple[str, int]:
            ray.actors.pop(self.name, None)
            raise ActorUnschedulableError("its node does not exist any more")

        async def _ready(self) -> None:
            await self._ping()

    async def test(controller: Any) -> None:
        create = controller._create

        def created(actor: RunningActor) -> Any:
            made = create(actor)
            if actor.node != "gone":
                return made
            lost = ray.actors[actor.name] = Lost(made.name, ray, {})
            asyncio.get_running_loop().call_later(3, ray.resources.pop, "gone", None)
            return lost

        controller._create = created
        assert await controller.ready() == {
            "fpga": "no node of the Ray cluster has fpga: 1",
            "gpu": "no node of the Ray cluster has GPU: 1",
        }
        assert ray.running() == {"-:n1:1"}

    with_controller(ray, test)
