"""Entities as a kind of actor: what makes their activations, for ``runtime``."""

from __future__ import annotations

import logging
from functools import partial

from lungfish.runtime.declared.app import App
from lungfish.runtime.errors import NotRegistered, SerializationError
from lungfish.runtime.ids import ActorId
from lungfish.runtime.partitions.kinds import Activation, Stored

from .around import Surroundings
from .functions import function_definition
from .hooks import Leaving
from .inspecting import Counts
from .processor import EntityActivation
from .refusing import Refusing
from .state import is_later, plan_of
from .stateless import stateless_definition

logger = logging.getLogger(__name__)


class EntityKind:
    """Makes activations of the entities that an app has registered."""

    #: For ``App.entity_function``.
    function_definition = staticmethod(function_definition)
    stateless_definition = staticmethod(stateless_definition)

    def __init__(self, app: App) -> None:
        self.app = app
        self.counts = Counts()
        self._surroundings = Surroundings(app)
        self.leaving = Leaving()
        #: In tests: a ``@shared`` operation that changes the state fails.
        self.is_strict = False

    def activate(self, actor: ActorId, stored: Stored) -> Activation:
        """Return the activation of an entity; one that cannot be run refuses every message."""
        repair = None
        try:
            definition = self._surroundings.find(actor.name)
            plan = plan_of(definition.cls, definition.name)
            if stored.row is not None and not is_later(plan, stored.row):
                repair = partial(EntityActivation, actor, self, definition, plan, stored.row, readable=False)
            return EntityActivation(actor, self, definition, plan, stored.row)
        except (NotRegistered, SerializationError) as error:
            logger.error("%s cannot be activated, signals to it wait: %s", actor, error)
            return Refusing(actor, error, repair)

    @property
    def refused(self) -> int:
        """How many operations ended with ``Refused``."""
        return self.counts.refused

    async def settle(self) -> None:
        """Wait for the ends of ``on_passivate``."""
        await self.leaving.settle()
