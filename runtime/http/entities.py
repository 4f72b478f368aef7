"""Routes for entities: those of Durable Functions (get, list, signal, delete), and a call with its result."""

# No "from __future__ import annotations": FastAPI must see the annotations of functions within functions.

from http import HTTPStatus
from typing import Annotated, Any, Final
from urllib.parse import quote, unquote

from fastapi import APIRouter, Depends, Query, Request, Response

from lungfish.runtime.client.editing import StateEdit
from lungfish.runtime.client.queries import StoredEntity
from lungfish.runtime.client.refs import EntityRef
from lungfish.runtime.declared.signatures import Signature
from lungfish.runtime.errors import InstanceNotFound
from lungfish.runtime.messages.status import EntityStatus

from .document import IDEMPOTENCY_KEY, PAGE, Takes, Told, described, timeout
from .filters import TOP, TOP_MAX
from .models import CountBody, EditBody, InspectionBody, ListedEntityBody
from .paths import Key, Name, Op, Operation
from .problems import Problem, ProblemRoute
from .service import CONTINUATION, Service, answer, arguments, checked, continuation, seconds
from .shapes import plain, shown_time

Prefix = Annotated[str, Query(description="The key begins with this.")]
Reason = Annotated[
    str,
    Query(
        description="Why; kept in the record.", min_length=1, max_length=1_000, examples=["repaired by hand"]
    ),
]

#: The operation that deletes an entity, as in Durable Functions.
DELETE: Final = "delete"


def routes(service: Service) -> list[APIRouter]:
    """Return the routes of entities, by what a caller must be allowed to do."""
    return [_looking(service), _listing(service), _acting(service), _editing(service), _casting(service)]


def _looking(service: Service) -> APIRouter:
    router = APIRouter(route_class=ProblemRoute, tags=["entities"], dependencies=[Depends(service.may_read)])

    @router.get("/entities/{name}/{key}", **described({200: Told("Its fields.", {})}, refuses=(400,)))
    async def state(name: Name, key: Key) -> Response:
        """Return the last committed state."""
        found = await service.client.entity(name, key).state()
        if found is None:
            raise InstanceNotFound(f"entity {name}/{key} does not exist")
        return answer(plain(found))

    @router.get(
        "/entities/{name}/{key}/inspect",
        **described({200: Told("As its host knows it.", InspectionBody)}, refuses=(400, 504)),
    )
    async def inspect(name: Name, key: Key) -> Response:
        """Tell who holds the entity and what waits there, as its host knows it now."""
        return answer(_inspected(await service.client.entity(name, key).inspect()))

    @router.get(
        "/entities/{name}/{key}/edits", **described({200: Told("Oldest first.", [EditBody])}, refuses=(400,))
    )
    async def edits(name: Name, key: Key) -> Response:
        """Return the records of the last edits by hand, oldest first."""
        return answer([_edited(edit) for edit in await service.client.entity(name, key).edits()])

    return router


def _listing(service: Service) -> APIRouter:
    router = APIRouter(route_class=ProblemRoute, tags=["entities"], dependencies=[Depends(service.may_read)])

    @router.get(
        "/entities/{name}",
        **described(
            {200: Told("A page of them.", [ListedEntityBody], paged=True)}, refuses=(400,), parameters=(PAGE,)
        ),
    )
    async def entities(
        request: Request,
        name: Name,
        prefix: Prefix = "",
        fetch_state: Annotated[bool, Query(alias="fetchState")] = False,
        top: Annotated[int, Query(ge=1, le=TOP_MAX)] = TOP,
    ) -> Response:
        """List the entities of a type."""
        _no_times(request)
        page = await service.client.entities_page(
            name,
            prefix=prefix,
            page_size=top,
            cursor=request.headers.get(CONTINUATION) or None,
            states=fetch_state,
        )
        return answer([_listed(found) for found in page.items], headers=continuation(page.cursor))

    @router.get(
        "/entities",
        **described(
            {200: Told("A page of them.", [ListedEntityBody], paged=True)}, refuses=(400,), parameters=(PAGE,)
        ),
    )
    async def everything(
        request: Request,
        prefix: Prefix = "",
        fetch_state: Annotated[bool, Query(alias="fetchState")] = False,
        top: Annotated[int, Query(ge=1, le=TOP_MAX)] = TOP,
    ) -> Response:
        """List the entities of all types of the app, type by type."""
        _no_times(request)
        token = request.headers.get(CONTINUATION, "")
        found, further = await _of_all_types(service, token, top, prefix=prefix, states=fetch_state)
        return answer([_listed(each) for each in found], headers=continuation(further))

    @router.get("/count/entities/{name}", **described({200: Told("How many.", CountBody)}, refuses=(400,)))
    async def count(name: Name, prefix: Prefix = "") -> Response:
        """Count the entities of a type that have a state."""
        return answer({"count": await service.client.count_entities(name, prefix=prefix)})

    return router


def _no_times(request: Request) -> None:
    """Refuse what would otherwise be passed over: a caller may purge whatever a list by time has."""
    for name in ("lastOperationTimeFrom", "lastOperationTimeTo"):
        if name in request.query_params:
            text = f"{name} is not supported: no time of an entity's last operation is kept"
            raise Problem(HTTPStatus.BAD_REQUEST, text, name="InvalidRequest")


async def _of_all_types(
    service: Service, token: str, top: int, **options: Any
) -> tuple[list[StoredEntity[Any]], str | None]:
    """Return a page over all types, and where the next begins: a type, and the cursor within it."""
    app = service.client.app
    if app is None:
        text = "this server knows no types of entities: ask for one, or serve the hub with its app"
        raise Problem(HTTPStatus.BAD_REQUEST, text, name="InvalidRequest")
    names = sorted(app.entities)
    at, _, cursor = token.partition(":")
    if token and unquote(at) not in names:
        text = f"{CONTINUATION} is none of this list: {token[:80]!r}"
        raise Problem(HTTPStatus.BAD_REQUEST, text, name="InvalidRequest")
    found: list[StoredEntity[Any]] = []
    for name in names[names.index(unquote(at)) if token else 0 :]:
        if len(found) == top:
            return found, f"{quote(name, safe='')}:"
        size = top - len(found)
        page = await service.client.entities_page(name, page_size=size, cursor=cursor or None, **options)
        found += page.items
        cursor = page.cursor or ""
        if cursor:
            return found, f"{quote(name, safe='')}:{cursor}"
    return found, None


async def _signal(service: Service, name: str, key: str, operation: str, value: Any) -> Response:
    ref = service.client.entity(name, key)
    signature = _signature(service, ref, operation)
    args, kwargs = arguments(value, signature)
    checked(args, kwargs, signature)
    await ref.signal(operation, *args, **kwargs)
    return Response(status_code=HTTPStatus.ACCEPTED)


def _acting(service: Service) -> APIRouter:
    router = APIRouter(
        route_class=ProblemRoute, tags=["entities"], dependencies=[Depends(service.may_operate)]
    )

    @router.post(
        "/entities/{name}/{key}",
        **described(
            {202: Told("It is durable.")},
            refuses=(400, 413, 422),
            takes=Takes(5, kinds=("application/json", "text/plain")),
            parameters=(IDEMPOTENCY_KEY,),
        ),
    )
    async def send(request: Request, name: Name, key: Key, op: Op) -> Response:
        """Signal an entity; the body is the operation's input. Durable when this answers."""
        _check_deletion(service, request, name, op)
        value = await service.body(request)
        return await service.once(request, lambda: _signal(service, name, key, op, value))

    @router.post(
        "/entities/{name}/{key}/call/{operation}",
        **described(
            {200: Told("The result.", {})},
            refuses=(400, 413, 422, 504),
            takes=Takes(5, kinds=("application/json", "text/plain")),
            parameters=(timeout(300, 30), IDEMPOTENCY_KEY),
        ),
    )
    async def call(request: Request, name: Name, key: Key, operation: Operation) -> Response:
        """Call an operation and answer with its result; ``timeout`` is the longest wait (s)."""
        _check_deletion(service, request, name, operation)
        value = await service.body(request)
        timeout_s = seconds(request, "timeout", 30.0, 300.0)

        async def work() -> Response:
            ref = service.client.entity(name, key)
            signature = _signature(service, ref, operation)
            args, kwargs = arguments(value, signature)
            checked(args, kwargs, signature)
            result = await ref.options(timeout=timeout_s).call(operation, *args, **kwargs)
            return answer(plain(result))

        return await service.once(request, work)

    return router


def _editing(service: Service) -> APIRouter:
    router = APIRouter(
        route_class=ProblemRoute, tags=["entities"], dependencies=[Depends(service.may_administer)]
    )

    @router.put(
        "/entities/{name}/{key}",
        **described(
            {204: Told("It is so.")},
            refuses=(400, 413, 504),
            takes=Takes({"value": 7}, {"type": "object"}, required=True),
        ),
    )
    async def edit(request: Request, name: Name, key: Key, reason: Reason) -> Response:
        """Replace the state, as its class validates it; kept on record with the reason and the key's name."""
        state = await service.json_body(request, required_type=True)
        if not isinstance(state, dict):
            raise Problem(HTTPStatus.BAD_REQUEST, "the body is an object: the fields", name="InvalidRequest")
        await service.client.entity(name, key).edit(state, reason=reason, by=request.state.caller)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    @router.delete("/entities/{name}/{key}", **described({202: Told("It is gone.")}, refuses=(400, 504)))
    async def purge(request: Request, name: Name, key: Key, reason: Reason = "over HTTP") -> Response:
        """Delete the state, the reminders and the records of edits."""
        await service.client.entity(name, key).purge(reason=reason, by=request.state.caller)
        return Response(status_code=HTTPStatus.ACCEPTED)  # as in Durable Functions, whose clients look at it

    return router


def _inspected(status: EntityStatus) -> dict[str, Any]:
    return {
        "holder": status.holder,
        "since": shown_time(status.since) if status.since is not None else None,
        "waiting": list(status.waiting),
        "operations": status.operations,
        "running": list(status.running),
        "size": status.size,
        "edits": status.edits,
    }


def _edited(edit: StateEdit) -> dict[str, Any]:
    return {
        "number": edit.number,
        "at": shown_time(edit.at),
        "reason": edit.reason,
        "by": edit.by,
        "before": plain(edit.before),
        "beforeHash": edit.before_hash,
        "afterHash": edit.after_hash,
    }


def _casting(service: Service) -> APIRouter:
    router = APIRouter(
        route_class=ProblemRoute, tags=["entities"], dependencies=[Depends(service.may_administer)]
    )

    @router.post(
        "/entities/{name}",
        **described(
            {202: Told("It is durable.")},
            refuses=(400, 413, 422),
            takes=Takes(5, kinds=("application/json", "text/plain")),
            parameters=(IDEMPOTENCY_KEY,),
        ),
    )
    async def broadcast(
        request: Request,
        name: Name,
        op: Op,
        prefix: Annotated[str, Query(description="Only where the key begins with this.")] = "",
    ) -> Response:
        """Signal every entity of a type that has a state. Durable when this answers."""
        value = await service.body(request)

        async def work() -> Response:
            # The key is of no matter: only the operation's parameters are looked up.
            signature = _signature(service, service.client.entity(name, "any"), op)
            args, kwargs = arguments(value, signature)
            checked(args, kwargs, signature)
            await service.client.broadcast(name, op, *args, prefix=prefix, **kwargs)
            return Response(status_code=HTTPStatus.ACCEPTED)

        return await service.once(request, work)

    return router


def _listed(found: Any) -> dict[str, Any]:
    return {"entityId": {"name": found.name, "key": found.key}, "state": plain(found.state)}


def _signature(service: Service, ref: EntityRef[Any], operation: str) -> Signature | None:
    """Return an operation's parameters where the app is known; raises ``NotRegistered``."""
    app = service.client.app
    return None if app is None else app.find_operation(ref.name, operation).signature


def _check_deletion(service: Service, request: Request, name: str, operation: str) -> None:
    """Refuse the built-in deletion to whoever may not purge; without the app, whatever has its name."""
    app = service.client.app
    if operation == DELETE and (app is None or app.find_operation(name, operation).built_in):
        service.may_administer(request)
