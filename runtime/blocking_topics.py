"""Topics for code without an event loop; see ``topics``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from .blocking_schedules import Run
from .topics import Topic

if TYPE_CHECKING:
    from .blocking import BlockingEntityRef, BlockingOrchestrationHandle

    Subscriber: TypeAlias = BlockingEntityRef[Any] | BlockingOrchestrationHandle[Any]


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


def _unwrapped(subscriber: Any) -> Any:
    # What is neither of them is refused by the topic.
    return getattr(subscriber, "_ref", None) or getattr(subscriber, "_handle", subscriber)
