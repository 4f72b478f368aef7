"""Routes that ask and change the code of an instance, and those that end or begin its life again.

``query``, ``update`` and ``fork`` are Lungfish's own; ``rewind``, ``restart`` and purging are as in Durable
Functions.
"""

# No "from __future__ import annotations": FastAPI must see the annotations of functions within functions.

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from lungfish.runtime.errors import InstanceEnded, InstanceNotFound
from lungfish.runtime.messages.status import RuntimeStatus

from .document import FAIL, IDEMPOTENCY_KEY, POLLING, Takes, Told, described, timeout
from .models import DeletedBody
from .orchestrations import FAILED, STARTED, Filtered, outcome
from .paths import Handler, InstanceId, Reason
from .problems import Problem, ProblemRoute
from .service import Service, answer, arguments, seconds
from .shapes import plain

New = Annotated[bool, Query(alias="restartWithNewInstanceId", description="Leave this one as it is.")]


def routes(service: Service) -> list[APIRouter]:
    """Return the routes, by what a caller must be allowed to do."""
    return [_asking(service), _changing(service), _administering(service)]


def _asking(service: Service) -> APIRouter:
    router = APIRouter(
        route_class=ProblemRoute, tags=["orchestrations"], dependencies=[Depends(service.may_read)]
    )

    @router.post(
        "/instances/{instance_id}/query/{name}",
        **described(
            {200: Told("The answer.", {})},
            refuses=(400, 413, 422, 504),
            takes=Takes({"verbose": True}),
            parameters=(timeout(300, 30),),
        ),
    )
    async def query(request: Request, instance_id: InstanceId, name: Handler) -> Response:
        """Ask the orchestration's code; the body is the query's input. Changes nothing."""
        args, kwargs = _given(await service.json_body(request))
        timeout_s = seconds(request, "timeout", 30.0, 300.0)
        handle = service.client.orchestration(instance_id)
        return answer(plain(await handle.query(name, *args, timeout=timeout_s, **kwargs)))

    return router


def _changing(service: Service) -> APIRouter:
    router = APIRouter(
        route_class=ProblemRoute, tags=["orchestrations"], dependencies=[Depends(service.may_operate)]
    )

    @router.post(
        "/instances/{instance_id}/update/{name}",
        **described(
            {200: Told("What its handler returned.", {})},
            refuses=(400, 410, 413, 422, 504),
            takes=Takes({"amount": 5}),
            parameters=(timeout(300, 30), IDEMPOTENCY_KEY),
        ),
    )
    async def update(request: Request, instance_id: InstanceId, name: Handler) -> Response:
        """Ask the orchestration's code for a change, once for each ``Idempotency-Key``; tells its outcome."""
        args, kwargs = _given(await service.json_body(request))
        timeout_s = seconds(request, "timeout", 30.0, 300.0)
        handle = service.client.orchestration(instance_id)
        id = service.idempotent_id(request)
        return answer(plain(await handle.update(name, *args, id=id, timeout=timeout_s, **kwargs)))

    @router.post(
        "/instances/{instance_id}/restart",
        **described(
            {202: STARTED, 200: Told("Its output.", {}), 500: FAILED},
            refuses=(400, 409, 422, 504),
            parameters=(timeout(300, 0), POLLING, FAIL, IDEMPOTENCY_KEY),
        ),
    )
    async def restart(request: Request, instance_id: InstanceId, new_id: New = True) -> Response:
        """Start an instance that has ended once more, with the same input."""

        async def work() -> Response:
            again = await service.client.orchestration(instance_id).restart(new_id=new_id)
            return await service.result_or_status(request, again, lambda: outcome(request, again))

        return await service.once(request, work)

    return router


def _administering(service: Service) -> APIRouter:
    router = APIRouter(
        route_class=ProblemRoute, tags=["orchestrations"], dependencies=[Depends(service.may_administer)]
    )

    @router.post(
        "/instances/{instance_id}/rewind", **described({202: Told("Accepted.")}, refuses=(400, 409, 410, 504))
    )
    async def rewind(instance_id: InstanceId, reason: Reason = "") -> Response:
        """Let a failed instance go on from where it failed; 410 if it ended otherwise."""
        handle = service.client.orchestration(instance_id)
        status = (await handle.status()).runtime_status
        if status.is_terminal and status is not RuntimeStatus.FAILED:
            raise InstanceEnded(f"instance {instance_id!r} is {status}: only a failed one can be rewound")
        await handle.rewind(reason)
        return Response(status_code=HTTPStatus.ACCEPTED)

    @router.post(
        "/instances/{instance_id}/fork",
        **described({202: STARTED}, refuses=(400, 409, 422, 504), parameters=(IDEMPOTENCY_KEY,)),
    )
    async def fork(
        request: Request,
        instance_id: InstanceId,
        at: Annotated[
            int, Query(ge=1, description="How many events of the history it begins with.", examples=[4])
        ],
        new: Annotated[str | None, Query(alias="newInstanceId")] = None,
    ) -> Response:
        """Start a new instance with the beginning of this one's history."""

        async def work() -> Response:
            made = await service.client.orchestration(instance_id).fork(at=at, id=new)
            return service.check_status(request, made.id)

        return await service.once(request, work)

    @router.delete(
        "/instances/{instance_id}",
        **described({200: Told("It is purged.", DeletedBody)}, refuses=(400, 409, 504)),
    )
    async def purge(instance_id: InstanceId) -> Response:
        """Forget an instance that has ended, with its history and its sub-orchestrations."""
        await service.client.purge(instance_id)
        return answer({"instancesDeleted": 1})

    @router.delete(
        "/instances", **described({200: Told("They are purged.", DeletedBody)}, refuses=(400, 504))
    )
    async def purge_many(wanted: Filtered) -> Response:
        """Forget all instances of a filter that have ended; ``createdTimeFrom`` is required."""
        if wanted.created_from is None:
            raise Problem(HTTPStatus.BAD_REQUEST, "createdTimeFrom is required", name="InvalidRequest")
        deleted = await service.client.purge_instances(**wanted.criteria())
        if not deleted:
            raise InstanceNotFound("no instance that has ended fits the filter")
        return answer({"instancesDeleted": deleted})

    return router


def _given(value: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return a body as arguments of a handler, whose parameters the host knows: an object goes by name."""
    if isinstance(value, dict):
        return [], value
    return (value, {}) if isinstance(value, list) else arguments(value, None)
