"""The activation of an entity that cannot be run: its name is not registered, or its state cannot be read."""

from __future__ import annotations

import logging
from collections import deque

from lungfish.runtime.errors import LungfishError
from lungfish.runtime.ids import ActorId
from lungfish.runtime.kinds import Effects, Item
from lungfish.runtime.messages import Call, ReminderDue, Response, Signal

from .calls import refusal

logger = logging.getLogger(__name__)


class Refusing:
    """Answers every call with ``error``; keeps signals, which have no one to tell.

    They stay in the mailbox as rows of the store, and are given to the next activation: in a process that can
    read the state (after a release with ``migrate``), or that knows the entity (during a
    deployment hosts differ). Dropping them would lose acknowledged messages because of somebody's mistake.
    """

    def __init__(self, actor: ActorId, error: LungfishError) -> None:
        self._actor = actor
        self._error = error
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
        if isinstance(message, Signal | ReminderDue):
            self._kept += 1
            return
        if isinstance(message, Call):
            effects.send(Response(message.reply_to, message.request, None, refusal(self._error)))
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
