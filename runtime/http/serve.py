"""The HTTP API as a Ray Serve application: as many replicas as wanted, wherever the cluster has room.

Rules:

* It asks for keys. Serve's proxies listen on every node, and who came through a proxy cannot be told from who
  is on this machine, so the loopback rule would be no rule.
* Keys travel to the replicas as digests; a secret is in no process but the one that made it.
* A replica is a client like any other: it finds the store through the cluster, and may come and go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from lungfish.runtime.declared.app import App
from lungfish.runtime.entry_points.connect import connect
from lungfish.runtime.errors import UsageError

from .access import ApiKey
from .server import make_router, make_server

if TYPE_CHECKING:
    from fastapi import FastAPI
    from ray.serve import Application


def deployment(
    app: App | str | None = None,
    *,
    keys: Iterable[ApiKey],
    hub: str | None = None,
    url: str | None = None,
    options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Application:
    """Return the HTTP API for Ray Serve: ``serve.run(lungfish.http.deployment(app, keys=keys))``.

    Needs ``pip install 'ray[serve]'``. Routes, codes and keys are those of ``lungfish http``. What an
    ``Idempotency-Key`` promises holds on all replicas for starts and updates; on one of them for signals,
    events and calls.

    Args:
        app: what the hub runs; or the store's address, as in ``lungfish.connect``.
        keys: who may use it; at least one.
        hub, url: as in ``lungfish.connect``; by default the runtime that is up on the cluster.
        options: of the deployment: ``num_replicas``, ``autoscaling_config``, ``ray_actor_options`` …
        settings: as in ``lungfish.http.router``: ``prefix``, ``body_bytes_max``, ``rate_per_s`` (of one) …

    Raises:
        UsageError: no key; or neither an app nor a hub.
    """
    known = tuple(keys)
    if not known:
        raise UsageError(
            "Ray Serve's proxies listen where others can reach them: give keys=[lungfish.http.ApiKey.of(…)]"
        )
    connect(app, hub=hub, url=url)  # what is wrong with it is told here, not by a replica
    from ray import serve

    from lungfish.runtime.on_ray.actors import pack_app, unpack_app

    # As hosts get it: what the driver's program itself defines travels, too.
    packed = tuple(pack_app(app)) if isinstance(app, App) else app

    def make() -> FastAPI:
        unpacked = unpack_app(packed) if isinstance(packed, tuple) else packed
        client = connect(unpacked, hub=hub, url=url)
        routes = make_router(client, keys=known, **{"probes": True, **settings})
        return make_server(routes, title=hub or (unpacked.hub if isinstance(unpacked, App) else "a hub"))

    @serve.deployment(**{"name": "lungfish-http", **(options or {})})
    @serve.ingress(make)
    class LungfishHttp:
        """Nothing of its own: the ingress is all."""

    made: Any = LungfishHttp  # what the decorators made of it
    application: Application = made.bind()
    return application
