"""Topics and broadcasts, as an orchestration sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lungfish.runtime import codec
from lungfish.runtime.client import broadcasts
from lungfish.runtime.client.topics import TOPIC
from lungfish.runtime.declared.signatures import encode_arguments
from lungfish.runtime.ids import ENTITY, ORCHESTRATION, ActorId, check_id

from .tasks import Task

if TYPE_CHECKING:
    from lungfish.runtime.declared.definitions import EntityDefinition

    from .decisions import Decisions


class OrchestrationTopic:
    """A topic, made by ``ctx.topic``."""

    def __init__(self, execution: Decisions, name: str) -> None:
        self._execution = execution
        self.name: str = check_id("topic name", name)
        self._id = ActorId(ENTITY, TOPIC, name)

    def publish(self, value: Any) -> None:
        """Send a value to all who are subscribed, each exactly once, in the order of publishing.

        Raises:
            SerializationError, PayloadTooLarge: the value cannot travel.
        """
        batch = codec.encode([[value]], f"what is published to topic {self.name}")
        self._execution.signal_entity(TOPIC, self.name, "publish", batch, 0)

    def subscribe(self, event: str) -> Task[None]:
        """Have what is published from now on raised as an external event of this instance.

        Await it to be sure that what others publish afterwards comes. Subscribing again replaces the event's
        name. A subscription ends with the instance, not with ``continue_as_new``.
        """
        return self._call("subscribe", check_id("event name", event))

    def unsubscribe(self) -> Task[None]:
        """Take back what ``subscribe`` said; once it is awaited nothing more is sent, but some may wait."""
        return self._call("unsubscribe")

    def _call(self, operation: str, *args: str) -> Task[None]:
        who = (ORCHESTRATION, "", self._execution.instance)
        encoded = encode_arguments([*who, *args], {}, f"topic {self.name}")
        return self._execution.call_entity(self._id, operation, encoded, lambda _: None)

    def __repr__(self) -> str:
        return f"<topic {self.name}>"


def broadcast(
    execution: Decisions,
    definition: EntityDefinition,
    operation: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    prefix: str,
) -> None:
    """Decide to signal every entity of a type.

    Raises:
        NotRegistered, InvalidArguments: no such operation, or not with these arguments.
        SerializationError, PayloadTooLarge: they cannot travel.
    """
    found = definition.find(operation)
    arguments = found.signature.encode_signal(args, kwargs)
    batch = broadcasts.request(definition.name, found.name, arguments, prefix)
    target = broadcasts.target_of(definition.name)
    execution.signal_entity(target.name, target.key, broadcasts.BEGIN, batch, 0)
