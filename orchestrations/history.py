"""The stored history of one instance, as its activation has it in memory.

A batch is kept only where somebody will replay it: a live instance that is not replayed has none.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from lungfish.runtime.errors import FailureDetails, LimitExceeded, LungfishError
from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages.payloads import tokens_in
from lungfish.runtime.partitions.kinds import Effects

from . import events
from .large import LargeValues
from .limits import Limits
from .matching import Outstanding
from .row import InstanceRow

log = logging.getLogger("lungfish.orchestrations")


class History:
    """Batches of events, oldest first."""

    __slots__ = ("_actor", "_batches", "_large", "_limits", "_warned", "whole")

    def __init__(self, actor: ActorId, batches: Iterable[bytes], limits: Limits, large: LargeValues) -> None:
        self._actor = actor
        self._batches = list(batches)
        self._limits = limits
        self._large = large
        self._warned = False
        #: Everything that is stored is in memory, too.
        self.whole = True

    def __bool__(self) -> bool:
        return bool(self._batches)

    def append(self, effects: Effects, row: InstanceRow, turn: Sequence[events.Event], *, keep: bool) -> None:
        """Store the events of a turn.

        Args:
            keep: it will be replayed by this activation, so it is kept in memory, too.
        """
        batch = self._large.batch(effects, events.pack(turn))
        if not row.length:  # another history begins
            row.size, row.warning, self._warned = 0, "", False
        row.length += len(turn)
        row.size += len(batch)
        effects.history(self._actor, batch)
        if keep and self.whole:
            self._batches.append(batch)
        else:
            self.whole = False

    def read(self) -> list[events.Event]:
        """Return all events; raises ``MalformedBytes``."""
        return events.unpack_all(self._large.inlined(self._batches))

    def tokens(self) -> list[bytes]:
        """Return the tokens of the large values in what is in memory."""
        return [token for batch in self._batches for token in tokens_in(batch)]

    def clear(self) -> None:
        """Forget what is in memory."""
        self.whole = False
        self._batches.clear()

    def forget(self, effects: Effects, row: InstanceRow | None = None) -> None:
        """Delete what is stored: another history begins."""
        self._batches.clear()
        self.whole = True
        self._large.condemn()
        effects.forget_history(self._actor)
        if row is not None:
            row.length = 0

    def outstanding(self) -> Outstanding:
        """Return what is open, without running code: the code may be what is broken."""
        try:
            return Outstanding(self.read())
        except LungfishError:
            text = "instance %s: the history cannot be read; its timers and children are left alone"
            log.exception(text, self._actor)
            return Outstanding()

    def too_long(self, row: InstanceRow) -> FailureDetails | None:
        """Warn once, before a history is too long; return the failure if it is.

        The row keeps the warning: it is told once in the life of an execution, wherever that goes on.
        """
        limits = self._limits
        near = row.length > limits.history_warn or row.size > limits.history_bytes_warn
        if near and not (row.warning or self._warned):
            self._warned = True
            row.warning = f"the history has {self._extent(row)}. Use ctx.continue_as_new."
            log.warning("instance %s of %s: %s", self._actor, row.name, row.warning)
        if row.length <= limits.history_max and row.size <= limits.history_bytes_max:
            return None
        return FailureDetails.of(
            LimitExceeded(f"the history has {self._extent(row)}. Use ctx.continue_as_new.")
        )

    def _extent(self, row: InstanceRow) -> str:
        limits = self._limits
        return (
            f"{row.length:,} events (the limit is {limits.history_max:,}) "
            f"and {row.size:,} bytes (the limit is {limits.history_bytes_max:,})"
        )
