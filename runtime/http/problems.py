"""Errors of the HTTP API, as problem details (RFC 9457).

Rules:

* Whatever goes wrong answers with ``application/problem+json``: ``type``, ``title``, ``status``, ``detail``.
* What Lungfish raises on purpose says what was wrong and what to do, and that is the ``detail``. Anything
  else is a 500 whose detail names nothing of the inside; the traceback goes to the log, with the id that the
  answer carries.
* The routes bring this with them (``ProblemRoute``), so that they answer alike in a user's own FastAPI app.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Scope

from lungfish.runtime.errors import (
    DeadlineExceeded,
    ExecutionFailed,
    InstanceEnded,
    InstanceExists,
    InstanceNotFound,
    InstanceRunning,
    LungfishError,
    NotRegistered,
    PayloadTooLarge,
    Refused,
    ScheduleNotFound,
    Unavailable,
    UsageError,
)

from .tracing import trace_of

logger = logging.getLogger("lungfish.http")

MEDIA_TYPE: Final = "application/problem+json"
#: What the ``type`` of a problem begins with; the rest names the error.
TYPE_PREFIX: Final = "urn:lungfish:error:"

#: The first that fits counts, so the special ones stand before the general ones.
_STATUS: Final[tuple[tuple[type[LungfishError], HTTPStatus], ...]] = (
    (InstanceNotFound, HTTPStatus.NOT_FOUND),
    (ScheduleNotFound, HTTPStatus.NOT_FOUND),
    (NotRegistered, HTTPStatus.BAD_REQUEST),
    (Refused, HTTPStatus.FORBIDDEN),
    (InstanceEnded, HTTPStatus.GONE),
    (InstanceExists, HTTPStatus.CONFLICT),
    (InstanceRunning, HTTPStatus.CONFLICT),
    (PayloadTooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (UsageError, HTTPStatus.BAD_REQUEST),
    (ExecutionFailed, HTTPStatus.UNPROCESSABLE_ENTITY),
    (DeadlineExceeded, HTTPStatus.GATEWAY_TIMEOUT),
    (Unavailable, HTTPStatus.SERVICE_UNAVAILABLE),
)


class Problem(Exception):
    """An answer other than success."""

    def __init__(
        self, status: HTTPStatus, detail: str, *, name: str = "", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.name = name or status.phrase.replace(" ", "")
        self.headers = headers or {}

    def response(self) -> Response:
        """Return the answer."""
        body = {
            "type": TYPE_PREFIX + self.name,
            "title": self.status.phrase,
            "status": int(self.status),
            "detail": self.detail,
        }
        return JSONResponse(body, int(self.status), headers=self.headers, media_type=MEDIA_TYPE)


def problem_of(error: Exception) -> Problem:
    """Return the problem that an error is to whoever asked."""
    match error:
        case Problem():
            return error
        case RequestValidationError():
            return Problem(HTTPStatus.BAD_REQUEST, _validation_text(error), name="InvalidRequest")
        case HTTPException():
            status = HTTPStatus(error.status_code)
            # Durable Functions knows no 405: a verb that a path does not have is not found.
            missing = status is HTTPStatus.METHOD_NOT_ALLOWED
            return Problem(HTTPStatus.NOT_FOUND if missing else status, str(error.detail))
        case LungfishError():
            found = next((status for cls, status in _STATUS if isinstance(error, cls)), None)
            if found is not None:
                headers = {"Retry-After": "1"} if found is HTTPStatus.SERVICE_UNAVAILABLE else None
                return Problem(found, str(error), name=type(error).__name__, headers=headers)
    incident = uuid.uuid4().hex[:12]
    logger.error("incident %s", incident, exc_info=error)
    text = f"an internal error; the server's log has it under incident {incident}"
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, text)


def _validation_text(error: RequestValidationError) -> str:
    lines = []
    for found in error.errors():
        where = ".".join(str(part) for part in found["loc"])
        lines.append(f"{where}: {found['msg']}")
    return "; ".join(lines)


#: Stands for a slash within a segment while a path is matched; no id may hold it.
_SLASH: Final = "\0"


class ProblemRoute(APIRoute):
    """A route that answers every error with a problem, and whose parameters may hold a slash (as ``%2F``)."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match the path as it was sent: a server decodes it first, and takes ``a%2Fb`` for two segments."""
        raw = scope.get("raw_path") or b""
        if b"%2F" not in raw.upper():
            return super().matches(scope)
        sent = raw.decode("latin-1").partition("?")[0]
        path = unquote(sent.replace("%2F", "%00").replace("%2f", "%00"))
        match, found = super().matches({**scope, "path": path})
        for name, value in found.get("path_params", {}).items():
            if isinstance(value, str):
                found["path_params"][name] = value.replace(_SLASH, "/")
        return match, found

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler that FastAPI calls, with every error turned into an answer."""
        handle = super().get_route_handler()

        async def handle_all(request: Request) -> Response:
            try:
                with trace_of(request.headers):
                    return await handle(request)
            except Exception as error:
                return problem_of(error).response()

        return handle_all
