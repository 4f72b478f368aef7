"""The activation of an entity that cannot be run: its name is not registered, or its state cannot be read."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

from lungfish.runtime.errors import LungfishError
from lungfish.runtime.ids import ActorId
from lungfish.runtime.kinds import Effects, Item
from lungfish.runtime.messages import Call, Response, Signal

from .calls import refusal

if TYPE_CHECKING:
    from .processor import Counts

logger = logging.getLogger(__name__)


class Refusing:
    """Answers every call with ``error``. Signals have no one to tell, so they are kept or logged.

    Kept signals stay in the mailbox as rows of the store. They are given to the next activation: in
    a process that can read the state, for example after a release with ``migrate``.
    Dropping them instead would lose acknowledged messages because of a bug in a model.
    """

    def __init__(self, actor: ActorId, error: LungfishError, counts: Counts, *, keep_signals: bool) -> None:
        self._actor = actor
        self._error = error
        self._counts = counts
        self._keep_signals = keep_signals
        self._arrived: deque[Item] = deque()
        self._kept = 0

    def accept(self, item: Item) -> None:
        """Queue an item."""
        self._arrived.append(item)

    def run(self, effects: Effects) -> None:
        """Refuse all that has arrived."""
        while self._arrived:
            self._refuse(self._arrived.popleft(), effects)

    def _refuse(self, item: Item, effects: Effects) -> None:
        message = item.message
        if isinstance(message, Signal) and self._keep_signals:
            self._kept += 1
            return
        if isinstance(message, Call):
            effects.send(Response(message.reply_to, message.request, None, refusal(self._error)))
        elif isinstance(message, Signal):
            self._counts.signals_dropped += message.count
            logger.error("%s: %d signals are dropped: %s", self._actor, message.count, self._error)
        effects.done(item)

    @property
    def ready(self) -> bool:
        """False: all that can be done is done at once."""
        return False

    @property
    def passive(self) -> bool:
        """True when nothing waits here; what is kept must not be loaded again and again."""
        return not (self._arrived or self._kept)

    def drop(self) -> None:
        """Let go of everything."""
        self._arrived.clear()
