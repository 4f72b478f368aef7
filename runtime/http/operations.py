"""Routes for whoever runs a hub: queues and their limits, what was set aside, which entities are busiest."""

# No "from __future__ import annotations": FastAPI must see the annotations of functions within functions.

from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response

from lungfish.runtime.session.dead_letters import DeadLetter
from lungfish.runtime.store.queues import QueueInfo

from .document import PAGE, Takes, Told, described
from .filters import TOP, TOP_MAX
from .models import DeadLetterBody, ForgottenBody, HotEntityBody, QueueBody, QueueChangeBody, ReplayedBody
from .paths import Letter, Queue
from .problems import Problem, ProblemRoute
from .service import CONTINUATION, Service, answer, continuation
from .shapes import shown_time

Target = Annotated[
    str | None, Query(description="Only for this entity (`Counter/hits`), type (`Counter`), or instance.")
]

#: The limits of a queue, as JSON and as ``QueueHandle.set`` name them.
LIMITS: Final = {
    "concurrency": "concurrency",
    "workerConcurrency": "worker_concurrency",
    "rate": "rate",
}


QUEUE: Final = Told("What it does.", QueueBody)


def routes(service: Service) -> list[APIRouter]:
    """Return the routes for operators, by what a caller must be allowed to do."""
    return [_looking(service), _steering(service), _changing(service)]


def _looking(service: Service) -> APIRouter:
    router = APIRouter(
        route_class=ProblemRoute, tags=["operations"], dependencies=[Depends(service.may_read)]
    )

    @router.get("/queues", **described({200: Told("By name.", [QueueBody])}))
    async def queues() -> Response:
        """List the queues that workers read or the app declares: backlog, running, limits."""
        status = await service.client.hub_status()
        names = {name for worker in status.workers for name in worker.queues}
        if service.client.app is not None:
            names |= set(service.client.app.queues())
        return answer([_queue(await service.client.queue(name).info()) for name in sorted(names)])

    @router.get("/queues/{name}", **described({200: QUEUE}, refuses=(400,)))
    async def queue(name: Queue) -> Response:
        """Return what a queue does now; one that nobody has used is empty."""
        return answer(_queue(await service.client.queue(name).info()))

    @router.get(
        "/dead-letters",
        **described(
            {200: Told("A page of them.", [DeadLetterBody], paged=True)}, refuses=(400,), parameters=(PAGE,)
        ),
    )
    async def dead_letters(
        request: Request, target: Target = None, top: Annotated[int, Query(ge=1, le=TOP_MAX)] = TOP
    ) -> Response:
        """List the messages that were set aside, with the reason; the oldest of each partition first."""
        letters = service.client.dead_letters(target)
        after, found = request.headers.get(CONTINUATION), list[DeadLetter]()
        async for letter in letters.behind(after) if after else letters:
            if len(found) == top:
                return answer([_letter(each) for each in found], headers=continuation(found[-1].id))
            found.append(letter)
        return answer([_letter(each) for each in found])

    @router.get("/hot-entities", **described({200: Told("The busiest first.", [HotEntityBody])}))
    async def hot_entities() -> Response:
        """List the busiest entities of each host in the last minutes, the busiest first; sampled."""
        found = await service.client.hot_entities()
        return answer(
            [
                {"entityId": {"name": hot.entity, "key": hot.key}, "host": hot.host, "share": hot.share}
                for hot in found
            ]
        )

    return router


def _steering(service: Service) -> APIRouter:
    router = APIRouter(
        route_class=ProblemRoute, tags=["operations"], dependencies=[Depends(service.may_operate)]
    )

    @router.post("/queues/{name}/pause", **described({200: QUEUE}, refuses=(400,)))
    async def pause(name: Queue) -> Response:
        """Begin nothing more from a queue; what runs goes on."""
        return answer(_queue(await service.client.queue(name).pause()))

    @router.post("/queues/{name}/resume", **described({200: QUEUE}, refuses=(400,)))
    async def resume(name: Queue) -> Response:
        """End a pause."""
        return answer(_queue(await service.client.queue(name).resume()))

    @router.post("/dead-letters/replay", **described({200: Told("They are sent.", ReplayedBody)}))
    async def replay_all(target: Target = None) -> Response:
        """Send all of them again that can be read, and take them from the list."""
        return answer({"messagesReplayed": await service.client.dead_letters(target).replay()})

    @router.post("/dead-letters/{id}/replay", **described({200: Told("It is sent.", ReplayedBody)}))
    async def replay(id: Letter) -> Response:
        """Send one again; it is applied exactly once, also if this is repeated."""
        await (await _find(service, id)).replay()
        return answer({"messagesReplayed": 1})

    return router


def _primary(router: APIRouter, service: Service) -> None:
    @router.post("/makeprimary", **described({200: Told("The hub is served.")}))
    async def make_primary() -> Response:
        """Do nothing: there, one of two deployments of a hub is made the one that works; here all work."""
        await service.client.hub_status()
        return Response(status_code=HTTPStatus.OK)


def _changing(service: Service) -> APIRouter:
    router = APIRouter(
        route_class=ProblemRoute, tags=["operations"], dependencies=[Depends(service.may_administer)]
    )

    @router.put(
        "/queues/{name}",
        **described(
            {200: QUEUE},
            refuses=(400, 413),
            takes=Takes({"concurrency": 10, "rate": None}, QueueChangeBody, required=True),
        ),
    )
    async def limit(request: Request, name: Queue) -> Response:
        """Set limits: ``{"concurrency": 10, "rate": null}``. Null is unlimited; what is not named stays."""
        handle, wanted = service.client.queue(name), await service.json_body(request)
        if not isinstance(wanted, dict) or not wanted or wanted.keys() - LIMITS.keys():
            text = f"the body must be an object with some of {', '.join(LIMITS)}"
            raise Problem(HTTPStatus.BAD_REQUEST, text, name="InvalidRequest")
        return answer(_queue(await handle.set(**{LIMITS[limit]: value for limit, value in wanted.items()})))

    @router.delete("/queues/{name}/limits", **described({200: QUEUE}, refuses=(400,)))
    async def reset(name: Queue) -> Response:
        """Forget limits that were set: what the app declares counts again."""
        return answer(_queue(await service.client.queue(name).reset()))

    @router.delete("/dead-letters", **described({200: Told("They are gone.", ForgottenBody)}))
    async def delete_all(target: Target = None) -> Response:
        """Delete all of them for good."""
        return answer({"messagesDeleted": await service.client.dead_letters(target).delete()})

    @router.delete("/dead-letters/{id}", **described({200: Told("It is gone.", ForgottenBody)}))
    async def delete(id: Letter) -> Response:
        """Delete one for good."""
        await (await _find(service, id)).delete()
        return answer({"messagesDeleted": 1})

    _primary(router, service)
    return router


async def _find(service: Service, id: str) -> DeadLetter:
    found = await service.client.dead_letters().find(id)
    if found is None:
        text = f"no message {id!r} is set aside: it was sent again or deleted, or never was"
        raise Problem(HTTPStatus.NOT_FOUND, text, name="DeadLetterNotFound")
    return found


def _queue(info: QueueInfo) -> dict[str, Any]:
    limits = info.limits
    return {
        "name": info.name,
        "paused": info.paused,
        "backlog": info.backlog,
        "running": info.running,
        "backlogByPriority": {str(priority): count for priority, count in info.by_priority.items()},
        "runningByWorker": dict(info.by_worker),
        "limits": {shown: getattr(limits, limit) for shown, limit in LIMITS.items()},
    }


def _letter(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "target": letter.target,
        "what": letter.what,
        "reason": letter.reason,
        "time": shown_time(letter.at) if letter.at else None,
        "size": letter.size,
    }
