"""Where a hub's store is, for a program that may be inside of a Ray cluster."""

from __future__ import annotations

import asyncio
import os
import sys

from lungfish.runtime.on_redis.open_store import URL_VARIABLE, embedded_url


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
