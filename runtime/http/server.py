"""The HTTP API as a server of its own, and as a router for a FastAPI app that is there already.

Rules:

* It is a client like any other: nothing here reaches into a host, and any number of these may run.
* It is secure as it comes: without API keys it listens on loopback only, and refuses to start elsewhere.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from lungfish.runtime.client.client import Client
from lungfish.runtime.declared.app import App
from lungfish.runtime.entry_points.connect import connect
from lungfish.runtime.errors import UsageError

from . import batches, entities, lives, operations, orchestrations, schedules, streams, why
from .access import BODY_BYTES_MAX, RATE_PER_S, Access, ApiKey, is_loopback
from .dashboard import ui_routes
from .document import finished
from .probes import probe_routes
from .problems import problem_of
from .service import Service
from .shapes import PREFIX

#: The modules whose routes make up the API.
PARTS: Final = (
    streams,
    orchestrations,
    lives,
    batches,
    entities,
    schedules,
    operations,
    why,
)


def make_router(
    client: Client,
    *,
    keys: Iterable[ApiKey] = (),
    prefix: str = PREFIX,
    body_bytes_max: int = BODY_BYTES_MAX,
    rate_per_s: float = RATE_PER_S,
    ui: bool = True,
    probes: bool = False,
) -> APIRouter:
    """Return the HTTP API as a router: ``api.include_router(lungfish.http.router(app))``.

    It opens its client when the server starts, and closes it when it stops.

    Args:
        client: not open yet; the router opens it.
        keys: who may use it; none serves this machine only.
        prefix: the path under which the routes stand; the default is where Durable Functions' clients look.
        body_bytes_max: larger bodies are refused (bytes).
        rate_per_s: requests per second and key.
        ui: with the dashboard, at ``/ui``.
        probes: with ``/healthz``, ``/readyz`` and ``/metrics``, whatever the prefix is.
    """
    service = Service(client, Access(keys, body_bytes_max=body_bytes_max, rate_per_s=rate_per_s), prefix)

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        async with client:
            yield

    router = APIRouter(lifespan=lifespan)
    for part in PARTS:
        for routes in part.routes(service):
            router.include_router(routes, prefix=prefix)
    if ui:
        router.include_router(ui_routes(service))
    if probes:
        router.include_router(probe_routes(service))
    return router


def router(
    app: App | str | None = None,
    *,
    hub: str | None = None,
    url: str | None = None,
    keys: Iterable[ApiKey] = (),
    prefix: str = PREFIX,
    body_bytes_max: int = BODY_BYTES_MAX,
    rate_per_s: float = RATE_PER_S,
    ui: bool = True,
    probes: bool = False,
) -> APIRouter:
    """Return the HTTP API of a hub as a router; ``app``, ``hub`` and ``url`` as in ``lungfish.connect``."""
    client = connect(app, hub=hub, url=url)
    return make_router(
        client,
        keys=keys,
        prefix=prefix,
        body_bytes_max=body_bytes_max,
        rate_per_s=rate_per_s,
        ui=ui,
        probes=probes,
    )


def make_server(routes: APIRouter, *, title: str) -> FastAPI:
    """Return an ASGI application that serves nothing but the HTTP API."""
    api = FastAPI(title=f"Lungfish: {title}", version="1", docs_url=None, redoc_url=None)
    api.include_router(routes)

    async def failed(_: Request, error: Exception) -> Response:
        return problem_of(error).response()

    describe = api.openapi

    def document() -> dict[str, Any]:
        return describe() if api.openapi_schema is not None else finished(describe())

    api.openapi = document  # type: ignore[method-assign]
    for kind in (HTTPException, RequestValidationError, Exception):
        api.add_exception_handler(kind, failed)
    return api


def check_address(host: str, keys: Iterable[ApiKey]) -> None:
    """Raise ``UsageError`` for a server that anyone could reach without a key."""
    if not is_loopback(host) and not tuple(keys):
        raise UsageError(
            f"listening on {host} without API keys would let anyone in; give --keys name:scope:secret "
            "(or $LUNGFISH_HTTP_KEYS), or listen on 127.0.0.1"
        )


def serve(
    api: FastAPI, *, host: str, port: int, started: Callable[[int], None], keys: Iterable[ApiKey]
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        port: 0 takes a free one.
        started: told of the port when requests are answered.

    Raises:
        UsageError: an address that others can reach, without a key, or that cannot be listened on.
    """
    import uvicorn

    check_address(host, keys)

    class Announced(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                started(self.servers[0].sockets[0].getsockname()[1])

    listening = _listen(host, port)
    # It stops gracefully, and then raises what it was stopped with once more.
    with contextlib.suppress(KeyboardInterrupt):
        Announced(uvicorn.Config(api, log_level="warning", access_log=False)).run(sockets=listening)


def _listen(host: str, port: int) -> list[socket.socket]:
    """Listen on every address of a host; raises ``UsageError`` if that works on none."""
    listening: list[socket.socket] = []
    try:
        # What is bound first decides for the others, if any port will do.
        for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            taken = listening[0].getsockname()[1] if listening else port
            with contextlib.suppress(*([OSError] if listening else [])):
                listening.append(socket.create_server((address[0], taken), family=family, backlog=2_048))
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host}:{port}: {error.strerror or error}. "
            "Choose another address with --host, another port with --port (0 takes a free one)"
        ) from error
    return listening
