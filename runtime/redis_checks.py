"""What a store asks its servers once, when it connects."""

from __future__ import annotations

import contextlib
from typing import Final

from .errors import InternalError, StoreUnavailable
from .keys import Keys
from .persistence import INFO_SECTIONS, SETTINGS, Persistence, parse_info
from .redis_commit import pairs
from .redis_link import ResponseError
from .redis_servers import WRITE, Call, Confirmation, Servers

#: How long a server may wait for its replicas before a write counts as unconfirmed.
REPLICA_TIMEOUT_S: Final = 5.0


async def read_persistence(servers: Servers) -> list[Persistence]:
    """Return each server's settings: all of them, or what one that forbids CONFIG tells in INFO."""
    answers = await servers.everywhere([("CONFIG", "GET", setting) for setting in SETTINGS])
    if not any(isinstance(reply, ResponseError) for replies in answers for reply in replies):
        configs = [{k: v for reply in replies for k, v in pairs(reply).items()} for replies in answers]
        return [Persistence.of_config({k: v.decode() for k, v in config.items()}) for config in configs]
    answers = await servers.everywhere([("INFO", section) for section in INFO_SECTIONS])
    texts = ["\n".join(bytes(r).decode() for r in replies if isinstance(r, bytes)) for replies in answers]
    return [Persistence.of_info(parse_info(text)) for text in texts]


async def choose_confirmation(servers: Servers, keys: Keys, replicas: int) -> Confirmation | None:
    """Return how to ask for replicas: WAITAOF (on their disks) where it can be had, else WAIT."""
    if not replicas:
        return None
    wait_ms = int(REPLICA_TIMEOUT_S * 1000)
    wait_aof = Confirmation(("WAITAOF", 1, replicas, wait_ms), replicas, REPLICA_TIMEOUT_S)
    # Only a write makes WAITAOF wait: without one it would promise what replicas without AOF cannot keep.
    probe: Call = (keys.meta, ("HSET", keys.meta, "probed", 1))
    with contextlib.suppress(StoreUnavailable, InternalError):
        await servers.run(WRITE, [probe], confirmation=wait_aof)
        return wait_aof
    return Confirmation(("WAIT", replicas, wait_ms), replicas, REPLICA_TIMEOUT_S)
