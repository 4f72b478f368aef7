"""Finds the names of orchestrations that ended instances have and the app does not have any more.

Rules:

* The indexes of ends are by name, so that a sweep costs what it purges. Names that no code tells are found by
  a walk over the instances that have ended: one page at a time, each partition again after a long rest.
* It only looks. What it finds is a name, which from then on is swept like those that the app has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from lungfish.runtime.declared import plugged_in
from lungfish.runtime.ids import ORCHESTRATION
from lungfish.runtime.messages.wire import MalformedBytes
from lungfish.runtime.partitions.partition import Partition
from lungfish.runtime.store import index
from lungfish.runtime.store.index import Scan
from lungfish.runtime.store.store import Store

#: Instances that one look reads.
PAGE: Final = 100
#: How long after a walk through a partition began the next one may begin (s).
REST_S: Final = 600.0
#: Names that are kept in mind: whoever made more by chance does not fill the memory.
NAMES_MAX: Final = 1_000


class Strays:
    """The walk of one host."""

    def __init__(
        self,
        store: Store,
        known: Collection[str],
        statuses: Collection[str],
        partitions: Callable[[], Sequence[Partition]],
    ) -> None:
        """Prepare.

        Args:
            known: names that need not be found.
            statuses: ends of which instances are looked at.
        """
        self._store = store
        self._known = frozenset(known)
        self._statuses = sorted(statuses)
        self._partitions = partitions
        self._left: list[Scan] = []
        #: When the last walk through a partition began (s of the loop).
        self._begun_s: dict[int, float] = {}
        self.names: set[str] = set()

    async def look(self) -> None:
        """Look at one more page; raises ``StoreUnavailable``."""
        if not self._left:
            self._left = self._begin(asyncio.get_running_loop().time())
        room = PAGE
        while self._left and room > 0:
            room -= await self._look_at(self._left.pop(), room)

    def _begin(self, now_s: float) -> list[Scan]:
        """Return where to look: in the partitions where the last walk, if any, began long ago."""
        numbers = [partition.number for partition in self._partitions()]
        begun_s = self._begun_s
        due = [number for number in numbers if number not in begun_s or now_s - begun_s[number] >= REST_S]
        begun_s.update(dict.fromkeys(due, now_s))
        return [Scan(number, (index.by_status(status),)) for number in due for status in self._statuses]

    async def _look_at(self, scan: Scan, count: int) -> int:
        (found,) = await self._store.scan_index([scan], count=count)
        if found.stopped:
            self._left.append(Scan(scan.partition, scan.indexes, after=found.stopped))
        instances = [(scan.partition, index.instance_of(member)) for member in found.members]
        rows = await self._store.instances(instances, history=False) if instances else []
        for stored in rows:
            if stored.row is not None:
                self._note(stored.row)
        return max(1, len(instances))

    def _note(self, row: bytes) -> None:
        kind: Any = plugged_in.kind_class(ORCHESTRATION)
        try:
            name = kind.name_of(row)
        except MalformedBytes:
            return  # a later release wrote it: that knows its name
        if name not in self._known and len(self.names) < NAMES_MAX:
            self.names.add(name)
