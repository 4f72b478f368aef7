"""What the demo runs on: a store and a Ray cluster of its own, on this machine, that end with it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import lungfish
from lungfish.runtime.on_redis.embedded import EmbeddedServer, running_daemon, start_child

from .app import app

if TYPE_CHECKING:
    from lungfish.runtime.on_ray.cluster import Runtime  # which imports Ray: see ray_cluster

T = TypeVar("T")

HOSTS: Final = 2
#: We kill a host ourselves and say so: Ray's page about it would only hide that.
_RAY_ENVIRONMENT: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed",
}


@contextlib.contextmanager
def store_in(folder: Path, *, fresh: bool) -> Iterator[EmbeddedServer]:
    """Run a store in a folder; one that runs there already is used, and goes on.

    Args:
        fresh: begin with an empty folder (the log of a million signals adds up).
    """
    if fresh and running_daemon(folder) is None:
        shutil.rmtree(folder, ignore_errors=True)
    with start_child(folder) as server:
        yield server


@contextlib.contextmanager
def ray_cluster() -> Iterator[None]:
    """Run a Ray cluster; never the one that this process might find."""
    os.environ.update(_RAY_ENVIRONMENT)  # Ray reads it when it is imported
    import ray

    ray.init(
        address="local",
        num_cpus=HOSTS,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        with interruptible():  # anew: Ray takes SIGTERM over
            yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def runtime_on(url: str) -> Iterator[tuple[Runtime, str]]:
    """Run the app in a hub of its own, so that every run starts from nothing; yield runtime and hub."""
    hub = f"{app.hub}-{time.strftime('%Y%m%d-%H%M%S')}"
    runtime = lungfish.start(app.with_hub(hub), url=url, hosts_per_node=HOSTS)
    yield runtime, hub
    # Not after an error or Ctrl-C: then all this ends with its cluster, which loses nothing either.
    runtime.shutdown()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does. Not to code on an event loop: see ``run_interruptibly``."""

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_interruptibly(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine as ``asyncio.run`` does, which SIGTERM cancels, too; only in the main thread.

    A handler that raises would do so between any two steps of the loop. What the loop is about to call is
    lost by that, and a task that this would have woken can never be cancelled: the end of the loop waits
    for it for ever.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM; the coroutine was cancelled, and has ended.
    """

    async def cancellable() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        before = signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(task.cancel))
        try:
            return await work
        finally:
            signal.signal(signal.SIGTERM, before)

    try:
        return asyncio.run(cancellable())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
