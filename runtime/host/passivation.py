"""How many activations a host lets go, and when: pure policy, and the thin reading of memory that it needs.

Rules:

* The cap on activations holds at once: whoever loads over it wakes the passivation, which goes a little
  below.
* Ray kills a whole host when its node's memory is 95 % used, with all that runs in it. So a host sheds
  long before: from ``HIGH`` on, a quarter of its activations each time it looks, the longest idle first,
  until below ``LOW``. What is let go is in the store; it costs a read to have it back.
* Memory that others use cannot be given back: a host that holds little of it keeps its activations.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: Shares of the memory limit: shedding begins over ``HIGH`` and ends below ``LOW``.
HIGH: Final = 0.80
LOW: Final = 0.75
#: A host that uses less than this share of the memory keeps what it has.
OWN_MIN: Final = 0.05
#: What part of its activations a host lets go at once.
STEP: Final = 0.25
#: How far below the cap a host goes: looking for the longest idle takes a look at all.
SLACK: Final = 0.1
_CGROUP: Final = Path("/sys/fs/cgroup")
#: What cgroup v1 says where there is no limit is about 2^63.
_NO_LIMIT: Final = 1 << 60


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Memory as the out-of-memory killer sees it, and what of it is this process's (bytes)."""

    used: int
    limit: int
    own: int


class Shedding:
    """Decides how many activations go; remembers whether memory was short the last time."""

    def __init__(self, activations_max: int) -> None:
        self._max = activations_max
        self._is_short = False

    def count(self, activations: int, memory: MemoryUse | None) -> int:
        """Return how many activations should go now, the longest idle first."""
        over = 0
        if activations > self._max:
            over = activations - int(self._max * (1 - SLACK))
        return max(over, self._for_memory(activations, memory))

    def _for_memory(self, activations: int, memory: MemoryUse | None) -> int:
        if memory is None or memory.limit <= 0 or memory.own < OWN_MIN * memory.limit:
            self._is_short = False
            return 0
        share = memory.used / memory.limit
        self._is_short = share >= HIGH or (self._is_short and share >= LOW)
        return max(1, int(activations * STEP)) if self._is_short and activations else 0


def spread(count: int, sizes: Sequence[int]) -> list[int]:
    """Return how many of ``count`` each partition lets go, in proportion to its size; together ``count``."""
    total = sum(sizes)
    count = min(count, total)
    if not count:
        return [0] * len(sizes)
    shares = [count * size // total for size in sizes]
    # What rounding left over goes to those that lost most by it. Rounding up would empty many small ones.
    by_loss = sorted(range(len(sizes)), key=lambda at: -(count * sizes[at] % total))
    for at in by_loss[: count - sum(shares)]:
        shares[at] += 1
    return shares


def read_memory(proc: Path = Path("/proc"), cgroup: Path = _CGROUP) -> MemoryUse | None:
    """Return the tightest of the machine's and the container's memory; None where nothing can be read."""
    own = _number(proc / "self/statm", field=1) * os.sysconf("SC_PAGE_SIZE")
    found = [use for use in (_machine(proc, own), _container(cgroup, own)) if use is not None]
    return max(found, key=lambda use: use.used / use.limit, default=None)


def _machine(proc: Path, own: int) -> MemoryUse | None:
    rows: dict[str, int] = {}
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (proc / "meminfo").read_text().splitlines():
            name, _, rest = line.partition(":")
            rows[name] = int(rest.split()[0]) * 1_024
    total, available = rows.get("MemTotal", 0), rows.get("MemAvailable")
    return MemoryUse(total - available, total, own) if total and available is not None else None


def _container(cgroup: Path, own: int) -> MemoryUse | None:
    for limit_file, used_file in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        limit, used = _number(cgroup / limit_file), _number(cgroup / used_file)
        if 0 < limit < _NO_LIMIT and used:
            # Cached files count as used there, but go when memory is wanted.
            cached = _row(cgroup / limit_file, "memory.stat", "inactive_file")
            return MemoryUse(max(0, used - cached), limit, own)
    return None


def _number(path: Path, field: int = 0) -> int:
    try:
        return int(path.read_text().split()[field])
    except (OSError, ValueError, IndexError):  # not there, or "max"
        return 0


def _row(beside: Path, name: str, row: str) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (beside.parent / name).read_text().splitlines():
            if line.startswith(f"{row} "):
                return int(line.split()[1])
    return 0
