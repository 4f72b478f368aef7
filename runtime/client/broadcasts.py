"""Broadcasts, as a client sees them: one signal for every entity of a type. An entity of the hub does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar, overload

from lungfish.runtime import codec
from lungfish.runtime.declared.signatures import encode_signal_arguments
from lungfish.runtime.errors import PayloadTooLarge
from lungfish.runtime.ids import ENTITY, ActorId, check_id
from lungfish.runtime.messages.messages import Signal
from lungfish.runtime.store.query import EntityQuery

from .part import ClientPart
from .refs import operation_name

if TYPE_CHECKING:
    from lungfish.runtime.declared.app import EntityClass

    E = TypeVar("E", bound=EntityClass)

P = ParamSpec("P")

#: The built-in entity that takes broadcasts; its key is the type's name. See ``kinds``.
BROADCAST: Final = "lungfish.broadcast"
#: Its operation that does.
BEGIN: Final = "begin"
#: Largest arguments (bytes): they are written once for each partition, and once for each entity.
ARGUMENTS_MAX: Final = 64 * 1024


def target_of(name: str) -> ActorId:
    """Return the entity that takes broadcasts to a type."""
    return ActorId(ENTITY, BROADCAST, name)


def request(name: str, operation: str, arguments: bytes, prefix: str) -> bytes:
    """Return the batch of a signal that asks for a broadcast.

    Args:
        arguments: the batch of the signal that each entity gets.

    Raises:
        PayloadTooLarge, InvalidArguments: they cannot travel; no such prefix.
    """
    if len(arguments) > ARGUMENTS_MAX:
        raise PayloadTooLarge(
            f"arguments of a broadcast of {name}.{operation} have {len(arguments):,} bytes, "
            f"the limit is {ARGUMENTS_MAX:,}: store them elsewhere and send a reference"
        )
    query = EntityQuery.of(check_id("entity name", name), prefix)
    return codec.encode([[name, operation, arguments, query.prefix]])


class ClientBroadcasts(ClientPart):
    """The part of ``Client`` that broadcasts."""

    @overload
    async def broadcast(
        self, entity: type[E], operation: Callable[..., Any], /, *args: Any, prefix: str, **kwargs: Any
    ) -> None: ...
    @overload
    async def broadcast(
        self,
        entity: type[E],
        operation: Callable[Concatenate[E, P], Any],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None: ...
    @overload
    async def broadcast(
        self, entity: type[Any] | str, operation: str, /, *args: Any, prefix: str = "", **kwargs: Any
    ) -> None: ...
    async def broadcast(self, entity: Any, operation: Any, /, *args: Any, **kwargs: Any) -> None:
        """Signal every entity of a type that has a state. When this returns it is durable.

        Each entity that exists when its partition comes to the broadcast, and still does when its turn
        comes, gets the signal exactly once, whatever crashes meanwhile: in particular all that this client
        has had an answer from. One that is made meanwhile may get it or not. One that is deleted in the very
        moment may be made again, as by any signal. The order among signals to one entity is not promised. If
        the operation raises, it is rolled back and logged there, as with any signal.

        Partitions work side by side, some hundred entities at a time each, between all other messages.

        Args:
            entity: the class, or its registered name.
            operation: the method, as ``Counter.add``, or its name.
            args, kwargs: its arguments, up to 64 KiB.
            prefix: only those whose key begins so. (An operation's own ``prefix`` is given by position.)

        Raises:
            NotRegistered, InvalidArguments, SerializationError, PayloadTooLarge: refused; nothing was sent.
            Overloaded: the inbox stayed full; nothing was accepted.
            StoreUnavailable: the outcome is unknown.
        """
        prefix = kwargs.pop("prefix", "")
        definition = self._definition(entity)
        name = definition.name if definition is not None else str(entity)
        called, known = operation_name(operation, definition)
        if known is not None:
            data = known.signature.encode_signal(args, kwargs)
        else:
            data = encode_signal_arguments(args, kwargs, f"{name}.{called}")
        signal = Signal(target_of(name), BEGIN, request(name, called, data, prefix))
        await self._open.send(signal.target, [signal])
