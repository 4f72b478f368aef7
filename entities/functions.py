"""Entities written as one function, as in Durable Functions: it is told the operation's name and decides.

Rules:

* The function is run by the same turns as a class's operations: one at a time, in order; what it raises
  rolls back state and messages of this operation and goes to the caller.
* The state is plain data (what msgpack holds), made so where it is set: so a function sees the same types
  before and after its entity was loaded from the store.
* What ``get_state`` returned may be changed at will; only ``set_state`` changes the state. None is no
  state: an entity without a state does not exist.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from lungfish.runtime import codec
from lungfish.runtime.declared.definitions import EntityDefinition, Operation
from lungfish.runtime.declared.signatures import Signature
from lungfish.runtime.errors import UsageError
from lungfish.runtime.ids import check_id

from .context import EntityContext
from .entity import Entity
from .fields import copy_value

_UNSET: Final = object()
#: Operations of one function that are kept ready.
KNOWN_MAX: Final = 1_000


class FunctionState(Entity):
    """The stored form of a function's state."""

    state: Any = None


class FunctionContext:
    """What a function entity is given; as ``DurableEntityContext`` in Durable Functions.

    Usable while the function runs. ``context`` has everything that class entities have, too.
    """

    def __init__(self, entity: FunctionState, operation: str, arguments: tuple[Any, ...]) -> None:
        self._entity = entity
        self._arguments = arguments
        self._result: Any = _UNSET
        self.operation_name: str = operation
        self.is_newly_constructed: bool = entity.state is None

    @property
    def context(self) -> EntityContext:
        """The context of the operation: signals, starts, calls, the clock."""
        return self._entity.context

    @property
    def entity_name(self) -> str:
        """Registered name of the entity."""
        return self._entity.context.name

    @property
    def entity_key(self) -> str:
        """Key of the entity."""
        return self._entity.key

    def get_input(self, as_type: Any = Any) -> Any:
        """Return what the operation was given: its one argument, the list of several, None without any.

        Raises:
            InvalidArguments: it does not fit ``as_type``.
        """
        given = self._arguments[0] if len(self._arguments) == 1 else list(self._arguments) or None
        return codec.validate(given, as_type, f"input of {self.operation_name}")

    def get_state(self, initializer: Callable[[], Any] | None = None, as_type: Any = Any) -> Any:
        """Return a copy of the state; where there is none, what ``initializer`` returns, or None.

        Raises:
            InvalidArguments: it does not fit ``as_type``.
        """
        state = self._entity.state
        if state is None:
            return initializer() if initializer is not None else None
        return codec.validate(copy_value(state), as_type, f"state of {self._entity.key}")

    def set_state(self, state: Any) -> None:
        """Replace the state; None deletes it.

        Raises:
            SerializationError, PayloadTooLarge: it cannot be stored.
        """
        what = f"state of {self._entity.key}"
        self._entity.state = codec.decode(codec.encode(state, what), what)

    def set_result(self, result: Any) -> None:
        """Set what a caller is answered; otherwise it is what the function returns."""
        self._result = result

    def delete_state(self) -> None:
        """Delete the state when the operation has ended well; as ``destruct_on_exit``."""
        self._entity.state = None

    def destruct_on_exit(self) -> None:
        """Delete the entity when the operation has ended well."""
        self.delete_state()

    def _end(self, returned: Any) -> Any:
        if self._entity.state is None:
            self._entity.context.delete()
        return returned if self._result is _UNSET else self._result


class AnyOperation(Mapping[str, Operation]):
    """The operations of a function: every name is one."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._function = function
        self._name = name
        self._made: dict[str, Operation] = {}

    def __getitem__(self, operation: str) -> Operation:
        found = self._made.get(operation)
        if found is None:
            if len(self._made) >= KNOWN_MAX:  # names come from clients
                self._made.clear()
            found = self._made[operation] = self._make(check_id("operation name", operation))
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)

    def _make(self, operation: str) -> Operation:
        function = self._function
        is_async = inspect.iscoroutinefunction(function)

        def run(entity: FunctionState, *arguments: Any) -> Any:
            context = FunctionContext(entity, operation, arguments)
            return context._end(function(context))

        async def run_async(entity: FunctionState, *arguments: Any) -> Any:
            context = FunctionContext(entity, operation, arguments)
            return context._end(await function(context))

        chosen: Callable[..., Any] = run_async if is_async else run
        signature = Signature.of(chosen, f"{self._name}.{operation}", skip=1)
        return Operation(operation, chosen, signature, shared=False, is_async=is_async)


def function_definition(function: Callable[..., Any], name: str) -> EntityDefinition:
    """Return the definition of an entity that is written as a function.

    Raises:
        UsageError: a generator, or a function that does not take one argument.
    """
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise UsageError(f"entity {name}: a generator has no result; return it, or use set_result")
    try:
        inspect.signature(function).bind(None)
    except (TypeError, ValueError) as error:
        raise UsageError(f"entity {name}: the function takes one argument, the context") from error
    cls = type(name, (FunctionState,), {"__module__": function.__module__, "__doc__": function.__doc__})
    return EntityDefinition(name, cls, AnyOperation(function, name))
