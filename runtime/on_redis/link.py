"""One connection to a Redis, shared by many callers: the only module that imports ``redis``.

Rules:

* Nothing is retried. When the connection breaks, everything in flight raises
  ``StoreUnavailable``: whether it took effect is not known. The next call reconnects.
* redis-py makes the connection (TLS, authentication, URLs); from there on it is a
  ``Session``. redis-py is not asked to pack or to pipeline: for a commit of 28 partitions its pure
  Python packing took 309 µs of this process's time, hiredis' takes about 40.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio.connection import AbstractConnection, Connection, DefaultParser, SSLConnection, parse_url
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from lungfish.runtime.errors import InternalError, InvalidArguments, StoreUnavailable

from .session import Command, Reply, Session, describe

CONNECT_TIMEOUT_S: Final = 5.0
#: A server that is silent for this long is taken for gone.
CALL_TIMEOUT_S: Final = 10.0
#: How often one that only listens asks whether the server is still there (s).
LISTEN_PING_S: Final = 5.0

_MOVED: Final = (AskError, ClusterDownError, MovedError, TryAgainError)
#: Refusals that pass: during a failover, a move of slots, a start, or until memory is freed.
_PASSING: Final = (*_MOVED, MasterDownError, OutOfMemoryError, ReadOnlyError)
_PASSING_CODES: Final = frozenset(
    {"BUSY", "LOADING", "MASTERDOWN", "MISCONF", "NOGOODSLAVE", "NOREPLICAS", "OOM", "READONLY", "UNBLOCKED"}
)
#: Redis before 7 hides the code of an error that a script met behind "ERR Error running script (call…): ".
_CODE_IN_SCRIPT: Final = re.compile(r"@user_script: ?\d+: -?([A-Z]+) ")

__all__ = [
    "Address",
    "Command",
    "Link",
    "Reply",
    "ResponseError",
    "check",
    "error_code",
    "key_slot",
    "needs_scripts",
    "says_moved",
    "says_replica",
]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is and how to connect to it."""

    arguments: dict[str, Any]
    kind: type[AbstractConnection]
    wants_cluster: bool = False

    @classmethod
    def of(cls, url: str) -> Address:
        """Read a URL.

        ``redis://``, ``rediss://`` (TLS) and ``unix://`` as redis-py reads them.
        ``redis+cluster://``, ``rediss+cluster://`` or ``?cluster=true`` insist on a Redis Cluster;
        without them, a server that is part of one is recognised by itself.
        """
        parts = urlsplit(url)
        scheme, _, mode = parts.scheme.partition("+")
        try:
            if mode not in ("", "cluster"):
                raise ValueError(f"scheme {parts.scheme!r}")
            arguments: dict[str, Any] = dict(parse_url(urlunsplit(parts._replace(scheme=scheme))))
        except ValueError as error:
            raise InvalidArguments(f"not the URL of a Redis server: {url!r} ({error})") from error
        flag = str(arguments.pop("cluster", "")).lower() in ("true", "1", "yes")
        kind = arguments.pop("connection_class", Connection)
        return cls(arguments, kind, flag or mode == "cluster")

    def at(self, host: str, port: int) -> Address:
        """Return the same for another server of the same Cluster."""
        return Address({**self.arguments, "host": host, "port": port}, self.kind, self.wants_cluster)

    def connection(self, name: str) -> AbstractConnection:
        """Return a connection, not yet connected."""
        arguments = {
            **self.arguments,
            "client_name": name,
            "protocol": 2,  # maps and sets of RESP3 would only be taken apart again
            "decode_responses": False,
            "socket_timeout": None,  # time limits are the link's: one reading task has no deadline
            "socket_connect_timeout": self.arguments.get("socket_connect_timeout", CONNECT_TIMEOUT_S),
        }
        return self.kind(**arguments)

    def __str__(self) -> str:
        place = self.arguments.get("path") or (
            f"{self.arguments.get('host', 'localhost')}:{self.arguments.get('port', 6379)}"
        )
        return f"{place} (TLS)" if issubclass(self.kind, SSLConnection) else str(place)


class Link:
    """A connection that is made when needed, and made again after it broke."""

    def __init__(
        self,
        address: Address,
        name: str,
        *,
        greeting: Sequence[Command] = (),
        call_timeout_s: float = CALL_TIMEOUT_S,
    ) -> None:
        """Bind to a server; nothing is connected before the first call.

        Args:
            address: the server.
            name: what CLIENT LIST shows.
            greeting: commands sent first on every new connection (loads the scripts).
            call_timeout_s: see ``call``.
        """
        self._address = address
        self._name = name
        self._greeting = (*greeting, ("CLIENT", "ID"))
        self._call_timeout_s = call_timeout_s
        self._session: Session | None = None
        self._connecting = asyncio.Lock()
        self._waiting = 0
        self._closed = False
        #: The server's name for this connection, for CLIENT UNBLOCK; 0: not connected.
        self.client_id = 0

    async def call(self, commands: Sequence[Command], *, wait_s: float = 0.0) -> list[Reply]:
        """Send commands and return their replies in order; a refusal is a ``ResponseError`` among them.

        Args:
            commands: sent together, behind everything sent earlier on this link.
            wait_s: how long the server itself may wait (a blocking read, WAIT) beyond the limit. What is in
                flight on this link waits first: a server runs one connection's commands one after the other.

        Raises:
            StoreUnavailable: no answer in time, or the connection broke; the outcome is unknown.
        """
        if not commands:
            return []
        session = self._session
        if session is None or session.lost is not None or self._waiting:
            session = await self._connected()
        request = session.send(commands, wait_s)
        session.limit(request, self._call_timeout_s + session.wait_s)
        return await request.future

    async def listen(self, channel: str, take: Callable[[bytes], None]) -> None:
        """Listen on a channel, on this connection and for nothing else, until it breaks.

        Raises:
            InternalError: the server does not let this user listen.
            StoreUnavailable: the connection broke, or could not be made.
        """
        session = await self._connected()
        session.pushed = take
        check((await self.call([("SUBSCRIBE", channel)]))[0])
        while session.lost is None:
            # A connection that is gone without a word would be listened to for ever.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LISTEN_PING_S):
                    await session.ended()
            if session.lost is None:
                await self.call([("PING",)])
        raise StoreUnavailable(f"lost the store at {self._address}: {describe(session.lost)}")

    async def _connected(self) -> Session:
        # The lock's waiters are first come, first served, and while there are any, newcomers queue behind
        # them: so requests are written in the order in which they were made.
        self._waiting += 1
        try:
            async with self._connecting:
                self._check_open()
                if self._session is None or self._session.lost is not None:
                    session = await self._connect()
                    try:
                        self._check_open()
                    except StoreUnavailable:  # closed meanwhile: nobody would ever close this one
                        session.drop(ConnectionAbortedError("closed by this process"))
                        await session.ended()
                        raise
                    self._session = session
                return self._session
        finally:
            self._waiting -= 1

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("this store is closed")

    async def _connect(self) -> Session:
        connection = self._address.connection(self._name)
        try:
            # Over the handshake, too: a stopped server's kernel still accepts connections.
            async with asyncio.timeout(min(CONNECT_TIMEOUT_S, self._call_timeout_s)):
                await connection.connect()  # type: ignore[no-untyped-call]
        except (RedisError, OSError) as error:
            await connection.disconnect(nowait=True)
            reason = f"cannot connect to the store at {self._address}: {describe(error)}"
            raise StoreUnavailable(reason) from error
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        session = _take_over(connection, str(self._address))
        greeted = session.send(self._greeting).future
        try:
            replies = [check(reply) for reply in await asyncio.wait_for(greeted, self._call_timeout_s)]
        except BaseException as error:
            session.drop(error)
            if isinstance(error, TimeoutError):
                raise StoreUnavailable(f"the store at {self._address} does not answer") from error
            raise
        self.client_id = int(replies[-1])
        return session

    def reconnect(self, why: BaseException) -> None:
        """Drop the connection; what is in flight raises ``StoreUnavailable``."""
        if self._session is not None:
            self._session.drop(why)

    async def close(self) -> None:
        """Disconnect for good."""
        self._closed = True
        if self._session is not None:
            self._session.drop(ConnectionAbortedError("closed by this process"))
            await self._session.ended()

    def __del__(self) -> None:
        # A reader that is dropped unclosed: the event loop would keep its connection for ever.
        session: Session | None = getattr(self, "_session", None)
        if session is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                session.drop(ConnectionAbortedError("nobody uses this connection any more"))


def _take_over(connection: AbstractConnection, where: str) -> Session:
    """Make a session of a connection that redis-py has made; redis-py forgets it."""
    writer = connection._writer
    assert writer is not None, "it is connected"
    connection._writer = connection._reader = None
    return Session(writer, where, parse_error=DefaultParser.parse_error, refusal=ResponseError)


def check(reply: Reply) -> Reply:
    """Return a reply; raise what a refusal means to the callers of a store."""
    if not isinstance(reply, ResponseError):
        return reply
    if isinstance(reply, _PASSING) or error_code(reply) in _PASSING_CODES:
        raise StoreUnavailable(f"the store refuses for now: {describe(reply)}") from reply
    raise InternalError(f"the store refuses a command: {describe(reply)}") from reply


def error_code(reply: ResponseError) -> str:
    """Return the code of a refusal that has no class of its own: NOGROUP, MISCONF, ERR..."""
    text = str(reply)
    inner = _CODE_IN_SCRIPT.search(text)
    first = inner[1] if inner else text.partition(" ")[0]
    return first if first.isupper() else "ERR"  # that one redis-py cuts off


def needs_scripts(reply: Reply) -> bool:
    """Tell whether a script was unknown to the server (it restarted, or scripts were flushed)."""
    return isinstance(reply, NoScriptError)


def says_moved(reply: Reply) -> bool:
    """Tell whether a server of a Cluster says that it is the wrong one, or that the Cluster changes."""
    return isinstance(reply, _MOVED)


def says_replica(reply: Reply) -> bool:
    """Tell whether the server behind an address has become a replica: reconnecting may find the primary."""
    return isinstance(reply, ReadOnlyError | MasterDownError) or (
        isinstance(reply, ResponseError) and error_code(reply) == "READONLY"
    )
