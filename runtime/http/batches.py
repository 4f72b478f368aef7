"""The route that acts on all instances of a filter, step by step; Lungfish's own.

A step is bounded, and tells of each instance what became of it. Without any filter it is refused, and so is a
parameter that is not known: a request that lost its query, or a part of it, must not end a hub.
"""

# No "from __future__ import annotations": FastAPI must see the annotations of functions within functions.

from collections.abc import Iterable, Sequence
from enum import StrEnum
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import Field

from lungfish.runtime.client.batch_steps import BatchRefusal, BatchStep, BatchVerb

from .document import IDEMPOTENCY_KEY, PAGE, Takes, Told, described
from .filters import TOP, TOP_MAX, Filter
from .models import BatchBody
from .problems import Problem, ProblemRoute
from .service import CONTINUATION, MISSING, Service, answer, continuation


class Verb(StrEnum):
    """What is done, as the routes for one instance name it."""

    TERMINATE = "terminate"
    CANCEL = "cancel"
    SUSPEND = "suspend"
    RESUME = "resume"
    REWIND = "rewind"
    RESTART = "restart"
    PURGE = "purge"
    RAISE_EVENT = "raiseEvent"


_VERBS: Final[dict[Verb, BatchVerb]] = {
    Verb.TERMINATE: "terminate",
    Verb.CANCEL: "cancel",
    Verb.SUSPEND: "suspend",
    Verb.RESUME: "resume",
    Verb.REWIND: "rewind",
    Verb.RESTART: "restart",
    Verb.PURGE: "purge",
    Verb.RAISE_EVENT: "raise_event",
}

#: What Durable Functions' clients send beside a filter: the API key, and where to.
_BESIDE: Final = frozenset({"code", "taskHub", "connection", "systemKey"})

What = Annotated[Verb, Path(description="What is done to each.", examples=["terminate"])]


class Batch(Filter):
    """To which instances, and how."""

    reason: str = Field("", description="Why, for whoever reads the history.")
    event: str | None = Field(None, description="Of raiseEvent: its name; the body is its payload.")
    recursive: bool = Field(True, description="Of purge: also sub-orchestrations that have ended.")
    count_only: bool = Field(False, alias="countOnly", description="Do nothing, and tell how many there are.")
    top: int = Field(TOP, ge=1, le=TOP_MAX, description="Most instances of this step.")


def routes(service: Service) -> list[APIRouter]:
    """Return the route; it needs a key that may administer."""
    router = APIRouter(
        route_class=ProblemRoute, tags=["orchestrations"], dependencies=[Depends(service.may_administer)]
    )

    @router.post(
        "/batch/{verb}",
        **described(
            {200: Told("What this step came to.", BatchBody, paged=True)},
            refuses=(400, 413, 422),
            takes=Takes({"approved": True}),
            parameters=(PAGE, IDEMPOTENCY_KEY),
        ),
    )
    async def batch(request: Request, verb: What, wanted: Annotated[Batch, Query()]) -> Response:
        """Do one thing to up to ``top`` instances of a filter; the answer says where to go on."""
        _check_known(request.query_params)
        criteria, value = wanted.criteria(), await service.json_body(request)
        if value is not MISSING and verb is not Verb.RAISE_EVENT:
            text = "only raiseEvent takes a body"
            raise Problem(HTTPStatus.BAD_REQUEST, text, name="InvalidRequest")

        async def work() -> Response:
            step = await service.client.batch(
                _VERBS[verb],
                reason=wanted.reason,
                event=wanted.event,
                payload=None if value is MISSING else value,
                recursive=wanted.recursive,
                count_only=wanted.count_only,
                limit=wanted.top,
                continuation=request.headers.get(CONTINUATION) or None,
                **criteria,
            )
            body = _shown(verb, step, count_only=wanted.count_only)
            return answer(body, headers=continuation(step.continuation))

        return await service.once(request, work)

    return [router]


def _check_known(given: Iterable[str]) -> None:
    """Refuse a parameter that is none: a filter that is misspelt would not keep anything out."""
    known = {field.alias or name for name, field in Batch.model_fields.items()}
    unknown = sorted(set(given) - known - _BESIDE)
    if unknown:
        text = f"no such filter: {', '.join(unknown)}; there are: {', '.join(sorted(known))}"
        raise Problem(HTTPStatus.BAD_REQUEST, text, name="InvalidRequest")


def _shown(verb: Verb, step: BatchStep, *, count_only: bool) -> dict[str, Any]:
    return {
        "verb": verb.value,
        "countOnly": count_only,
        "matched": step.matched,
        "done": list(step.done),
        "refused": _listed(step.refused),
        "unknown": _listed(step.unknown),
        "continuation": step.continuation,
    }


def _listed(refusals: Sequence[BatchRefusal]) -> list[dict[str, str]]:
    return [{"instanceId": each.instance_id, "error": each.error, "detail": each.detail} for each in refusals]
