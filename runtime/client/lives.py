"""The client's part in how long instances live: purges, and what was archived."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from typing import TYPE_CHECKING, Any, Unpack

from lungfish.runtime.declared import plugged_in
from lungfish.runtime.declared.definitions import as_duration
from lungfish.runtime.errors import (
    InstanceNotFound,
    InstanceRunning,
    InvalidArguments,
    OrchestrationFailed,
    UsageError,
)
from lungfish.runtime.ids import ORCHESTRATION, ActorId, check_id
from lungfish.runtime.messages.messages import Control, Response
from lungfish.runtime.messages.status import ArchivedInstance, RuntimeStatus, from_ms
from lungfish.runtime.session.connection import TIMEOUT_S, raise_usage_error
from lungfish.runtime.store.archive import open_archive
from lungfish.runtime.store.query import InstanceQuery, StatusFilter

from .queries import ClientQueries, InstanceFilters

if TYPE_CHECKING:
    from lungfish.runtime.declared.app import App

#: Instances of one ``purge_instances`` that are asked for at the same time.
_AT_ONCE = 100


class ClientLives(ClientQueries):
    """The part of ``Client`` that ends the lives of instances for good."""

    app: App | None

    async def purge(self, instance_id: str, *, recursive: bool = True) -> None:
        """Delete an ended instance: its row, its history, everything; durable when this returns.

        As in Durable Functions. Its id is free afterwards, and nothing of it comes back. It is not archived.

        Args:
            recursive: also purge the sub-orchestrations that have ended, and theirs, first. Those that still
                run are left alone.

        Raises:
            InstanceNotFound: there is no such instance.
            InstanceRunning: it has not ended; nothing was deleted.
            DeadlineExceeded, StoreUnavailable: the outcome is unknown; purge again.
        """
        actor = ActorId(ORCHESTRATION, "", check_id("instance id", instance_id))
        (stored,) = await self._open.store.instances(
            [(self._open.partition(actor), actor.key)], history=False
        )
        if stored.row is None:
            raise InstanceNotFound(f"no orchestration instance {instance_id!r}")
        if not _kind().edition_of(stored.row):
            found = _kind().read_status(instance_id, stored.row)
            text = f"instance {instance_id!r} is {found.runtime_status}"
            raise InstanceRunning(f"{text}: terminate or cancel it, or wait for its end")
        if recursive:
            # The parent last: it is what a purge that was interrupted begins with again.
            for child in await self._descendants(instance_id):
                await self._purge_if_ended(child)
        response = await self._ask_to_purge(instance_id)
        if response.failure is not None and response.failure.error_type.rpartition(".")[2] != _GONE:
            raise_usage_error(response.failure)
            raise OrchestrationFailed(f"purge of {instance_id}: {response.failure}", response.failure)

    async def _descendants(self, instance_id: str) -> list[str]:
        """Return the instances below one, the lowest first."""
        found, todo = dict[str, None](), [instance_id]
        while todo:
            parent = todo.pop()
            async for child in self.instances(parent=parent):
                if child.instance_id != instance_id and child.instance_id not in found:
                    found[child.instance_id] = None
                    todo.append(child.instance_id)
        return list(reversed(found))

    async def _purge_if_ended(self, instance_id: str) -> bool:
        """Purge without children; return whether the instance is gone."""
        failure = (await self._ask_to_purge(instance_id)).failure
        if failure is None:
            return True
        kind = failure.error_type.rpartition(".")[2]
        if kind not in (_GONE, InstanceRunning.__name__):
            raise_usage_error(failure)
            raise OrchestrationFailed(f"purge of {instance_id}: {failure}", failure)
        return kind == _GONE

    async def _ask_to_purge(self, instance_id: str) -> Response:
        connection, actor = self._open, ActorId(ORCHESTRATION, "", instance_id)

        def make(request: str) -> Control:
            return Control(actor, "purge", "", request, connection.me)

        return await connection.request(actor, make, timeout_s=TIMEOUT_S, what=f"purge of {instance_id}")

    async def purge_instances(
        self,
        *,
        older_than: dt.timedelta | float | None = None,
        recursive: bool = True,
        **filters: Unpack[InstanceFilters],
    ) -> int:
        """Purge all ended instances that fit, and return how many there were.

        Bounded in memory, however many there are. If it is interrupted, do it again: what is purged is gone.

        Args:
            older_than: only those that ended at least this long ago (timedelta, or seconds).
            recursive: as in ``purge``.
            filters: as in ``instances``; without ``status``, any in which an instance has ended.

        Raises:
            InvalidArguments: a filter that cannot be used, such as the status of running instances.
            DeadlineExceeded, StoreUnavailable: some were purged.
        """
        filters["status"] = _ended(filters.get("status"))
        if older_than is not None:
            now_ms = await self._open.store.now_ms()
            limit = from_ms(now_ms) - as_duration(older_than)
            given = filters.get("updated_before")
            filters["updated_before"] = limit if given is None else min(limit, given)
        count, cursor = 0, None
        while True:
            page = await self.instances_page(page_size=_AT_ONCE, cursor=cursor, **filters)
            gone = await asyncio.gather(
                *(self._purge_found(found.instance_id, recursive=recursive) for found in page.items)
            )
            count += sum(gone)
            cursor = page.cursor
            if cursor is None:
                return count

    async def _purge_found(self, instance_id: str, *, recursive: bool) -> bool:
        try:
            await self.purge(instance_id, recursive=recursive)
        except InstanceNotFound:
            return True  # with its parent, meanwhile
        except InstanceRunning:
            return False  # a new one under its id
        return True

    async def archived(
        self, instance_id: str, *, archive: str | os.PathLike[str] | None = None
    ) -> ArchivedInstance:
        """Return the latest record of an instance that was archived before it was purged.

        Args:
            archive: where; default: wherever the app's ``retention`` puts records.

        Raises:
            InstanceNotFound: there is no record of it.
            UsageError: no archive is known.
            SerializationError: the record cannot be read.
        """
        check_id("instance id", instance_id)
        places = [archive] if archive is not None else self._archives()
        if not places:
            raise UsageError(
                "no archive is known: pass archive=, or connect with an app that has a retention"
            )
        found = await self._find_archived(instance_id, *places)
        if found is None:
            raise InstanceNotFound(f"no record of instance {instance_id!r} in {', '.join(map(str, places))}")
        return found

    async def _find_archived(
        self, instance_id: str, *places: str | os.PathLike[str]
    ) -> ArchivedInstance | None:
        for place in places or self._archives():
            record = await asyncio.to_thread(_read_record, place, self._open.store.hub, instance_id)
            if record is not None:
                found: ArchivedInstance = _kind().read_record(record)
                return found
        return None

    def _archives(self) -> list[str]:
        """Return where the app puts records, each place once."""
        retentions = self.app.retentions.values() if self.app is not None else ()
        return list(dict.fromkeys(each.archive for each in retentions if each.archive is not None))


_GONE = InstanceNotFound.__name__


def _ended(status: StatusFilter | None) -> list[RuntimeStatus]:
    wanted = InstanceQuery.of(status=status).statuses
    running = [each for each in wanted if not each.is_terminal]
    if running:
        raise InvalidArguments(f"instances that are {', '.join(running)} cannot be purged")
    return list(wanted) or [each for each in RuntimeStatus if each.is_terminal]


def _read_record(place: str | os.PathLike[str], hub: str, instance_id: str) -> str | None:
    return open_archive(place).read(hub, instance_id)


def _kind() -> Any:
    return plugged_in.kind_class(ORCHESTRATION)
