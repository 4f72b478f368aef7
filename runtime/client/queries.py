"""The client's questions about all of a hub: which instances and entities there are."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar, Unpack, overload

from lungfish.runtime.declared import plugged_in
from lungfish.runtime.ids import ENTITY, ORCHESTRATION, ActorId, check_id
from lungfish.runtime.messages.status import OrchestrationStatus
from lungfish.runtime.store.query import PAGE_SIZE, EntityQuery, InstanceQuery, Order, Page, StatusFilter

from .finding import Finder
from .part import ClientPart
from .refs import entity_state

if TYPE_CHECKING:
    from lungfish.runtime.declared.app import EntityClass
    from lungfish.runtime.declared.definitions import EntityDefinition

E = TypeVar("E", bound="EntityClass")


class InstanceFilters(TypedDict, total=False):
    """Filters on instances; all that are given must hold.

    Attributes:
        status: this status, or any of several.
        name: instances of this orchestration.
        id_prefix: how the instance id begins.
        tag, tags: with this tag ``(name, value)``, with all of these.
        parent: started by this instance.
        created_after, created_before: from this time on, before this time (aware datetimes).
        updated_after, updated_before: the same for the last commit; these read the row of every candidate.
    """

    status: StatusFilter | None
    name: str | None
    id_prefix: str
    tag: tuple[str, str] | None
    tags: Mapping[str, str] | None
    parent: str | None
    created_after: dt.datetime | None
    created_before: dt.datetime | None
    updated_after: dt.datetime | None
    updated_before: dt.datetime | None


class StoredEntity(Generic[E]):
    """An entity that has a state: its key and, where asked for, the state as last committed."""

    __slots__ = ("key", "name", "state")

    def __init__(self, name: str, key: str, state: E | None) -> None:
        self.name = name
        self.key = key
        self.state = state

    def __repr__(self) -> str:
        return f"<stored entity {self.name}/{self.key}>"


class ClientQueries(ClientPart):
    """The part of ``Client`` that lists, filters and counts."""

    @property
    def _finder(self) -> Finder:
        """Answers questions about instances, none of which is in a pool."""
        connection = self._open
        return Finder(connection.store, range(connection.layout.partitions))

    async def _finder_of(self, name: str) -> Finder:
        """Return who answers questions about entities of a registered name."""
        connection = self._open
        await connection.place(ActorId(ENTITY, name, ""))
        return Finder(connection.store, connection.layout.numbers(name))

    # --- instances -----------------------------------------------------------------------

    async def instances(
        self,
        *,
        order: Order = "oldest",
        page_size: int = PAGE_SIZE,
        cursor: str | None = None,
        **filters: Unpack[InstanceFilters],
    ) -> AsyncIterator[OrchestrationStatus]:
        """Iterate over the instances of the hub in order of creation.

        An instance that exists, and fits, during the whole iteration comes exactly once; one that comes or
        goes meanwhile may or may not. Cost grows with what is returned, not with what there is.

        Args:
            order: the ``"oldest"`` or the ``"newest"`` first.
            page_size: how many are read at once (1 to 1,000).
            cursor: where to begin: of a page of the same query.
            filters: see ``InstanceFilters``.

        Raises:
            InvalidArguments: a filter that cannot be used.
            StoreUnavailable: the store cannot be reached.
        """
        query = InstanceQuery.of(order=order, **filters)
        async for found in self._finder.instances(query, page_size, cursor, _read_status()):
            yield found

    async def instances_page(
        self,
        *,
        order: Order = "oldest",
        page_size: int = PAGE_SIZE,
        cursor: str | None = None,
        **filters: Unpack[InstanceFilters],
    ) -> Page[OrchestrationStatus]:
        """Return one page of ``instances``, and the cursor of the next.

        As in Durable Functions, where it is called a continuation token.

        A cursor is text that may be kept, and sent through a URL. A page may hold fewer than ``page_size``
        and still have a cursor, where many rows had to be read for a few that fit.

        Args and Raises: as ``instances``; a cursor of another query is ``InvalidArguments``.
        """
        query = InstanceQuery.of(order=order, **filters)
        return await self._finder.instances_page(query, page_size, cursor, _read_status())

    async def count_instances(self, **filters: Unpack[InstanceFilters]) -> int:
        """Return how many instances there are; partitions are not counted at the same instant.

        Args and Raises: as ``instances``.
        """
        return await self._finder.count_instances(InstanceQuery.of(**filters), _read_status())

    # --- entities ------------------------------------------------------------------------

    @overload
    def entities(
        self,
        entity: type[E],
        *,
        prefix: str = "",
        states: bool = False,
        page_size: int = PAGE_SIZE,
        cursor: str | None = None,
    ) -> AsyncIterator[StoredEntity[E]]: ...
    @overload
    def entities(
        self,
        entity: str,
        *,
        prefix: str = "",
        states: bool = False,
        page_size: int = PAGE_SIZE,
        cursor: str | None = None,
    ) -> AsyncIterator[StoredEntity[Any]]: ...
    async def entities(
        self,
        entity: Any,
        *,
        prefix: str = "",
        states: bool = False,
        page_size: int = PAGE_SIZE,
        cursor: str | None = None,
    ) -> AsyncIterator[StoredEntity[Any]]:
        """Iterate over the entities of a class that have a state, in order of their keys.

        One that exists during the whole iteration comes exactly once. No entity is activated.

        Args:
            entity: the class, or its registered name.
            prefix: how the key begins.
            states: read their states, too.
            page_size: how many are read at once (1 to 1,000).
            cursor: where to begin: of a page of the same query.

        Raises:
            InvalidArguments: an argument that cannot be used.
            SerializationError: a state that does not fit the class.
            StoreUnavailable: the store cannot be reached.
        """
        while True:
            page: Page[StoredEntity[Any]] = await self.entities_page(
                entity, prefix=prefix, states=states, page_size=page_size, cursor=cursor
            )
            for found in page.items:
                yield found
            cursor = page.cursor
            if cursor is None:
                return

    @overload
    async def entities_page(
        self,
        entity: type[E],
        *,
        prefix: str = "",
        states: bool = False,
        page_size: int = PAGE_SIZE,
        cursor: str | None = None,
    ) -> Page[StoredEntity[E]]: ...
    @overload
    async def entities_page(
        self,
        entity: str,
        *,
        prefix: str = "",
        states: bool = False,
        page_size: int = PAGE_SIZE,
        cursor: str | None = None,
    ) -> Page[StoredEntity[Any]]: ...
    async def entities_page(
        self,
        entity: Any,
        *,
        prefix: str = "",
        states: bool = False,
        page_size: int = PAGE_SIZE,
        cursor: str | None = None,
    ) -> Page[StoredEntity[Any]]:
        """Return one page of ``entities``, and the cursor of the next.

        Args and Raises: as ``entities``.
        """
        query, definition = self._entity_query(entity, prefix)
        page = await (await self._finder_of(query.name)).entities_page(
            query, page_size, cursor, states=states
        )
        items: list[StoredEntity[Any]] = []
        for key, row in page.items:
            state = None if row is None else entity_state(definition, query.name, key, row)
            items.append(StoredEntity(query.name, key, state))
        return Page(tuple(items), page.cursor)

    async def count_entities(self, entity: Any, *, prefix: str = "") -> int:
        """Return how many entities of a class have a state.

        Args:
            entity: the class, or its registered name.
            prefix: how the key begins.
        """
        query, _ = self._entity_query(entity, prefix)
        return await (await self._finder_of(query.name)).count_entities(query)

    def _entity_query(self, entity: Any, prefix: str) -> tuple[EntityQuery, EntityDefinition | None]:
        definition = self._definition(entity)
        name = definition.name if definition is not None else str(entity)
        return EntityQuery.of(check_id("entity name", name), prefix), definition


def _read_status() -> Any:
    return plugged_in.kind_class(ORCHESTRATION).read_status
