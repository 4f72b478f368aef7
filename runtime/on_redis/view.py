"""What a server holds, seen by somebody who only looks: creates nothing, beats for nobody.

``Store`` is what hosts and clients need of a hub; this is what people ask about hubs.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Final

from lungfish.runtime.errors import InternalError, UsageError

from .keys import Keys
from .link import Address
from .servers import ADMIN, Servers, connect

#: Keys looked at per step of a scan.
_SCAN_COUNT: Final = 1_000


class RedisView:
    """Looks at the hubs of one server or Cluster; use it with ``async with``."""

    def __init__(self, url: str) -> None:
        self._address = Address.of(url)
        self._connected: Servers | None = None

    async def __aenter__(self) -> RedisView:
        self._connected = await connect(self._address, "lungfish:view")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._servers.close()

    @property
    def _servers(self) -> Servers:
        if self._connected is None:
            raise InternalError("a view is used with 'async with'")
        return self._connected

    @property
    def is_single(self) -> bool:
        """True for one server, false for a Redis Cluster."""
        return self._servers.is_single

    async def hubs(self) -> list[str]:
        """Return the names of all hubs, sorted. Looks at every key of the server.

        Raises:
            UsageError: a Redis Cluster.
        """
        if not self._servers.is_single:
            raise UsageError(f"the store at {self._address} is a Redis Cluster: say which hub (--hub NAME)")
        pattern, cursor, found = Keys("*").meta, "0", set[str]()
        prefix, suffix = pattern.split("*")
        while True:
            following, names = await self._one("", "SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_COUNT)
            found.update(name.decode().removeprefix(prefix).removesuffix(suffix) for name in names)
            cursor = following.decode()
            if cursor == "0":
                return sorted(found)

    async def exists(self, hub: str) -> bool:
        """Tell whether there is such a hub."""
        key = Keys(hub).meta
        return bool(await self._one(key, "EXISTS", key))

    async def _one(self, key: str, *command: Any) -> Any:
        return (await self._servers.run(ADMIN, [(key, command)]))[0]
