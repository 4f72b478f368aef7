"""Reading which entities a partition has, for what runs in that partition.

Rules:

* What a page says is in the store, and so is everything that its reader had seen happen before: a commit
  comes first. So an entity that was made before the question, also a moment ago, is in the answer, and
  whoever asks for page after page cannot run ahead of the store.
* A store that cannot be reached is waited for: who asks is an operation that must not fail for that.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from lungfish.runtime.errors import StoreUnavailable
from lungfish.runtime.ids import ENTITY, ActorId
from lungfish.runtime.store.index import Found
from lungfish.runtime.store.layout import Layout, spread_keys
from lungfish.runtime.store.query import EntityQuery
from lungfish.runtime.store.store import Store

if TYPE_CHECKING:
    from .kinds import Effects

logger = logging.getLogger(__name__)

#: How often the commit is looked for that must come first (s).
COMMIT_POLL_S: Final = 0.002
BACKOFF_S: Final = (0.02, 1.0)


class Walk:
    """The entities of a host's partitions, page by page; one for all of its partitions."""

    def __init__(self, store: Store, layout: Layout) -> None:
        """Prepare for a hub of this layout."""
        self._store = store
        self._layout = layout

    def partition_of(self, name: str, key: str) -> int:
        """Return the number of the partition that an entity is in."""
        return self._layout.of(ActorId(ENTITY, name, key))

    def near(self, name: str, actor: ActorId) -> str:
        """Return a key for an entity of a registered name: in an actor's own partition, where it may be."""
        numbers = self._layout.numbers(name)
        return spread_keys(name, len(numbers))[self._layout.of(actor) % len(numbers)]

    def partitions_of(self, name: str) -> int:
        """Return over how many partitions the entities of a registered name are spread."""
        return len(self._layout.numbers(name))

    async def page(
        self, effects: Effects, partition: int, query: EntityQuery, after: str, count: int
    ) -> Found:
        """Return up to ``count`` keys behind ``after``, in order, and where more may follow.

        Args:
            effects: of the partition that asks for itself.
        """
        number = effects.commit_number - (not effects.dirty)
        while effects.committed < number:
            await asyncio.sleep(COMMIT_POLL_S)
        wait_s = BACKOFF_S[0]
        while True:
            try:
                (found,) = await self._store.scan_index([query.scan(partition, after)], count=count)
            except StoreUnavailable as error:
                logger.warning("reading the entities of partition %d: %s; again soon", partition, error)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, BACKOFF_S[1])
            else:
                return found
