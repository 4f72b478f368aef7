"""Topics: what is published under a name goes to all who subscribed to it. Built in, as ``lungfish.topic``.

Rules:

* A topic forwards in the turn that takes the publication: signals to entities, events to orchestrations.
  So what holds for signals holds for publications: each subscriber gets each exactly once, in the order
  of its publisher.
* The first subscribers are the topic's own; further ones are spread over parts, by a hash of who they are.
  Once there are parts all new ones go there, so nobody is ever in two places. A part takes a bounded number:
  so no turn forwards to more.
* A subscription of an orchestration ends with it: the topic watches it.
* A topic without subscribers does not exist, and what is published there is not kept.
"""

from __future__ import annotations

import zlib
from typing import Any, Final

from pydantic import Field

from lungfish.runtime import codec
from lungfish.runtime.errors import LimitExceeded
from lungfish.runtime.ids import ENTITY, ORCHESTRATION, ActorId
from lungfish.runtime.messages.messages import Signal

from . import sending
from .entity import Entity

TOPIC: Final = "lungfish.topic"
PART: Final = "lungfish.topic-part"

#: Subscribers that a topic forwards to itself.
OWN_MAX: Final = 128
#: Over how many parts the others are spread.
PARTS: Final = 64
#: With so many a part is full. A few more may be on their way: a turn can send to twice as many.
PART_MAX: Final = 5_000

#: A subscriber: kind, name and key of the actor, and the operation or event.
Subscriber = tuple[str, str, str, str]


class _Forwarding(Entity):
    """What topics and their parts have in common: subscribers, by who they are."""

    subscribers: dict[str, Subscriber] = Field(default_factory=dict)

    def forward(self, value: Any) -> None:
        batch, payload = codec.encode([[value]]), codec.encode(value)
        for kind, name, key, what in self.subscribers.values():
            if kind == ORCHESTRATION:
                sending.event(self.context, key, what, payload)
            else:
                sending.send(self.context, Signal(ActorId(kind, name, key), what, batch))
        self._tidy()

    def news(self, instance: str, outcome: str, detail: str) -> None:  # noqa: ARG002
        """A subscribed orchestration has ended, or there is none."""
        if outcome != "Overloaded":  # too many watch it: then its subscription outlives it, to no effect
            self._remove(identity(ORCHESTRATION, "", instance))
        self._tidy()

    def _put(self, who: str, subscriber: Subscriber) -> None:
        kind, _, key, _ = subscriber
        if kind == ORCHESTRATION and who not in self.subscribers:
            sending.watch(self.context, key, news="news")
        self.subscribers[who] = subscriber

    def _remove(self, who: str) -> bool:
        return self.subscribers.pop(who, None) is not None

    def _tidy(self) -> None:
        if not self.subscribers:
            self.context.delete()


class Topic(_Forwarding):
    """A topic; its key is the topic's name.

    Attributes:
        parts: the parts that have, or had, subscribers.
        full: those of them that take no more.
    """

    parts: list[int] = Field(default_factory=list)
    full: list[int] = Field(default_factory=list)

    def publish(self, value: Any) -> None:
        for part in self.parts:
            sending.signal(self.context, part_id(self.key, part), "forward", value)
        self.forward(value)

    def subscribe(self, kind: str, name: str, key: str, what: str) -> None:
        who = identity(kind, name, key)
        if who in self.subscribers or (not self.parts and len(self.subscribers) < OWN_MAX):
            self._put(who, (kind, name, key, what))
            return
        part = part_of(who)
        if part in self.full:
            raise LimitExceeded(
                f"topic {self.key!r} has about {PARTS * PART_MAX:,} subscribers: it takes no more"
            )
        if part not in self.parts:
            self.parts.append(part)
        sending.signal(self.context, part_id(self.key, part), "subscribe", kind, name, key, what)

    def unsubscribe(self, kind: str, name: str, key: str) -> None:
        who = identity(kind, name, key)
        part = part_of(who)
        if not self._remove(who) and part in self.parts:
            sending.signal(self.context, part_id(self.key, part), "unsubscribe", kind, name, key)
        self._tidy()

    def filled(self, part: int, full: bool) -> None:
        """A part takes no more, or takes some again."""
        self.full = [other for other in self.full if other != part] + [part] * full

    def _tidy(self) -> None:
        if not self.parts:
            super()._tidy()


class TopicPart(_Forwarding):
    """Some of the subscribers of a large topic; its key is ``<number>/<topic>``."""

    def subscribe(self, kind: str, name: str, key: str, what: str) -> None:
        size = len(self.subscribers)
        self._put(identity(kind, name, key), (kind, name, key, what))
        self._tell(size)

    def unsubscribe(self, kind: str, name: str, key: str) -> None:
        self._remove(identity(kind, name, key))
        self._tidy()

    def _remove(self, who: str) -> bool:
        size = len(self.subscribers)
        removed = super()._remove(who)
        self._tell(size)
        return removed

    def _tell(self, before: int) -> None:
        """Tell the topic when this part has become full, or is so no more."""
        full = len(self.subscribers) >= PART_MAX
        if full != (before >= PART_MAX):
            number, _, topic = self.key.partition("/")
            sending.signal(self.context, ActorId(ENTITY, TOPIC, topic), "filled", int(number), full)


def identity(kind: str, name: str, key: str) -> str:
    """Return who a subscriber is: it has one subscription."""
    return f"{kind}\x00{name}\x00{key}"


def part_of(who: str) -> int:
    """Return the part that a subscriber belongs to; the same for ever."""
    return zlib.crc32(who.encode()) % PARTS


def part_id(topic: str, part: int) -> ActorId:
    """Return the id of a part of a topic."""
    return ActorId(ENTITY, PART, f"{part}/{topic}")
