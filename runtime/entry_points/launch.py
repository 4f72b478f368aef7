"""``start`` and ``attach``: the doors to ``cluster``, which is loaded only when one of them is used.

A client or a local runtime needs no Ray; importing it costs most of a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lungfish.runtime.amounts import check_whole
from lungfish.runtime.declared.app import App
from lungfish.runtime.errors import UsageError
from lungfish.runtime.on_redis.open_store import check_url
from lungfish.runtime.settings import HostSettings

if TYPE_CHECKING:
    from lungfish.runtime.on_ray.cluster import Runtime


def start(
    app: App,
    *,
    url: str | None = None,
    replicas: int = 0,
    partitions: int | None = None,
    hosts_per_node: int = 1,
    workers_per_node: int = 1,
    concurrency: int = 32,
    settings: HostSettings | None = None,
) -> Runtime:
    """Run an app's hosts and workers on the Ray cluster that this process is on.

    They are detached, named Ray actors in the namespace ``lungfish``, on every node, and are kept so as nodes
    come and go. They outlive this process. Called again, with changed code, it replaces
    the code: new hosts come up, then the old ones are drained. Hosts of the app's ``pools`` run on the nodes
    that have what these need.

    Args:
        app: what to run; code of ``__main__`` and of notebook cells travels with it.
        url: the store; default: ``$LUNGFISH_REDIS_URL``, the running runtime's, or an embedded server.
        replicas: replicas that must have a write before it counts (durability ``replicated``).
        partitions: partition count of a new hub (default 32); fixed for ever.
        hosts_per_node, workers_per_node: processes on each node.
        concurrency: activities that one worker runs at once.
        settings: bounds and times of the hosts.

    Raises:
        UsageError: an argument that makes no sense; nothing was started.
        HubMismatch: the hub exists with another partition count or format.
        UnsafeStore: the store evicts keys when memory is short.
        StoreUnavailable: the store cannot be reached from here.
    """
    _check_app("start", app)
    check_url(url)
    check_whole("replicas", replicas)
    if partitions is not None:
        check_whole("partitions", partitions, 1)
    check_whole("hosts_per_node", hosts_per_node)
    check_whole("workers_per_node", workers_per_node)
    check_whole("concurrency", concurrency, 1)
    if settings is not None and not isinstance(settings, HostSettings):
        raise UsageError(f"settings is a HostSettings(…), not {settings!r}")
    from lungfish.runtime.on_ray import cluster
    from lungfish.runtime.on_ray.fingerprint import fingerprint
    from lungfish.runtime.on_ray.processes import Deployment
    from lungfish.runtime.on_ray.topology import Goal

    code = fingerprint(app)
    return cluster.launch(
        app,
        lambda found: Deployment(app.hub, found, replicas, concurrency, settings or HostSettings(), code),
        Goal(hosts_per_node, workers_per_node, pools=app.pools),
        url=url,
        partitions=partitions,
    )


def attach(app: App) -> Runtime:
    """Return the runtime of the app's hub that is up on this process's Ray cluster.

    Raises:
        UsageError: not an app.
        RuntimeNotFound: there is none.
    """
    _check_app("attach", app)
    from lungfish.runtime.on_ray import cluster

    return cluster.attach(app)


def _check_app(verb: str, app: App) -> None:
    if not isinstance(app, App):
        raise UsageError(f"{verb} takes an App, not {app!r}")
