"""The part of the blocking client that is about many instances or entities: lists, counts, purges."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any, TypeVar, Unpack

from lungfish.runtime.client.queries import InstanceFilters, StoredEntity
from lungfish.runtime.messages.status import ArchivedInstance, OrchestrationStatus
from lungfish.runtime.store.query import PAGE_SIZE, Order, Page

from .part import BlockingPart

R = TypeVar("R")


class BlockingQueries(BlockingPart):
    """The part of ``BlockingClient`` that lists, counts and purges."""

    def instances(
        self,
        *,
        order: Order = "oldest",
        page_size: int = PAGE_SIZE,
        cursor: str | None = None,
        **filters: Unpack[InstanceFilters],
    ) -> Iterator[OrchestrationStatus]:
        """Iterate over the instances of the hub; see ``Client.instances``."""
        found = self._client.instances(order=order, page_size=page_size, cursor=cursor, **filters)
        return self._each(found)

    def instances_page(
        self,
        *,
        order: Order = "oldest",
        page_size: int = PAGE_SIZE,
        cursor: str | None = None,
        **filters: Unpack[InstanceFilters],
    ) -> Page[OrchestrationStatus]:
        """Return one page of ``instances``; see ``Client.instances_page``."""
        return self._open.run(
            self._client.instances_page(order=order, page_size=page_size, cursor=cursor, **filters)
        )

    def count_instances(self, **filters: Unpack[InstanceFilters]) -> int:
        """Return how many instances there are; see ``Client.count_instances``."""
        return self._open.run(self._client.count_instances(**filters))

    def entities(
        self,
        entity: Any,
        *,
        prefix: str = "",
        states: bool = False,
        page_size: int = PAGE_SIZE,
        cursor: str | None = None,
    ) -> Iterator[StoredEntity[Any]]:
        """Iterate over the entities of a class that have a state; see ``Client.entities``."""
        found = self._client.entities(
            entity, prefix=prefix, states=states, page_size=page_size, cursor=cursor
        )
        return self._each(found)

    def entities_page(
        self,
        entity: Any,
        *,
        prefix: str = "",
        states: bool = False,
        page_size: int = PAGE_SIZE,
        cursor: str | None = None,
    ) -> Page[StoredEntity[Any]]:
        """Return one page of ``entities``; see ``Client.entities_page``."""
        return self._open.run(
            self._client.entities_page(
                entity, prefix=prefix, states=states, page_size=page_size, cursor=cursor
            )
        )

    def count_entities(self, entity: Any, *, prefix: str = "") -> int:
        """Return how many entities of a class have a state; see ``Client.count_entities``."""
        return self._open.run(self._client.count_entities(entity, prefix=prefix))

    def purge(self, instance_id: str, *, recursive: bool = True) -> None:
        """Delete an ended instance; see ``Client.purge``."""
        self._open.run(self._client.purge(instance_id, recursive=recursive))

    def purge_instances(
        self,
        *,
        older_than: dt.timedelta | float | None = None,
        recursive: bool = True,
        **filters: Unpack[InstanceFilters],
    ) -> int:
        """Purge all ended instances that fit; see ``Client.purge_instances``."""
        return self._open.run(
            self._client.purge_instances(older_than=older_than, recursive=recursive, **filters)
        )

    def archived(
        self, instance_id: str, *, archive: str | os.PathLike[str] | None = None
    ) -> ArchivedInstance:
        """Return the latest record of a purged instance; see ``Client.archived``."""
        return self._open.run(self._client.archived(instance_id, archive=archive))

    def _each(self, found: AsyncIterator[R]) -> Iterator[R]:
        async def following() -> list[R]:
            try:
                return [await anext(found)]
            except StopAsyncIteration:
                return []

        while one := self._open.run(following()):
            yield one[0]
