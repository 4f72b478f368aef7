"""Topics for code without an event loop; see ``topics``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeAlias, TypeVar, overload

from lungfish.runtime.client.topics import Topic

from .part import BlockingPart
from .schedules import Run

if TYPE_CHECKING:
    from lungfish.runtime.declared.app import EntityClass

    from .client import BlockingEntityRef, BlockingOrchestrationHandle

    E = TypeVar("E", bound=EntityClass)

    Subscriber: TypeAlias = BlockingEntityRef[Any] | BlockingOrchestrationHandle[Any]

P = ParamSpec("P")


class BlockingTopic:
    """``Topic`` without ``await``: see there."""

    def __init__(self, run: Run, topic: Topic) -> None:
        self._run = run
        self._topic = topic

    @property
    def name(self) -> str:
        """The topic's name."""
        return self._topic.name

    def publish(self, value: Any) -> None:
        """Send a value to all who are subscribed; durable when this returns."""
        self._run(self._topic.publish(value))

    def publish_many(self, values: Iterable[Any]) -> None:
        """Send many values, in order; all are durable when this returns."""
        self._run(self._topic.publish_many(values))

    def subscribe(self, subscriber: Subscriber, name: Callable[..., Any] | str) -> None:
        """Subscribe an entity or an orchestration; see ``Topic.subscribe``."""
        self._run(self._topic.subscribe(_unwrapped(subscriber), name))

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """End a subscription; see ``Topic.unsubscribe``."""
        self._run(self._topic.unsubscribe(_unwrapped(subscriber)))

    def __repr__(self) -> str:
        return repr(self._topic)


class BlockingBroadcasts(BlockingPart):
    """The part of ``BlockingClient`` that broadcasts."""

    @overload
    def broadcast(
        self, entity: type[E], operation: Callable[..., Any], /, *args: Any, prefix: str, **kwargs: Any
    ) -> None: ...
    @overload
    def broadcast(
        self,
        entity: type[E],
        operation: Callable[Concatenate[E, P], Any],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None: ...
    @overload
    def broadcast(
        self, entity: type[Any] | str, operation: str, /, *args: Any, prefix: str = "", **kwargs: Any
    ) -> None: ...
    def broadcast(self, entity: Any, operation: Any, /, *args: Any, **kwargs: Any) -> None:
        """Signal every entity of a type that has a state; durable when this returns.

        See ``Client.broadcast``.
        """
        self._open.run(self._client.broadcast(entity, operation, *args, **kwargs))


def _unwrapped(subscriber: Any) -> Any:
    # What is neither of them is refused by the topic.
    return getattr(subscriber, "_ref", None) or getattr(subscriber, "_handle", subscriber)
