"""Reading inboxes and replies: waiting at one server, or looking again and again at a Cluster.

Rules:

* A read that waits has a connection of its own. A cancelled one gives that connection up:
  the answer that may still come must not become the answer to the next read.
* Nothing depends on being woken: a wake-up may be lost, a read ends by itself.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping, Set
from typing import Any, Final

from lungfish.runtime.errors import InternalError, StoreUnavailable
from lungfish.runtime.store.store import Entry, Take

from .keys import Keys
from .link import Command, Link, Reply, check
from .servers import ADMIN, Call, ServerAway, Servers, run_on

logger = logging.getLogger(__name__)

#: How often a Cluster is looked at: at first, and after nothing came for a while.
POLL_S: Final = 0.005
POLL_MAX_S: Final = 0.02
#: How often a wake-up that came before the read had begun to wait is repeated.
_WAKE_TRIES: Final = 20

_ALL_HERE: Final = frozenset[str]()
_serial = itertools.count(1)


class BlockingLink:
    """A connection for commands that wait at the server, and the way to wake them."""

    def __init__(self, servers: Servers, name: str) -> None:
        """Nothing is connected before the first call."""
        self._servers = servers
        self._link: Link = servers.link(name)
        self._wait: object | None = None
        self._woken = False

    async def call(self, command: Callable[[int], Command], block_ms: int) -> Reply:
        """Run ``command(block_ms)`` and return its reply, refusals included."""
        if self._woken:  # by someone who came before the wait
            self._woken, block_ms = False, 0
        wait = self._wait = object()
        try:
            return (await run_on(self._link, [command(block_ms)], wait_s=block_ms / 1000))[0]
        except asyncio.CancelledError:
            self._link.reconnect(ConnectionAbortedError("a read was cancelled"))
            raise
        finally:
            if self._wait is wait:
                self._wait = None

    async def wake(self) -> None:
        """Make a call that waits return; see ``Reader.wake``."""
        wait = self._wait
        if wait is None:
            self._woken = True
            return
        for _ in range(_WAKE_TRIES):
            unblock: Call = ("", ("CLIENT", "UNBLOCK", self._link.client_id))
            if self._wait is not wait or (await self._servers.run(ADMIN, [unblock]))[0]:
                return
            # Its command is on the way, but does not wait yet: there is nothing to be told by.
            await asyncio.sleep(0.001)

    async def close(self) -> None:
        """Disconnect; a call that waits raises ``StoreUnavailable``."""
        await self._link.close()


async def poll(
    attempt: Callable[[], Awaitable[Any]], block_ms: int, woken: asyncio.Event, is_closed: Callable[[], bool]
) -> Any:
    """Repeat ``attempt`` until it finds something, time is up or ``woken`` is set."""
    loop = asyncio.get_running_loop()
    until, pause_s = loop.time() + block_ms / 1000, POLL_S
    while True:
        if is_closed():
            raise StoreUnavailable("this reader is closed")
        found = await attempt()
        if is_closed():
            continue
        left_s = until - loop.time()
        if found or left_s <= 0 or woken.is_set():
            woken.clear()
            return found
        try:
            await asyncio.wait_for(woken.wait(), min(pause_s, left_s))
        except TimeoutError:
            pause_s = min(pause_s * 1.2, POLL_MAX_S)


class _Count:
    """How many entries per target to ask for, so that an answer always comes within the call's time.

    Only the server knows how large entries are. An answer that is too large to come in time would
    be asked for, and given up, for ever: so half as many are asked for after every failure, down to one.
    """

    def __init__(self) -> None:
        self._max: int | None = None

    def of(self, count: int) -> int:
        """Return how many to ask for where ``count`` are wanted."""
        if self._max is not None and self._max >= count:
            self._max = None
        return self._max or count

    def failed(self, asked: int) -> None:
        """A read that asked for so many had no answer."""
        self._max = max(1, asked // 2)

    def succeeded(self) -> None:
        """Something was read: ask for a quarter more next time."""
        if self._max is not None:
            self._max += max(1, self._max // 4)


class RedisReader:
    """See ``Reader``: finds out at its first read which kind of servers there are.

    Asks for fewer entries than it is told to after a failure, see ``_Count``.
    """

    def __init__(
        self,
        connected: Callable[[], Awaitable[Servers]],
        keys: Keys,
        closed: Callable[[RedisReader], None],
    ) -> None:
        """Nothing is connected before the first read; ``closed`` is told when no more will come."""
        self._connected = connected
        self._keys = keys
        self._tell_closed = closed
        self._inner: SingleReader | ClusterReader | None = None
        self._closed = False

    async def read(
        self, positions: Mapping[str, str], *, block_ms: int, count: int
    ) -> dict[str, list[Entry]]:
        """See ``Reader.read``."""
        servers = await self._connected()
        if self._closed:
            raise StoreUnavailable("this reader is closed")
        if self._inner is None:
            kind = SingleReader if servers.is_single else ClusterReader
            self._inner = kind(servers, self._keys)
        return await self._inner.read(positions, block_ms=block_ms, count=count)

    @property
    def away(self) -> Set[str]:
        """See ``Reader.away``."""
        return self._inner.away if self._inner is not None else _ALL_HERE

    async def wake(self) -> None:
        """See ``Reader.wake``."""
        if self._inner is not None:
            await self._inner.wake()

    async def close(self) -> None:
        """See ``Reader.close``."""
        self._closed = True
        self._tell_closed(self)
        if self._inner is not None:
            await self._inner.close()


class SingleReader:
    """See ``Reader``; on a single server, which answers for all or for none."""

    away: Set[str] = _ALL_HERE

    def __init__(self, servers: Servers, keys: Keys) -> None:
        """Nothing is connected before the first read."""
        self._keys = keys
        self._count = _Count()
        #: Stream → target, of all that were ever read here: a host's inboxes, or one client's replies.
        self._targets: dict[str, str] = {}
        self._streams: dict[str, str] = {}
        self._blocking = BlockingLink(servers, f"read{next(_serial)}")

    async def read(
        self, positions: Mapping[str, str], *, block_ms: int, count: int
    ) -> dict[str, list[Entry]]:
        """See ``Reader.read``."""
        streams = [self._streams.get(target) or self._stream(target) for target in positions]
        asked = self._count.of(count)

        def command(wait_ms: int) -> Command:
            block = ("BLOCK", wait_ms) if wait_ms else ()  # BLOCK 0 would be for ever
            return ("XREAD", "COUNT", asked, *block, "STREAMS", *streams, *positions.values())

        try:
            reply = check(await self._blocking.call(command, block_ms))
        except StoreUnavailable:
            self._count.failed(asked)
            raise
        if reply:
            self._count.succeeded()
        return {self._targets[key.decode()]: _entries(found) for key, found in reply or ()}

    def _stream(self, target: str) -> str:
        stream = self._streams[target] = self._keys.stream(target)
        self._targets[stream] = target
        return stream

    async def wake(self) -> None:
        """See ``Reader.wake``."""
        await self._blocking.wake()

    async def close(self) -> None:
        """See ``Reader.close``."""
        await self._blocking.close()


class RedisListener:
    """See ``Listener``; on a single server."""

    def __init__(
        self,
        connected: Callable[[], Awaitable[Servers]],
        channel: str,
        closed: Callable[[RedisListener], None],
    ) -> None:
        """Nothing is connected before ``listen``; ``closed`` is told when no more will come."""
        self._connected = connected
        self._channel = channel
        self._tell_closed = closed
        self._link: Link | None = None
        self._closed = False

    async def listen(self, take: Take) -> None:
        """See ``Listener.listen``."""

        def passed(message: bytes) -> None:
            ends, _, payload = message.partition(b"\n")
            take(ends.decode("ascii", "replace").split(" "), payload)

        servers = await self._connected()
        if self._closed:
            raise StoreUnavailable("this listener is closed")
        if self._link is None:
            self._link = servers.link(f"listen{next(_serial)}")
        try:
            await self._link.listen(self._channel, passed)
        except InternalError as error:
            # A user without rights to channels: everything goes through the inboxes, as it may at any time.
            logger.info("not listening on %s: %s", self._channel, error)
            await asyncio.Event().wait()

    async def close(self) -> None:
        """See ``Listener.close``."""
        self._closed = True
        self._tell_closed(self)
        if self._link is not None:
            await self._link.close()


class ClusterReader:
    """See ``Reader``; on a Cluster, where no command may wait for keys of several slots."""

    def __init__(self, servers: Servers, keys: Keys) -> None:
        """Nothing is connected before the first read."""
        self._servers = servers
        self._keys = keys
        self._count = _Count()
        self._lane = f"read{next(_serial)}"
        self._woken = asyncio.Event()
        self._closed = False
        self.away: Set[str] = _ALL_HERE

    async def read(
        self, positions: Mapping[str, str], *, block_ms: int, count: int
    ) -> dict[str, list[Entry]]:
        """See ``Reader.read``."""
        asked = self._count.of(count)
        calls: list[Call] = [
            (key := self._keys.stream(target), ("XREAD", "COUNT", asked, "STREAMS", key, position))
            for target, position in positions.items()
        ]

        async def attempt() -> dict[str, list[Entry]]:
            try:
                replies = await self._servers.run(self._lane, calls, partly=True)
            except StoreUnavailable:
                self._count.failed(asked)
                raise
            failures = [reply for reply in replies if isinstance(reply, StoreUnavailable)]
            if any(not isinstance(failure, ServerAway) for failure in failures):
                self._count.failed(asked)
            elif any(replies) and not failures:
                self._count.succeeded()
            found = list(zip(positions, replies, strict=True))
            self.away = (
                {t for t, reply in found if isinstance(reply, StoreUnavailable)} if failures else _ALL_HERE
            )
            return {
                target: _entries(reply[0][1])
                for target, reply in found
                if reply and not isinstance(reply, StoreUnavailable)
            }

        entries: dict[str, list[Entry]] = await poll(attempt, block_ms, self._woken, lambda: self._closed)
        return entries

    async def wake(self) -> None:
        """See ``Reader.wake``."""
        self._woken.set()

    async def close(self) -> None:
        """See ``Reader.close``."""
        self._closed = True
        self._woken.set()
        await self._servers.close(self._lane)


def _entries(found: list[tuple[bytes, list[bytes]]]) -> list[Entry]:
    # Replies of several commits are fields of one entry.
    return [Entry(entry_id.decode(), payload) for entry_id, fields in found for payload in fields[1::2]]
