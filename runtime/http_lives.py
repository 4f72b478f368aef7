"""Routes that ask and change the code of an instance, and those that end or begin its life again.

``query``, ``update`` and ``fork`` are Lungfish's own; ``rewind``, ``restart`` and purging are as in Durable
Functions.
"""

# No "from __future__ import annotations": FastAPI must see the annotations of functions within functions.

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from .errors import InstanceEnded, InstanceNotFound
from .http_orchestrations import ACCEPTED, Filtered, InstanceId, Reason, outcome
from .http_problems import Problem, ProblemRoute
from .http_service import Service, answer, arguments, seconds
from .http_shapes import plain
from .status import RuntimeStatus

New = Annotated[bool, Query(alias="restartWithNewInstanceId", description="Leave this one as it is.")]


def routes(service: Service) -> list[APIRouter]:
    """Return the routes, by what a caller must be allowed to do."""
    return [_asking(service), _changing(service), _administering(service)]


def _asking(service: Service) -> APIRouter:
    router = APIRouter(
        route_class=ProblemRoute, tags=["orchestrations"], dependencies=[Depends(service.may_read)]
    )

    @router.post("/instances/{instance_id}/query/{name}")
    async def query(request: Request, instance_id: InstanceId, name: str) -> Response:
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

    @router.post("/instances/{instance_id}/update/{name}")
    async def update(request: Request, instance_id: InstanceId, name: str) -> Response:
        """Ask the orchestration's code for a change, once for each ``Idempotency-Key``; tells its outcome."""
        args, kwargs = _given(await service.json_body(request))
        timeout_s = seconds(request, "timeout", 30.0, 300.0)
        handle = service.client.orchestration(instance_id)
        id = service.idempotent_id(request)
        return answer(plain(await handle.update(name, *args, id=id, timeout=timeout_s, **kwargs)))

    @router.post("/instances/{instance_id}/restart", status_code=202, responses=ACCEPTED)
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

    @router.post("/instances/{instance_id}/rewind", status_code=202, responses=ACCEPTED)
    async def rewind(instance_id: InstanceId, reason: Reason = "") -> Response:
        """Let a failed instance go on from where it failed; 410 if it ended otherwise."""
        handle = service.client.orchestration(instance_id)
        status = (await handle.status()).runtime_status
        if status.is_terminal and status is not RuntimeStatus.FAILED:
            raise InstanceEnded(f"instance {instance_id!r} is {status}: only a failed one can be rewound")
        await handle.rewind(reason)
        return Response(status_code=HTTPStatus.ACCEPTED)

    @router.post("/instances/{instance_id}/fork", status_code=202, responses=ACCEPTED)
    async def fork(
        request: Request,
        instance_id: InstanceId,
        at: Annotated[int, Query(ge=1, description="How many events of the history it begins with.")],
        new: Annotated[str | None, Query(alias="newInstanceId")] = None,
    ) -> Response:
        """Start a new instance with the beginning of this one's history."""

        async def work() -> Response:
            made = await service.client.orchestration(instance_id).fork(at=at, id=new)
            return service.check_status(request, made.id)

        return await service.once(request, work)

    @router.delete("/instances/{instance_id}")
    async def purge(instance_id: InstanceId) -> Response:
        """Forget an instance that has ended, with its history and its sub-orchestrations."""
        await service.client.purge(instance_id)
        return answer({"instancesDeleted": 1})

    @router.delete("/instances")
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
