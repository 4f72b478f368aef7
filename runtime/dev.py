"""A hub in one process until a signal ends it: what ``lungfish dev`` runs."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Final

from .app import App
from .errors import LungfishError
from .local import LocalRuntime
from .open_store import open_store

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def serve(app: App, url: str, *, ready: Callable[[], None], draining: Callable[[], None]) -> None:
    """Run an app until SIGINT or SIGTERM, then finish what runs, commit and return.

    A second signal does what it always does: nothing durable is lost by that either.

    Args:
        url: the store's address.
        ready, draining: called when the app is up, and when a signal has come.

    Raises:
        LungfishError: the store cannot be used, or the host failed.
    """
    with asyncio.Runner(loop_factory=_fast_loop()) as runner:
        runner.run(_serve(app, url, ready, draining))


async def _serve(app: App, url: str, ready: Callable[[], None], draining: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[None] = loop.create_future()

    def signalled() -> None:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
        stop.set_result(None)

    async with LocalRuntime(app, lambda: open_store(url, app.hub)) as runtime:
        for number in _SIGNALS:
            loop.add_signal_handler(number, signalled)
        ready()
        failures = [host.failed for host in runtime.hosts if host.failed is not None]
        await asyncio.wait([stop, *failures], return_when=asyncio.FIRST_COMPLETED)
        for failure in failures:
            if failure.done() and (error := failure.exception()) is not None:
                raise LungfishError(f"the host failed: {error!r}") from error
        draining()


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # there is none for this platform
        return None
    return uvloop.new_event_loop
