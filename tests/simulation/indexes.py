"""Indexes say what the rows beside them say, after whatever happened."""

from __future__ import annotations

from collections.abc import Iterator

from lungfish.orchestrations.listing import entries
from lungfish.orchestrations.row import InstanceRow
from lungfish.runtime.messages.payloads import PENDING
from lungfish.runtime.store.index import by_entity
from lungfish.runtime.testing.memory_server import Hub, Partition


def indexes(hub: Hub) -> Iterator[str]:
    """Yield what an index has too much or too little."""
    for number, rows in hub.partitions.items():
        expected, stored = _expected(rows), _stored(rows)
        for what in sorted(expected - stored):
            yield f"partition {number}: not in its index: {what}"
        for what in sorted(stored - expected):
            yield f"partition {number}: in an index, but not in the store: {what}"


def _expected(rows: Partition) -> set[tuple[str, str, int]]:
    found = {(by_entity(name), key, 0) for name, key in rows.snapshots}
    for instance, packed in rows.instances.items():
        listed = entries(instance, InstanceRow.unpack(packed))
        found |= {(*at, score) for at, score in listed.items()}
    return found


def _stored(rows: Partition) -> set[tuple[str, str, int]]:
    return {
        (index, member, score)
        for index, members in rows.indexes.items()
        if index != PENDING
        for member, score in members.items()
    }
