"""What every part of ``BlockingClient`` asks of the whole."""

from __future__ import annotations

from abc import ABC, abstractmethod

from lungfish.runtime.client.client import Client

from .loop_thread import LoopThread


class BlockingPart(ABC):
    """A part of ``BlockingClient``: it has the client, and the thread in which that lives."""

    _client: Client

    @property
    @abstractmethod
    def _open(self) -> LoopThread:
        """The thread; raises ``UsageError`` if the client was not entered."""
