"""What a process and a hub must agree on before the process may touch the hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lungfish.runtime.errors import HubMismatch
from lungfish.runtime.ids import HASH_NAME

from .layout import FORMAT_VERSION, HubMeta, PoolRange

#: How the fields of pools begin in a stored meta.
POOL_FIELD: Final = "pool:"


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


def check_pools(hub: str, meta: HubMeta, wanted: Mapping[str, int]) -> HubMeta:
    """Return ``meta`` if none of its pools is wanted otherwise; raise ``HubMismatch`` if one is."""
    counts = {pool.name: pool.count for pool in meta.pools}
    for name, count in wanted.items():
        if counts.get(name, count) != count:
            raise HubMismatch(
                f"hub {hub!r}: pool {name!r} has {counts[name]} partitions, this app wants {count}. "
                "A pool keeps its count for ever: declare it with that, or under another name"
            )
    return meta


def meta_of(fields: Mapping[str, bytes]) -> HubMeta | None:
    """Return what the fields of a stored meta say; None if there is none."""
    if "partitions" not in fields:
        return None
    pools = []
    for field, value in fields.items():
        if field.startswith(POOL_FIELD):
            first, count = value.split()
            pools.append(PoolRange(field.removeprefix(POOL_FIELD), int(first), int(count)))
    return HubMeta(
        int(fields["partitions"]),
        int(fields["format"]),
        fields["hash"].decode(),
        tuple(sorted(pools, key=lambda pool: pool.first)),
    )
