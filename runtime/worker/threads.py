"""Threads for sync activities: like ``ThreadPoolExecutor``, but a process can end while one of them runs.

Python waits at its end for the threads of its own executors. A function that hangs would keep a worker that
was told to stop from ever ending; what it was running is another worker's already.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class DaemonThreads(Executor):
    """Up to ``count`` daemon threads, made when they are first needed."""

    def __init__(self, count: int, name: str) -> None:
        """Make an executor; it has no thread yet."""
        self._count = count
        self._name = name
        self._work: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run ``fn`` in one of the threads; raises ``RuntimeError`` after ``shutdown``."""
        future: Future[R] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("these threads are shut down")
            self._work.put((future, lambda: fn(*args, **kwargs)))
            if not self._idle.acquire(blocking=False) and len(self._threads) < self._count:
                name = f"{self._name} {len(self._threads)}"
                thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()
        return future

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            _settle(*item)
            del item  # the thread may wait for long, and must not keep what it ran
            self._idle.release()
        self._work.put(None)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take nothing more; with ``wait``, return when everything has run."""
        with self._lock:
            self._closed = True
            if cancel_futures:
                self._cancel_waiting()
            self._work.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def _cancel_waiting(self) -> None:
        while True:
            try:
                item = self._work.get_nowait()
            except Empty:
                return
            if item is not None:
                item[0].cancel()


def _settle(future: Future[Any], call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except StopIteration as error:
        # No future of asyncio takes one before Python 3.12: who waits would wait for ever. As of a coroutine.
        wrong = RuntimeError("the function raised StopIteration")
        wrong.__cause__ = error
        future.set_exception(wrong)
    except BaseException as error:  # a function must not end the thread
        future.set_exception(error)
    else:
        future.set_result(result)
