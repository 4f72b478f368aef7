"""Operations inside of middleware (``App.operation_middleware``).

Rules:

* The middleware is put around ``Operation.function`` once per entity definition, so everything that runs
  operations runs it: calls, signals one by one, reminders, shared and reentrant reads, repeated runs.
* A sync operation stays one as long as no middleware is async. Else it is run as an async one: a turn of its
  own. It is none to itself: what a sync operation may not do, it may not do then either.
* Each has a context of its own: a context variable that middleware sets for one (a user) is not seen by the
  next.
* The built-in entities have none: what they do is the runtime's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextvars import copy_context
from dataclasses import replace
from types import MappingProxyType, TracebackType
from typing import Any, Final, Literal

from lungfish.runtime.declared.app import App
from lungfish.runtime.declared.definitions import EntityDefinition, Operation
from lungfish.runtime.declared.middleware import Chain, Incoming, may_wait, run_through, wait_through
from lungfish.runtime.declared.plugged_in import RESERVED
from lungfish.runtime.errors import Refused
from lungfish.runtime.messages.headers import as_mapping
from lungfish.runtime.messages.messages import Call, ReminderDue, Signal

from .scope import Scope
from .state import CONTEXT_SLOT

#: Operations of one entity that are kept ready.
KNOWN_MAX: Final = 1_000
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class Surroundings:
    """The entities of an app with their middleware; each is put together once."""

    __slots__ = ("_app", "_made")

    def __init__(self, app: App) -> None:
        self._app = app
        self._made: dict[str, tuple[EntityDefinition, Chain, EntityDefinition]] = {}

    def find(self, name: str) -> EntityDefinition:
        """Return the definition of an entity as it is run; raises ``NotRegistered``."""
        found, chain = self._app.find_entity(name), self._app.around_operations
        if not chain or name.startswith(RESERVED):
            return found
        known = self._made.get(name)
        if known is None or known[0] is not found or known[1] is not chain:
            made = replace(found, operations=_Surrounded(found.operations, _Around(chain)))
            known = self._made[name] = (found, chain, made)
        return known[2]


class _Surrounded(Mapping[str, Operation]):
    """Operations inside of middleware, made when they are first asked for."""

    def __init__(self, operations: Mapping[str, Operation], around: _Around) -> None:
        self._operations = operations
        self._around = around
        self._made: dict[str, Operation] = {}

    def __getitem__(self, name: str) -> Operation:
        made = self._made.get(name)
        if made is None:
            if len(self._made) >= KNOWN_MAX:  # a function's operations have the names that clients give them
                self._made.clear()
            made = self._made[name] = self._around.put(self._operations[name])
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(self._operations)

    def __len__(self) -> int:
        return len(self._operations)


class _Around:
    """Middleware, to be put around operations."""

    __slots__ = ("_chain",)

    def __init__(self, chain: Chain) -> None:
        self._chain = chain

    def put(self, operation: Operation) -> Operation:
        """Return an operation with this around its function."""
        waits = may_wait(self._chain)
        if operation.is_async:
            function = self._around_async(operation)
        elif waits:
            function = self._around_sync_waiting(operation)
        else:
            function = self._around_sync(operation)
        return replace(operation, function=function, is_async=operation.is_async or waits)

    def _around_sync(self, operation: Operation) -> Callable[..., Any]:
        def run(entity: Any, *args: Any, **kwargs: Any) -> Any:
            turn = incoming(operation, entity, args, kwargs)
            with _Counting(entity) as counting:

                def work() -> Any:
                    try:
                        return operation.function(entity, *args, **kwargs)
                    except Refused as error:
                        counting.own = error
                        raise

                return copy_context().run(run_through, self._chain, turn, work)

        return run

    def _around_async(self, operation: Operation) -> Callable[..., Any]:
        async def run(entity: Any, *args: Any, **kwargs: Any) -> Any:
            turn = incoming(operation, entity, args, kwargs)
            with _Counting(entity) as counting:

                async def work() -> Any:
                    try:
                        return await operation.function(entity, *args, **kwargs)
                    except Refused as error:
                        counting.own = error
                        raise

                return await wait_through(self._chain, turn, work)

        return run

    def _around_sync_waiting(self, operation: Operation) -> Callable[..., Any]:
        async def run(entity: Any, *args: Any, **kwargs: Any) -> Any:
            scope, turn = scope_of(entity), incoming(operation, entity, args, kwargs)
            outside = scope.operation
            with _Counting(entity) as counting:

                async def work() -> Any:
                    # To itself it is sync: a call of another entity, which it could not await, is refused.
                    scope.operation = operation
                    try:
                        return operation.function(entity, *args, **kwargs)
                    except Refused as error:
                        counting.own = error
                        raise
                    finally:
                        scope.operation = outside

                return await wait_through(self._chain, turn, work)

        return run


class _Counting:
    """Counts what middleware ends with ``Refused``.

    Attributes:
        own: what the operation itself has raised: another one was refused, and is counted there.
    """

    __slots__ = ("_entity", "own")

    def __init__(self, entity: Any) -> None:
        self._entity = entity
        self.own: Refused | None = None

    def __enter__(self) -> _Counting:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Refused) and error is not self.own:
            scope_of(self._entity).refused += 1


def scope_of(entity: Any) -> Scope:
    """Return the inside of the context that an entity has while an operation runs."""
    scope: Scope = getattr(entity, CONTEXT_SLOT)._scope
    return scope


def incoming(operation: Operation, entity: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Incoming:
    """Return what middleware is told of an operation that is about to run."""
    scope = scope_of(entity)
    message = scope.item.message
    wire = message.headers if isinstance(message, Call | Signal) else ()
    return Incoming(
        kind=_kind(message),
        name=scope.actor.name,
        key=scope.actor.key,
        operation=operation.name,
        args=args,
        kwargs=kwargs,
        headers=as_mapping(wire) if wire else _NO_HEADERS,
        caller=scope.caller,
        is_shared=operation.shared,
        entity=entity,
    )


def _kind(message: object) -> Literal["call", "signal", "reminder"]:
    if isinstance(message, Call):
        return "call"
    return "reminder" if isinstance(message, ReminderDue) else "signal"
