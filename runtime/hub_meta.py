"""What a process and a hub must agree on before the process may touch the hub."""

from __future__ import annotations

from .errors import HubMismatch
from .ids import HASH_NAME
from .store import FORMAT_VERSION, HubMeta


def check_meta(hub: str, stored: HubMeta, wanted: HubMeta | None) -> HubMeta:
    """Return ``stored`` if this process may work with it; raise ``HubMismatch`` if not.

    A wrong partition count or hash would make two owners for one actor, so there is
    no way to go on, and nothing of it can be changed after the hub's creation.
    """
    need = wanted or HubMeta(partitions=stored.partitions)
    pairs = {
        "partition count": (stored.partitions, need.partitions),
        "storage format": (stored.format_version, need.format_version),
        "hash": (stored.hash_name, need.hash_name),
    }
    wrong = [
        f"{what} is {there!r}, this process uses {here!r}"
        for what, (there, here) in pairs.items()
        if there != here
    ]
    if wrong:
        raise HubMismatch(
            f"hub {hub!r} was created differently and cannot be changed: {'; '.join(wrong)}. "
            f"Use the hub's settings or another hub name "
            f"(this release: storage format {FORMAT_VERSION}, hash {HASH_NAME!r})."
        )
    return stored
