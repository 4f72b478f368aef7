"""Watching an entity from a client: its committed states, one after the other, for as long as somebody asks.

Rules:

* A watch has no task of its own: what must be sent is sent while the user waits for the next state. One
  that nobody waits for any more is forgotten by the owner when its lease is over.
* It says every ``RENEW_S`` what it has seen. So a new owner, or one that passivated the entity, knows of
  it within that time, and what a lost reply carried is told again.
* Versions only grow, so whatever arrives twice or late is passed over. The exception is a store that lost
  writes: then the owner says that it starts again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Final, Generic, TypeVar

import msgpack

from lungfish.runtime.errors import (
    DeadlineExceeded,
    EntityOperationFailed,
    FailureDetails,
    Overloaded,
    StoreUnavailable,
)
from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages.messages import EntityControl, Response
from lungfish.runtime.session.connection import Connection, raise_usage_error

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: States that are sent to a watcher which has not confirmed them.
WINDOW: Final = 16
#: A watcher that was not heard of for this long may be forgotten.
LEASE_MS: Final = 15_000
#: How often a watcher says what it has seen (s).
RENEW_S: Final = 5.0

_WATCH: Final = "watch"
_UNWATCH: Final = "unwatch"


def pack_seen(version: int, *, lost: bool) -> bytes:
    """Return what a watcher tells the owner: what it has seen, and whether anything later may be lost."""
    packed: bytes = msgpack.packb([version, lost])
    return packed


def unpack_seen(payload: bytes) -> tuple[int, bool]:
    """Read what ``pack_seen`` made; raises ``ValueError`` for anything else."""
    match msgpack.unpackb(payload):
        case [int(version), bool(lost), *_]:
            return version, lost
    raise ValueError("not what a watcher says")


def pack_state(version: int, snapshot: bytes | None, *, again: bool) -> bytes:
    """Return what the owner tells a watcher; ``again``: versions start again, the store lost writes."""
    packed: bytes = msgpack.packb([version, snapshot, again])
    return packed


#: What the owner tells a watcher that knows the present state.
NO_NEWS: Final = b"\xc0"


class StateWatch(Generic[T]):
    """The committed states of one entity: ``async for state in ref.watch()``.

    The first is the present one (None: the entity does not exist), then each follows that was committed
    since. States come in order; where they change faster than they are taken, only the latest counts.
    Deletion is None. It goes on over takeovers, restarts of the store and broken connections, for as long
    as it is asked; leave it with ``break`` or ``aclose``.

    Attributes:
        version: of the state that came last; ``ref.watch(since=version)`` goes on after it, in any process.
    """

    def __init__(
        self,
        connection: Connection,
        actor: ActorId,
        read: Callable[[bytes | None], T],
        since: int | None,
        timeout_s: float | None,
    ) -> None:
        self.version = since or 0
        self._connection = connection
        self._actor = actor
        self._read = read
        self._timeout_s = timeout_s
        self._request = connection.subscribe(self._take)
        self._arrived = asyncio.Event()
        #: The latest state that was not yielded: version, snapshot.
        self._latest: tuple[int, bytes | None] | None = None
        #: What was yielded last: a new owner tells it again, under a later version.
        self._yielded: tuple[bytes | None] | None = None
        self._failure: FailureDetails | None = None
        self._received = 0
        self._heard = False
        self._renew_s = 0.0
        self._closed = False

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        """Return the next state; waits until there is one.

        Raises:
            DeadlineExceeded: no host answered at all within the handle's time-out.
            NotRegistered, StateMismatch, Overloaded: the owner refuses.
            StopAsyncIteration: it was closed.
        """
        loop = asyncio.get_running_loop()
        give_up_s = None if self._timeout_s is None else loop.time() + self._timeout_s
        while not self._closed:
            if self._failure is not None:
                raise self._refused(self._failure)
            if self._latest is not None:
                (version, snapshot), self._latest = self._latest, None
                self.version = version
                await self._confirm()
                if self._yielded != (snapshot,):
                    self._yielded = (snapshot,)
                    return self._read(snapshot)
                continue
            await self._wait(give_up_s)
        raise StopAsyncIteration

    async def _wait(self, give_up_s: float | None) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() >= self._renew_s:
            await self._say(lost=True)
        self._arrived.clear()
        until_s = self._renew_s
        if not self._heard and give_up_s is not None:
            if loop.time() >= give_up_s:
                raise DeadlineExceeded(
                    f"watching {self._actor}: no answer within {self._timeout_s:g} s. "
                    "Is a host of this hub running?"
                )
            until_s = min(until_s, give_up_s)
        if self._latest is None and self._failure is None and not self._closed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until_s):
                    await self._arrived.wait()

    async def _confirm(self) -> None:
        if self._received >= WINDOW // 2:
            await self._say(lost=False)

    async def _say(self, *, lost: bool) -> None:
        """Tell the owner what was seen; if that fails, it is said again when it is due."""
        self._received = 0
        self._renew_s = asyncio.get_running_loop().time() + RENEW_S
        seen = pack_seen(self.version, lost=lost)
        me = self._connection.me
        try:
            await self._connection.send(
                self._actor, [EntityControl(self._actor, _WATCH, seen, self._request, me)]
            )
        except (StoreUnavailable, Overloaded) as error:
            if self._connection.closed:
                raise
            logger.warning("watching %s: %s; trying again", self._actor, error)

    def _take(self, response: Response) -> None:
        """Take what the owner tells: kept if it is news."""
        self._heard = True
        if response.failure is not None:
            self._failure = response.failure
        else:
            match msgpack.unpackb(response.result or NO_NEWS):
                case [int(version), bytes() | None as snapshot, bool(again), *_]:
                    self._received += 1
                    known = self.version if self._latest is None else self._latest[0]
                    if version > known or again:
                        self._latest = (version, snapshot)
        self._arrived.set()

    def _refused(self, details: FailureDetails) -> Exception:
        self._closed = True
        raise_usage_error(details)
        what = f"watching {self._actor}: {details.message}"
        is_full = details.error_type.rpartition(".")[2] == Overloaded.__name__
        return Overloaded(what) if is_full else EntityOperationFailed(what, details)

    async def aclose(self) -> None:
        """End the watch; whoever waits for the next state gets the end. Closing twice is no error."""
        if self._closed:
            return
        self._closed = True
        self._arrived.set()
        leaving = EntityControl(self._actor, _UNWATCH, b"", self._request, self._connection.me)
        with contextlib.suppress(StoreUnavailable, Overloaded):  # then its lease ends
            await self._connection.send(self._actor, [leaving])

    async def __aenter__(self) -> StateWatch[T]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()
