"""What every part of ``Client``, and of ``BlockingClient``, asks of the whole."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import Client
    from .connection import Connection
    from .definitions import EntityDefinition
    from .loop_thread import LoopThread


class ClientPart(ABC):
    """A part of ``Client``: it has a connection, and knows the classes of entities."""

    @property
    @abstractmethod
    def _open(self) -> Connection:
        """The connection; raises ``UsageError`` if the client was not entered."""

    @abstractmethod
    def _definition(self, entity: Any) -> EntityDefinition | None:
        """Return what is known of an entity, by its class or its name; raises ``UsageError``."""


class BlockingPart(ABC):
    """A part of ``BlockingClient``: it has the client, and the thread in which that lives."""

    _client: Client

    @property
    @abstractmethod
    def _open(self) -> LoopThread:
        """The thread; raises ``UsageError`` if the client was not entered."""
