"""An event loop in a thread of its own, for callers that have none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from lungfish.runtime.errors import StoreUnavailable

R = TypeVar("R")


async def _end_tasks() -> None:
    """End what still runs on this loop, as ``asyncio.run`` does."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()


class LoopThread:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self._closed = False
        self._lock = threading.Lock()
        self._loop = _new_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lungfish client", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine there and wait for its result here."""
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("a blocking client cannot be used from its own event loop")
        with self._lock:  # what is accepted here is there when ``close`` ends what runs
            if self._closed:
                work.close()
                raise StoreUnavailable("this connection was closed")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            if self._closed:
                raise StoreUnavailable("this connection was closed") from None
            raise
        except BaseException:
            future.cancel()  # a KeyboardInterrupt here must not leave it running there
            raise

    def close(self) -> None:
        """Stop the loop and its thread; calls of other threads that still wait fail."""
        with self._lock:
            self._closed = True
        asyncio.run_coroutine_threadsafe(_end_tasks(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _new_loop() -> asyncio.AbstractEventLoop:
    """Return a loop of uvloop, which is about twice as fast, or the standard one where that is missing."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
