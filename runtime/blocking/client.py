"""The client for code without an event loop: scripts, plain Ray actors and tasks, notebooks.

The same calls, without ``await``. An event loop of our own runs in a thread; calls from several threads
are batched together there.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from types import EllipsisType, TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from lungfish.runtime.client.client import Client, IfExists
from lungfish.runtime.client.instance_handle import OrchestrationHandle
from lungfish.runtime.client.queue_handle import QueueHandle
from lungfish.runtime.client.refs import EntityRef
from lungfish.runtime.client.watching import StateWatch
from lungfish.runtime.declared.app import EntityClass
from lungfish.runtime.declared.definitions import Orchestration
from lungfish.runtime.declared.reminders import Reminder, When
from lungfish.runtime.errors import UsageError
from lungfish.runtime.messages.status import EntityStatus, OrchestrationStatus
from lungfish.runtime.session.connection import TIMEOUT_S
from lungfish.runtime.session.dead_letters import DeadLetter, DeadLetters
from lungfish.runtime.session.entering import EnteredBlocking, check_place
from lungfish.runtime.store.queues import QueueInfo
from lungfish.runtime.telemetry.hot import HotEntity
from lungfish.runtime.telemetry.overview import HubStatus
from lungfish.runtime.why.reasons import Why

from .batches import BlockingBatches
from .editing import BlockingEditable
from .loop_thread import LoopThread
from .schedules import BlockingSchedules
from .sinks import BlockingSink
from .topics import BlockingBroadcasts, BlockingTopic

E = TypeVar("E", bound=EntityClass)
W = TypeVar("W")
T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")


class BlockingStateWatch(Generic[T]):
    """``StateWatch`` without ``await``: iterate over it, and ``close`` it or leave its ``with`` block."""

    def __init__(self, loop: LoopThread, watch: StateWatch[T]) -> None:
        self._loop = loop
        self._watch = watch

    @property
    def version(self) -> int:
        """Version of the state that came last."""
        return self._watch.version

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        """Return the next state; waits until there is one."""

        async def following() -> tuple[T] | None:
            try:
                return (await anext(self._watch),)
            except StopAsyncIteration:  # a coroutine may not raise StopIteration
                return None

        found = self._loop.run(following())
        if found is None:
            raise StopIteration
        return found[0]

    def close(self) -> None:
        """End the watch, also while another thread waits for its next state."""
        self._loop.run(self._watch.aclose())

    def __enter__(self) -> BlockingStateWatch[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class BlockingEntityRef(BlockingEditable, Generic[T]):
    """``EntityRef`` without ``await``: see there."""

    _loop: LoopThread
    _ref: EntityRef[T]

    def __init__(self, loop: LoopThread, ref: EntityRef[T]) -> None:
        self._loop = loop
        self._ref = ref

    @property
    def name(self) -> str:
        """Registered name of the entity's class."""
        return self._ref.name

    @property
    def key(self) -> str:
        """Key of the entity."""
        return self._ref.key

    def options(self, *, timeout: float | None) -> BlockingEntityRef[T]:
        """Return the same handle with another longest wait for calls (s)."""
        return BlockingEntityRef(self._loop, self._ref.options(timeout=timeout))

    @overload
    def call(
        self,
        operation: Callable[Concatenate[T, P], Coroutine[Any, Any, R]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R: ...
    @overload
    def call(self, operation: Callable[Concatenate[T, P], R], *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def call(self, operation: str, *args: Any, **kwargs: Any) -> Any: ...
    def call(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        """Run an operation and return its result; see ``EntityRef.call``."""
        return self._loop.run(self._ref.call(operation, *args, **kwargs))

    @overload
    def signal(self, operation: Callable[..., Any], *args: Any, at: When, **kwargs: Any) -> None: ...
    @overload
    def signal(
        self, operation: Callable[Concatenate[T, P], Any], *args: P.args, **kwargs: P.kwargs
    ) -> None: ...
    @overload
    def signal(self, operation: str, *args: Any, at: When | None = None, **kwargs: Any) -> None: ...
    def signal(self, operation: Any, *args: Any, **kwargs: Any) -> None:
        """Send a one-way operation, durable when this returns; see ``EntityRef.signal``."""
        self._loop.run(self._ref.signal(operation, *args, **kwargs))

    def signal_many(self, operation: Callable[..., Any] | str, batch: Iterable[Sequence[Any]]) -> None:
        """Send many one-way operations, in order; see ``EntityRef.signal_many``."""
        self._loop.run(self._ref.signal_many(operation, batch))

    def reminders(self) -> dict[str, Reminder]:
        """Return the entity's reminders by name, as last committed; see ``EntityRef.reminders``."""
        return self._loop.run(self._ref.reminders())

    def state(self) -> T | None:
        """Return the last committed state; see ``EntityRef.state``."""
        return self._loop.run(self._ref.state())

    def inspect(self) -> EntityStatus:
        """Return who holds the entity and what waits there; see ``EntityRef.inspect``."""
        return self._loop.run(self._ref.inspect())

    def why(self) -> Why:
        """Say who holds the entity and what waits there; see ``EntityRef.why``."""
        return self._loop.run(self._ref.why())

    def watch(self, since: int | None = None) -> BlockingStateWatch[T | None]:
        """Follow the committed states: ``for state in ref.watch()``; see ``EntityRef.watch``."""

        async def make() -> StateWatch[T | None]:
            return self._ref.watch(since)  # there: it belongs to that loop

        return BlockingStateWatch(self._loop, self._loop.run(make()))

    def __repr__(self) -> str:
        return repr(self._ref)


class BlockingOrchestrationHandle(Generic[T]):
    """``OrchestrationHandle`` without ``await``: see there."""

    def __init__(self, loop: LoopThread, handle: OrchestrationHandle[T]) -> None:
        self._loop = loop
        self._handle = handle

    @property
    def id(self) -> str:
        """The instance id."""
        return self._handle.id

    def status(self) -> OrchestrationStatus:
        """Return the instance as last committed."""
        return self._loop.run(self._handle.status())

    def why(self) -> Why:
        """Say what the instance waits for; see ``OrchestrationHandle.why``."""
        return self._loop.run(self._handle.why())

    def history(self) -> list[Any]:
        """Return the events of the current execution, oldest first."""
        return self._loop.run(self._handle.history())

    def result(self, timeout: float | None = None) -> T:
        """Wait for the end (at most ``timeout`` seconds) and return the result."""
        return self._loop.run(self._handle.result(timeout))

    def raise_event(self, name: str, payload: Any = None) -> None:
        """Send an external event; durable when this returns. Raises as that of ``OrchestrationHandle``."""
        self._loop.run(self._handle.raise_event(name, payload))

    def query(
        self, query: Callable[..., Any] | str, *args: Any, timeout: float | None = TIMEOUT_S, **kwargs: Any
    ) -> Any:
        """Ask the orchestration's code; see ``OrchestrationHandle.query``."""
        return self._loop.run(self._handle.query(query, *args, timeout=timeout, **kwargs))

    def update(
        self,
        update: Callable[..., Any] | str,
        *args: Any,
        id: str | None = None,
        timeout: float | None = TIMEOUT_S,
        **kwargs: Any,
    ) -> Any:
        """Ask the orchestration's code for a change; see ``OrchestrationHandle.update``."""
        return self._loop.run(self._handle.update(update, *args, id=id, timeout=timeout, **kwargs))

    def terminate(self, reason: str = "") -> None:
        """End the instance now."""
        self._loop.run(self._handle.terminate(reason))

    def cancel(self, reason: str = "") -> None:
        """Ask the instance to end; its cleanup code runs. See ``OrchestrationHandle.cancel``."""
        self._loop.run(self._handle.cancel(reason))

    def rewind(self, reason: str = "") -> None:
        """Let a failed instance go on from where it failed; see ``OrchestrationHandle.rewind``."""
        self._loop.run(self._handle.rewind(reason))

    def restart(self, *, new_id: bool = False) -> BlockingOrchestrationHandle[T]:
        """Start an instance that has ended once more; see ``OrchestrationHandle.restart``."""
        return BlockingOrchestrationHandle(self._loop, self._loop.run(self._handle.restart(new_id=new_id)))

    def fork(self, *, at: int, id: str | None = None) -> BlockingOrchestrationHandle[T]:
        """Start a new instance with the beginning of this one's history; see ``OrchestrationHandle.fork``."""
        return BlockingOrchestrationHandle(self._loop, self._loop.run(self._handle.fork(at=at, id=id)))

    def suspend(self, reason: str = "") -> None:
        """Take nothing in until ``resume``."""
        self._loop.run(self._handle.suspend(reason))

    def resume(self, reason: str = "") -> None:
        """Undo ``suspend``."""
        self._loop.run(self._handle.resume(reason))

    def __repr__(self) -> str:
        return repr(self._handle)


class BlockingQueueHandle:
    """``QueueHandle`` without ``await``: see there."""

    def __init__(self, loop: LoopThread, handle: QueueHandle) -> None:
        self._loop = loop
        self._handle = handle

    @property
    def name(self) -> str:
        """Name of the queue."""
        return self._handle.name

    def info(self) -> QueueInfo:
        """Return backlog, running and limits; see ``QueueHandle.info``."""
        return self._loop.run(self._handle.info())

    def why(self) -> Why:
        """Say what holds the queue up; see ``QueueHandle.why``."""
        return self._loop.run(self._handle.why())

    def set(
        self,
        *,
        concurrency: int | EllipsisType | None = ...,
        worker_concurrency: int | EllipsisType | None = ...,
        rate: float | EllipsisType | None = ...,
    ) -> QueueInfo:
        """Change limits for good; see ``QueueHandle.set``."""
        work = self._handle.set(concurrency=concurrency, worker_concurrency=worker_concurrency, rate=rate)
        return self._loop.run(work)

    def reset(self) -> QueueInfo:
        """Forget what was set; see ``QueueHandle.reset``."""
        return self._loop.run(self._handle.reset())

    def pause(self) -> QueueInfo:
        """Begin nothing more from this queue; see ``QueueHandle.pause``."""
        return self._loop.run(self._handle.pause())

    def resume(self) -> QueueInfo:
        """End a pause; see ``QueueHandle.resume``."""
        return self._loop.run(self._handle.resume())


class BlockingDeadLetter:
    """``DeadLetter`` without ``await``: see there."""

    def __init__(self, loop: LoopThread, letter: DeadLetter) -> None:
        self._loop = loop
        self.letter = letter

    def replay(self) -> None:
        """Send it again, and delete it here; see ``DeadLetter.replay``."""
        self._loop.run(self.letter.replay())

    def delete(self) -> None:
        """Delete it for good."""
        self._loop.run(self.letter.delete())


class BlockingDeadLetters:
    """``DeadLetters`` without ``await``: iterate over it."""

    def __init__(self, loop: LoopThread, letters: DeadLetters) -> None:
        self._loop = loop
        self._letters = letters

    def __iter__(self) -> Iterator[BlockingDeadLetter]:
        found = aiter(self._letters)

        async def following() -> DeadLetter | None:
            return await anext(found, None)

        while (letter := self._loop.run(following())) is not None:
            yield BlockingDeadLetter(self._loop, letter)

    def replay(self) -> int:
        """Send all of them again that can be read; return how many."""
        return self._loop.run(self._letters.replay())

    def delete(self) -> int:
        """Delete all of them; return how many."""
        return self._loop.run(self._letters.delete())


class BlockingClient(BlockingBatches, BlockingBroadcasts, EnteredBlocking):
    """``Client`` without ``await``; use it as ``with lungfish.connect_sync(app) as client``."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._loop: LoopThread | None = None

    def __enter__(self) -> BlockingClient:
        check_place()
        self._loop = LoopThread()
        try:
            self._loop.run(self._client.__aenter__())
        except BaseException:
            self._loop.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the session and its thread."""
        loop, self._loop = self._loop, None
        if loop is not None:
            try:
                loop.run(self._client.close())
            finally:
                loop.close()

    @property
    def hub(self) -> str:
        """Name of the hub; see ``Client.hub``."""
        return self._client.hub

    @property
    def _is_entered(self) -> bool:
        return self._loop is not None

    @property
    def _open(self) -> LoopThread:
        if self._loop is None:
            raise UsageError(
                "the client is not open: use it inside of 'with lungfish.connect_sync(…) as client:'"
            )
        return self._loop

    @overload
    def entity(self, entity: type[E], key: str) -> BlockingEntityRef[E]: ...
    @overload
    def entity(self, entity: str, key: str) -> BlockingEntityRef[Any]: ...
    def entity(self, entity: Any, key: str) -> BlockingEntityRef[Any]:
        """Return a handle to an entity; see ``Client.entity``."""
        return BlockingEntityRef(self._open, self._client.entity(entity, key))

    @overload
    def stateless(self, worker: type[W]) -> BlockingEntityRef[W]: ...
    @overload
    def stateless(self, worker: str) -> BlockingEntityRef[Any]: ...
    def stateless(self, worker: Any) -> BlockingEntityRef[Any]:
        """Return a handle to stateless workers; see ``Client.stateless``."""
        return BlockingEntityRef(self._open, self._client.stateless(worker))

    def queue(self, name: str) -> BlockingQueueHandle:
        """Return a handle to an activity queue; see ``Client.queue``."""
        return BlockingQueueHandle(self._open, self._client.queue(name))

    @overload
    def start(
        self,
        orchestration: Orchestration[..., R],
        *args: Any,
        id: str | None = None,
        tags: Mapping[str, str] | None = None,
        if_exists: IfExists = "return",
        at: dt.datetime | dt.timedelta | float | None = None,
        version: str = "",
        **kwargs: Any,
    ) -> BlockingOrchestrationHandle[R]: ...
    @overload
    def start(
        self,
        orchestration: str,
        *args: Any,
        id: str | None = None,
        tags: Mapping[str, str] | None = None,
        if_exists: IfExists = "return",
        at: dt.datetime | dt.timedelta | float | None = None,
        version: str = "",
        **kwargs: Any,
    ) -> BlockingOrchestrationHandle[Any]: ...
    def start(self, orchestration: Any, *args: Any, **kwargs: Any) -> BlockingOrchestrationHandle[Any]:
        """Create an orchestration instance, if its id is free; see ``Client.start``."""
        loop = self._open
        return BlockingOrchestrationHandle(loop, loop.run(self._client.start(orchestration, *args, **kwargs)))

    @overload
    def run(
        self,
        orchestration: Orchestration[..., R],
        *args: Any,
        id: str | None = None,
        if_exists: IfExists = "return",
        timeout: float | None = None,
        **kwargs: Any,
    ) -> R: ...
    @overload
    def run(
        self,
        orchestration: str,
        *args: Any,
        id: str | None = None,
        if_exists: IfExists = "return",
        timeout: float | None = None,
        **kwargs: Any,
    ) -> Any: ...
    def run(self, orchestration: Any, *args: Any, **kwargs: Any) -> Any:
        """Start an orchestration and wait for its result; see ``Client.run``."""
        return self._open.run(self._client.run(orchestration, *args, **kwargs))

    def hot_entities(self) -> list[HotEntity]:
        """Return the busiest entities of each host; see ``Client.hot_entities``."""
        return self._open.run(self._client.hot_entities())

    def dead_letters(self, target: str | None = None) -> BlockingDeadLetters:
        """Return the messages of the hub that were set aside; see ``Client.dead_letters``."""
        return BlockingDeadLetters(self._open, self._client.dead_letters(target))

    def orchestration(self, instance_id: str, *, returns: Any = Any) -> BlockingOrchestrationHandle[Any]:
        """Return a handle to an instance by its id."""
        handle = self._client.orchestration(instance_id, returns=returns)
        return BlockingOrchestrationHandle(self._open, handle)

    def hub_status(self) -> HubStatus:
        """Return hosts, workers and partitions at a glance; see ``Client.hub_status``."""
        return self._open.run(self._client.hub_status())

    def why(self, target: str) -> Why:
        """Say why an instance, an entity or a queue waits; see ``Client.why``."""
        return self._open.run(self._client.why(target))

    def topic(self, name: str) -> BlockingTopic:
        """Return a topic; see ``Client.topic``."""
        return BlockingTopic(self._open.run, self._client.topic(name))

    def sink(self, name: str, shard: str = "") -> BlockingSink:
        """Return a sink; see ``Client.sink``."""
        return BlockingSink(self._open.run, self._client.sink(name, shard))

    @property
    def schedules(self) -> BlockingSchedules:
        """The schedules of this hub; see ``Client.schedules``."""
        return BlockingSchedules(self._open.run, self._client.schedules)
