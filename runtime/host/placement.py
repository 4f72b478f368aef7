"""Which host owns which partition: a pure function of the last placement and the hosts.

Rules:

* Balanced: no host has more than one partition over its share.
* Sticky: a partition stays where it is unless its host is gone or has too many; what must
  move is the least that balances.
* Deterministic: the same input gives the same placement on every host, so that it does
  not matter which host leads.
* A pool begins when every live host knows it: what runs in it sends, and hosts that do not know where its
  answers belong would lose them. Hosts of a release without pools never do. A pool that has begun goes on,
  whoever comes.
* A partition of a pool goes to hosts of that pool only. While there are none it is left where it was: nobody
  runs it, and its last owner finds it again if it was only thought dead.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgpack

from lungfish.runtime.errors import SerializationError
from lungfish.runtime.store.layout import serves


def place_pools(
    previous: Mapping[int, str],
    hosts: Mapping[str, Collection[str]],
    pools: Mapping[str, Sequence[int]],
    known: int,
) -> dict[int, str]:
    """Return partition → host for all partitions of all pools.

    Args:
        previous: the placement before.
        hosts: the pools that each host serves (alive, not draining).
        pools: the partitions of each pool, in their order; those of none first.
        known: how many pools every live host knows; those behind them do not begin.
    """
    placed: dict[int, str] = {}
    for at, (pool, partitions) in enumerate(pools.items()):
        if at > known and previous.keys().isdisjoint(partitions):
            continue
        takers = [host for host, served in hosts.items() if serves(served, pool)]
        placed |= place(previous, takers, partitions) or {
            partition: previous[partition] for partition in partitions if partition in previous
        }
    return placed


def place(previous: Mapping[int, str], hosts: Sequence[str], partitions: Sequence[int]) -> dict[int, str]:
    """Return partition → host for these partitions; empty if there are no hosts.

    Args:
        previous: the placement before; partitions of hosts that are gone may be in it.
        hosts: the hosts that take them.
    """
    names = sorted(set(hosts))
    if not names:
        return {}
    owned: dict[str, list[int]] = {name: [] for name in names}
    homeless = []
    for partition in partitions:
        host = previous.get(partition, "")
        if host in owned:
            owned[host].append(partition)
        else:
            homeless.append(partition)
    for name, share in _shares(owned, len(partitions)).items():
        homeless += owned[name][share:]
        del owned[name][share:]
    for partition in sorted(homeless):
        # The emptiest takes it; among equals the first by name.
        owned[min(names, key=lambda name: (len(owned[name]), name))].append(partition)
    return {partition: name for name in names for partition in owned[name]}


def _shares(owned: Mapping[str, list[int]], partitions: int) -> dict[str, int]:
    """Return how many each host may keep: those that have most keep the odd ones."""
    least, odd = divmod(partitions, len(owned))
    by_count = sorted(owned, key=lambda name: (-len(owned[name]), name))
    return {name: least + (1 if rank < odd else 0) for rank, name in enumerate(by_count)}


def encode_placement(placement: Mapping[int, str]) -> bytes:
    """Return the stored form of a placement."""
    packed: bytes = msgpack.packb([1, {str(key): host for key, host in placement.items()}])
    return packed


def decode_placement(data: bytes) -> dict[int, str]:
    """Read a stored placement; none stored yet is empty."""
    if not data:
        return {}
    try:
        decoded: Any = msgpack.unpackb(data)
        return {int(key): str(host) for key, host in decoded[1].items()}
    except Exception as error:  # msgpack raises many kinds
        raise SerializationError(f"the stored placement cannot be read: {error!r}") from error
