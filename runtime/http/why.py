"""Routes that say why something waits: an instance, an entity, a queue."""

# No "from __future__ import annotations": FastAPI must see the annotations of functions within functions.

from typing import Any, Final

from fastapi import APIRouter, Depends, Response

from lungfish.runtime.why.reasons import Why

from .document import Told, described
from .models import WhyBody
from .paths import InstanceId, Key, Name, Queue
from .problems import ProblemRoute
from .service import Service, answer
from .shapes import shown_time

WHY: Final = Told("What holds it up.", WhyBody)


def routes(service: Service) -> list[APIRouter]:
    """Return the routes; they only look."""
    router = APIRouter(route_class=ProblemRoute, tags=["why"], dependencies=[Depends(service.may_read)])

    @router.get("/instances/{instance_id}/why", **described({200: WHY}, refuses=(400,)))
    async def instance(instance_id: InstanceId) -> Response:
        """Say what an instance waits for, since when, until when, and who can unblock it."""
        return answer(body(await service.client.orchestration(instance_id).why()))

    @router.get("/entities/{name}/{key}/why", **described({200: WHY}, refuses=(400,)))
    async def entity(name: Name, key: Key) -> Response:
        """Say who holds an entity and what waits there."""
        return answer(body(await service.client.entity(name, key).why()))

    @router.get("/queues/{name}/why", **described({200: WHY}, refuses=(400,)))
    async def queue(name: Queue) -> Response:
        """Say what holds a queue up."""
        return answer(body(await service.client.queue(name).why()))

    return [router]


def body(why: Why) -> dict[str, Any]:
    """Return it as JSON knows it; times as everywhere in the API."""
    chain = [
        {
            "kind": reason.kind,
            "subject": reason.subject,
            "text": reason.text,
            "since": None if reason.since is None else shown_time(reason.since),
            "until": None if reason.until is None else shown_time(reason.until),
            "at": reason.at,
            "who": reason.who,
            "depth": reason.depth,
        }
        for reason in why.chain
    ]
    return {"text": why.text, "chain": chain}
