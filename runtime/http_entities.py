"""Routes for entities: those of Durable Functions (get, list, signal, delete), and a call with its result."""

# No "from __future__ import annotations": FastAPI must see the annotations of functions within functions.

from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from .errors import InstanceNotFound
from .http_filters import TOP, TOP_MAX
from .http_problems import ProblemRoute
from .http_service import CONTINUATION, Service, answer, arguments, checked, continuation, seconds
from .http_shapes import plain
from .refs import EntityRef
from .signatures import Signature

Name = Annotated[str, Path(description="The entity's type.", examples=["Counter"])]
Key = Annotated[str, Path(description="Which one of its type.", examples=["hits"])]

#: The operation that deletes an entity, as in Durable Functions.
DELETE: Final = "delete"


def routes(service: Service) -> list[APIRouter]:
    """Return the routes of entities, by what a caller must be allowed to do."""
    return [_looking(service), _acting(service)]


def _looking(service: Service) -> APIRouter:
    router = APIRouter(route_class=ProblemRoute, tags=["entities"], dependencies=[Depends(service.may_read)])

    @router.get("/entities/{name}/{key}", responses={404: {"description": "It does not exist."}})
    async def state(name: Name, key: Key) -> Response:
        """Return the last committed state."""
        found = await service.client.entity(name, key).state()
        if found is None:
            raise InstanceNotFound(f"entity {name}/{key} does not exist")
        return answer(plain(found))

    @router.get("/entities/{name}")
    async def entities(
        request: Request,
        name: Name,
        prefix: Annotated[str, Query(description="The key begins with this.")] = "",
        fetch_state: Annotated[bool, Query(alias="fetchState")] = False,
        top: Annotated[int, Query(ge=1, le=TOP_MAX)] = TOP,
    ) -> Response:
        """List the entities of a type."""
        page = await service.client.entities_page(
            name,
            prefix=prefix,
            page_size=top,
            cursor=request.headers.get(CONTINUATION) or None,
            states=fetch_state,
        )
        return answer([_listed(found) for found in page.items], headers=continuation(page.cursor))

    return router


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

    @router.post("/entities/{name}/{key}", status_code=202)
    async def send(
        request: Request, name: Name, key: Key, op: Annotated[str, Query(description="The operation.")]
    ) -> Response:
        """Signal an entity; the body is the operation's input. Durable when this answers."""
        value = await service.body(request)
        return await service.once(request, lambda: _signal(service, name, key, op, value))

    @router.post("/entities/{name}/{key}/call/{operation}")
    async def call(request: Request, name: Name, key: Key, operation: str) -> Response:
        """Call an operation and answer with its result; ``timeout`` is the longest wait (s)."""
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


def _listed(found: Any) -> dict[str, Any]:
    return {"entityId": {"name": found.name, "key": found.key}, "state": plain(found.state)}


def _signature(service: Service, ref: EntityRef[Any], operation: str) -> Signature | None:
    """Return an operation's parameters where the app is known; raises ``NotRegistered``."""
    app = service.client.app
    if app is None or operation == DELETE:
        return None
    return app.find_operation(ref.name, operation).signature
