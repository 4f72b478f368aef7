"""Where the store is: an address given, the environment's, the Ray cluster's, or an embedded server."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Final

from .errors import UsageError
from .redis_link import Address
from .redis_store import RedisStore
from .store import Store

URL_VARIABLE: Final = "LUNGFISH_REDIS_URL"
DATA_FOLDER: Final = ".lungfish"


def open_store(url: str, hub: str, *, replicas: int = 0) -> Store:
    """Return a store handle for an address; nothing is connected yet."""
    return RedisStore(url, hub, replicas=replicas)


def check_url(url: str | None) -> None:
    """Raise ``UsageError`` for what is no store's address; None is one that is looked for."""
    if url is None:
        return
    if not isinstance(url, str):
        raise UsageError(f"url is an address such as redis://host:6379, not {url!r}")
    Address.of(url)


def ray_is_up() -> bool:
    """Tell whether this process is part of a Ray cluster, without importing Ray."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


async def find_url(hub: str, url: str | None) -> str:
    """Return the address of a hub's store.

    The first of: ``url``; ``$LUNGFISH_REDIS_URL``; the store of the runtime that is up on this process's Ray
    cluster; an embedded server on ``.lungfish/`` of the working directory, started if need be.
    """
    given = url or os.environ.get(URL_VARIABLE)
    if given:
        return given
    if ray_is_up():
        from .cluster import running_url

        found = await asyncio.to_thread(running_url, hub)
        if found is not None:
            return found
    return await asyncio.to_thread(embedded_url)


def embedded_url(folder: Path | None = None) -> str:
    """Return the address of the embedded server on ``folder``, after starting it if need be."""
    from .embedded import start_daemon

    return start_daemon(folder or Path(DATA_FOLDER)).url
