"""What the OpenAPI document tells of a route beyond its parameters: answers, problems, bodies, headers. Pure.

Rules:

* A route names every status that it answers with, and no other. ``tests/http/test_document.py`` holds both
  against a running server: each status has been seen, and none that is not named.
* Schemas are written into each route whole, so that they are right in a user's own FastAPI app, too, whose
  document is not ours; ``finished`` puts what comes again and again into one place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastapi import Response
from pydantic import BaseModel

from .models import ProblemBody

PROBLEM_TYPE: Final = "application/problem+json"
#: What a status other than success means, on any route.
_MEANINGS: Final[Mapping[int, str]] = {
    400: "It makes no sense, and nothing was done.",
    401: "An API key is needed, or the one shown is not known.",
    403: "Whoever asks may not do this.",
    404: "There is none of that name; or another hub is served here.",
    409: "It is taken, or has not ended.",
    410: "It has ended.",
    413: "The body, or a value in it, is too large.",
    422: "What was called failed; or the Idempotency-Key was used for another request.",
    429: "Too many requests; Retry-After says when to go on.",
    503: "The store does not answer; the outcome may be unknown.",
    504: "No answer in time; the outcome is unknown.",
}
#: Any route may answer these.
ALWAYS: Final = (401, 403, 404, 429, 503)
_REMARKS: Final = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}

IDEMPOTENCY_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Requests with the same key are done once.",
    "schema": {"type": "string", "minLength": 1},
    "example": "3f0a6c1e",
}
PAGE: Final = {
    "name": "x-ms-continuation-token",
    "in": "header",
    "required": False,
    "description": "Go on where the answer that had it ended; with the same filters.",
    "schema": {"type": "string"},
}
_PAGE_HEADER: Final = {
    "x-ms-continuation-token": {"description": "There is more: send it back.", "schema": {"type": "string"}}
}


def timeout(most: float, default: float) -> dict[str, Any]:
    """Return the parameter of a route that waits (s)."""
    return {
        "name": "timeout",
        "in": "query",
        "required": False,
        "description": "Longest wait (s).",
        "schema": {"type": "number", "minimum": 0, "maximum": most, "default": default},
    }


POLLING: Final = {
    "name": "pollingInterval",
    "in": "query",
    "required": False,
    "description": "As in Durable Functions; the end is pushed here, so it is of no matter (s).",
    "schema": {"type": "number", "minimum": 0, "maximum": 300},
}
FAIL: Final = {
    "name": "returnInternalServerErrorOnFailure",
    "in": "query",
    "required": False,
    "description": "Answer 500 for a failed instance.",
    "schema": {"type": "boolean", "default": False},
}


@dataclass(frozen=True, slots=True)
class Told:
    """One answer.

    Attributes:
        text: what it means.
        shape: the body's schema, or model, or list of a model; None: there is no body.
        headers: names of headers that come with it.
        kind: media type of the body.
    """

    text: str
    shape: type[BaseModel] | list[type[BaseModel]] | dict[str, Any] | None = None
    headers: tuple[str, ...] = ()
    paged: bool = False
    kind: str = "application/json"

    def entry(self) -> dict[str, Any]:
        """Return it as OpenAPI has it."""
        found: dict[str, Any] = {"description": self.text}
        if self.shape is not None:
            found["content"] = {self.kind: {"schema": schema_of(self.shape)}}
        headers: dict[str, Any] = {name: {"schema": {"type": "string"}} for name in self.headers}
        if self.paged:
            headers |= _PAGE_HEADER
        if headers:
            found["headers"] = headers
        return found


@dataclass(frozen=True, slots=True)
class Takes:
    """The body of a request."""

    example: Any
    shape: type[BaseModel] | dict[str, Any] | None = None
    required: bool = False
    kinds: tuple[str, ...] = ("application/json",)

    def entry(self) -> dict[str, Any]:
        """Return it as OpenAPI has it."""
        contents: dict[str, Any] = {}
        for kind in self.kinds:
            is_json = kind == "application/json"
            schema = schema_of(self.shape or {}) if is_json else {"type": "string"}
            contents[kind] = {"schema": schema, "example": self.example if is_json else "text"}
        return {"required": self.required, "content": contents}


def described(
    answers: Mapping[int, Told],
    *,
    refuses: Sequence[int] = (),
    takes: Takes | None = None,
    parameters: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return what a route's decorator takes.

    Args:
        answers: by status; the first is the usual one.
        refuses: statuses of problems, besides ``ALWAYS``.
        takes: the body.
        parameters: those that the route reads by itself, as OpenAPI has them.
    """
    responses: dict[int | str, dict[str, Any]] = {code: told.entry() for code, told in answers.items()}
    for code in sorted({*ALWAYS, *refuses}):
        responses[code] = _problem(code)
    extra: dict[str, Any] = {}
    if parameters:
        extra["parameters"] = [dict(each) for each in parameters]
    if takes is not None:
        extra["requestBody"] = takes.entry()
    first = next(iter(answers))
    # With a class that has no media type FastAPI adds no content of its own to the usual answer.
    return {
        "status_code": first,
        "response_class": Response,
        "responses": responses,
        "openapi_extra": extra or None,
    }


def _problem(code: int) -> dict[str, Any]:
    headers = (_REMARKS[code],) if code in _REMARKS else ()
    entry = Told(_MEANINGS[code], ProblemBody, kind=PROBLEM_TYPE).entry()
    if headers:
        entry["headers"] = {name: {"schema": {"type": "string"}} for name in headers}
    return entry


def schema_of(shape: type[BaseModel] | list[type[BaseModel]] | dict[str, Any]) -> dict[str, Any]:
    """Return a schema without references."""
    if isinstance(shape, dict):
        return shape
    if isinstance(shape, list):
        return {"type": "array", "items": schema_of(shape[0])}
    schema = shape.model_json_schema()
    definitions = schema.pop("$defs", {})
    whole: dict[str, Any] = _without_references(schema, definitions)
    return whole


def _without_references(schema: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_without_references(each, definitions) for each in schema]
    if not isinstance(schema, dict):
        return schema
    reference = schema.get("$ref")
    if reference is not None:
        return _without_references(definitions[reference.rpartition("/")[2]], definitions)
    return {name: _without_references(value, definitions) for name, value in schema.items()}


# --- the document of our own server ----------------------------------------------------------

_SECURITY: Final = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "x-functions-key"},
    "code": {"type": "apiKey", "in": "query", "name": "code"},
}


def finished(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document of a server of ours: without FastAPI's own 422, and each problem told of once."""
    problem = schema_of(ProblemBody)
    for path in document["paths"].values():
        for operation in path.values():
            responses = operation["responses"]
            if "application/json" in responses.get("422", {}).get("content", {}):
                del responses["422"]  # FastAPI's own: what does not validate is a 400 here
            for response in responses.values():
                content = response.get("content", {}).get(PROBLEM_TYPE)
                if content is not None:
                    content["schema"] = {"$ref": "#/components/schemas/Problem"}
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = problem
    components["securitySchemes"] = dict(_SECURITY)
    # The last one: without keys this machine is served.
    document["security"] = [*({name: list[str]()} for name in _SECURITY), {}]
    return document
