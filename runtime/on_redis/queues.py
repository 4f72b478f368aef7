"""Activity queues: taking entries, and taking over what dead workers hold.

Rules:

* What is taken stays in the group's list of pending entries, under its worker's name,
  until it is finished. Nothing but ``take_over.lua`` moves it to another worker.
* A worker beats before it takes. A sweep lists the holders first and reads the
  beats after that: a holder that is not among the beats was removed or never came back.
* Queues with limits or other priorities than the default one cannot be waited for at the server: their
  entries are handed out by ``take_limited.lua``, which is asked again and again.
* A reader makes the groups of its queues before it first takes from them, and again when it meets a queue
  that has lost its group. A group begins at the first entry, so what was appended before is found.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from lungfish.runtime.errors import StoreUnavailable
from lungfish.runtime.store.queues import BURST_S, PATIENCE, QueueState, lanes_of
from lungfish.runtime.store.store import QueueEntry

from .commit import pairs
from .keys import GROUP, Keys
from .link import Command, Reply, ResponseError, check, error_code
from .readers import BlockingLink, poll
from .scripts import script
from .servers import ADMIN, Call, Servers

_NO_GROUP: Final = frozenset({"NOGROUP"})
#: XINFO of a queue that nobody has used yet: "ERR no such key".
_NO_QUEUE: Final = frozenset({"NOGROUP", "ERR"})
_GROUP_EXISTS: Final = frozenset({"BUSYGROUP"})

#: How often a reader looks which queues have limits (s).
LOOK_S: Final = 0.5
#: Entries that are looked at in one call: some hundred microseconds of the server's time.
PAGE_ENTRIES: Final = 500

_serial = itertools.count(1)


class RedisQueueReader:
    """See ``QueueReader``."""

    def __init__(
        self,
        connected: Callable[[], Awaitable[Servers]],
        keys: Keys,
        worker: str,
        closed: Callable[[RedisQueueReader], None],
    ) -> None:
        """Read for ``worker``; nothing is connected before the first take."""
        self._connected = connected
        self._tell_closed = closed
        self._keys = keys
        self._worker = worker
        self._lane = f"take{next(_serial)}"
        self._servers: Servers | None = None
        self._blocking: BlockingLink | None = None
        self._woken = asyncio.Event()
        self._closed = False
        self._turn = 0
        #: Queues whose group was made, or found, by this reader.
        self._grouped: set[str] = set()
        #: Queues that have limits, or lanes of other priorities, as far as the last look has shown.
        self._limited: set[str] = set()
        self._look_at_s = 0.0

    async def take(self, queues: Sequence[str], *, block_ms: int, count: int) -> list[QueueEntry]:
        """See ``QueueReader.take``."""
        servers = await self._open()
        await self._make_groups(servers, [queue for queue in queues if queue not in self._grouped])
        self._turn += 1  # a busy first queue must not starve the others
        start = self._turn % max(1, len(queues))
        order = [*queues[start:], *queues[:start]]
        await self._look(servers, queues)
        if not servers.is_single or self._limited:

            async def attempt() -> list[QueueEntry]:
                return await self._take_one_by_one(servers, order, count)

            found: list[QueueEntry] = await poll(attempt, block_ms, self._woken, lambda: self._closed)
            return found
        if len(order) > 1 or not block_ms:
            entries = await self._take_now(servers, order, count)
            if entries or not block_ms:
                return entries
        return await self._wait(servers, order, block_ms, count)

    async def _look(self, servers: Servers, queues: Sequence[str]) -> None:
        """Find out, twice a second at most, which queues have limits or other lanes."""
        now_s = asyncio.get_running_loop().time()
        if now_s < self._look_at_s:
            return
        calls: list[Call] = []
        for queue in queues:
            others = [self._keys.queue(lane) for lane in lanes_of(queue) if lane != queue]
            limits = self._keys.limits(queue)
            calls.append((limits, ("EXISTS", limits, *others)))
        replies = await servers.run(self._lane, calls, partly=True)
        for queue, reply in zip(queues, replies, strict=True):
            if isinstance(reply, StoreUnavailable):
                continue  # on another server: what was known stays
            (self._limited.add if reply else self._limited.discard)(queue)
        self._look_at_s = now_s + LOOK_S

    async def _take_limited(self, servers: Servers, queue: str, count: int) -> list[QueueEntry]:
        lanes = lanes_of(queue)
        keys = [self._keys.limits(queue), self._keys.meter(queue), *map(self._keys.queue, lanes)]
        args = (GROUP, self._worker, count, PATIENCE, str(BURST_S))
        reply = (await servers.run(self._lane, [(keys[0], script("take_limited", keys, *args))]))[0]
        return [QueueEntry(lanes[int(at) - 1], entry_id.decode(), payload) for at, entry_id, payload in reply]

    async def _take_now(self, servers: Servers, queues: Sequence[str], count: int) -> list[QueueEntry]:
        names = [self._keys.queue(queue) for queue in queues]
        call = (names[0], script("take", names, GROUP, self._worker, count))
        reply = (await servers.run(self._lane, [call], expected=_NO_GROUP))[0]
        if isinstance(reply, ResponseError):
            await self._make_groups(servers, queues)
            reply = (await servers.run(self._lane, [call]))[0]
        return [
            QueueEntry(queues[int(at) - 1], entry_id.decode(), payload) for at, entry_id, payload in reply
        ]

    async def _take_one_by_one(self, servers: Servers, queues: Sequence[str], count: int) -> list[QueueEntry]:
        entries: list[QueueEntry] = []
        failures: list[StoreUnavailable] = []
        for queue in queues:
            if len(entries) < count:
                try:
                    left = count - len(entries)
                    if queue in self._limited:
                        entries += await self._take_limited(servers, queue, left)
                    else:
                        entries += await self._take_now(servers, [queue], left)
                except StoreUnavailable as error:  # the others may be on other servers
                    failures.append(error)
        if len(failures) == len(queues):
            raise failures[0]
        return entries

    async def _wait(
        self, servers: Servers, queues: Sequence[str], block_ms: int, count: int
    ) -> list[QueueEntry]:
        """Wait at the server for the first entries.

        Redis counts per stream, so with several queues one entry of each is asked for. That more than
        ``count`` become ready at the same moment is rare; those are put back, for another worker.
        """
        if self._blocking is None:
            self._blocking = BlockingLink(servers, self._lane)
        names = {self._keys.queue(queue): queue for queue in queues}
        each = count if len(queues) == 1 else 1

        def command(wait_ms: int) -> Command:
            block = ("BLOCK", wait_ms) if wait_ms else ()
            group = ("XREADGROUP", "GROUP", GROUP, self._worker, "COUNT", each)
            return (*group, *block, "STREAMS", *names, *(">" for _ in names))

        reply = await self._blocking.call(command, block_ms)
        if isinstance(reply, ResponseError) and error_code(reply) in _NO_GROUP:
            await self._make_groups(servers, queues)
            reply = await self._blocking.call(command, block_ms)
        entries = [
            QueueEntry(names[name.decode()], entry_id.decode(), fields[1])
            for name, found in check(reply) or ()
            for entry_id, fields in found
        ]
        for spare in entries[count:]:
            name = self._keys.queue(spare.queue)
            await servers.run(self._lane, [(name, script("put_back", [name], GROUP, spare.id))])
        return entries[:count]

    async def retake(self, queues: Sequence[str], *, count: int) -> list[QueueEntry]:
        """See ``QueueReader.retake``."""
        servers = await self._open()
        holders = {lane: [self._worker] for queue in queues for lane in lanes_of(queue)}
        return await take_over(servers, self._keys, self._worker, holders, count)

    async def _make_groups(self, servers: Servers, queues: Sequence[str]) -> None:
        """Make the consumer group of each queue that has none."""
        names = [self._keys.queue(queue) for queue in queues]
        calls: list[Call] = [(name, ("XGROUP", "CREATE", name, GROUP, "0", "MKSTREAM")) for name in names]
        if calls:
            replies = await servers.run(ADMIN, calls, expected=_GROUP_EXISTS, partly=True)
            made = zip(queues, replies, strict=True)
            self._grouped.update(queue for queue, reply in made if not isinstance(reply, StoreUnavailable))

    async def _open(self) -> Servers:
        if self._closed:
            raise StoreUnavailable("this reader is closed")
        self._servers = await self._connected()
        return self._servers

    async def close(self) -> None:
        """See ``QueueReader.close``."""
        self._closed = True
        self._tell_closed(self)
        self._woken.set()
        if self._blocking is not None:
            await self._blocking.close()
        if self._servers is not None:
            await self._servers.close(self._lane)


async def holders_of(servers: Servers, keys: Keys, queues: Sequence[str]) -> dict[str, list[str]]:
    """Return who is known to the group of each lane of the queues, whether it holds entries or not."""
    lanes = [lane for queue in queues for lane in lanes_of(queue)]
    calls: list[Call] = [
        (name, ("XINFO", "CONSUMERS", name, GROUP)) for name in (keys.queue(lane) for lane in lanes)
    ]
    replies = await servers.run(ADMIN, calls, expected=_NO_QUEUE, partly=True)
    return {lane: _consumers(reply) for lane, reply in zip(lanes, replies, strict=True)}


def _consumers(reply: Reply) -> list[str]:
    if isinstance(reply, ResponseError | StoreUnavailable):
        return []
    rows = (dict(zip(row[::2], row[1::2], strict=True)) for row in reply)
    return [row[b"name"].decode() for row in rows]


async def take_over(
    servers: Servers, keys: Keys, worker: str, holders: dict[str, list[str]], count: int
) -> list[QueueEntry]:
    """Hand up to ``count`` entries of the named holders to ``worker``."""
    entries: list[QueueEntry] = []
    asked = [queue for queue, names in holders.items() if names]
    failures: list[StoreUnavailable] = []
    for queue in asked:
        if len(entries) >= count:
            break
        key = keys.queue(queue)
        call = (key, script("take_over", [key], GROUP, worker, count - len(entries), *holders[queue]))
        try:
            reply = (await servers.run(ADMIN, [call], expected=_NO_GROUP))[0]
        except StoreUnavailable as error:  # the others may be on other servers
            failures.append(error)
            continue
        if not isinstance(reply, ResponseError):
            entries += [
                QueueEntry(queue, entry_id.decode(), payload, deliveries)
                for entry_id, payload, deliveries in reply
            ]
    if failures and len(failures) == len(asked):
        raise failures[0]
    return entries


async def state_of(servers: Servers, keys: Keys, queue: str) -> QueueState:
    """Read a queue's limits, and what its lanes hold."""
    lanes = [keys.queue(lane) for lane in lanes_of(queue)]
    limits = keys.limits(queue)
    calls: list[Call] = [(limits, ("HGETALL", limits))]
    for lane in lanes:
        calls += [(lane, ("XLEN", lane)), (lane, ("XPENDING", lane, GROUP))]
    fields, *counts = await servers.run(ADMIN, calls, expected=_NO_GROUP)
    waiting: dict[int, int] = {}
    taken: dict[str, int] = {}
    for priority, (length, pending) in enumerate(zip(counts[::2], counts[1::2], strict=True)):
        held, _first, _last, holders = (
            (0, None, None, None) if isinstance(pending, ResponseError) else pending
        )
        waiting[priority] = max(0, length - held)
        for holder, count in holders or ():
            taken[holder.decode()] = taken.get(holder.decode(), 0) + int(count)
    return QueueState({name: text.decode() for name, text in pairs(fields).items()}, waiting, taken)


async def rows_in(servers: Servers, keys: Keys, queue: str, rows: Sequence[str]) -> set[str]:
    """Look through all lanes of a queue for the activities with these rows."""
    missing = set(rows)
    for lane in map(keys.queue, lanes_of(queue)):
        position = "-"
        while missing and position != "(":
            call = (lane, script("queued", [lane], PAGE_ENTRIES, position, *sorted(missing)))
            last, *found = (await servers.run(ADMIN, [call]))[0]
            missing.difference_update(row.decode() for row in found)
            position = f"({last.decode()}"
    return set(rows) - missing


def finish_calls(keys: Keys, entries: Sequence[tuple[str, str]]) -> list[Call]:
    """Return the calls that remove taken entries, named by (queue, id)."""
    ids: dict[str, list[str]] = {}
    for queue, entry_id in entries:
        ids.setdefault(queue, []).append(entry_id)
    return [
        (
            (key := keys.queue(queue)),
            script("finish", [key, keys.details(queue)], GROUP, *found[start : start + 1000]),
        )
        for queue, found in ids.items()
        for start in range(0, len(found), 1000)
    ]


def keep_calls(keys: Keys, details: Mapping[tuple[str, str], bytes]) -> list[Call]:
    """Return the calls that keep details beside entries, named by (queue, id)."""
    rows: dict[str, list[str | bytes]] = {}
    for (queue, entry_id), said in details.items():
        rows.setdefault(queue, []).extend((entry_id, said))
    return [
        (
            (key := keys.queue(queue)),
            script("details", [key, keys.details(queue)], *row[start : start + 1000]),
        )
        for queue, row in rows.items()
        for start in range(0, len(row), 1000)
    ]
