"""A whole runtime in the test's process, on the real store, in a hub of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

import lungfish
from lungfish.runtime.entry_points.local import LocalRuntime
from lungfish.runtime.on_redis.open_store import open_store
from tests.servers import Server

RunApp = Callable[..., AbstractAsyncContextManager[LocalRuntime]]


async def make_hub(url: str, hub: str) -> None:
    """Make a hub as its first host does, and leave it without hosts."""
    store = open_store(url, hub)
    await store.open()
    await store.close()


@pytest.fixture
def run_app(valkey: Server, hub_name: str) -> RunApp:
    """Run an app: ``async with run_app(app) as runtime: await runtime.client...``.

    Options are those of ``LocalRuntime``. All runs of a test share one hub.
    """

    @asynccontextmanager
    async def run(app: lungfish.App, **options: Any) -> AsyncIterator[LocalRuntime]:
        async with LocalRuntime(app, lambda: open_store(valkey.url, hub_name), **options) as runtime:
            yield runtime

    return run
