"""Routes for orchestrations: Durable Functions' management API, and what it lacks.

Verbs, parameters, codes and bodies are those of Durable Functions' extension, so that a client of it works
after a change of the base URL. Added: ``cancel``, a count, starts that repeat safely (``Idempotency-Key``).
"""

# No "from __future__ import annotations": FastAPI must see the annotations of functions within functions.

from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field

from lungfish.runtime.client.instance_handle import OrchestrationHandle
from lungfish.runtime.declared import plugged_in
from lungfish.runtime.errors import InstanceEnded
from lungfish.runtime.ids import ORCHESTRATION
from lungfish.runtime.messages.status import RuntimeStatus

from .document import FAIL, IDEMPOTENCY_KEY, PAGE, POLLING, Takes, Told, described, timeout
from .filters import Filter
from .models import CountBody, InstanceBody, ManagementBody
from .paths import Event, InstanceId, Orchestration, Reason
from .problems import ProblemRoute
from .service import CONTINUATION, MISSING, Service, answer, arguments, checked, continuation, flag
from .shapes import UNDER_WAY, plain, status_body

Filtered = Annotated[Filter, Query()]

#: How soon to look again at an instance that is under way (s).
RETRY_AFTER_S: Final = 5

UNDER: Final = Told("It is under way.", InstanceBody, ("Location", "Retry-After"))
FAILED: Final = Told("It failed, and returnInternalServerErrorOnFailure was asked for.", InstanceBody)
STARTED: Final = Told("It has begun: where to look.", ManagementBody, ("Location", "Retry-After"))
_OUTPUT: Final = Told("It has ended: its output.", {})
_INPUT: Final = Takes({"customer": 17})
_WAITS: Final = (timeout(300, 0), POLLING, FAIL, IDEMPOTENCY_KEY)
_PROBLEMS: Final = (400, 413, 422, 504)
_STARTED: Final = described(
    {202: STARTED, 200: _OUTPUT, 500: FAILED}, refuses=_PROBLEMS, takes=_INPUT, parameters=_WAITS
)
_STARTED_AS: Final = described(
    {202: STARTED, 200: _OUTPUT, 500: FAILED}, refuses=(409, *_PROBLEMS), takes=_INPUT, parameters=_WAITS
)
_STEERED: Final = described({202: Told("Accepted.")}, refuses=(400, 410, 504))


def routes(service: Service) -> list[APIRouter]:
    """Return the routes of orchestrations, by what a caller must be allowed to do."""
    reading, operating = (
        APIRouter(route_class=ProblemRoute, tags=["orchestrations"], dependencies=[Depends(may)])
        for may in (service.may_read, service.may_operate)
    )
    _looking(reading, service)
    _starting(operating, service)
    _steering(operating, service)
    return [reading, operating]


# --- starting ------------------------------------------------------------------------------


def _starting(router: APIRouter, service: Service) -> None:
    async def start(request: Request, name: str, instance_id: str | None) -> Response:
        value = await service.json_body(request)

        async def work() -> Response:
            signature = service.signature(name)
            args, kwargs = arguments(value, signature)
            checked(args, kwargs, signature)
            id = instance_id or service.idempotent_id(request)
            handle = await service.client.start(name, *args, id=id, **kwargs)
            return await service.result_or_status(request, handle, lambda: outcome(request, handle))

        return await service.once(request, work)

    @router.post("/orchestrators/{name}", **_STARTED)
    async def start_new(request: Request, name: Orchestration) -> Response:
        """Start an orchestration; the body is its input. With ``timeout`` (s) wait so long for its output."""
        return await start(request, name, None)

    @router.post("/orchestrators/{name}/{instance_id}", **_STARTED_AS)
    async def start_as(request: Request, name: Orchestration, instance_id: InstanceId) -> Response:
        """Start an orchestration under an id. If one of that name and id is there already, it is that one."""
        return await start(request, name, instance_id)


async def outcome(request: Request, handle: OrchestrationHandle[Any]) -> Response:
    """Return what an instance that has ended came to: its output, or the status of one that failed."""
    status = await handle.status()
    if status.runtime_status is RuntimeStatus.COMPLETED:
        return answer(plain(status.output))
    failed = status.runtime_status is RuntimeStatus.FAILED
    wanted = flag(request, "returnInternalServerErrorOnFailure", default=False)
    code = HTTPStatus.INTERNAL_SERVER_ERROR if failed and wanted else HTTPStatus.OK
    return answer(status_body(status), code)


class Shown(BaseModel):
    """What of an instance is shown."""

    history: bool = Field(False, alias="showHistory", description="With its events.")
    outputs: bool = Field(False, alias="showHistoryOutput", description="With inputs and results of events.")
    input: bool = Field(True, alias="showInput")
    fail: bool = Field(
        False, alias="returnInternalServerErrorOnFailure", description="Answer 500 for a failed instance."
    )


# --- looking -------------------------------------------------------------------------------


def _looking(router: APIRouter, service: Service) -> None:
    @router.get(
        "/instances/{instance_id}",
        **described({200: Told("It has ended.", InstanceBody), 202: UNDER, 500: FAILED}, refuses=(400,)),
    )
    async def status(request: Request, instance_id: InstanceId, shown: Annotated[Shown, Query()]) -> Response:
        """Tell how an instance stands. 202 with ``Retry-After`` while it is under way."""
        handle = service.client.orchestration(instance_id)
        found = await handle.status()
        history = await _history(handle, outputs=shown.outputs) if shown.history else None
        body = status_body(found, show_input=shown.input, history=history)
        if found.runtime_status in UNDER_WAY:
            location = service.urls(request, instance_id)["statusQueryGetUri"]
            headers = {"Location": location, "Retry-After": str(RETRY_AFTER_S)}
            return answer(body, HTTPStatus.ACCEPTED, headers)
        failed = shown.fail and found.runtime_status is RuntimeStatus.FAILED
        return answer(body, HTTPStatus.INTERNAL_SERVER_ERROR if failed else HTTPStatus.OK)

    @router.get(
        "/instances",
        **described(
            {200: Told("A page of them.", [InstanceBody], paged=True)}, refuses=(400,), parameters=(PAGE,)
        ),
    )
    async def instances(
        request: Request,
        wanted: Filtered,
        show_input: Annotated[bool, Query(alias="showInput")] = True,
    ) -> Response:
        """List instances, newest first; the header x-ms-continuation-token tells where to go on."""
        cursor = request.headers.get(CONTINUATION) or None
        page = await service.client.instances_page(
            **wanted.criteria(), order="newest", page_size=wanted.top, cursor=cursor
        )
        found = [status_body(status, show_input=show_input) for status in page.items]
        return answer(found, headers=continuation(page.cursor))

    @router.get("/count", **described({200: Told("How many.", CountBody)}, refuses=(400,)))
    async def count(wanted: Filtered) -> Response:
        """Count instances."""
        return answer({"count": await service.client.count_instances(**wanted.criteria())})


async def _history(handle: OrchestrationHandle[Any], *, outputs: bool) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = plugged_in.kind_class(ORCHESTRATION).management_history(
        await handle.history()
    )
    if not outputs:
        for row in shown:
            row.pop("Result", None)
            row.pop("Input", None)
    return plain(shown)  # type: ignore[no-any-return]  # a list stays one


# --- steering ------------------------------------------------------------------------------


def _verb(router: APIRouter, service: Service, name: str) -> None:
    @router.post(
        f"/instances/{{instance_id}}/{name}",
        **_STEERED,
        name=name,
        description=f"{name.capitalize()} an instance; 410 if it has ended.",
    )
    async def steer(instance_id: InstanceId, reason: Reason = "") -> Response:
        await getattr(service.client.orchestration(instance_id), name)(reason)
        return Response(status_code=HTTPStatus.ACCEPTED)


def _steering(router: APIRouter, service: Service) -> None:
    for name in ("terminate", "cancel", "suspend", "resume"):
        _verb(router, service, name)

    @router.post(
        "/instances/{instance_id}/raiseEvent/{event}",
        **described(
            {202: Told("It is durable.")},
            refuses=(400, 410, 413, 422),
            takes=Takes({"approved": True}),
            parameters=(IDEMPOTENCY_KEY,),
        ),
    )
    async def raise_event(request: Request, instance_id: InstanceId, event: Event) -> Response:
        """Raise an external event; the body is its payload."""
        value = await service.json_body(request, required_type=True)

        async def work() -> Response:
            handle = service.client.orchestration(instance_id)
            status = await handle.status()
            if status.runtime_status.is_terminal:
                raise InstanceEnded(f"instance {instance_id!r} has ended ({status.runtime_status})")
            await handle.raise_event(event, None if value is MISSING else value)
            return Response(status_code=HTTPStatus.ACCEPTED)

        return await service.once(request, work)
