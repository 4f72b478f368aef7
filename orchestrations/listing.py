"""An instance in the indexes of its partition: what queries and retention find it by.

Rules:

* The entries follow from the row alone. A row and its entries are written in one commit.
* They are worked out when the status changes, not at every turn: five changes in a plain life.
"""

from __future__ import annotations

from lungfish.runtime import index
from lungfish.runtime.ids import ActorId
from lungfish.runtime.kinds import Effects

from .row import InstanceRow, Status

Entries = dict[tuple[str, str], int]


def entries(instance: str, row: InstanceRow) -> Entries:
    """Return (index, member) → score for an instance."""
    member = index.member(row.created_ms, instance)
    found = {(index.by_status(row.status.value), member): 0, (index.by_name(row.name), member): 0}
    if row.parent is not None:
        found[index.by_parent(row.parent.key), member] = 0
    for tag, value in row.tags.items():
        found[index.by_tag(tag, value), member] = 0
    if row.terminal:
        found[index.by_end(row.status.value, row.name), instance] = row.updated_ms
    return found


class Listing:
    """What the indexes say of one instance, as far as this activation has written or found it."""

    __slots__ = ("_actor", "_entries", "_row", "_status")

    def __init__(self, actor: ActorId) -> None:
        self._actor = actor
        self._entries: Entries = {}
        self._row: InstanceRow | None = None
        self._status: Status | None = None

    def found(self, row: InstanceRow) -> None:
        """Take over what is stored."""
        self._entries, self._row, self._status = entries(self._actor.key, row), row, row.status

    def write(self, effects: Effects, row: InstanceRow) -> None:
        """Bring the indexes in line with a row that is written."""
        # Another row is another instance under this id: it may have come and ended in one turn.
        if row is self._row and row.status is self._status and not row.terminal:
            return
        before = self._entries
        self.found(row)
        self._change(effects, before, self._entries)

    def remove(self, effects: Effects) -> None:
        """Take the instance out of all indexes."""
        before, self._entries, self._row = self._entries, {}, None
        self._change(effects, before, {})

    def _change(self, effects: Effects, before: Entries, after: Entries) -> None:
        for at in before:
            if at not in after:
                effects.index(*at, None)
        for at, score in after.items():
            if before.get(at) != score:
                effects.index(*at, score)
