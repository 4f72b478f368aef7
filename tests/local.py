"""A whole runtime in the test's process, on the real store, in a hub of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

import lungfish
from lungfish.runtime.local import LocalRuntime
from lungfish.runtime.open_store import open_store
from tests.servers import Server

RunApp = Callable[[lungfish.App], AbstractAsyncContextManager[LocalRuntime]]


@pytest.fixture
def run_app(valkey: Server, hub_name: str) -> RunApp:
    """Run an app: ``async with run_app(app) as runtime: await runtime.client...``."""

    @asynccontextmanager
    async def run(app: lungfish.App) -> AsyncIterator[LocalRuntime]:
        async with LocalRuntime(app, lambda: open_store(valkey.url, hub_name)) as runtime:
            yield runtime

    return run
