"""Topics, as a client sees them. They themselves are entities of every hub."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from lungfish.runtime.errors import UsageError
from lungfish.runtime.ids import ENTITY, ORCHESTRATION, check_id

from .instance_handle import OrchestrationHandle
from .refs import EntityRef

if TYPE_CHECKING:
    from lungfish.runtime.declared.definitions import EntityDefinition

#: The built-in entity that a topic is; see ``kinds``.
TOPIC: Final = "lungfish.topic"


class Topic:
    """A topic of the hub, made by ``client.topic``: there as long as somebody is subscribed to it."""

    def __init__(self, ref: EntityRef[Any]) -> None:
        self._ref = ref

    @property
    def name(self) -> str:
        """The topic's name."""
        return self._ref.key

    async def publish(self, value: Any) -> None:
        """Send a value to all who are subscribed; durable when this returns.

        Each subscriber gets it exactly once, as a signal or as an external event, and what one client
        publishes to a topic in that order. Without subscribers it is dropped.

        Raises:
            SerializationError, PayloadTooLarge, Overloaded: nothing was sent.
            StoreUnavailable: the outcome is unknown.
        """
        await self._ref.signal("publish", value)

    async def publish_many(self, values: Iterable[Any]) -> None:
        """Send many values, in order; all are durable when this returns. Far cheaper than one by one."""
        await self._ref.signal_many("publish", [(value,) for value in values])

    async def subscribe(
        self, subscriber: EntityRef[Any] | OrchestrationHandle[Any], name: Callable[..., Any] | str
    ) -> None:
        """Subscribe an entity or an orchestration to what is published from now on.

        A subscriber has one subscription to a topic: another one replaces it. An orchestration's ends
        with it.

        Args:
            subscriber: who gets what is published.
            name: an entity's operation, called with the value; an orchestration's external event.

        Raises:
            NotRegistered: no such operation.
            LimitExceeded: the topic takes no more subscribers (about 320,000).
            DeadlineExceeded, StoreUnavailable: the outcome is unknown; subscribe again.
        """
        await self._ref.call("subscribe", *_actor(subscriber), what_of(subscriber, name))

    async def unsubscribe(self, subscriber: EntityRef[Any] | OrchestrationHandle[Any]) -> None:
        """End a subscription; idempotent. What was published before may still come."""
        await self._ref.call("unsubscribe", *_actor(subscriber))

    def __repr__(self) -> str:
        return f"<topic {self.name}>"


def what_of(subscriber: EntityRef[Any] | OrchestrationHandle[Any], name: Callable[..., Any] | str) -> str:
    """Return the name of what a subscriber gets: an operation, or an event."""
    if isinstance(subscriber, OrchestrationHandle):
        if not isinstance(name, str):
            raise UsageError(f"an orchestration gets external events: give the event's name, not {name!r}")
        return check_id("event name", name)
    definition: EntityDefinition | None = subscriber._definition
    if definition is not None:
        return definition.find(name).name
    return check_id("operation name", name if isinstance(name, str) else name.__name__)


def _actor(subscriber: Any) -> tuple[str, str, str]:
    match subscriber:
        case EntityRef():
            return ENTITY, subscriber.name, subscriber.key
        case OrchestrationHandle():
            return ORCHESTRATION, "", subscriber.id
        case _:
            raise UsageError(
                f"a subscriber is client.entity(...) or client.orchestration(...), not {subscriber!r}"
            )
