"""What an orchestration's code sees of the world.

Rules:

* Everything here is deterministic: asked again in replay, it answers the same.
* Arguments are checked and encoded where the call is made, so that a mistake has a traceback that
  points at it.
* The context decides nothing itself: it says to the execution what the code wants.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import logging
import math
import random
import uuid
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, overload

from lungfish.runtime import codec
from lungfish.runtime.declared.definitions import ActivityOptions, as_duration
from lungfish.runtime.errors import UsageError
from lungfish.runtime.ids import check_id, stable_hash
from lungfish.runtime.messages.status import to_ms

from .calls import Calls
from .references import EntityRef, definition_of
from .sections import CriticalSection, in_order
from .tasks import Task, when_all, when_any
from .topic import OrchestrationTopic, broadcast

if TYPE_CHECKING:
    from .events import ExecutionStarted
    from .replay import Execution

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_NAMESPACE: Final = uuid.UUID("6b9f1f0c-6f0e-5c0a-9d7e-1f5bd3c1a5e1")
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MS: Final = dt.timedelta(milliseconds=1)
_DEFAULT_OPTIONS: Final = ActivityOptions()
#: Over how many places calls of stateless workers go.
_PLACES: Final = 256


class OrchestrationContext(Calls):
    """The first parameter of every orchestration.

    Attributes:
        instance_id: this instance's id.
        parent_id: id of the orchestration that started it as a sub-orchestration, or None.
        version: the version of the code (``@app.orchestration(version=...)``), or else that of the app
            which started it; empty if there is neither.
        logger: like any logger, with the instance id in its records; silent in replay.
    """

    def __init__(self, execution: Execution, started: ExecutionStarted) -> None:
        super().__init__(execution)
        self._started = started
        self._uuids = 0
        self._places = 0
        self.instance_id: str = execution.instance
        self.parent_id: str | None = started.parent.key if started.parent is not None else None
        self.version: str = started.version
        self._seed = seed_of(execution.instance, started)

    # --- entities ---

    def entity(self, entity: type[Any] | str, key: str) -> EntityRef:
        """Return a reference to an entity, to call and to signal it."""
        definition = definition_of(self._execution.app.entities, entity)
        return EntityRef(self._execution, definition, check_id("entity key", key))

    def stateless(self, worker: type[Any] | str) -> EntityRef:
        """Return a reference to stateless workers, another place each time: take one for each call.

        A call is recorded as one of an entity: it runs at least once, and its recorded result counts once.

        Args:
            worker: a class registered with ``@app.stateless``, or its registered name.
        """
        self._places += 1
        place = stable_hash("s", self.instance_id, str(self._places)) % _PLACES
        return self.entity(self._execution.app.stateless_name(worker), str(place))

    def lock(self, *entities: EntityRef) -> CriticalSection:
        """Hold entities, so that only this instance changes them: ``async with ctx.lock(a, b): ...``.

        A critical section, as in Durable Functions. While it is held, operations that others ask for wait at
        the entities, in order; only ``@shared`` ones, and ``state()``, go on. It is released on every exit:
        return, exception, cancellation, time-out around it, termination, continue-as-new. Everybody takes
        entities in one order, so that locks cannot wait in a circle; an entity serves the requests for it in
        the order in which they come. In a generator: ``with (yield ctx.lock(a, b)): ...``.

        Inside, entities of the section are called and signalled as usual. An operation that is called there
        may call entities of the section, too. Activities, timers and external events may be awaited, and any
        entity may be signalled.

        Raises:
            CriticalSectionError: no entities; on entering, if this instance is in a critical section or waits
                for an entity or a sub-orchestration. Inside, calls of other entities and
                sub-orchestrations raise it, too.
            UsageError: something that is no reference of ``ctx.entity``.
        """
        for entity in entities:
            if not isinstance(entity, EntityRef):
                raise UsageError(f"ctx.lock takes references of ctx.entity(...), not {entity!r}")
        return CriticalSection(self._execution, in_order([entity.id for entity in entities]))

    def broadcast(
        self, entity: type[Any] | str, operation: Any, /, *args: Any, prefix: str = "", **kwargs: Any
    ) -> None:
        """Signal every entity of a type that has a state, each exactly once; see ``Client.broadcast``."""
        definition = definition_of(self._execution.app.entities, entity)
        broadcast(self._execution, definition, operation, args, kwargs, prefix=prefix)

    def topic(self, name: str) -> OrchestrationTopic:
        """Return a topic of the hub, to publish to and to subscribe to."""
        return OrchestrationTopic(self._execution, name)

    # --- time ---

    def now(self) -> dt.datetime:
        """Return the time of the turn (aware, UTC)."""
        return _EPOCH + self._execution.now_ms * _MS

    def create_timer(self, when: dt.datetime | dt.timedelta | float) -> Task[None]:
        """Return a task that completes at a time, or after a duration (timedelta or seconds)."""
        if isinstance(when, dt.datetime):
            due_ms = to_ms(when)
        else:
            due_ms = self._execution.now_ms + math.ceil(as_duration(when) / _MS)
        return self._execution.create_timer(due_ms)

    def sleep(self, duration: dt.timedelta | float) -> Task[None]:
        """Return a task that completes after a duration (timedelta or seconds)."""
        return self.create_timer(duration)

    # --- several tasks: beside asyncio's own ---

    @overload
    def when_all(self, *tasks: Awaitable[T]) -> Task[list[T]]: ...
    @overload
    def when_all(self, tasks: Iterable[Awaitable[T]], /) -> Task[list[T]]: ...
    def when_all(self, *tasks: Any) -> Task[Any]:
        """Return a task for the results of all, in the order given; the same as ``lungfish.when_all``."""
        return when_all(*tasks)

    @overload
    def when_any(self, *tasks: Awaitable[T]) -> Task[asyncio.Future[T]]: ...
    @overload
    def when_any(self, tasks: Iterable[Awaitable[T]], /) -> Task[asyncio.Future[T]]: ...
    def when_any(self, *tasks: Any) -> Task[Any]:
        """Return a task for the one that ends first, itself; the same as ``lungfish.when_any``."""
        return when_any(*tasks)

    # --- events ---

    @overload
    def wait_for_external_event(self, name: str) -> Task[Any]: ...
    @overload
    def wait_for_external_event(self, name: str, type: type[T]) -> Task[T]: ...
    @overload
    def wait_for_external_event(self, name: str, type: Any) -> Task[Any]: ...
    def wait_for_external_event(self, name: str, type: Any = Any) -> Task[Any]:
        """Return a task for the next external event of that name (in any case), as a value of ``type``.

        Events that arrive early are kept, in order. With several waiters, the oldest gets the first event;
        one that was cancelled gets none.

        Raises:
            InvalidArguments: at the await; the event does not fit ``type``. It is used up; the next wait
                gets the next one.
        """
        check_id("event name", name)

        def decode(payload: bytes | None) -> Any:
            what = f"event {name!r} of instance {self.instance_id!r}"
            return None if payload is None else codec.validate(codec.decode(payload, what), type, what)

        return self._execution.wait_for_event(name, decode)

    def send_event(self, instance_id: str, name: str, value: Any = None) -> None:
        """Raise an external event for another instance; dropped if there is none, or it has ended."""
        payload = codec.encode(value, f"event {name!r}", self._bytes_max)
        self._execution.send_event(
            check_id("instance id", instance_id), check_id("event name", name), payload
        )

    # --- queries and updates ---

    @overload
    def on_query(self, name: F, /) -> F: ...
    @overload
    def on_query(self, name: str, /) -> Callable[[F], F]: ...
    @overload
    def on_query(self, name: str, handler: F, /) -> F: ...
    def on_query(self, name: Any, handler: Any = None, /) -> Any:
        """Register a function that answers ``handle.query(name, ...)``; also as a decorator.

        It is a plain function that only looks, usually at local variables of the orchestration. It is called
        in the live instance, or in one that was replayed for it, also after the end. As in Temporal.

        Raises:
            UsageError: it is ``async def``, or a generator.
            ReadOnly: in the handler, for whatever it schedules, or any chance that it draws.
        """
        return _registered(self._execution.handlers.on_query, name, handler)

    @overload
    def on_update(
        self, name: str | None = None, /, *, validator: Callable[..., Any] | None = None
    ) -> Callable[[F], F]: ...
    @overload
    def on_update(self, name: F, /, *, validator: Callable[..., Any] | None = None) -> F: ...
    @overload
    def on_update(self, name: str, handler: F, /, *, validator: Callable[..., Any] | None = None) -> F: ...
    def on_update(
        self, name: Any = None, handler: Any = None, /, *, validator: Callable[..., Any] | None = None
    ) -> Any:
        """Register a function that does ``handle.update(name, ...)``; also as a decorator.

        It may be ``async`` and use the context; it runs beside the orchestration's main code, once for each
        update id. What it returns or raises is the update's outcome; the instance goes on. As in Temporal.

        Args:
            validator: takes the same arguments, only looks, and refuses the update by raising: then nothing
                is recorded. May not be ``async``.
        """

        def register(name: str, function: Any) -> None:
            self._execution.handlers.on_update(name, function, validator)

        return _registered(register, name, handler)

    def updates_finished(self) -> asyncio.Future[None]:
        """Return a future that is done when no update's handler runs: await it before the code ends."""
        return self._execution.updates_finished()

    # --- life ---

    def continue_as_new(self, *args: Any, **kwargs: Any) -> None:
        """When the code returns, start it again with these arguments and an empty history.

        Events that were not consumed are kept. If the code raises instead of returning, the instance fails.
        """
        signature = self._execution.definition.signature
        self._execution.continue_as_new(signature.encode(args, kwargs, self._bytes_max))

    def set_custom_status(self, value: Any) -> None:
        """Publish a value in the instance's status; None clears it."""
        self._execution.may_change("set the custom status")
        self._execution.custom_status = (None if value is None else codec.encode(value, "custom status"),)

    def patched(self, patch: str) -> bool:
        """Tell new path from old: True if this execution reached here first after the change was deployed."""
        return self._execution.patched(check_id("patch id", patch))

    @property
    def is_replaying(self) -> bool:
        """Whether the code is being taken through what it did before."""
        return self._execution.replaying

    # --- chance ---

    def uuid4(self) -> uuid.UUID:
        """Return a fresh UUID, the same at every replay."""
        self._execution.may_change("draw chance")
        self._uuids += 1
        return uuid.uuid5(_NAMESPACE, f"{self._seed}\x00{self._uuids}")

    @functools.cached_property
    def random(self) -> random.Random:
        """A random generator with a seed of this execution."""
        self._execution.may_change("draw chance")
        return random.Random(self._seed)  # noqa: S311 - not for secrets

    def reseed(self, execution: str) -> None:
        """Begin with chance anew: what follows is not the instance's that this one was forked from."""
        self._seed = f"{self.instance_id}\x00{execution}"
        if "random" in self.__dict__:
            self.random.seed(self._seed)

    @functools.cached_property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger that is silent in replay; its records have ids as fields (docs/telemetry.md)."""
        return _Logger(self._execution, self._started)


def seed_of(instance: str, started: ExecutionStarted) -> str:
    """Return what chance in an execution is made of."""
    return started.seed or f"{instance}\x00{started.execution}"


class _Logger(logging.LoggerAdapter[logging.Logger]):
    """A logger that is off while its orchestration replays."""

    def __init__(self, execution: Execution, started: ExecutionStarted) -> None:
        logger = logging.getLogger(f"lungfish.orchestration.{started.name}")
        ids = {"instance_id": execution.instance, "orchestration": started.name}
        super().__init__(logger, {**ids, "execution_id": started.execution})
        self._execution = execution

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's name
        return not self._execution.replaying and self.logger.isEnabledFor(level)


def _registered(register: Callable[[str, Any], None], name: Any, handler: Any) -> Any:
    """Register in each of the three forms: with a name, with a function, with both."""
    if handler is not None:
        register(name, handler)
        return handler
    if name is not None and not isinstance(name, str):
        register(getattr(name, "__name__", ""), name)
        return name

    def decorate(function: Any) -> Any:
        register(getattr(function, "__name__", "") if name is None else name, function)
        return function

    return decorate


__all__ = ["EntityRef", "OrchestrationContext"]
