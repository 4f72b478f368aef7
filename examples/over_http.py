"""The asynchronous request-reply pattern over HTTP, in a FastAPI app of one's own.

``POST /runtime/webhooks/durabletask/orchestrators/hello_cities`` answers 202 with where to look. Whoever asks
there is told 202 while it runs, and 200 with the output when it has ended: every client of Durable Functions
knows how to poll it.

Beside a host (``lungfish dev examples.hello_cities:app``), ``python -m examples.over_http`` serves, and
is its own first client.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

import lungfish
import lungfish.http
from examples.hello_cities import app
from lungfish.runtime.http.shapes import PREFIX


def make_api(url: str | None = None, hub: str | None = None) -> FastAPI:
    """Return a FastAPI app with a route of its own beside Lungfish's."""
    api = FastAPI(title="Cities")

    @api.get("/")
    def about() -> dict[str, str]:
        return {"start": f"POST {PREFIX}/orchestrators/hello_cities", "look": "/ui/"}

    api.include_router(lungfish.http.router(app, url=url, hub=hub))
    return api


async def poll(http: httpx.AsyncClient, path: str, **sent: Any) -> dict[str, Any]:
    """Start something and wait for its end as a client does that knows nothing but HTTP."""
    started = await http.post(path, **sent)
    assert started.status_code == 202, started.text
    url = started.headers["location"]
    while (status := await http.get(url)).status_code == 202:
        await asyncio.sleep(0.05)  # a client far away heeds Retry-After
    found: dict[str, Any] = status.raise_for_status().json()
    return found


@contextlib.asynccontextmanager
async def serving(api: FastAPI) -> AsyncIterator[str]:
    """Serve on a free port of this machine; yield the address."""
    server = uvicorn.Server(uvicorn.Config(api, "127.0.0.1", 0, log_level="warning"))
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    task = asyncio.create_task(server.serve())
    while not server.started and not task.done():
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


async def main(url: str | None = None, hub: str | None = None) -> list[str]:
    """Start the orchestration over HTTP and return what it came to."""
    async with serving(make_api(url, hub)) as address, httpx.AsyncClient(base_url=address) as http:
        status = await poll(http, f"{PREFIX}/orchestrators/hello_cities")
        output: list[str] = status["output"]
        return output


if __name__ == "__main__":
    print(asyncio.run(main(*sys.argv[1:2])))
