"""The kinds of actor, and the entities that every hub has: where their classes live, by name.

So imports point one way: nothing of the runtime imports a kind (see ``kinds``, docs/adr/0002).
"""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any, Final

from lungfish.runtime.ids import ENTITY, ORCHESTRATION
from lungfish.runtime.store.layout import POOL_MARK

if TYPE_CHECKING:
    from .definitions import EntityDefinition

#: Where the processor of each kind of actor lives: ``module:class``.
PROCESSORS: Final = {
    ENTITY: "lungfish.entities.kind:EntityKind",
    ORCHESTRATION: "lungfish.orchestrations.processor:OrchestrationKind",
}

#: How the names of entities begin that are in every hub without the user's doing.
RESERVED: Final = "lungfish."
#: Those entities, and where their classes live.
BUILT_IN: Final = {
    "lungfish.broadcast": "lungfish.entities.broadcast:Broadcast",
    "lungfish.broadcast-part": "lungfish.entities.broadcast:BroadcastPart",
    "lungfish.schedule": "lungfish.entities.schedule:Schedule",
    "lungfish.schedules": "lungfish.entities.schedule:Catalog",
    "lungfish.topic": "lungfish.entities.topic:Topic",
    "lungfish.topic-part": "lungfish.entities.topic:TopicPart",
}


def kind_class(kind: str) -> Any:
    """Import and return the processor class of a kind."""
    module, _, name = PROCESSORS[kind].partition(":")
    return getattr(importlib.import_module(module), name)


@functools.cache
def built_in(name: str) -> EntityDefinition | None:
    """Return a built-in entity; None: there is none of that name."""
    place = BUILT_IN.get(name.partition(POOL_MARK)[0])
    if place is None:
        return None
    module, _, cls = place.partition(":")
    made: EntityDefinition = getattr(importlib.import_module(module), cls).lungfish_definition(name)
    return made
