"""Probes and figures over HTTP, on a real store."""

from __future__ import annotations

import re

import httpx
import pytest

from lungfish.http import ApiKey
from lungfish.runtime.client.client import Client
from lungfish.runtime.errors import StoreUnavailable
from lungfish.runtime.telemetry.metrics_port import metrics_port
from tests.http.app import app, hello
from tests.http.conftest import ServeApp

SECRET = "0123456789abcdef"


def value(text: str, series: str) -> float:
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    assert found is not None, text
    return float(found[1])


async def test_prometheus_is_told_of_the_hub(serve_app: ServeApp, hub_name: str) -> None:
    async with serve_app(app, probes=True) as served:
        await (await served.client.start(hello)).result(20)
        response = await served.http.get(f"{served.origin}/metrics")
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
        hub = f'hub="{hub_name}"'
        assert value(response.text, f'lungfish_hub_instances{{{hub},status="Completed"}}') == 1
        assert value(response.text, f'lungfish_hub_hosts{{{hub},state="live"}}') == 1
        assert value(response.text, f"lungfish_hub_partitions_unowned{{{hub}}}") == 0
        assert value(response.text, f"lungfish_hub_commits_total{{{hub}}}") > 1
        assert value(response.text, f'lungfish_hub_queue_backlog{{{hub},queue="default"}}') == 0
        # A restart of a host does not take a hub's counters back.
        before = value(response.text, f"lungfish_hub_claims_total{{{hub}}}")
    async with serve_app(app, probes=True) as served:
        after = (await served.http.get(f"{served.origin}/metrics")).text
        assert value(after, f"lungfish_hub_claims_total{{{hub}}}") > before


async def test_probes_need_no_key_and_figures_do(serve_app: ServeApp) -> None:
    keys = [ApiKey.of("prometheus", "read", SECRET)]
    async with serve_app(app, probes=True, keys=keys) as served:
        for path in ("/healthz", "/readyz"):
            response = await served.http.get(served.origin + path)
            assert (response.status_code, response.text) == (200, "ok\n")
        assert (await served.http.get(f"{served.origin}/metrics")).status_code == 401
        headers = {"authorization": f"Bearer {SECRET}"}
        assert (await served.http.get(f"{served.origin}/metrics", headers=headers)).status_code == 200


async def test_a_router_in_another_app_has_no_probes(serve_app: ServeApp) -> None:
    async with serve_app(app) as served:
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await served.http.get(served.origin + path)).status_code == 404


async def test_without_a_store_it_lives_and_is_not_ready(
    serve_app: ServeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve_app(app, probes=True) as served:

        async def away(_: Client) -> None:
            raise StoreUnavailable("secret address")

        monkeypatch.setattr(Client, "hub_status", away)
        response = await served.http.get(f"{served.origin}/readyz")
        assert (response.status_code, response.text) == (503, "the store does not answer\n")
        assert (await served.http.get(f"{served.origin}/healthz")).status_code == 200
        assert (await served.http.get(f"{served.origin}/metrics")).status_code == 503


async def test_a_process_without_ray_tells_its_figures_on_a_port() -> None:
    async with metrics_port(0, lambda: "x 1\n") as port, httpx.AsyncClient(timeout=60) as http:
        found = await http.get(f"http://127.0.0.1:{port}/metrics?a=b")
        assert (found.status_code, found.text) == (200, "x 1\n")
        assert (await http.get(f"http://127.0.0.1:{port}/other")).status_code == 404
        assert (await http.post(f"http://127.0.0.1:{port}/metrics")).status_code == 404
