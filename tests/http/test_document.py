"""Every route and every status of the OpenAPI document, seen on a real server with a plain HTTP client."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

import lungfish
import lungfish.http
from lungfish.runtime.client.client import Client
from lungfish.runtime.entry_points.local import LocalRuntime
from lungfish.runtime.http import streams
from lungfish.runtime.http.access import ApiKey
from lungfish.runtime.http.document import ALWAYS
from lungfish.runtime.http.shapes import PREFIX
from lungfish.runtime.on_redis.open_store import open_store
from lungfish.runtime.session.connection import Connection
from lungfish.runtime.session.sender import Sender
from tests.http.app import BROKEN, app
from tests.http.conftest import ServeApp, Served, listening
from tests.http.test_operations import set_aside
from tests.http.test_orchestrations import ended
from tests.servers import Server

Route = tuple[str, str]
NIGHTLY = {"every": 3_600, "orchestration": "echo", "args": [1]}
PAST = {"start": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:00:00Z"}
#: What a request needs so that nothing is wrong with it, by route: path parameters, and arguments for httpx.
SOUND: dict[str, dict[str, Any]] = {
    "POST /instances/{instance_id}/fork": {"params": {"at": 1}},
    "POST /batch/{verb}": {"params": {"name": "nothing"}},
    "DELETE /instances": {"params": {"createdTimeFrom": "2026-01-01T00:00:00Z"}},
    "POST /entities/{name}/{key}": {"params": {"op": "add"}},
    "POST /entities/{name}": {"params": {"op": "add"}},
    "PUT /entities/{name}/{key}": {"params": {"reason": "test"}, "json": {"value": 1}},
    "PUT /schedules/{id}": {"json": NIGHTLY},
    "POST /schedules/{id}/backfill": {"json": PAST},
    "PUT /queues/{name}": {"json": {"concurrency": 1}},
    "POST /instances/{instance_id}/raiseEvent/{event}": {"json": {}},
    "POST /orchestrators/{name}": {"json": 1},
    "POST /orchestrators/{name}/{instance_id}": {"json": 1},
}


@dataclass
class Document:
    """The document, and what was seen of it."""

    whole: dict[str, Any]
    seen: dict[Route, set[int]] = field(default_factory=lambda: defaultdict(set))

    def operations(self) -> dict[Route, dict[str, Any]]:
        return {
            (method.upper(), path.removeprefix(PREFIX)): operation
            for path, methods in self.whole["paths"].items()
            for method, operation in methods.items()
        }

    def documented(self, route: Route) -> set[int]:
        return set(map(int, self.operations()[route]["responses"]))

    def take(self, route: Route, response: httpx.Response) -> None:
        """Note an answer; it must be one that the document has."""
        code = response.status_code
        assert code in self.documented(route), (route, code, response.text)
        self.seen[route].add(code)
        entry = self.operations()[route]["responses"][str(code)]
        content = entry.get("content")
        if content is None:
            assert response.content == b"", (route, code)
            return
        ((kind, told),) = content.items()
        assert response.headers["content-type"].partition(";")[0] == kind, (route, code)
        if kind != "text/event-stream":
            validator = importlib.import_module("jsonschema").Draft202012Validator
            schema = {**told["schema"], "components": self.whole["components"]}
            assert [error.message for error in validator(schema).iter_errors(response.json())] == [], route


async def ask(
    document: Document, http: httpx.AsyncClient, method: str, path: str, /, _given: Any = None, **parts: str
) -> httpx.Response:
    """Ask a route with its path's parameters filled in; note the answer."""
    names = {
        "instance_id": "nobody",
        "name": "Counter",
        "key": "k",
        "operation": "add",
        "event": "go",
        "id": "none",
        "verb": "suspend",
        **parts,
    }
    if "{name}" in path and "/orchestrators/" in path:
        names = {**names, "name": parts.get("name", "echo")}
    given = SOUND.get(f"{method} {path}", {}) if _given is None else _given
    request = http.build_request(method, path.format(**names), **given)
    response = await http.send(request, stream=True)
    try:
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            document.take((method, path), response)
        else:
            await response.aread()
            document.take((method, path), response)
    finally:
        await response.aclose()
    return response


def with_query(route: Route, **params: Any) -> dict[str, Any]:
    """Return the arguments of a sound request with more in its query."""
    sound = SOUND.get(" ".join(route), {})
    return {**sound, "params": {**sound.get("params", {}), **params}}


@contextlib.asynccontextmanager
async def api_of(served: Served, url: str, hub: str, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the same hub once more, otherwise."""
    client = Client(lambda: open_store(url, hub), app)
    api = lungfish.http.make_server(lungfish.http.make_router(client, **options), title="other")
    async with listening(api) as origin, httpx.AsyncClient(base_url=origin + PREFIX, timeout=60) as http:
        yield http


# --- one status, on every route that has it ---


async def everywhere(document: Document, served: Served, url: str, hub: str) -> None:
    """401, 403, 404, 413 and 429, which have nothing to do with what a route does."""
    routes = document.operations()
    for route in routes:
        await ask(document, served.http, *route, {"headers": {"host": "example.org"}})
        await ask(document, served.http, *route, with_query(route, taskHub="other"))
    key = ApiKey.of("reader", "read", "reader-secret-0123456789")
    async with api_of(served, url, hub, keys=[key]) as http:
        for route in routes:
            await ask(document, http, *route, {})
    async with api_of(served, url, hub, body_bytes_max=1) as http:
        for route, operation in routes.items():
            if "requestBody" in operation:
                await ask(document, http, *route, {**with_query(route), "json": "too much"})
    async with api_of(served, url, hub, rate_per_s=0.000_1) as http:
        await http.get("/count")
        for route in routes:
            await ask(document, http, *route)


BAD_QUERY: dict[str, dict[str, Any]] = {
    "GET /instances": {"params": {"top": 0}},
    "GET /count": {"params": {"top": 0}},
    "DELETE /instances": {},
    "GET /dead-letters": {"params": {"top": 0}},
    "POST /batch/{verb}": {},
}


async def nonsense(document: Document, served: Served) -> None:
    """400: an id that nothing can have, wherever there is one; else something else that makes no sense."""
    for route in document.operations():
        if 400 not in document.documented(route):
            continue
        given = BAD_QUERY.get(" ".join(route), with_query(route))
        await ask(
            document, served.http, *route, given, **dict.fromkeys(("instance_id", "name", "key", "id"), "%01")
        )


async def used_keys(document: Document, served: Served) -> None:
    """422: an Idempotency-Key that was used for another request."""
    await served.http.post("/orchestrators/wait/keyed")
    at = await between_two_steps(served.client, "ended")
    for route, operation in document.operations().items():
        keyed = any(each["name"] == "Idempotency-Key" for each in operation.get("parameters", []))
        if not keyed or "/update/" in route[1]:
            continue  # an update is told again, whatever is asked
        instance = "keyed" if "raiseEvent" in route[1] else "new" if "orchestrators" in route[1] else "ended"
        for more in ({}, {"connection": "another"}):
            query = with_query(route, **more, **({"at": at} if "fork" in route[1] else {}))
            given = {**query, "headers": {"Idempotency-Key": f"key of {route}"}}
            await ask(document, served.http, *route, given, instance_id=instance, id="nightly")


async def between_two_steps(client: Client, id: str) -> int:
    """Return a position at which an instance can be forked."""
    for at in range(1, 20):
        with contextlib.suppress(lungfish.UsageError):
            await client.orchestration(id).fork(at=at)
            return at
    raise AssertionError("nowhere")


async def without_a_host(document: Document, http: httpx.AsyncClient, at: int) -> None:
    """504: everything that asks a host."""
    waits = [route for route in document.operations() if 504 in document.documented(route)]
    async with asyncio.TaskGroup() as group:
        for route in waits:
            names = {"instance_id": "failed" if "rewind" in route[1] else "ended", "id": "nightly"}
            given = with_query(route, at=at) if "fork" in route[1] else None
            group.create_task(ask(document, http, *route, given, **names))


async def without_a_store(document: Document, http: httpx.AsyncClient, monkeypatch: Any) -> None:
    """503: everything; a stream has begun by the time it is missed, so of those there are too many."""
    monkeypatch.setattr(streams, "STREAMS_MAX", 0)
    async with asyncio.TaskGroup() as group:
        for route in document.operations():
            group.create_task(ask(document, http, *route, id="0:1-1" if "letters" in route[1] else "none"))


# --- what a route does ---


async def looking(document: Document, served: Served) -> None:
    await ask(document, served.http, "POST", "/makeprimary")
    await ask(document, served.http, "GET", "/entities", {"params": {"top": 0}})
    for path in (
        "/entities",
        "/count",
        "/instances",
        "/watch",
        "/queues",
        "/hot-entities",
        "/schedules",
        "/dead-letters",
    ):
        await ask(document, served.http, "GET", path)
    for name in ("", "/inspect", "/edits", "/why", "/watch"):
        await ask(document, served.http, "GET", f"/entities/{{name}}/{{key}}{name}", key="hits")
    for path in ("/entities/{name}", "/count/entities/{name}", "/queues/{name}", "/queues/{name}/why"):
        await ask(document, served.http, "GET", path)
    for name in ("/why", "/watch", ""):
        await ask(document, served.http, "GET", f"/instances/{{instance_id}}{name}", instance_id="steered")


async def lives(document: Document, served: Served) -> None:
    http, one = served.http, "/instances/{instance_id}"

    async def on(id: str, method: str, rest: str, _given: Any = None, **names: str) -> None:
        await ask(document, http, method, f"{one}{rest}", _given, instance_id=id, **names)

    waited: dict[str, Any] = {"params": {"timeout": 60, "returnInternalServerErrorOnFailure": True}}
    for path in ("/orchestrators/{name}", "/orchestrators/{name}/{instance_id}"):
        await ask(document, http, "POST", path, {**waited, "json": 1}, instance_id="fast")
        failing = {**waited, "json": "second"}
        await ask(document, http, "POST", path, failing, name="visit", instance_id="failed")
    await ask(
        document, http, "POST", "/orchestrators/{name}/{instance_id}", {}, name="wait", instance_id="fast"
    )
    for code in ("fast", "failed"):
        await on(code, "GET", "", waited)
    for verb in ("rewind", "suspend", "resume", "cancel"):
        await on("steered", "POST", f"/{verb}")  # 409: it runs; 202
    await ended(http, "/instances/steered")
    await on("failed", "POST", "/restart", waited)
    await on("fast", "POST", "/restart", waited)
    await on("asked", "POST", "/restart")
    at = await between_two_steps(served.client, "ended")
    for new in ("forked", "ended"):
        await on("ended", "POST", "/fork", {"params": {"at": at, "newInstanceId": new}})
    await on("failed", "POST", "/rewind")
    for verb in ("suspend", "resume", "cancel", "terminate", "rewind"):
        await on("steered", "POST", f"/{verb}")  # 410: it has ended
    await on("steered", "POST", "/raiseEvent/{event}")
    await on("asked", "POST", "/query/{name}", name="current")
    await on("asked", "POST", "/query/{name}", name="broken")
    await on("asked", "POST", "/update/{name}", {"json": 1}, name="deposit")
    await on("asked", "POST", "/update/{name}", {"json": 1}, name="broken")
    await on("asked", "DELETE", "")
    await on("asked", "POST", "/terminate")
    await ended(http, "/instances/asked")
    await on("asked", "POST", "/update/{name}", {"json": 1}, name="deposit")
    await on("asked", "DELETE", "")
    await ask(document, http, "DELETE", "/instances")
    await ask(document, http, "POST", "/batch/{verb}")


async def entities_and_schedules(document: Document, served: Served) -> None:
    http, one = served.http, "/entities/{name}/{key}"
    await ask(document, http, "POST", f"{one}/call/{{operation}}")
    await ask(document, http, "POST", f"{one}/call/{{operation}}", operation="fail")
    await ask(document, http, "PUT", one)
    await ask(document, http, "DELETE", one)
    schedule = "/schedules/{id}"
    for _ in range(2):
        await ask(document, http, "PUT", schedule, id="fresh")
    for method, rest in (("GET", ""), ("POST", "/pause"), ("POST", "/resume"), ("POST", "/trigger")):
        await ask(document, http, method, f"{schedule}{rest}", id="fresh")
    await ask(document, http, "POST", f"{schedule}/backfill", id="fresh")
    await ask(document, http, "DELETE", schedule, id="fresh")
    queue = "/queues/{name}"
    for method, rest in (("PUT", ""), ("POST", "/pause"), ("POST", "/resume"), ("DELETE", "/limits")):
        await ask(document, http, method, f"{queue}{rest}")
    first, second = (each["id"] for each in await set_aside(served, "a", "b"))
    await ask(document, http, "POST", "/dead-letters/{id}/replay", id=first)
    await ask(document, http, "DELETE", "/dead-letters/{id}", id=second)
    await ask(document, http, "POST", "/dead-letters/replay")
    await ask(document, http, "DELETE", "/dead-letters")


def impatient(request: Any) -> Any:
    """Return it with another longest wait."""

    async def asked(self: Connection, *args: Any, timeout_s: float | None, **options: Any) -> Any:
        return await request(self, *args, timeout_s=0.2, **options)

    return asked


async def fill(served: Served) -> None:
    """Make what the requests are about."""
    BROKEN.add("second")
    for id in ("wait/steered", "account/asked"):
        await served.http.post(f"/orchestrators/{id}")
    await served.http.post("/orchestrators/hello/ended")
    await ended(served.http, "/instances/ended")
    await served.client.entity("Counter", "hits").call("add", 1)
    (await served.http.put("/schedules/nightly", json=NIGHTLY)).raise_for_status()


async def test_every_status_of_every_route_is_seen(
    serve_app: ServeApp, valkey: Server, hub_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve_app(app) as served:
        served.http.timeout = httpx.Timeout(120)
        document = Document((await served.http.get(f"{served.origin}/openapi.json")).json())
        await fill(served)
        await everywhere(document, served, valkey.url, hub_name)
        await nonsense(document, served)
        await used_keys(document, served)
        await looking(document, served)
        await lives(document, served)
        await entities_and_schedules(document, served)
    own = Server(tmp_path / "store")
    try:
        async with LocalRuntime(app, lambda: open_store(own.url, "empty")) as runtime:
            await runtime.client.run("hello", id="ended")
            with contextlib.suppress(lungfish.OrchestrationFailed):
                await runtime.client.run("visit", "second", id="failed")
            at = await between_two_steps(runtime.client, "ended")
        # Nobody is as patient here as a client is: 0.5 s in the place of 30.
        monkeypatch.setattr(Sender.__init__, "__kwdefaults__", {"give_up_s": 0.5})
        async with api_of(served, own.url, "empty") as http:
            with monkeypatch.context() as patched:
                patched.setattr(Connection, "request", impatient(Connection.request))
                await without_a_host(document, http, at)
            own.stop()
            await without_a_store(document, http, monkeypatch)
    finally:
        own.stop()
    missed = {
        route: sorted(document.documented(route) - document.seen[route])
        for route in document.operations()
        if document.documented(route) - document.seen[route]
    }
    assert not missed, f"documented, and never seen: {missed}"


async def test_every_route_tells_of_what_any_route_may_answer_and_has_examples(serve_app: ServeApp) -> None:
    async with serve_app(app) as served:
        document = Document((await served.http.get(f"{served.origin}/openapi.json")).json())
    for route, operation in document.operations().items():
        assert document.documented(route) >= set(ALWAYS), route
        for each in operation["parameters"]:
            if each["in"] == "path" or each["required"]:
                assert "example" in each or each["schema"].get("examples"), (route, each["name"])
        for body in operation.get("requestBody", {}).get("content", {}).values():
            assert "example" in body, route
