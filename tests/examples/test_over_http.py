"""The example of the HTTP API runs as it stands, beside a host."""

from __future__ import annotations

import httpx

from examples import over_http
from examples.hello_cities import app
from lungfish.runtime.http.shapes import PREFIX
from tests.local import RunApp
from tests.servers import Server

GREETINGS = ["Hello, Tokyo!", "Hello, Seattle!", "Hello, Cairo!"]


async def test_hello_cities_over_http(run_app: RunApp, valkey: Server, hub_name: str) -> None:
    async with run_app(app):
        assert await over_http.main(valkey.url, hub_name) == GREETINGS


async def test_running_and_then_completed(run_app: RunApp, valkey: Server, hub_name: str) -> None:
    async with run_app(app):
        pass  # the first host makes the hub; then it is away
    async with over_http.serving(over_http.make_api(valkey.url, hub_name)) as address:
        async with httpx.AsyncClient(base_url=address, timeout=60) as http:
            assert (await http.get("/")).json()["look"] == "/ui/"
            # No host runs: it is accepted, durably, and does not begin.
            url = f"{PREFIX}/orchestrators/hello_cities/first"
            async with run_app(app):
                status = await over_http.poll(http, url)
    assert status["runtimeStatus"] == "Completed"
    assert status["createdTime"] <= status["lastUpdatedTime"]
