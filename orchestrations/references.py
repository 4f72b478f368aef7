"""Entities, as an orchestration refers to them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, overload

from lungfish.runtime.declared.definitions import EntityDefinition, Operation
from lungfish.runtime.declared.reminders import When, at_ms
from lungfish.runtime.errors import NotRegistered, UsageError
from lungfish.runtime.ids import ENTITY, ActorId

from .tasks import Task

if TYPE_CHECKING:
    from .decisions import Decisions

P = ParamSpec("P")
R = TypeVar("R")


class EntityRef:
    """An entity, as an orchestration sees it."""

    def __init__(self, execution: Decisions, definition: EntityDefinition, key: str) -> None:
        self._execution = execution
        self._definition = definition
        self.id = ActorId(ENTITY, definition.name, key)

    @property
    def name(self) -> str:
        """Registered name of the entity's class."""
        return self.id.name

    @property
    def key(self) -> str:
        """Key of the entity."""
        return self.id.key

    @overload
    def call(
        self,
        operation: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Task[R]: ...
    @overload
    def call(
        self, operation: Callable[Concatenate[Any, P], R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Task[R]: ...
    @overload
    def call(
        self, operation: Callable[..., Any], /, *args: Any, timeout: dt.timedelta | float, **kwargs: Any
    ) -> Task[Any]: ...
    @overload
    def call(self, operation: str, /, *args: Any, **kwargs: Any) -> Task[Any]: ...
    def call(self, operation: Any, /, *args: Any, **kwargs: Any) -> Task[Any]:
        """Call an operation (``Counter.add`` or its name); the task has its result.

        A call that is cancelled while it waits at the entity is not started any more; one that was started
        goes on.

        Args:
            timeout: a call that could not be started by then (timedelta or seconds) is dropped, and fails
                when its turn comes. To wait no longer than that, use ``asyncio.timeout``.

        Raises:
            NotRegistered, InvalidArguments: at once.
            CriticalSectionError: at once; the entity is not in the critical section.
            EntityOperationFailed: at the await; the operation raised and was rolled back.
            DeadlineExceeded: at the await; it was dropped.
        """
        found = self._definition.find(operation)
        timeout_ms = found.signature.take_timeout_ms(kwargs)
        encoded = found.signature.encode(args, kwargs)
        decode = found.signature.decode_result
        deadline_ms = self._execution.now_ms + timeout_ms if timeout_ms else 0
        return self._execution.call_entity(self.id, found.name, encoded, decode, deadline_ms)

    @overload
    def signal(self, operation: Callable[..., Any], /, *args: Any, at: When, **kwargs: Any) -> None: ...
    @overload
    def signal(
        self, operation: Callable[Concatenate[Any, P], Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> None: ...
    @overload
    def signal(self, operation: str, /, *args: Any, at: When | None = None, **kwargs: Any) -> None: ...
    def signal(  # type: ignore[misc]  # `at` is ours, whatever P says
        self, operation: Any, /, *args: Any, at: When | None = None, **kwargs: Any
    ) -> None:
        """Send an operation one-way.

        Args:
            at: not before this time (aware), or not before so long from now. Such signals have no promise
                of order, and cannot be cancelled: for that there are timers here, and reminders there.
        """
        found = self._definition.find(operation)
        batch, _ = found.signature.encode_many([_positional(found, args, kwargs)])
        due_ms = 0 if at is None else at_ms(at, self._execution.now_ms)
        self._execution.signal_entity(self.name, self.key, found.name, batch, due_ms)

    def __repr__(self) -> str:
        return f"<entity {self.name}/{self.key}>"


def definition_of(known: dict[str, EntityDefinition], entity: type[Any] | str) -> EntityDefinition:
    """Return what an app knows of an entity, by its class or its name."""
    if isinstance(entity, str):
        found = known.get(entity)
    else:
        found = next((definition for definition in known.values() if definition.cls is entity), None)
    if found is None:
        names = ", ".join(sorted(known)) or "none"
        raise NotRegistered(f"no entity {entity!r} is registered with this app; there are: {names}")
    return found


def _positional(operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Return a signal's arguments in order: signals travel in batches of positional arguments."""
    if not kwargs:
        return list(args)
    operation.signature.check(args, kwargs)
    bound = operation.signature.raw.bind(*args, **kwargs)
    bound.apply_defaults()
    if bound.kwargs:
        raise UsageError(f"{operation.signature.what}: a signal cannot carry keyword-only arguments")
    return list(bound.args)
