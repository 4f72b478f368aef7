"""What a cluster asks of the HTTP server: is it alive, can it work, and its figures for Prometheus.

Rules:

* Probes need no key and tell nothing but a word: they answer whoever can reach the port.
* ``/healthz`` asks nobody: a store that is away is no reason to restart this process. ``/readyz`` asks the
  store.
* ``/metrics`` needs a key like everything else that looks (``Authorization: Bearer …``, scope ``read``).
"""

# No "from __future__ import annotations": FastAPI must see the annotations of functions within functions.

import asyncio
from collections.abc import Iterator
from http import HTTPStatus
from typing import Final

from fastapi import APIRouter, Depends, Response

from lungfish.runtime.client.client import Client
from lungfish.runtime.errors import LungfishError
from lungfish.runtime.messages.status import RuntimeStatus
from lungfish.runtime.telemetry.figures import hub_samples
from lungfish.runtime.telemetry.metrics import Sample, render

from .problems import ProblemRoute
from .service import Service

#: How long the store may take to answer a probe (s).
READY_S: Final = 5.0
TEXT_FORM: Final = "text/plain; version=0.0.4; charset=utf-8"


def probe_routes(service: Service) -> APIRouter:
    """Return the routes, to be mounted without a prefix."""
    router = APIRouter(route_class=ProblemRoute, include_in_schema=False)

    @router.get("/healthz")
    def healthz() -> Response:
        return _word("ok")

    @router.get("/readyz")
    async def readyz() -> Response:
        try:
            async with asyncio.timeout(READY_S):
                await service.client.hub_status()
        except (LungfishError, TimeoutError):
            return _word("the store does not answer", HTTPStatus.SERVICE_UNAVAILABLE)
        return _word("ok")

    @router.get("/metrics", dependencies=[Depends(service.may_read)])
    async def metrics() -> Response:
        text = render(((("hub", service.hub),), await read_samples(service.client)))
        return Response(text, media_type=TEXT_FORM)

    return router


async def read_samples(client: Client) -> Iterator[Sample]:
    """Read the figures of a hub: a few small calls to the store."""
    status = await client.hub_status()
    counts = await asyncio.gather(*(client.count_instances(status=each) for each in RuntimeStatus))
    names = sorted({queue for worker in status.workers for queue in worker.queues})
    queues = await asyncio.gather(*(client.queue(name).info() for name in names))
    return hub_samples(status, dict(zip(map(str, RuntimeStatus), counts, strict=True)), queues)


def _word(text: str, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(text + "\n", int(status), media_type="text/plain")
