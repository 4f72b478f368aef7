"""The blocking client's way to edit an entity's state by hand."""

from __future__ import annotations

from typing import Any

from lungfish.runtime.client.editing import StateEdit


class BlockingEditable:
    """``Editable`` without ``await``: see there."""

    #: Declared by whoever has them.
    _loop: Any
    _ref: Any

    def edit(self, state: Any, *, reason: str, by: str = "") -> None:
        """Replace the state; durable, with its record, when this returns; see ``EntityRef.edit``."""
        self._loop.run(self._ref.edit(state, reason=reason, by=by))

    def purge(self, *, reason: str, by: str = "") -> None:
        """Delete the state, the reminders and the records of edits; see ``EntityRef.purge``."""
        self._loop.run(self._ref.purge(reason=reason, by=by))

    def edits(self) -> list[StateEdit]:
        """Return the records of the last edits, oldest first; see ``EntityRef.edits``."""
        found: list[StateEdit] = self._loop.run(self._ref.edits())
        return found
