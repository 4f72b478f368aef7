"""What a store gives to those who wait for something: readers, each on a connection of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Protocol, TypeAlias


@dataclass(frozen=True, slots=True)
class Entry:
    """One stream entry as read: its id in the stream and its payload."""

    id: str
    payload: bytes


class Reader(Protocol):
    """A connection of its own for blocking reads, so that no write waits behind one."""

    @property
    def away(self) -> Set[str]:
        """The targets whose server did not answer the last read: it tells nothing of them."""
        ...

    async def read(
        self, positions: Mapping[str, str], *, block_ms: int, count: int
    ) -> dict[str, list[Entry]]:
        """Return up to ``count`` entries per target after the given positions.

        May return fewer than there are: an answer must be small enough to come in time.
        Waits up to ``block_ms`` for the first one (0: not at all) and returns ``{}`` when
        none came or ``wake`` was called. Repeatable: reading consumes nothing.
        """
        ...

    async def wake(self) -> None:
        """Make a ``read`` that waits return soon. A hint: it may be lost."""
        ...

    async def close(self) -> None:
        """Release the connection; a waiting ``read`` raises ``StoreUnavailable``."""
        ...


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """An entry taken from a lane of a queue; ``deliveries`` counts how often it was taken."""

    queue: str
    id: str
    payload: bytes
    deliveries: int = 1


class QueueReader(Protocol):
    """Takes entries from queues for one worker; on a connection of its own.

    Entries come from all lanes of a queue, by priority, and within the queue's limits (see ``queues``). A
    queue without limits and priorities is told from others by a look twice a second.
    """

    async def take(self, queues: Sequence[str], *, block_ms: int, count: int) -> list[QueueEntry]:
        """Take up to ``count`` new entries; they stay this worker's until ``finish_entries``.

        Waits up to ``block_ms`` for the first one. Not repeatable: entries of a take
        whose answer was lost are found by ``claim_entries`` after the worker is gone, or by
        ``retake`` when it reconnects.
        """
        ...

    async def retake(self, queues: Sequence[str], *, count: int) -> list[QueueEntry]:
        """Return entries that are this worker's already (taken, not finished).

        Their ``deliveries`` is 2 or more, but asking often does not raise it.
        """
        ...

    async def close(self) -> None:
        """Release the connection."""
        ...


#: Takes what was handed over: where each inbox ended that it passes by (an id; empty: it had no entry), and
#: the batches.
Take: TypeAlias = Callable[[list[str], bytes], None]


class Listener(Protocol):
    """Takes what is handed to one host; on a connection of its own."""

    async def listen(self, take: Take) -> None:
        """Give whatever is handed to this host to ``take``, until the connection breaks.

        What is handed over while nobody listens is lost, and who handed it over is told so.

        Raises:
            StoreUnavailable: always, in the end.
        """
        ...

    async def close(self) -> None:
        """Release the connection; a ``listen`` under way raises ``StoreUnavailable``."""
        ...
