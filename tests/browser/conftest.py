"""The dashboard in a real browser, before a real hub. Run by ``make browser``: docs/adr/0040."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from lungfish.runtime.client.client import Client
from lungfish.runtime.on_redis.open_store import open_store
from lungfish.runtime.store.store import Store
from tests.browser.app import STRIKES, app, counted
from tests.browser.chromium import Browser, Sight, launched
from tests.browser.ran import Ran
from tests.http.conftest import ServeApp, Served, serve_app
from tests.servers import Server

__all__ = ["serve_app"]


class Shop:
    """The hub that is looked at, and who looks."""

    def __init__(self, served: Served, sight: Sight, open_store: Callable[[], Store]) -> None:
        self.open_store = open_store
        self.served = served
        self.sight = sight

    @property
    def client(self) -> Client:
        return self.served.client

    def stranger(self) -> Client:
        """A client that does not know the app, and so sends whatever it likes."""
        return Client(self.open_store)


OpenShop = Callable[..., AbstractAsyncContextManager[Shop]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let all tests here share one event loop, and so one browser."""
    for item in items:
        if "tests/browser" in item.path.as_posix() and isinstance(item, pytest.Function):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.fixture(scope="session")
def ran(request: pytest.FixtureRequest) -> Iterator[Ran]:
    """What has run; when all tests here have, every function of the dashboard must have."""
    ran = Ran()
    yield ran
    if all_of_them(request.session):
        never = "\n".join(f"{file} at {begins}: {name}" for file, name, begins in ran.never())
        assert not never, f"functions of the dashboard that no test has called:\n{never}"


def all_of_them(session: pytest.Session) -> bool:
    """Whether the session runs all tests of this folder, and none has failed."""
    files = {path.name for path in Path(__file__).parent.glob("test_*.py")}
    narrowed = session.config.option.keyword or session.config.option.lf
    return not narrowed and not session.testsfailed and files <= {item.path.name for item in session.items}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with launched() as browser:
        yield browser


@pytest.fixture
def open_shop(serve_app: ServeApp, browser: Browser, ran: Ran, valkey: Server, hub_name: str) -> OpenShop:
    """``async with open_shop(width=400, dark=True) as shop:``; what the page complains of fails the test."""

    @contextlib.asynccontextmanager
    async def opened(
        width: int = 1280, *, dark: bool = False, served_app: Any = app, **options: Any
    ) -> AsyncIterator[Shop]:
        counted.clear()
        STRIKES.clear()
        async with serve_app(served_app, **options) as served:
            page = await browser.new_page(
                viewport={"width": width, "height": 800},
                color_scheme="dark" if dark else "light",
                locale="en-GB",
            )
            sight = Sight(page, served.origin)
            await ran.begin(page)
            sight.leaving = lambda: ran.take(page)
            try:
                yield Shop(served, sight, lambda: open_store(valkey.url, hub_name))
                sight.check()
            finally:
                counted.set()
                await ran.end(page)
                await page.close()

    return opened
