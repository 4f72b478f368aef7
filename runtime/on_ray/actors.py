"""The Ray actors: a host, a worker, and the controller that keeps them placed over the cluster.

Rules:

* Everything durable is in the store; these actors may die at any time. Ray restarts a dead host or worker
  in its place (``max_restarts``); retries of *calls* are off (``max_task_retries=0``), because
  retries are ours, under message ids.
* The app travels as bytes in small pieces, inside the actor's creation task: Ray would put a
  large argument into its object store, owned by the driver, and could then not restart
  the actor when the driver has gone.
* The controller is goal-seeking: it compares what should run with what Ray says is running, once a second,
  and
  creates or removes the difference. It keeps no other state, so its own restart needs no recovery.
* A host or worker whose process gets SIGTERM drains first. One whose node ends has no time for that: Ray's
  workers die with their raylet, at once. Whoever ends nodes drains them before (``lungfish drain``).
"""

from __future__ import annotations

import asyncio
import contextlib
import copyreg
import dataclasses
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any, Final, Self

import ray
import ray.actor
import ray.exceptions
from ray import cloudpickle
from ray.util import list_named_actors
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lungfish.runtime.declared.app import App
from lungfish.runtime.on_redis.open_store import open_store
from lungfish.runtime.store.layout import DEFAULT_POOL

from .leaving import Sigterm
from .metrics import RayFigures
from .processes import Deployment, HostProcess, WorkerProcess
from .tasks import RayLauncher
from .topology import Goal, Node, RunningActor, late, plan, pool_notes, removable
from .watch import DeathWatch

logger = logging.getLogger(__name__)

NAMESPACE: Final = "lungfish"
RECONCILE_S: Final = 1.0
#: What stopping takes at most beyond ``drain_s`` (s).
STOP_S: Final = 20.0
#: What stopping a host takes at most that waits for resources, and so has nothing (s).
UNBEGUN_S: Final = 1.0
#: How often ``ready`` looks (s).
_LOOK_S: Final = 0.05
#: Ray keeps arguments up to 100 KiB inside the task itself.
_PIECE_BYTES: Final = 64 * 1024


def controller_name(hub: str) -> str:
    """Return the name of a hub's controller actor in ``NAMESPACE``."""
    return f"{hub}:controller"


# A dataclass of ``__main__`` travels by value, and `dataclasses` tells a field without a default by the
# identity of MISSING. Cloudpickle would make a new object of it; this makes it travel by name.
copyreg.pickle(type(dataclasses.MISSING), lambda _: "MISSING")


def pack_app(app: App) -> list[bytes]:
    """Return an app, with the code of ``__main__`` and notebook cells, in pieces for actor arguments."""
    data: bytes = cloudpickle.dumps(app)  # pyright: ignore[reportPrivateImportUsage]
    return [data[at : at + _PIECE_BYTES] for at in range(0, len(data), _PIECE_BYTES)]


def unpack_app(pieces: tuple[bytes, ...]) -> App:
    """Undo ``pack_app``. The bytes come from the driver's own call, never from the store."""
    app: App = cloudpickle.loads(b"".join(pieces))
    return app


def take_priority() -> None:
    """Undo the niceness (15) that Ray gives its workers, where the system allows that: see docs/adr/0009."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, 0)


class _Leaves:
    """An actor that drains when its process is told to end."""

    _sigterm: Sigterm

    def __new__(cls, *_: Any) -> Self:
        made = super().__new__(cls)
        # Ray makes the object in the main thread of its process, where alone signals can be had; all else of
        # an async actor runs in another. What it makes in whoever asks for an actor is an ``ActorClass``.
        if not issubclass(cls, ray.actor.ActorClass):
            made._sigterm = Sigterm()
        return made

    def _leave_with(self, stop: Callable[[], Awaitable[None]], deployment: Deployment) -> None:
        self._sigterm.leave_with(stop, limit_s=deployment.settings.drain_s + STOP_S)


class HostActor(_Leaves):
    """One host process."""

    async def __init__(self, deployment: Deployment, slot: str, *app: bytes) -> None:  # type: ignore[misc]
        take_priority()
        node = ray.get_runtime_context().get_node_id()
        running = RunningActor.parse(slot)
        pools = [DEFAULT_POOL if running is None else running.pool]
        self._process = HostProcess(deployment, unpack_app(app), slot=slot, node=node, pools=pools)
        await self._process.start()
        loop = asyncio.get_running_loop()
        self._watch = loop.create_task(self._exit_on_failure())
        figures = RayFigures(deployment.hub, slot)
        self._telling = loop.create_task(figures.tell_forever(self._process.host.samples))
        self._leave_with(self._process.stop, deployment)

    async def _exit_on_failure(self) -> None:
        error = await self._process.failure()
        # Nothing is lost: the store has it all, and Ray starts a sound host in this place.
        logger.critical("host failed: %r", error)
        os._exit(1)

    async def ping(self) -> tuple[str, int]:
        """Return host id and process id."""
        return self._process.host.host_id, os.getpid()

    async def run(self) -> None:
        """Never return: whoever awaits this is told by Ray when the process dies (see ``on_ray.watch``)."""
        await asyncio.Event().wait()

    async def ready(self) -> None:
        """Return when every partition has its owner."""
        await self._process.host.wait_settled()

    async def tell_pools(self, notes: dict[str, str]) -> None:
        """Say with every heartbeat what pools wait for."""
        self._process.host.pool_notes = notes

    async def stop(self) -> None:
        """Drain."""
        await self._process.stop()


class WorkerActor(_Leaves):
    """One worker process."""

    async def __init__(self, deployment: Deployment, slot: str, *app: bytes) -> None:  # type: ignore[misc]
        self._launcher = RayLauncher()
        self._process = WorkerProcess(deployment, unpack_app(app), slot=slot, launcher=self._launcher)
        await self._process.start()
        if (worker := self._process.worker) is not None:
            figures = RayFigures(deployment.hub, slot)
            self._telling = asyncio.get_running_loop().create_task(figures.tell_forever(worker.samples))
        self._leave_with(self._process.stop, deployment)

    async def ping(self) -> tuple[str, int]:
        """Return worker id and process id."""
        worker = self._process.worker
        return (worker.worker_id if worker is not None else ""), os.getpid()

    async def beat(self, name: str, beats: int, details: bytes | None) -> str:
        """Take heartbeats of a task that this worker has started; see ``RayLauncher.beat``."""
        return self._launcher.beat(name, beats, details)

    async def ready(self) -> None:
        """Return at once: a worker is ready when it was made."""

    async def stop(self) -> None:
        """Finish what runs and leave."""
        await self._process.stop()


class Controller:
    """Keeps hosts and workers on all nodes of the cluster; one per hub."""

    async def __init__(self, deployment: Deployment, goal: Goal, *app: bytes) -> None:  # type: ignore[misc]
        self._deployment = deployment
        self._goal = goal
        self._app = app
        self._draining: set[str] = set()
        self._stopping: dict[str, asyncio.Task[None]] = {}
        self._lock = asyncio.Lock()
        #: What was told last of the pools, and by whom.
        self._told: tuple[dict[str, str], set[str]] = ({}, set())
        self._watch = DeathWatch(lambda: open_store(deployment.url, deployment.hub), NAMESPACE)
        self._loop = asyncio.get_running_loop().create_task(self._reconcile_forever())

    async def url(self) -> str:
        """Return the store's address."""
        return self._deployment.url

    async def deploy(self, deployment: Deployment, goal: Goal, *app: bytes) -> None:
        """Replace code and settings: new hosts come up first, then the old ones are drained."""
        same = app == self._app and deployment == self._deployment
        generation = self._goal.generation if same else self._goal.generation + 1
        self._deployment, self._app = deployment, app
        self._goal = goal.with_generation(generation)
        await self.reconcile()

    async def scale(self, hosts_per_node: int | None, workers_per_node: int | None) -> None:
        """Change how many hosts and workers there are on each node."""
        self._goal = self._goal.scaled(hosts_per_node, workers_per_node)
        await self.reconcile()

    async def drain(self, node: str) -> None:
        """Move everything away from a node, for good; returns when nothing of ours runs there."""
        self._draining.add(node)
        await self.reconcile()
        await self._wait_stopped()

    async def undrain(self, node: str) -> None:
        """Let a drained node take hosts and workers again."""
        self._draining.discard(node)
        await self.reconcile()

    async def shutdown(self) -> None:
        """Drain and remove all hosts and workers. The controller itself is left for the caller to kill."""
        self._loop.cancel()
        self._goal = self._goal.scaled(0, 0)
        await self.reconcile()
        await self._wait_stopped()

    async def ready(self) -> dict[str, str]:
        """Return when all that can run does, and every partition of these pools has an owner.

        Returns what the other pools wait for.
        """
        while True:
            missing, extra = self._plan()
            if missing or extra or self._stopping:
                await self.reconcile()
            elif all(await asyncio.gather(*map(self._settled, self._running()))):
                return self._notes()
            await asyncio.sleep(_LOOK_S)

    async def _settled(self, actor: RunningActor) -> bool:
        """Return when a host or worker is ready, or waits for what others hold; False: its node is gone."""
        while actor in (beginning := self._beginning()) and actor.pool:
            if actor in late(beginning):
                return True
            await asyncio.sleep(_LOOK_S)
        with contextlib.suppress(ValueError):  # gone meanwhile
            handle: Any = ray.get_actor(actor.name, NAMESPACE)
            try:
                await handle.ready.remote()
            except ray.exceptions.ActorUnschedulableError:  # Ray lists dead nodes for some seconds
                logger.info("%s: its node is gone", actor.name)
                return False
        return True

    async def pools_waiting(self) -> dict[str, str]:
        """Return what pools wait for, in words."""
        return self._notes()

    def _notes(self) -> dict[str, str]:
        return pool_notes(self._goal, self._nodes(), late(self._beginning()))

    def _beginning(self) -> dict[RunningActor, float]:
        """Return the hosts that do not run yet, and for how long (s)."""
        silent = self._watch.silent()
        return {actor: silent[actor.name] for actor in self._running() if actor.name in silent}

    async def actors(self) -> list[tuple[str, str, str, int]]:
        """Return (actor name, node, host or worker id, process id) of all that answers."""
        found: list[tuple[str, str, str, int]] = []
        for actor in self._running():
            try:
                handle: Any = ray.get_actor(actor.name, NAMESPACE)
                identity, pid = await asyncio.wait_for(handle.ping.remote(), 5)
            except (ValueError, TimeoutError, ray.exceptions.RayActorError):
                continue  # dying, or being restarted: it is not there now
            found.append((actor.name, actor.node, identity, pid))
        return found

    async def _reconcile_forever(self) -> None:
        while True:
            try:
                await self.reconcile()
            except Exception:  # Ray's control plane may be away; running hosts do not need it
                logger.exception("reconciling; again in %.0f s", RECONCILE_S)
            await asyncio.sleep(RECONCILE_S)

    async def reconcile(self) -> None:
        """Create what is missing; drain and remove what should not be there."""
        async with self._lock:
            missing, extra = self._plan()
            created = [(actor, self._create(actor)) for actor in missing]
            self._watch.follow(actor.name for actor in self._running() if actor.role == "host")
            # Not for those of pools: others may leave them no room, for as long as they like.
            await asyncio.gather(*(_begun(handle) for actor, handle in created if not actor.pool))
            for actor in removable(extra, self._beginning()):
                if actor.name not in self._stopping:
                    task = asyncio.get_running_loop().create_task(self._remove(actor))
                    self._stopping[actor.name] = task
            self._tell_pools()

    def _tell_pools(self) -> None:
        """Have the hosts of no pool say what pools wait for, where whoever asks for them can see it."""
        silent = self._watch.silent()
        hosts = [a.name for a in self._running() if a.role == "host" and not a.pool and a.name not in silent]
        notes = self._notes()
        told = (notes, set(hosts))
        if told == self._told or (not notes and not self._told[0]):
            return
        for pool, note in notes.items():
            if self._told[0].get(pool) != note:
                logger.warning("pool %s: %s", pool, note)
        self._told = told
        for name in hosts:
            with contextlib.suppress(ValueError, AttributeError):  # gone, or of a release that says nothing
                handle: Any = ray.get_actor(name, NAMESPACE)
                handle.tell_pools.remote(notes)

    def _nodes(self) -> list[Node]:
        return [
            Node(node["NodeID"], node.get("Resources", {}), node.get("Labels", {}))
            for node in ray.nodes()
            if node["Alive"] and node["NodeID"] not in self._draining
        ]

    def _plan(self) -> tuple[list[RunningActor], list[RunningActor]]:
        return plan(self._deployment.hub, self._goal, self._nodes(), self._running())

    def _running(self) -> list[RunningActor]:
        listed: list[Any] = list_named_actors(all_namespaces=True)
        names = [entry["name"] for entry in listed if _ours(entry)]
        parsed = [RunningActor.parse(name) for name in names]
        return [actor for actor in parsed if actor is not None and actor.hub == self._deployment.hub]

    def _create(self, actor: RunningActor) -> Any:
        cls = HostActor if actor.role == "host" else WorkerActor
        cpus = self._goal.cpus_per_host if actor.role == "host" else self._goal.cpus_per_worker
        pool = self._goal.pools.get(actor.pool) if actor.pool else None
        reserved: dict[str, Any] = {"num_cpus": cpus} if pool is None else pool.ray_options()
        return (
            ray.remote(cls)
            .options(
                name=actor.name,
                namespace=NAMESPACE,
                lifetime="detached",
                get_if_exists=True,
                max_restarts=-1,
                max_task_retries=0,
                max_concurrency=100,
                scheduling_strategy=NodeAffinitySchedulingStrategy(actor.node, soft=False),
                **reserved,
            )
            .remote(self._deployment, actor.name, *self._app)
        )

    async def _remove(self, actor: RunningActor) -> None:
        try:
            handle = ray.get_actor(actor.name, NAMESPACE)
            alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
            if actor.node in alive:
                waits = actor.pool and actor in self._beginning()
                limit_s = UNBEGUN_S if waits else self._deployment.settings.drain_s + STOP_S
                try:
                    await asyncio.wait_for(handle.stop.remote(), limit_s)
                except (ray.exceptions.RayError, TimeoutError) as error:
                    logger.warning("stopping %s: %r; killed", actor.name, error)
            ray.kill(handle, no_restart=True)
        except ValueError:
            return  # gone already
        finally:
            self._stopping.pop(actor.name, None)

    async def _wait_stopped(self) -> None:
        while self._stopping:
            await asyncio.gather(*self._stopping.values(), return_exceptions=True)


def _ours(entry: dict[str, Any]) -> bool:
    return bool(entry["namespace"] == NAMESPACE)


async def _begun(handle: Any) -> None:
    """Return when an actor runs, or never will: its node is gone, which the next look at the nodes shows."""
    with contextlib.suppress(ray.exceptions.ActorUnschedulableError):
        await handle.ping.remote()
