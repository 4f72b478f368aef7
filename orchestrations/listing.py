"""An instance in the indexes of its partition: what queries and retention find it by.

Rules:

* The entries follow from the row alone. A row and its entries are written in one commit.
* They are worked out when the status changes, not at every turn: five changes in a plain life.
"""

from __future__ import annotations

from lungfish.runtime.ids import ActorId
from lungfish.runtime.partitions.kinds import Effects
from lungfish.runtime.store import index

from .row import TERMINAL, InstanceRow, Status

Entries = dict[tuple[str, str], int]


def entries(instance: str, row: InstanceRow, status: Status | None = None) -> Entries:
    """Return (index, member) → score for an instance, or for what it was while it had another status."""
    status = status or row.status
    member = index.member(row.created_ms, instance)
    found = {(index.by_status(status.value), member): 0, (index.by_name(row.name), member): 0}
    if row.parent is not None:
        found[index.by_parent(row.parent.key), member] = 0
    for tag, value in row.tags.items():
        found[index.by_tag(tag, value), member] = 0
    if status in TERMINAL:
        found[index.by_end(status.value, row.name), instance] = row.updated_ms
    return found


class Listing:
    """What the indexes say of one instance, as far as this activation has written or found it."""

    __slots__ = ("_actor", "_row", "_status")

    def __init__(self, actor: ActorId) -> None:
        self._actor = actor
        self._row: InstanceRow | None = None
        self._status: Status | None = None

    def found(self, row: InstanceRow) -> None:
        """Take over what is stored."""
        self._row, self._status = row, row.status

    def write(self, effects: Effects, row: InstanceRow) -> None:
        """Bring the indexes in line with a row that is written."""
        if row is not self._row:  # a new instance, perhaps under the id of one before
            before, self._row, self._status = self._entries(), row, row.status
            self._change(effects, before, self._entries())
        elif row.status is not self._status or row.terminal:
            self._change_status(effects, row)

    def _change_status(self, effects: Effects, row: InstanceRow) -> None:
        before, self._status = self._status, row.status
        assert before is not None
        member = index.member(row.created_ms, self._actor.key)
        if before is not row.status:
            effects.index(index.by_status(before.value), member, None)
            effects.index(index.by_status(row.status.value), member, 0)
            if before in TERMINAL:
                effects.index(index.by_end(before.value, row.name), self._actor.key, None)
        if row.terminal:
            effects.index(index.by_end(row.status.value, row.name), self._actor.key, row.updated_ms)

    def remove(self, effects: Effects) -> None:
        """Take the instance out of all indexes."""
        before, self._row = self._entries(), None
        self._change(effects, before, {})

    def _entries(self) -> Entries:
        # Worked out again, not kept: most instances in memory never change their status there.
        return {} if self._row is None else entries(self._actor.key, self._row, self._status)

    def _change(self, effects: Effects, before: Entries, after: Entries) -> None:
        for at in before:
            if at not in after:
                effects.index(*at, None)
        for at, score in after.items():
            if score or at not in before:  # the time of an end may be another one
                effects.index(*at, score)
