"""Which rows of a block a sink may take, and which must wait for those before them. Pure.

Rules:

* A row has a position. The positions of a shard follow one another without a gap, so what is missing before
  a row can be seen. Where rows name no shard, every ``SHARD_ROWS`` positions are one: that number is part of
  what is remembered of a sink, and never changes.
* A *run* is what a block has of one shard without a gap. Blocks may have any borders, in any order.
* A run may be written when all rows of its shard before it were accepted, and not before: a sink's number
  says that all rows below it are there, and would pass over those that come late.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from lungfish.runtime.errors import UsageError

#: Positions of one shard, where rows name none.
SHARD_ROWS: Final = 20_000


@dataclass(slots=True)
class Run:
    """Rows of one shard, without a gap: the first has position ``start``."""

    shard: str
    start: int
    rows: list[Any] = field(default_factory=list)

    @property
    def first(self) -> int:
        """Position of the first row of the shard, in whatever block it is."""
        return self.start - self.start % SHARD_ROWS if self.shard.startswith("#") else 0


def runs_of(
    rows: Iterable[Any], position: Callable[[Any], Any], shard: Callable[[Any], Any] | None
) -> list[Run]:
    """Return the runs of a block, those that begin a shard first: nothing holds these up.

    Raises:
        UsageError: a position that is no number, or a shard that is no text.
    """
    runs: list[Run] = []
    for row in rows:
        at = position(row)
        if isinstance(at, bool) or not hasattr(at, "__index__") or at < 0:
            raise UsageError(f"position of a row: an integer from 0 is needed, not {at!r}")
        at = int(at)
        name = f"#{at // SHARD_ROWS}" if shard is None else shard(row)
        if not isinstance(name, str) or not name or (shard is not None and name.startswith("#")):
            raise UsageError(f"shard of a row: a text that does not begin with '#' is needed, not {name!r}")
        last = runs[-1] if runs else None
        if last is not None and last.shard == name and at == last.start + len(last.rows):
            last.rows.append(row)
        else:
            runs.append(Run(name, at, [row]))
    return sorted(runs, key=lambda run: run.start != run.first)
