"""The HTTP API as a Ray Serve application, on a real cluster, asked by a plain HTTP client."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import lungfish
import lungfish.http
from lungfish.runtime.http.shapes import PREFIX
from tests.cluster.app import app
from tests.servers import Server

with warnings.catch_warnings():
    # Of pydantic, about Ray's own models.
    warnings.simplefilter("ignore", DeprecationWarning)
    from ray import serve

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

SECRETS = {scope: f"{scope}-secret-0123456789" for scope in ("read", "operate")}
KEYS = [lungfish.http.ApiKey.of(scope, scope, secret) for scope, secret in SECRETS.items()]


@pytest.fixture
def origin(ray_cluster: Any, durable_store: Server) -> Iterator[str]:
    runtime = lungfish.start(app, url=durable_store.url)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": 8_765})
        api = lungfish.http.deployment(app, keys=KEYS, options={"num_replicas": 2})
        serve.run(api, name="api", route_prefix="/")
        yield "http://127.0.0.1:8765"
    finally:
        serve.shutdown()
        runtime.shutdown()


def test_replicas_serve_the_hub_to_who_has_a_key(origin: str) -> None:
    api = origin + PREFIX
    assert httpx.get(f"{origin}/readyz", timeout=60).text == "ok\n"
    without = httpx.get(f"{api}/instances")
    assert (without.status_code, without.headers["content-type"]) == (401, "application/problem+json")
    reading, operating = ({"x-functions-key": secret} for secret in SECRETS.values())
    assert httpx.post(f"{api}/orchestrators/approve/a", headers=reading).status_code == 403
    started = httpx.post(f"{api}/entities/Counter/hits/call/add", json=2, headers=operating)
    assert (started.status_code, started.json()) == (200, 2)
    # Both replicas, behind one address: a state that one of them wrote, the other reads.
    assert {
        httpx.get(f"{api}/entities/Counter/hits", headers=reading).json()["value"] for _ in range(20)
    } == {2}
    assert httpx.get(f"{origin}/openapi.json").json()["paths"].keys() >= {f"{PREFIX}/count"}
    with httpx.stream("GET", f"{api}/entities/Counter/hits/watch", headers=reading) as states:
        assert next(states.iter_lines()).startswith("id:")


def test_it_refuses_to_serve_everybody() -> None:
    with pytest.raises(lungfish.UsageError, match="give keys"):
        lungfish.http.deployment(app, keys=[])
