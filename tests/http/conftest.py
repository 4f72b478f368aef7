"""The HTTP API over a real store, on a real port, asked by a plain HTTP client."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest
import uvicorn

import lungfish
import lungfish.http
from lungfish.runtime.client.client import Client
from lungfish.runtime.entry_points.local import LocalRuntime
from lungfish.runtime.http.shapes import PREFIX
from lungfish.runtime.on_redis.open_store import open_store
from tests.local import RunApp
from tests.servers import Server

ServeApp = Callable[..., AbstractAsyncContextManager["Served"]]


class Served:
    """A running hub with the HTTP API in front."""

    def __init__(self, runtime: LocalRuntime, http: httpx.AsyncClient, origin: str) -> None:
        self.runtime = runtime
        self.http = http
        self.origin = origin

    @property
    def client(self) -> Client:
        return self.runtime.client


class PromptServer(uvicorn.Server):
    """Ends at once: uvicorn looks ten times a second whether it is to, and then sleeps for another tenth."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.end = asyncio.Event()

    async def main_loop(self) -> None:
        await self.on_tick(0)  # makes the headers that every answer has
        await self.end.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        while self.server_state.connections or self.server_state.tasks:
            await asyncio.sleep(0.005)
        await self.lifespan.shutdown()


@contextlib.asynccontextmanager
async def listening(api: Any) -> AsyncIterator[str]:
    """Serve an ASGI app on a free port of loopback; yield its origin."""
    server = PromptServer(uvicorn.Config(api, "127.0.0.1", 0, log_level="warning", lifespan="on"))
    # Handlers of signals belong to the test runner.
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    task = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(60):
            while not server.started:
                assert not task.done(), "the server did not start"
                await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.end.set()
        await task


@pytest.fixture
def serve_app(valkey: Server, hub_name: str, run_app: RunApp) -> ServeApp:
    """Run an app and serve it: ``async with serve_app(app) as served: await served.http.get(...)``."""

    @contextlib.asynccontextmanager
    async def serve(app: lungfish.App, **options: Any) -> AsyncIterator[Served]:
        async with run_app(app) as runtime:
            client = Client(lambda: open_store(valkey.url, hub_name), app)
            api = lungfish.http.make_server(lungfish.http.make_router(client, **options), title=app.hub)
            async with (
                listening(api) as origin,
                httpx.AsyncClient(base_url=origin + PREFIX, timeout=60) as http,
            ):
                yield Served(runtime, http, origin)

    return serve
