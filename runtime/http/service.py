"""What the HTTP routes stand on: one client, the rules of access, and how JSON becomes arguments."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import Query, Request, Response

from lungfish.runtime.client.client import Client
from lungfish.runtime.client.instance_handle import OrchestrationHandle
from lungfish.runtime.declared.signatures import Signature
from lungfish.runtime.errors import DeadlineExceeded, InvalidArguments, OrchestrationFailed, UsageError

from .access import Access, Scope
from .problems import Problem
from .shapes import management_urls, to_json

TaskHub = Annotated[str | None, Query(alias="taskHub", description="The hub; must be the one served here.")]
logger = logging.getLogger("lungfish.http")

#: Longest time that a request may wait for a result (s).
WAIT_S_MAX: Final = 300.0
#: How many answers are kept for requests that come again with the same ``Idempotency-Key``.
REMEMBERED_MAX: Final = 10_000


@dataclass(slots=True, eq=False)
class Service:
    """One hub, as the routes see it.

    Attributes:
        client: opened when the server starts.
        prefix: the path under which the routes stand.
        writes: what was asked and answered, by idempotency key; a start repeats under its id in any case.
    """

    client: Client
    access: Access
    prefix: str
    writes: dict[str, tuple[str, asyncio.Future[Response]]] = field(default_factory=dict)

    @property
    def hub(self) -> str:
        """Name of the hub."""
        return self.client.hub

    def signature(self, orchestration: str) -> Signature | None:
        """Return the parameters of an orchestration, where the app is known; raises ``NotRegistered``."""
        app = self.client.app
        return app.find_orchestration(orchestration).signature if app is not None else None

    # --- requests --------------------------------------------------------------------------

    def may_read(self, request: Request, task_hub: TaskHub = None) -> None:
        """Let a request pass that only looks, or raise ``Problem``: a dependency of routes."""
        self._admit(request, Scope.READ, task_hub)

    def may_operate(self, request: Request, task_hub: TaskHub = None) -> None:
        """Let a request pass that starts, sends or steers."""
        self._admit(request, Scope.OPERATE, task_hub)

    def may_administer(self, request: Request, task_hub: TaskHub = None) -> None:
        """Let a request pass that forgets, rewinds or edits."""
        self._admit(request, Scope.ADMIN, task_hub)

    def _admit(self, request: Request, scope: Scope, task_hub: str | None) -> None:
        request.state.caller = self.access.admit(request, scope)
        if task_hub is not None and task_hub.lower() != self.hub.lower():
            text = f"this server serves hub {self.hub!r}, not {task_hub!r}"
            raise Problem(HTTPStatus.NOT_FOUND, text, name="HubMismatch")

    async def json_body(self, request: Request, *, required_type: bool = False) -> Any:
        """Return the body's value; ``MISSING`` where there is none."""
        body = await self._read(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if required_type and kind != "application/json":
            text = "the body must be JSON, with 'Content-Type: application/json'"
            raise Problem(HTTPStatus.BAD_REQUEST, text, name="InvalidRequest")
        if not body.strip():
            return MISSING
        try:
            return json.loads(body, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            text = f"the body is not JSON: {error}"
            raise Problem(HTTPStatus.BAD_REQUEST, text, name="InvalidRequest") from error

    async def body(self, request: Request) -> Any:
        """Return the body's value: JSON, or text where it says so, as Durable Functions' entities take it."""
        kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        if kind == "application/json":
            return await self.json_body(request)
        body = await self._read(request)
        try:
            return body.decode() if body else MISSING
        except UnicodeDecodeError as error:
            raise Problem(HTTPStatus.BAD_REQUEST, f"the body is not UTF-8: {error}") from error

    def base(self, request: Request) -> str:
        """Return the API's own address, as the caller reached it."""
        return f"{request.url.scheme}://{request.url.netloc}{request.scope.get('root_path', '')}{self.prefix}"

    def urls(self, request: Request, instance_id: str) -> dict[str, str]:
        """Return the management payload of an instance."""
        # Not the caller's own key: URLs end up in logs. Who was given a ``code`` in a URL sends it again.
        query = f"taskHub={self.hub}&connection=Storage"
        if "code" in request.query_params:
            query += f"&code={quote(request.query_params['code'], safe='')}"
        return management_urls(self.base(request), instance_id, query)

    def check_status(self, request: Request, instance_id: str) -> Response:
        """Return what a start answers: 202, where to look, and all that can be done."""
        urls = self.urls(request, instance_id)
        headers = {"Location": urls["statusQueryGetUri"], "Retry-After": "10"}
        return answer(urls, HTTPStatus.ACCEPTED, headers)

    async def result_or_status(
        self, request: Request, handle: OrchestrationHandle[Any], read: Callable[[], Awaitable[Response]]
    ) -> Response:
        """With ``timeout`` in the query wait for the end so long; else, or in vain, say where to look."""
        timeout_s = seconds(request, "timeout", 0.0, WAIT_S_MAX)
        seconds(request, "pollingInterval", 1.0, WAIT_S_MAX)  # checked; the end is pushed to us
        if timeout_s <= 0:
            return self.check_status(request, handle.id)
        try:
            await handle.result(timeout_s)
        except DeadlineExceeded:
            return self.check_status(request, handle.id)
        except OrchestrationFailed:
            logger.debug("instance %s failed; its status says so", handle.id)
        return await read()

    def idempotent_id(self, request: Request) -> str | None:
        """Return the instance id of a start with an ``Idempotency-Key``: durable, on any server."""
        key = request.headers.get("idempotency-key")
        if key is None:
            return None
        return hashlib.sha256(f"{request.state.caller} {request.url.path} {key}".encode()).hexdigest()[:32]

    async def once(self, request: Request, work: Callable[[], Awaitable[Response]]) -> Response:
        """Do something once for all requests with one ``Idempotency-Key``, while this server remembers it."""
        key = request.headers.get("idempotency-key")
        if key is None:
            return await work()
        name = f"{request.state.caller} {request.method} {request.url.path} {key}"
        page = request.headers.get(CONTINUATION, "")
        asked = f"{request.url.query} {page} {getattr(request.state, 'body', '')}"
        known = self.writes.get(name)
        if known is not None:
            if known[0] != asked:
                text = "that Idempotency-Key was used for another request; take a new key for each"
                raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, text, name="IdempotencyKeyReused")
            return await asyncio.shield(known[1])
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self.writes[name] = asked, future
        while len(self.writes) > REMEMBERED_MAX:
            del self.writes[next(iter(self.writes))]
        try:
            done = await work()
        except BaseException as error:
            self.writes.pop(name, None)  # it may be tried again
            future.set_exception(error if isinstance(error, Exception) else RuntimeError("it was cancelled"))
            future.exception()
            raise
        future.set_result(done)
        return done

    async def _read(self, request: Request) -> bytes:
        body = await self.access.body(request)
        request.state.body = hashlib.sha256(body).hexdigest()
        return body


#: Where the continuation token of a list comes and goes.
CONTINUATION: Final = "x-ms-continuation-token"
#: There was no body.
MISSING: Final = object()


def answer(
    value: Any, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> Response:
    """Return JSON."""
    return Response(to_json(value), int(status), headers=headers, media_type="application/json")


def continuation(cursor: str | None) -> dict[str, str]:
    """Return the headers of a page: with where the next one begins, if there is one."""
    return {CONTINUATION: cursor} if cursor else {}


def arguments(value: Any, signature: Signature | None) -> tuple[list[Any], dict[str, Any]]:
    """Return a JSON body as arguments.

    One parameter takes the value as it is, as in Durable Functions. Several take an object by name, or an
    array by position. Without a body there are no arguments.
    """
    if value is MISSING:
        return [], {}
    several = signature is not None and (len(signature.raw.parameters) > 1 or signature.most < 0)
    if several and isinstance(value, dict):
        return [], value
    if several and isinstance(value, list):
        return value, {}
    if value is None and signature is not None and signature.most == 0:
        return [], {}
    return [value], {}


def checked(args: list[Any], kwargs: dict[str, Any], signature: Signature | None) -> None:
    """Raise ``InvalidArguments`` here and now for what the host would refuse."""
    if signature is not None:
        try:
            signature.restore(list(args), dict(kwargs))
        except UsageError as error:
            raise InvalidArguments(str(error)) from error


def seconds(request: Request, name: str, default: float, most: float) -> float:
    """Return a number of seconds from the query."""
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        text = f"{name} is a number of seconds from 0 to {most:g}, not {text!r}"
        raise Problem(HTTPStatus.BAD_REQUEST, text, name="InvalidRequest")
    return value


def flag(request: Request, name: str, default: bool) -> bool:
    """Return a boolean from the query."""
    text = request.query_params.get(name)
    match text.lower() if text is not None else None:
        case None:
            return default
        case "true" | "1":
            return True
        case "false" | "0":
            return False
    raise Problem(HTTPStatus.BAD_REQUEST, f"{name} is true or false, not {text!r}", name="InvalidRequest")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
