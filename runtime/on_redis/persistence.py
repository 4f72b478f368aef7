"""How durable a server is, and whether it may be used at all: pure judgement of its settings.

Rules:

* A server that evicts keys when memory is short is refused: it would drop state that it
  has acknowledged. So is ``volatile-*``: the leader's lease and replies expire, so they are evictable.
* Weak persistence is allowed, since a replicated or a throw-away deployment may want it, but
  never silently: the warning names what can be lost.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from lungfish.runtime.errors import UnsafeStore

_log = logging.getLogger(__name__)

#: Servers that forbid CONFIG tell some of it in these sections of INFO.
INFO_SECTIONS: Final = ("persistence", "memory")
#: One CONFIG GET each: Redis 6.2 takes only one name.
SETTINGS: Final = ("appendonly", "appendfsync", "save", "maxmemory-policy")


class Durability(Enum):
    """What an acknowledged write survives."""

    #: Power loss: each write is on disk before it is acknowledged.
    FSYNC = "fsync"
    #: The server's death; power loss may cost the last second.
    EVERYSEC = "everysec"
    #: Nothing beyond the server's memory, or snapshots taken now and then.
    NONE = "none"
    #: The server does not tell.
    UNKNOWN = "unknown"


#: Strongest first; what is not known is taken for the weakest.
_STRENGTH: Final = tuple(Durability)


@dataclass(frozen=True, slots=True)
class Persistence:
    """A server's settings, as far as it tells them; None: it does not."""

    appendonly: bool | None = None
    appendfsync: str | None = None
    save: str | None = None
    maxmemory_policy: str | None = None

    @classmethod
    def of_config(cls, settings: Mapping[str, str]) -> Persistence:
        """Read what CONFIG GET answered."""
        appendonly = settings.get("appendonly")
        return cls(
            appendonly=None if appendonly is None else appendonly == "yes",
            appendfsync=settings.get("appendfsync"),
            save=settings.get("save"),
            maxmemory_policy=settings.get("maxmemory-policy"),
        )

    @classmethod
    def of_info(cls, info: Mapping[str, str]) -> Persistence:
        """Read what INFO answered; it does not tell how often the server syncs."""
        enabled = info.get("aof_enabled")
        return cls(
            appendonly=None if enabled is None else enabled == "1",
            maxmemory_policy=info.get("maxmemory_policy"),
        )

    @property
    def durability(self) -> Durability:
        """What an acknowledged write survives."""
        if self.appendonly is False:
            return Durability.NONE
        if self.appendonly is None:
            return Durability.UNKNOWN
        modes = {"always": Durability.FSYNC, "everysec": Durability.EVERYSEC, "no": Durability.NONE}
        return modes.get(self.appendfsync or "", Durability.UNKNOWN)

    def loss_window(self) -> str | None:
        """Return in words what acknowledged work can be lost; None: nothing, short of losing the disk."""
        match self.durability:
            case Durability.FSYNC:
                return None
            case Durability.EVERYSEC:
                return "about the last second of acknowledged work on power loss (appendfsync everysec)"
            case Durability.NONE if self.appendonly:
                return "up to about 30 s of acknowledged work on power loss (appendfsync no)"
            case Durability.NONE if self.save:
                return f"everything since the last RDB snapshot (save {self.save!r}, appendonly no)"
            case Durability.NONE:
                return "everything, whenever the server stops (appendonly no)"
            case _:
                return "an unknown amount of acknowledged work: the server does not tell its settings"


def parse_info(text: str) -> dict[str, str]:
    """Read the answer of INFO."""
    lines = (line.partition(":") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: value for name, _, value in lines}


def judge(servers: Sequence[Persistence], where: str, *, replicas: int = 0) -> Durability:
    """Return how durable a store is; refuse one that evicts, warn about one that can lose work.

    Args:
        servers: the settings of each server; the weakest one counts.
        where: the store's address, for the messages.
        replicas: how many replicas confirm each write; they cover for the disk.

    Raises:
        UnsafeStore: a server evicts keys when memory is short.
    """
    policies = {server.maxmemory_policy for server in servers}
    for policy in policies - {None, "noeviction"}:
        raise UnsafeStore(
            f"the store at {where} has maxmemory-policy {policy!r}: it would silently drop state when its "
            f"memory is full. Set it to 'noeviction' (CONFIG SET maxmemory-policy noeviction)."
        )
    if None in policies:
        _log.warning("The store at %s does not tell its maxmemory-policy; it must be 'noeviction'.", where)
    weakest = max(servers, key=lambda server: _STRENGTH.index(server.durability))
    window = weakest.loss_window()
    if window is not None and not replicas:
        _log.warning(
            "The store at %s can lose %s. For full durability: appendonly yes, appendfsync always.",
            where,
            window,
        )
    return weakest.durability
