"""Stateless workers: operations that keep nothing, several at once in each process; as in Orleans.

Rules:

* To the rest of the runtime their class is a type of entity whose operations are all ``@shared`` and async,
  and of which no entity ever exists: calls overlap, nothing is stored, and any key will do.
* A worker is an object of the user's class. A process makes at most ``max_local`` of them, each when it is
  first needed, and keeps them: what ``__init__`` loads is loaded once per worker. One operation at a time
  has a worker.
* Sync operations run in threads, one per worker, and never on the host's loop; async ones run on it. What
  waits for a worker is served in order.
* What an operation raises is its outcome; the worker is used again. A worker that cannot be made is tried
  again with the next operation.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from lungfish.runtime.declared.definitions import EntityDefinition, Operation, operations_of
from lungfish.runtime.errors import UsageError
from lungfish.runtime.worker.threads import DaemonThreads

from .entity import Entity


class Crew:
    """The workers of one class in this process. A copy in another process begins with none."""

    def __init__(self, cls: type[Any], name: str, most: int) -> None:
        self._cls = cls
        self._name = name
        self._most = most
        self._begin()

    def _begin(self) -> None:
        self._mine = threading.local()
        self._threads = DaemonThreads(self._most, f"lungfish {self._name}")
        # Threads are roots: without this they, and what their workers have loaded, would outlive the app.
        weakref.finalize(self, self._threads.shutdown, wait=False).atexit = False
        #: By loop: a process may have several, one after the other.
        self._idle: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Idle] = weakref.WeakKeyDictionary()

    def __reduce__(self) -> tuple[Any, ...]:
        return Crew, (self._cls, self._name, self._most)

    def run_in_thread(self, method: Callable[..., Any], args: Any, kwargs: Any) -> asyncio.Future[Any]:
        """Run a sync operation with a thread's own worker."""
        run = partial(self._run, method, args, kwargs)
        return asyncio.wrap_future(self._threads.submit(partial(contextvars.copy_context().run, run)))

    def _run(self, method: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        worker = getattr(self._mine, "worker", None)
        if worker is None:
            worker = self._mine.worker = self._cls()
        return method(worker, *args, **kwargs)

    async def run_on_loop(self, method: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Run an async operation with a worker that is free."""
        loop = asyncio.get_running_loop()
        idle = self._idle.get(loop)
        if idle is None:
            idle = self._idle[loop] = _Idle(self._most)
        async with idle.room:
            worker = idle.workers.pop() if idle.workers else self._cls()
            try:
                return await method(worker, *args, **kwargs)
            finally:
                idle.workers.append(worker)


class _Idle:
    """Workers that nobody has, and room for those that may be lent."""

    def __init__(self, most: int) -> None:
        self.room = asyncio.Semaphore(most)
        self.workers: list[Any] = []


def stateless_definition(cls: type[Any], name: str, most: int) -> EntityDefinition:
    """Return the definition under which a class of stateless workers is registered.

    Raises:
        UsageError: a class that cannot be one.
    """
    if not inspect.isclass(cls):
        raise UsageError(f"@app.stateless takes a class, not {cls!r}")
    if issubclass(cls, Entity):
        raise UsageError(f"stateless {name}: an Entity has a state; write a plain class")
    if type(most) is not int or most < 1:
        raise UsageError(f"stateless {name}: max_local is 1 or more, not {most!r}")
    given = operations_of(cls, name, object)
    if not given:
        raise UsageError(f"stateless {name} has no public method")
    if len({operation.is_async for operation in given.values()}) > 1:
        raise UsageError(
            f"stateless {name}: its operations are all async, or all sync, which run in threads: "
            "otherwise max_local would be two bounds"
        )
    crew = Crew(cls, name, most)
    made = type(cls.__name__, (Entity,), {"__module__": cls.__module__, "__doc__": cls.__doc__})
    return EntityDefinition(name, made, {at: _lent(crew, each) for at, each in given.items()})


def _lent(crew: Crew, given: Operation) -> Operation:
    method = given.function

    async def run(_entity: Entity, *args: Any, **kwargs: Any) -> Any:
        if given.is_async:
            return await crew.run_on_loop(method, args, kwargs)
        return await crew.run_in_thread(method, args, kwargs)

    return Operation(given.name, run, given.signature, shared=True, is_async=True)
