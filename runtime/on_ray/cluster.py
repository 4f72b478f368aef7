"""Starting and steering a runtime on the Ray cluster that this process is on."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Final

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lungfish.runtime.amounts import check_whole
from lungfish.runtime.blocking.client import BlockingClient
from lungfish.runtime.client.client import Client
from lungfish.runtime.declared.app import App
from lungfish.runtime.errors import RuntimeNotFound, Unavailable, UsageError
from lungfish.runtime.on_redis.embedded import stop_daemon
from lungfish.runtime.on_redis.open_store import DATA_FOLDER, open_store
from lungfish.runtime.store.host_record import HostRecord
from lungfish.runtime.store.layout import DEFAULT_POOL
from lungfish.runtime.store.store import HubMeta

from .actors import NAMESPACE, Controller, controller_name, pack_app
from .processes import Deployment
from .topology import Goal
from .where import find_url

logger = logging.getLogger(__name__)

#: How long ``start`` waits until every partition has an owner (s).
READY_S: Final = 120.0
#: How long a request to the controller may take, its restart on another node included (s).
ANSWER_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class HostInfo:
    """A host as its last heartbeat told; ``pools`` is what it serves, ``""`` the partitions of none."""

    host_id: str
    node: str
    pid: int
    partitions: int
    activations: int
    commits: int
    draining: bool
    heartbeat_age_ms: int
    pools: tuple[str, ...] = (DEFAULT_POOL,)


class RayNotFound(Unavailable):
    """There is no Ray cluster where it was looked for."""


def join(address: str | None = None) -> None:
    """Make this process part of a Ray cluster that is up; never start one.

    Args:
        address: the cluster's; default: ``$RAY_ADDRESS``, else that of this machine.

    Raises:
        RayNotFound: there is none.
    """
    where = address or os.environ.get("RAY_ADDRESS") or "auto"
    looked = "on this machine" if where == "auto" else f"at {where}"
    try:
        _probe(where)
        ray.init(address=where, log_to_driver=False, logging_level=logging.ERROR, ignore_reinit_error=True)
    except (OSError, ValueError, RuntimeError) as error:
        if "AuthenticationError" in repr(error.__cause__):
            raise RayNotFound(
                f"the Ray cluster {looked} wants a token: set RAY_AUTH_MODE=token. "
                "At a named address Ray does not try the one that it keeps for you"
            ) from error
        raise RayNotFound(
            f"no Ray cluster {looked}: start one with 'ray start --head', or say where it is with --address. "
            "Without Ray, 'lungfish dev' runs an app in one process"
        ) from error


def _probe(address: str) -> None:
    """Raise ``OSError`` if nobody listens at ``host:port``: Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=5).close()


def this_node() -> str:
    """Return Ray's id of the node that this process is on."""
    return str(ray.get_runtime_context().get_node_id())


def machines() -> set[str]:
    """Return the addresses of the machines of this process's Ray cluster."""
    return {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}


def running_url(hub: str) -> str | None:
    """Return the store's address of the runtime that is up on this Ray cluster; None if there is none."""
    try:
        controller: Any = ray.get_actor(controller_name(hub), NAMESPACE)
    except ValueError:
        return None
    url: str = ray.get(controller.url.remote())
    return url


class Runtime:
    """A runtime on a Ray cluster. It outlives this process, until ``shutdown``."""

    def __init__(self, app: App, controller: Any, url: str, *, owns_store: bool = False) -> None:
        self._app = app
        self._controller = controller
        self._owns_store = owns_store
        self.url = url

    def client(self) -> Client:
        """Return a client: ``async with runtime.client() as client``."""
        return Client(lambda: open_store(self.url, self._app.hub), self._app)

    def client_sync(self) -> BlockingClient:
        """Return a blocking client: ``with runtime.client_sync() as client``."""
        return BlockingClient(self.client())

    def hosts(self) -> list[HostInfo]:
        """Return the hosts that beat, by name."""

        async def ask() -> list[HostInfo]:
            store = open_store(self.url, self._app.hub)
            try:
                await store.open(create=False)
                view = await store.heartbeat("", b"", lease_ms=1, lead=False)
            finally:
                await store.close()
            return [_info(beat.host, beat.record, beat.age_ms) for beat in view.hosts if beat.host]

        found: list[HostInfo] = _run(ask)
        return found

    def actors(self) -> list[tuple[str, str, str, int]]:
        """Return (Ray actor name, node id, host or worker id, process id) of all hosts and workers."""
        found: list[tuple[str, str, str, int]] = self._ask("actors")
        return found

    def scale(self, *, hosts_per_node: int | None = None, workers_per_node: int | None = None) -> None:
        """Change how many hosts and workers each node runs; returns when that is so.

        Planned moves finish running operations, commit, and lose nothing.

        Raises:
            UsageError: not a whole number of 0 or more.
        """
        for what, count in (("hosts_per_node", hosts_per_node), ("workers_per_node", workers_per_node)):
            if count is not None:
                check_whole(what, count)
        self._ask("scale", hosts_per_node, workers_per_node)
        self.wait_ready()

    def drain(self, node: str) -> None:
        """Move everything away from a node (Ray's node id), for good; returns when nothing of ours is there.

        Raises:
            UsageError: the cluster has no such node.
        """
        known = sorted(found["NodeID"] for found in ray.nodes())
        if node not in known:
            raise UsageError(f"the Ray cluster has no node {node!r}; its nodes are {', '.join(known)}")
        self._ask("drain", node)

    def undrain(self, node: str) -> None:
        """Let a drained node take hosts and workers again."""
        self._ask("undrain", node)

    def wait_ready(self, timeout_s: float = READY_S) -> None:
        """Return when all hosts and workers run and every partition has an owner.

        A pool's host that waits for what others hold is not waited for, and neither is a pool that no node
        can have hosts of: a warning tells what they wait for (``pools_waiting``).

        Raises:
            ray.exceptions.GetTimeoutError: not so within ``timeout_s`` (s).
        """
        notes: dict[str, str] = self._ask("ready", timeout_s=timeout_s) or {}
        for pool, note in notes.items():
            logger.warning("pool %s: %s; what is sent there is kept until it runs", pool, note)

    def pools_waiting(self) -> dict[str, str]:
        """Return what pools wait for that have not all their hosts, by name: ``{"gpu": "no node has …"}``."""
        found: dict[str, str] = self._ask("pools_waiting")
        return found

    def shutdown(self) -> None:
        """Drain and remove all hosts and workers; state stays in the store.

        Stops the embedded store, too, if ``start`` began to use it.
        """
        self._ask("shutdown")
        ray.kill(self._controller, no_restart=True)
        if self._owns_store:
            stop_daemon(DATA_FOLDER)

    def _ask(self, method: str, *args: Any, timeout_s: float = ANSWER_S) -> Any:
        return _answer(self._controller, method, *args, timeout_s=timeout_s)


def _answer(controller: Any, method: str, *args: Any, timeout_s: float = ANSWER_S) -> Any:
    """Ask the controller, again if it is just being restarted: whatever it does may be done twice."""
    until_s = time.monotonic() + timeout_s
    while True:
        try:
            ref = getattr(controller, method).remote(*args)
            return ray.get(ref, timeout=max(0.0, until_s - time.monotonic()))
        except ray.exceptions.ActorUnavailableError:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.2)


def launch(
    app: App, deploy: Callable[[str], Deployment], goal: Goal, *, url: str | None, partitions: int | None
) -> Runtime:
    """Do what ``launch.start`` says."""
    if not ray.is_initialized():
        ray.init()
    found = _run(lambda: find_url(app.hub, url))
    meta = _run(lambda: _create_hub(found, app.hub, partitions))
    deployment = replace(deploy(found), partitions=meta.partitions)
    pieces = pack_app(app)
    controller = (
        ray.remote(Controller)
        .options(
            name=controller_name(app.hub),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=0,
            max_concurrency=100,
            # Near whoever starts it, rather than on a node that may be scaled away; elsewhere if need be.
            scheduling_strategy=NodeAffinitySchedulingStrategy(
                ray.get_runtime_context().get_node_id(), soft=True
            ),
        )
        .remote(deployment, goal, *pieces)
    )
    # For a controller that was there already this is what brings the new code; else it changes nothing.
    _answer(controller, "deploy", deployment, goal, *pieces)
    runtime = Runtime(app, controller, found, owns_store=url is None and _is_embedded(found))
    runtime.wait_ready()
    return runtime


def attach(app: App) -> Runtime:
    """Do what ``launch.attach`` says."""
    if not ray.is_initialized():
        ray.init(address="auto")
    url = running_url(app.hub)
    if url is None:
        raise RuntimeNotFound(
            f"no runtime of hub {app.hub!r} on this Ray cluster; start one with 'lungfish up'"
        )
    return Runtime(app, ray.get_actor(controller_name(app.hub), NAMESPACE), url, owns_store=_is_embedded(url))


async def _create_hub(url: str, hub: str, partitions: int | None) -> HubMeta:
    store = open_store(url, hub)
    try:
        return await store.open(HubMeta(partitions=partitions) if partitions is not None else None)
    finally:
        await store.close()


def _is_embedded(url: str) -> bool:
    from lungfish.runtime.on_redis.embedded import running_daemon

    daemon = running_daemon(DATA_FOLDER)
    return daemon is not None and daemon.url == url


def _info(host: str, data: bytes, age_ms: int) -> HostInfo:
    record = HostRecord.decode(data)
    return HostInfo(
        host,
        record.node,
        record.pid,
        record.partitions,
        record.activations,
        record.commits,
        record.draining,
        age_ms,
        record.pools,
    )


def _run(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine to its end, also where this thread has a running loop (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work())
    box: list[Any] = []

    def run() -> None:
        try:
            box.append((True, asyncio.run(work())))
        except BaseException as error:  # carried over to the waiting thread
            box.append((False, error))

    thread = threading.Thread(target=run, name="lungfish start")
    thread.start()
    thread.join()
    ok, value = box[0]
    if not ok:
        raise value
    return value
