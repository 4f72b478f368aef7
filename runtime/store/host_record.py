"""What a host says of itself with every heartbeat: for other hosts, and for whoever looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgpack

from .layout import DEFAULT_POOL


@dataclass(frozen=True, slots=True)
class HostRecord:
    """What a host says of itself with every heartbeat."""

    draining: bool = False
    node: str = ""
    pid: int = 0
    partitions: int = 0
    activations: int = 0
    commits: int = 0
    hot: bytes = b""
    release: str = ""
    code: str = ""
    commit_p50_s: float = 0.0
    commit_p99_s: float = 0.0
    pools: tuple[str, ...] = (DEFAULT_POOL,)
    #: Of how many pools of the hub it knows; a release without pools knows of none.
    known_pools: int = 0
    #: What pools wait for, as whoever places hosts has told this one.
    pool_notes: Mapping[str, str] = field(default_factory=dict)
    #: It has been heard for a whole lease: it may judge who is dead, and others leave the lead to it.
    steady: bool = False
    #: When it last noticed that the store had lost writes (Unix ms); 0: never.
    lost_ms: int = 0

    def encode(self) -> bytes:
        """Return the stored form: a map, so that releases may differ in what they know."""
        packed: bytes = msgpack.packb({name: getattr(self, name) for name in self.__slots__})
        return packed

    @classmethod
    def decode(cls, data: bytes) -> HostRecord:
        """Read a record; what this release does not know is passed over."""
        try:
            found: Any = msgpack.unpackb(data)
        except ValueError:
            return cls()
        if not isinstance(found, dict):
            return cls()
        known = {name: value for name, value in found.items() if name in cls.__slots__}
        if "pools" in known:
            known["pools"] = tuple(known["pools"])
        return cls(**known)
