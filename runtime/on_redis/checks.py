"""What a store asks its servers once, when it connects."""

from __future__ import annotations

import logging
from typing import Final

from lungfish.runtime.errors import InternalError, StoreUnavailable

from .commit import pairs
from .keys import Keys
from .link import ResponseError
from .persistence import INFO_SECTIONS, SETTINGS, Persistence, parse_info
from .servers import WRITE, Call, Confirmation, Servers

_log = logging.getLogger(__name__)

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


async def choose_confirmation(servers: Servers, keys: Keys, replicas: int, timeout_s: float) -> Confirmation:
    """Return how to ask for replicas: on their disks where that can be had, else in their memory.

    Raises:
        StoreUnavailable: there are not that many replicas now.
    """
    in_memory = Confirmation.of(replicas, timeout_s, on_disk=False)
    on_disk = Confirmation.of(replicas, timeout_s, on_disk=True)
    # Only a write makes WAITAOF wait: without one it would promise what replicas without AOF cannot keep.
    probe: Call = (keys.meta, ("HSET", keys.meta, "probed", 1))
    await servers.run(WRITE, [probe], confirmation=in_memory)
    try:
        await servers.run(WRITE, [probe], confirmation=on_disk)
    except (StoreUnavailable, InternalError) as error:
        _log.warning(
            "%d replicas do not confirm to have writes on disk (%s): a commit waits until they "
            "have it in memory, and survives a failover, but not the power loss of all.",
            replicas,
            error,
        )
        return in_memory
    return on_disk
