"""Server-sent events: an entity's states, an instance's status, the hub at a glance, as they change.

Rules:

* Every event is committed state. Those of an entity have its version as event id: a browser that reconnects
  sends that back (``Last-Event-ID``) and goes on after it; the state that it knows may come once more.
* A stream costs one watch of an entity, or one small read a second; there is a bound on how many there are.
* A comment is sent now and then where nothing changes, so that a peer that has gone is noticed.
"""

# No "from __future__ import annotations": FastAPI must see the annotations of functions within functions.

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from http import HTTPStatus
from typing import Annotated, Any, Final, TypeAlias

from fastapi import APIRouter, Depends, Header
from starlette.responses import StreamingResponse

from lungfish.runtime.errors import LungfishError

from .document import Told, described
from .paths import InstanceId, Key, Name
from .problems import Problem, ProblemRoute, problem_of
from .service import Service
from .shapes import plain, status_body, to_json

#: Streams of one server at a time.
STREAMS_MAX: Final = 1_000
#: How often an instance, or the hub, is looked at (s).
LOOK_S: Final = 0.5
HUB_LOOK_S: Final = 1.0
#: How often a silent stream says that it is there (s).
ALIVE_S: Final = 15.0

#: What was found, whether it is the last, and what tells it from an earlier one that looks the same.
Look: TypeAlias = tuple[Any, bool, Any]

LastId = Annotated[str | None, Header(alias="Last-Event-ID", description="Go on after this event.")]

STREAM: Final = Told("Events.", {"type": "string"}, kind="text/event-stream")


def routes(service: Service) -> list[APIRouter]:
    """Return the routes of streams."""
    router = APIRouter(route_class=ProblemRoute, tags=["watching"], dependencies=[Depends(service.may_read)])
    streams = Streams()

    @router.get("/entities/{name}/{key}/watch", **described({200: STREAM}, refuses=(400,)))
    async def watch_entity(name: Name, key: Key, last: LastId = None) -> StreamingResponse:
        """Follow an entity's committed states; ``null`` where it does not exist."""
        since = int(last) if last is not None and last.isdecimal() else None
        watch = service.client.entity(name, key).watch(since=since)

        async def events() -> AsyncIterator[bytes]:
            try:
                async for state in watch:
                    yield event("state", plain(state), str(watch.version))
            finally:
                await watch.aclose()

        return streams.response(events())

    @router.get("/instances/{instance_id}/watch", **described({200: STREAM}, refuses=(400,)))
    async def watch_instance(instance_id: InstanceId) -> StreamingResponse:
        """Follow an instance's status until it has ended: then comes ``end``."""
        handle = service.client.orchestration(instance_id)
        await handle.status()

        async def look() -> Look:
            status = await handle.status()
            # Shown times are to the second: a commit in the same one is news, too.
            return status_body(status), status.runtime_status.is_terminal, status.updated_at

        return streams.response(changes("status", look, LOOK_S))

    @router.get("/watch", **described({200: STREAM}))
    async def watch_hub() -> StreamingResponse:
        """Follow hosts, workers, partitions and what waits in them."""

        async def look() -> Look:
            return hub_body(await service.client.hub_status()), False, None

        return streams.response(changes("hub", look, HUB_LOOK_S))

    return [router]


def hub_body(status: Any) -> dict[str, Any]:
    """Return a hub at a glance."""
    return {**dataclasses.asdict(status), "load": dataclasses.asdict(status.load), "unowned": status.unowned}


def event(name: str, value: Any, id: str = "") -> bytes:
    """Return one event in the form of the standard."""
    head = f"id: {id}\n" if id else ""
    return f"{head}event: {name}\ndata: ".encode() + to_json(value) + b"\n\n"


async def changes(name: str, look: Callable[[], Awaitable[Look]], every_s: float) -> AsyncIterator[bytes]:
    """Yield what ``look`` finds whenever that is something new, until it says that it was the last."""
    known: Any = None
    while True:
        found, last, version = await look()
        if (found, version) != known:
            known = found, version
            yield event(name, found)
        if last:
            yield event("end", None)
            return
        await asyncio.sleep(every_s)


class Streams:
    """Counts the streams of a server, and keeps them alive."""

    def __init__(self) -> None:
        self._open = 0

    def response(self, events: AsyncIterator[bytes]) -> StreamingResponse:
        """Return the response that sends these events; raises ``Problem`` (503) if there are too many."""
        if self._open >= STREAMS_MAX:
            text = f"{STREAMS_MAX:,} streams are open already"
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, text, headers={"Retry-After": "5"})
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._sent(events), media_type="text/event-stream", headers=headers)

    async def _sent(self, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        self._open += 1
        try:
            async with aclosing(alive(events)) as sent:  # type: ignore[type-var]  # an async generator
                async for each in sent:
                    yield each
        except LungfishError as error:
            # The status line is long gone: what is wrong is an event, too, and the last one.
            yield event("problem", {"detail": problem_of(error).detail})
        finally:
            self._open -= 1


async def alive(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield events, and a comment whenever there was none for a while."""
    coming: asyncio.Future[bytes] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(_next(events))
            done, _ = await asyncio.wait([coming], timeout=ALIVE_S)
            if not done:
                yield b": still here\n\n"
                continue
            try:
                found = coming.result()
            except StopAsyncIteration:
                return
            finally:
                coming = None
            yield found
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.wait([coming])
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()


async def _next(events: AsyncIterator[bytes]) -> bytes:
    return await anext(events)
