"""Broadcasts: one signal for every entity of a type. Built in, as ``lungfish.broadcast``.

Rules:

* One entity takes a broadcast and passes it to all partitions, in one commit. In each partition one
  entity walks through the partition's own index of entities, a page after the other.
* Nothing is kept: where a walk has come to is an argument of the signal by which it goes on. The signals of
  a page, that signal, and the end of the one before are one commit. So whatever crashes, the walk goes
  on from where it was, and nobody is signalled twice.
* Walks take turns: a page of one, a page of the next.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from lungfish.runtime.ids import ENTITY, ActorId
from lungfish.runtime.messages.messages import Signal
from lungfish.runtime.store.layout import POOL_MARK, pool_in, spread_keys
from lungfish.runtime.store.query import EntityQuery

from . import sending
from .context import EntityContext
from .entity import Entity

PART: Final = "lungfish.broadcast-part"

#: Entities that are signalled in one turn.
PAGE: Final = 256


class Wave(NamedTuple):
    """What is the same for all who get a broadcast.

    Attributes:
        name: of the type; ``prefix``: how the keys begin.
        operation, arguments: of the signal; the arguments are a batch of one.
        way: the actors that it came through.
    """

    name: str
    operation: str
    arguments: bytes
    prefix: str
    way: tuple[str, ...]


class Broadcast(Entity):
    """Takes the broadcasts to one type; its key is the type's name."""

    def begin(self, name: str, operation: str, arguments: bytes, prefix: str) -> None:
        """Have every partition signal its entities."""
        context = self.context
        context.delete()  # there is nothing to keep
        scope = context._scope
        message = scope.item.message
        way = message.chain if isinstance(message, Signal) else ()
        wave = Wave(name, operation, arguments, prefix, way)
        for key in spread_keys(_part(name), scope.effects.walk.partitions_of(name)):
            _go_on(context, key, wave, "")


class BroadcastPart(Entity):
    """Signals the entities of one partition; its key is one that belongs there."""

    async def page(self, wave: Wave, after: str) -> None:
        """Signal the next entities, those behind ``after``, and go on."""
        context = self.context
        context.delete()
        effects, key = context._scope.effects, context.key
        partition = effects.walk.partition_of(_part(wave.name), key)
        query = EntityQuery(wave.name, wave.prefix)
        found = await effects.walk.page(effects, partition, query, after, PAGE)
        for member in found.members:
            target = ActorId(ENTITY, wave.name, member)
            sending.send(context, Signal(target, wave.operation, wave.arguments, 1, 0, wave.way))
        if found.stopped:
            _go_on(context, key, wave, found.stopped)


def _go_on(context: EntityContext, part: str, wave: Wave, after: str) -> None:
    sending.signal(context, ActorId(ENTITY, _part(wave.name), part), "page", wave, after)


def _part(name: str) -> str:
    """Return the name of the parts for a type: they are where its entities are, in its pool."""
    pool = pool_in(name)
    return f"{PART}{POOL_MARK}{pool}" if pool else PART
