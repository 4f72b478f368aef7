"""Scans of indexes as script calls, and their answers: pure functions, no I/O."""

from __future__ import annotations

from collections.abc import Iterable

from lungfish.runtime.store.index import STEPS_MAX, Counted, Found, Scan, merged

from .keys import Keys
from .link import Reply
from .scripts import script
from .servers import Call


def scan_call(keys: Keys, scan: Scan, count: int) -> Call:
    """Return the call for a scan; ``count`` 0 counts."""
    partition = keys.partition(scan.partition)
    names = [partition.by(index) for index in (*scan.indexes, *scan.any_of)]
    newest, choices = int(scan.newest), len(scan.any_of)
    bounded = (*scan.bounds(), newest, scan.prefix, scan.prefix_at, count, STEPS_MAX, choices)
    return names[0], script("scan_index", names, *bounded)


def read_found(scan: Scan, reply: Reply, count: int) -> Found:
    """Read the answer to a scan."""
    walks = [
        Found(tuple(member.decode() for member in members), stopped.decode()) for members, stopped in reply
    ]
    return walks[0] if len(walks) == 1 else merged(scan, walks, count)


def read_counted(reply: Reply) -> Counted:
    """Read the answer to a scan of one walk that counts."""
    ((count, stopped),) = reply
    return Counted(int(count), stopped.decode())


def ended_calls(keys: Keys, ends: Iterable[tuple[int, str, int]], count: int) -> list[Call]:
    """Return one call for each (partition, index, time)."""
    calls: list[Call] = []
    for partition, index, before_ms in ends:
        key = keys.partition(partition).by(index)
        calls.append((key, ("ZRANGEBYSCORE", key, "-inf", f"({before_ms}", "LIMIT", 0, count)))
    return calls
