"""A topic, as an operation sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lungfish.runtime import codec
from lungfish.runtime.client.topics import TOPIC
from lungfish.runtime.errors import UsageError
from lungfish.runtime.ids import ENTITY, ActorId, check_id
from lungfish.runtime.messages.messages import Signal

from .scope import Scope


class EntityTopic:
    """A topic, made by ``self.context.topic``; usable while the operation runs."""

    __slots__ = ("_scope", "id")

    def __init__(self, scope: Scope, name: str) -> None:
        self._scope = scope
        self.id = ActorId(ENTITY, TOPIC, check_id("topic name", name))

    @property
    def name(self) -> str:
        """The topic's name."""
        return self.id.key

    def publish(self, value: Any) -> None:
        """Send a value to all who are subscribed, if this operation ends well.

        Each gets it exactly once, and what one entity publishes to a topic in that order.

        Raises:
            SerializationError, PayloadTooLarge: the value cannot travel.
        """
        self._send("publish", value)

    def subscribe(self, operation: Callable[..., Any] | str) -> None:
        """Have an operation of this entity run, with the value, for all that is published from now on.

        It is in force soon after this operation has ended well, for what this entity publishes itself at
        once. Subscribing again replaces the operation.

        Raises:
            NotRegistered: no such operation.
            UsageError: this operation is ``@shared``.
        """
        self._check("subscribe")
        actor = self._scope.actor
        found = self._scope.app.find_entity(actor.name).find(operation)
        self._send("subscribe", *actor, found.name)

    def unsubscribe(self) -> None:
        """Take back what ``subscribe`` said; what was published before may still come.

        Raises:
            UsageError: this operation is ``@shared``.
        """
        self._check("unsubscribe")
        self._send("unsubscribe", *self._scope.actor)

    def _check(self, what: str) -> None:
        self._scope.check_open()
        if self._scope.operation.shared:
            raise UsageError(
                f"{self._scope.operation.signature.what} is shared (read-only) and cannot {what}"
            )

    def _send(self, operation: str, *args: Any) -> None:
        batch = codec.encode([list(args)], f"what is published to topic {self.name}")
        self._scope.send(Signal(self.id, operation, batch, 1, 0, self._scope.travelled))

    def __repr__(self) -> str:
        return f"<topic {self.name}>"
