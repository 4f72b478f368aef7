"""Queries: merge what the indexes of all partitions say, page by page.

Rules:

* Indexes are walked, not rows. Rows are read for what a page shows, all of one page in one call.
* Every partition is asked for a share of the page, and again where its share came first: a page of 100 out of
  100,000 reads some 300 members, however many partitions there are.
* A row may have changed since its index was read. It is held against the query once more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from lungfish.runtime.messages.status import OrchestrationStatus, StatusReader
from lungfish.runtime.store import index
from lungfish.runtime.store.index import Counted, Found, Scan
from lungfish.runtime.store.query import (
    EntityQuery,
    InstanceQuery,
    Page,
    check_page_size,
    read_cursor,
    write_cursor,
)
from lungfish.runtime.store.store import Store
from lungfish.runtime.store.whole import with_values

#: A partition is asked for this many more than its share.
_SPARE: Final = 8
#: Rows that are read for one page; then it ends, however few of them fit.
LOOKED_AT_MAX: Final = 5_000


@dataclass(slots=True)
class _Walk:
    """One partition's part of a query.

    Attributes:
        ahead: members that were read and not handed out yet.
        ended: there are no more to read.
    """

    scan: Scan
    ahead: deque[str] = field(default_factory=deque)
    ended: bool = False

    @property
    def dry(self) -> bool:
        """True if it must be read before anything behind it may be handed out."""
        return not self.ahead and not self.ended

    def take(self, found: Found) -> None:
        """Take an answer."""
        self.ahead.extend(found.members)
        self.ended = not found.stopped
        self.scan = replace(self.scan, after=found.stopped)


def _head(walk: _Walk) -> str:
    return walk.ahead[0]


class Members:
    """The members that some scans find, merged in order."""

    def __init__(self, store: Store, scans: Sequence[Scan], *, share: int) -> None:
        """Prepare; ``share`` is how many a scan is asked for at once."""
        self._store = store
        self._walks = [_Walk(scan) for scan in scans]
        self._share = share
        self._newest = any(scan.newest for scan in scans)

    async def next(self, count: int) -> list[tuple[int, str]]:
        """Return up to ``count`` further (partition, member); fewer only at the end."""
        found: list[tuple[int, str]] = []
        while len(found) < count:
            await self._read([walk for walk in self._walks if walk.dry])
            heads = [walk for walk in self._walks if walk.ahead]
            if not heads and all(walk.ended for walk in self._walks):
                break
            if not any(walk.dry for walk in self._walks):
                self._hand_out(heads, found, count)
        return found

    def _hand_out(self, heads: list[_Walk], found: list[tuple[int, str]], count: int) -> None:
        first = max if self._newest else min
        while len(found) < count and heads:
            walk = first(heads, key=_head)
            found.append((walk.scan.partition, walk.ahead.popleft()))
            if walk.dry:
                return
            if not walk.ahead:
                heads.remove(walk)

    async def _read(self, walks: Sequence[_Walk]) -> None:
        if walks:
            answers = await self._store.scan_index([walk.scan for walk in walks], count=self._share)
            for walk, found in zip(walks, answers, strict=True):
                walk.take(found)


def _share(page_size: int, partitions: int) -> int:
    return min(page_size, 2 * page_size // partitions + _SPARE)


async def count_members(store: Store, scans: Sequence[Scan]) -> int:
    """Return how many members scans (without ``any_of``) find."""
    total, left = 0, list(scans)
    while left:
        answers: list[Counted] = await store.count_index(left)
        total += sum(answer.count for answer in answers)
        left = [
            replace(scan, after=answer.stopped)
            for scan, answer in zip(left, answers, strict=True)
            if answer.stopped
        ]
    return total


class Finder:
    """Answers queries on one hub."""

    def __init__(self, store: Store, partitions: range) -> None:
        """Prepare; only these partitions are asked."""
        self._store = store
        self._partitions = partitions

    # --- instances -----------------------------------------------------------------------

    async def instances_page(
        self, query: InstanceQuery, page_size: int, cursor: str | None, read_status: StatusReader
    ) -> Page[OrchestrationStatus]:
        """See ``Client.instances_page``."""
        check_page_size(page_size)
        after, items = read_cursor(query, cursor), list[OrchestrationStatus]()
        members = Members(
            self._store, self._scans(query, after), share=_share(page_size, len(self._partitions))
        )
        looked_at = 0
        while len(items) < page_size and looked_at < LOOKED_AT_MAX:
            found = await members.next(page_size - len(items))
            if not found:
                return Page(tuple(items))
            after = found[-1][1]
            looked_at += len(found)
            items += await self._rows(query, found, read_status)
        return Page(tuple(items), write_cursor(query, after))

    def _scans(self, query: InstanceQuery, after: str = "") -> list[Scan]:
        return [query.scan(partition, after) for partition in self._partitions]

    async def _rows(
        self, query: InstanceQuery, found: Sequence[tuple[int, str]], read_status: StatusReader
    ) -> list[OrchestrationStatus]:
        wanted = [(partition, index.instance_of(member)) for partition, member in found]
        found_rows = await self._store.instances(wanted, history=False)
        rows = [await with_values(self._store, stored) for stored in found_rows]
        read = [
            read_status(instance, stored.row)
            for (_, instance), stored in zip(wanted, rows, strict=True)
            if stored.row is not None  # else purged since
        ]
        return [status for status in read if query.fits(status)]

    async def instances(
        self, query: InstanceQuery, page_size: int, cursor: str | None, read_status: StatusReader
    ) -> AsyncIterator[OrchestrationStatus]:
        """See ``Client.instances``."""
        while True:
            page = await self.instances_page(query, page_size, cursor, read_status)
            for item in page.items:
                yield item
            if page.cursor is None:
                return
            cursor = page.cursor

    async def count_instances(self, query: InstanceQuery, read_status: StatusReader) -> int:
        """See ``Client.count_instances``."""
        if query.needs_rows:
            return sum([1 async for _ in self.instances(query, 1_000, None, read_status)])
        choices = replace(query, newest=False).choices()
        return await count_members(self._store, [scan for each in choices for scan in self._scans(each)])

    # --- entities ------------------------------------------------------------------------

    async def entities_page(
        self, query: EntityQuery, page_size: int, cursor: str | None, *, states: bool
    ) -> Page[tuple[str, bytes | None]]:
        """Return keys and, with ``states``, snapshots."""
        check_page_size(page_size)
        after = read_cursor(query, cursor)
        scans = [query.scan(partition, after) for partition in self._partitions]
        found = await Members(self._store, scans, share=_share(page_size, len(self._partitions))).next(
            page_size
        )
        rows: Sequence[bytes | None] = [None] * len(found)
        if states:
            rows = await self._store.snapshots([(partition, query.name, key) for partition, key in found])
        items = [
            (key, row)
            for (_, key), row in zip(found, rows, strict=True)
            if row is not None or not states  # else deleted since
        ]
        ended = len(found) < page_size
        return Page(tuple(items), None if ended else write_cursor(query, found[-1][1]))

    async def count_entities(self, query: EntityQuery) -> int:
        """See ``Client.count_entities``."""
        return await count_members(self._store, [query.scan(p) for p in self._partitions])
