"""What lets ended instances go when their time has come.

Rules:

* The owner of a partition sweeps it. What is due is found by the index of ends, so a sweep costs what it
  purges; nothing has to be remembered: the next owner finds the same.
* Orchestrations that the app does not have are swept as it says for all; see ``strays``.
* A sweep only looks. It asks the instance to purge itself, as an operator would, in the inbox order of its
  partition; the instance refuses if it is not the one that was looked at.
* With an archive, the record is durable before the purge is asked for. Where it cannot be written the
  instance stays, is reported, and is tried again later; others are not held up.
* A sweep is bounded, and archives are written in threads: a host with a backlog goes on with its work.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lungfish.runtime.declared import plugged_in
from lungfish.runtime.declared.retention import Retention
from lungfish.runtime.errors import StoreUnavailable
from lungfish.runtime.ids import ORCHESTRATION, ActorId
from lungfish.runtime.messages.messages import Control
from lungfish.runtime.messages.wire import MalformedBytes
from lungfish.runtime.partitions.partition import Partition
from lungfish.runtime.store import index
from lungfish.runtime.store.archive import open_archive
from lungfish.runtime.store.store import Store, StoredInstance
from lungfish.runtime.store.whole import with_values

from .strays import Strays

logger = logging.getLogger(__name__)

#: Instances that one sweep lets go.
PURGES_MAX: Final = 500
#: Indexes that are looked into in one call: others want to use the loop and the store, too.
LOOKS_MAX: Final = 256
#: Records that are written at the same time.
WRITES_MAX: Final = 8
#: How long a sweep waits for the next one while there is more to purge (s).
BUSY_S: Final = 0.2
#: How long an instance whose record could not be written is left alone (s).
RETRY_S: Final = 60.0

_MS: Final = dt.timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class _Due:
    partition: Partition
    instance: str
    archive: str | None

    @property
    def at(self) -> tuple[int, str]:
        return self.partition.number, self.instance


class Sweeper:
    """Purges what is due in the partitions of one host."""

    def __init__(
        self,
        store: Store,
        retentions: Mapping[str, Retention],
        partitions: Callable[[], Sequence[Partition]],
        now_ms: Callable[[], int],
        wake: Callable[[], None],
        *,
        sweep_s: float,
        general: Retention | None = None,
    ) -> None:
        """Prepare.

        Args:
            retentions: by the name of the orchestration.
            general: of all whose name is not there; None: they are kept.
            partitions: those that the host runs now.
            wake: called when partitions were given something to do.
            sweep_s: how often to look (s).

        Raises:
            UsageError: an archive that cannot be used.
        """
        self._store = store
        self._retentions = retentions
        self._partitions = partitions
        self._now_ms = now_ms
        self._wake = wake
        self._sweep_s = sweep_s
        self._general = general
        self._strays: Strays | None = None
        if general is not None:
            statuses = [status.value for status in general.keep]
            self._strays = Strays(store, retentions, statuses, partitions)
        every = [*retentions.values(), *([] if general is None else [general])]
        places = {each.archive for each in every if each.archive is not None}
        self._archives = {place: open_archive(place) for place in sorted(places)}
        #: Asked for in the last sweep: their commit may be under way.
        self._asked: set[tuple[int, str]] = set()
        #: Not to be tried before this time (of the loop).
        self._failed: dict[tuple[int, str], float] = {}
        self.failures = 0

    async def run_forever(self) -> None:
        """Sweep now and then, and again at once while there is much to purge."""
        while True:
            try:
                more = await self.sweep()
            except StoreUnavailable as error:
                logger.warning("looking for what is due to be purged: %s; later", error)
                more = False
            await asyncio.sleep(min(BUSY_S, self._sweep_s) if more else self._sweep_s)

    async def sweep(self) -> bool:
        """Let go what is due, up to a bound; return whether there may be more."""
        if self._strays is not None:
            await self._strays.look()
        due = [each for each in await self._find() if each.at not in self._asked]
        # Only those of this sweep: what is still there after the next one is asked for once more.
        self._asked = {each.at for each in due}
        if due:
            await self._let_go(due)
            self._wake()
        return bool(due)

    async def _find(self) -> list[_Due]:
        now_ms, loop_s = self._now_ms(), asyncio.get_running_loop().time()
        self._failed = {at: until_s for at, until_s in self._failed.items() if until_s > loop_s}
        wanted = [
            (partition, retention, index.by_end(status.value, name), now_ms - keep // _MS + 1)
            for name, retention in self._all_retentions().items()
            for status, keep in retention.keep.items()
            for partition in self._partitions()
        ]
        if not wanted:
            return []
        ends = [(partition.number, name, before_ms) for partition, _, name, before_ms in wanted]
        # What cannot be archived stays at the head of its index and must not hide what is behind it.
        found: list[list[str]] = []
        for at in range(0, len(ends), LOOKS_MAX):
            looked = ends[at : at + LOOKS_MAX]
            found += await self._store.ended_before(looked, count=PURGES_MAX + len(self._failed))
        due = [
            _Due(partition, instance, retention.archive)
            for (partition, retention, _, _), instances in zip(wanted, found, strict=True)
            for instance in instances
        ]
        return [each for each in due if each.at not in self._failed][:PURGES_MAX]

    def _all_retentions(self) -> Mapping[str, Retention]:
        if self._general is None or self._strays is None or not self._strays.names:
            return self._retentions
        return {**dict.fromkeys(sorted(self._strays.names), self._general), **self._retentions}

    async def _let_go(self, due: Sequence[_Due]) -> None:
        plain = [each for each in due if each.archive is None]
        rows = await self._store.instances([each.at for each in plain], history=False)
        for each, stored in zip(plain, rows, strict=True):
            self._ask(each, stored)
        archived = [each for each in due if each.archive is not None]
        for at in range(0, len(archived), WRITES_MAX):
            await asyncio.gather(*map(self._archive_and_ask, archived[at : at + WRITES_MAX]))

    async def _archive_and_ask(self, due: _Due) -> None:
        (stored,) = await self._store.instances([due.at], history=True)
        if stored.row is None:
            return
        try:
            edition = _kind().edition_of(stored.row)
            if edition:
                whole = await with_values(self._store, stored)
                await asyncio.to_thread(self._write, due, edition, whole)
        except StoreUnavailable:
            raise
        except Exception as error:  # whatever an object store raises: the instance is kept, and tried again
            self._report(due, error)
        else:
            self._ask(due, stored)

    def _write(self, due: _Due, edition: str, stored: StoredInstance) -> None:
        assert due.archive is not None
        assert stored.row is not None
        record = _kind().write_record(self._store.hub, due.instance, stored.row, stored.history)
        self._archives[due.archive].write(self._store.hub, due.instance, edition, record)

    def _ask(self, due: _Due, stored: StoredInstance) -> None:
        if stored.row is None or due.partition.dropped:
            return
        try:
            edition = _kind().edition_of(stored.row)
        except MalformedBytes as error:
            self._report(due, error)
            return
        if edition:
            due.partition.accept(Control(ActorId(ORCHESTRATION, "", due.instance), "purge", edition))

    def _report(self, due: _Due, error: Exception) -> None:
        self.failures += 1
        self._failed[due.at] = asyncio.get_running_loop().time() + RETRY_S
        text = "instance %s is due to be purged and is kept: %r; again in %.0f s"
        logger.error(text, due.instance, error, RETRY_S)


def _kind() -> Any:
    return plugged_in.kind_class(ORCHESTRATION)
