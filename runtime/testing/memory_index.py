"""Scans of indexes in memory: what ``scan_index.lua`` does, as plain Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lungfish.runtime.store.index import STEPS_MAX, Found, Scan, merged

Indexes = Mapping[str, Mapping[str, int]]


def walk(indexes: Indexes, scan: Scan, wanted: Sequence[str]) -> tuple[list[str], str]:
    """Return the members of all ``wanted`` indexes within ``STEPS_MAX`` steps, and where the walk stopped."""
    tables = [indexes.get(index, {}) for index in wanted]
    walked = min(tables, key=len)
    names = sorted(name for name in walked if name >= scan.low and (not scan.high or name < scan.high))
    if scan.newest:
        names.reverse()
    if scan.after:
        names = [name for name in names if scan.is_before(scan.after, name)]
    stopped = names[STEPS_MAX - 1] if len(names) > STEPS_MAX else ""
    found = [
        name
        for name in names[:STEPS_MAX]
        if name[scan.prefix_at :].startswith(scan.prefix) and all(name in table for table in tables)
    ]
    return found, stopped


def find(indexes: Indexes, scan: Scan, count: int) -> Found:
    """Return what ``Store.scan_index`` returns for one scan."""
    choices = [(*scan.indexes, index) for index in scan.any_of] or [scan.indexes]
    walks = []
    for choice in choices:
        members, stopped = walk(indexes, scan, choice)
        if len(members) >= count:
            members, stopped = members[:count], members[count - 1]
        walks.append(Found(tuple(members), stopped))
    return walks[0] if len(walks) == 1 else merged(scan, walks, count)
