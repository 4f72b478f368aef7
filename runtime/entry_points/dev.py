"""A hub in one process until a signal ends it: what ``lungfish dev`` runs."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final

from lungfish.runtime.declared.app import App
from lungfish.runtime.errors import LungfishError
from lungfish.runtime.on_redis.open_store import open_store
from lungfish.runtime.telemetry.metrics import render
from lungfish.runtime.telemetry.metrics_port import metrics_port

from .local import LocalRuntime

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def serve(
    app: App,
    url: str,
    *,
    ready: Callable[[int], None],
    draining: Callable[[], None],
    figures_on: int | None = None,
) -> None:
    """Run an app until SIGINT or SIGTERM, then finish what runs, commit and return.

    A second signal does what it always does: nothing durable is lost by that either.

    Args:
        url: the store's address.
        ready: called when the app is up, with the port of the figures (0: none).
        draining: called when a signal has come.
        figures_on: port of loopback that answers ``/metrics``; 0 takes a free one; None: none.

    Raises:
        LungfishError: the store cannot be used, or the host failed.
    """
    with asyncio.Runner(loop_factory=_fast_loop()) as runner:
        runner.run(_serve(app, url, ready, draining, figures_on))


async def _serve(
    app: App, url: str, ready: Callable[[int], None], draining: Callable[[], None], figures_on: int | None
) -> None:
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[None] = loop.create_future()

    def signalled() -> None:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
        stop.set_result(None)

    async with AsyncExitStack() as up:
        runtime = await up.enter_async_context(LocalRuntime(app, lambda: open_store(url, app.hub)))

        def figures() -> str:
            told = runtime.samples()
            return render(*(((("hub", app.hub), ("process", name)), samples) for name, samples in told))

        port = 0
        if figures_on is not None:
            port = await up.enter_async_context(metrics_port(figures_on, figures))
        for number in _SIGNALS:
            loop.add_signal_handler(number, signalled)
        ready(port)
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
