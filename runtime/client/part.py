"""What every part of ``Client`` asks of the whole."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lungfish.runtime.declared.definitions import EntityDefinition
    from lungfish.runtime.session.connection import Connection


class ClientPart(ABC):
    """A part of ``Client``: it has a connection, and knows the classes of entities."""

    @property
    @abstractmethod
    def _open(self) -> Connection:
        """The connection; raises ``UsageError`` if the client was not entered."""

    @abstractmethod
    def _definition(self, entity: Any) -> EntityDefinition | None:
        """Return what is known of an entity, by its class or its name; raises ``UsageError``."""
