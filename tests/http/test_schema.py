"""The OpenAPI document holds: requests drawn from it are answered as it says, on a real server and store.

``LUNGFISH_SCHEMA_EXAMPLES`` draws more of each route than the few that the suite has time for
(``LUNGFISH_SCHEMA_EXAMPLES=2000 pytest tests/http/test_schema.py -s``), and then other ones each time.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from typing import Any
from zlib import crc32

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.http.app import BROKEN, app
from tests.http.conftest import ServeApp, Served

EXAMPLES = int(os.environ.get("LUNGFISH_SCHEMA_EXAMPLES", "0"))
#: What each answer is held against.
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
#: Errors of a server that a request asks for, and with what.
WANTED = {500: "returnInternalServerErrorOnFailure", 504: "timeout"}
#: Names that there are, so that not everything is answered with 404.
KNOWN = {
    "instance_id": ("waits", "done", "failed", "asked"),
    "name": ("Counter", "Note", "echo", "wait", "account", "default", "deposit", "current"),
    "key": ("hits", "other"),
    "operation": ("add", "get", "fail"),
    "op": ("add", "remove", "fail"),
    "event": ("go", "close"),
    "id": ("nightly",),
    "instanceIdPrefix": ("w", "d"),
    "runtimeStatus": ("Running", "Failed,Completed"),
    "tag": (["a=b"],),
    "target": ("Counter", "Counter/hits"),
    "entity": ("Counter",),
    "orchestration": ("echo",),
}


async def fill(served: Served) -> None:
    """Make some of everything."""
    client = served.client
    BROKEN.add("second")
    await client.start("wait", id="waits", tags={"a": "b"})
    await client.run("echo", 1, id="done")
    await client.start("visit", "second", id="failed")
    await client.start("account", id="asked")
    await client.entity("Counter", "hits").call("add", 1)
    nightly = {"every": 3_600, "orchestration": "echo", "args": [1]}
    (await served.http.put("/schedules/nightly", json=nightly)).raise_for_status()


def known(drawn: Any) -> Any:
    """Put names that there are in the place of about half of those that were drawn."""
    if isinstance(drawn, dict):
        for name, value in drawn.items():
            drawn_number = crc32(str(value).encode("utf-8", "replace"))
            if name in KNOWN and drawn_number % 2:
                drawn[name] = KNOWN[name][drawn_number // 2 % len(KNOWN[name])]
            if name == "timeout" and isinstance(value, int | float):
                drawn[name] = min(value, 0.2)  # nobody wants to wait
    return drawn


def explore(origin: str) -> Counter[str]:
    """Ask every route; return how often each status came."""
    schema = schemathesis.openapi.from_url(f"{origin}/openapi.json")
    seen: Counter[str] = Counter()
    for found in schema.get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]  # the document is sound
        if not operation.path.endswith("/watch"):  # a stream has no end
            ask(operation, seen)
    return seen


def ask(operation: Any, seen: Counter[str]) -> None:
    strategies = [operation.as_strategy(generation_mode=mode) for mode in GenerationMode]
    for strategy in strategies:

        @settings(
            max_examples=max(1, EXAMPLES) if EXAMPLES else 6,
            derandomize=not EXAMPLES,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=[*HealthCheck],  # pyright: ignore[reportArgumentType]
        )
        @given(case=strategy)
        def check(case: Any) -> None:
            case.path_parameters, case.query = known(case.path_parameters), known(case.query)
            response = case.call()
            seen[f"{response.status_code}"] += 1
            wanted = WANTED.get(response.status_code) in (case.query or {})
            case.validate_response(response, checks=CHECKS[1:] if wanted else CHECKS)

        check()


async def test_every_route_answers_as_the_document_says(serve_app: ServeApp) -> None:
    async with serve_app(app, rate_per_s=1_000_000) as served:
        await fill(served)
        seen = await asyncio.to_thread(explore, served.origin)
        print(dict(sorted(seen.items())))
        assert (await asyncio.to_thread(requests.get, f"{served.origin}/openapi.json")).ok
        assert sum(seen.values()) > 300
        assert seen["200"] > 50
