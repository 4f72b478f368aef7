"""The stored history of one instance, as its activation has it in memory.

A batch is kept only where somebody will replay it: a live instance that is not replayed has none.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from lungfish.runtime.errors import FailureDetails, LimitExceeded, LungfishError
from lungfish.runtime.ids import ActorId
from lungfish.runtime.kinds import Effects

from . import events
from .limits import Limits
from .matching import Outstanding
from .row import InstanceRow

log = logging.getLogger("lungfish.orchestrations")


class History:
    """Batches of events, oldest first."""

    __slots__ = ("_actor", "_batches", "_limits", "_warned")

    def __init__(self, actor: ActorId, batches: Iterable[bytes], limits: Limits) -> None:
        self._actor = actor
        self._batches = list(batches)
        self._limits = limits
        self._warned = False

    def __bool__(self) -> bool:
        return bool(self._batches)

    def append(self, effects: Effects, row: InstanceRow, turn: Sequence[events.Event], *, keep: bool) -> None:
        """Store the events of a turn.

        Args:
            keep: it will be replayed by this activation, so it is kept in memory, too.
        """
        batch = events.pack(turn)
        row.length += len(turn)
        effects.history(self._actor, batch)
        if keep:
            self._batches.append(batch)

    def read(self) -> list[events.Event]:
        """Return all events; raises ``MalformedBytes``."""
        return events.unpack_all(self._batches)

    def clear(self) -> None:
        """Forget what is in memory."""
        self._batches.clear()

    def outstanding(self) -> Outstanding:
        """Return what is open, without running code: the code may be what is broken."""
        try:
            return Outstanding(self.read())
        except LungfishError:
            text = "instance %s: the history cannot be read; its timers and children are left alone"
            log.exception(text, self._actor)
            return Outstanding()

    def too_long(self, row: InstanceRow) -> FailureDetails | None:
        """Warn once about a long history; return the failure if it is too long."""
        limits = self._limits
        if row.length > limits.history_warn and not self._warned:
            self._warned = True
            text = "instance %s of %s has a history of %d events; it fails at %d. Use ctx.continue_as_new."
            log.warning(text, self._actor, row.name, row.length, limits.history_max)
        if row.length <= limits.history_max:
            return None
        error = LimitExceeded(
            f"the history has {row.length:,} events; the limit is {limits.history_max:,}. "
            "Use ctx.continue_as_new."
        )
        return FailureDetails.of(error)
