"""The activation of an entity that cannot be run: its name is not registered, or its state cannot be read."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from lungfish.runtime import codec
from lungfish.runtime.errors import LungfishError
from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages.messages import (
    Call,
    EntityControl,
    Inspect,
    LockRelease,
    LockRequest,
    ReminderDue,
    Response,
    Signal,
    TimerFired,
)
from lungfish.runtime.partitions.kinds import Effects, Item

from .calls import refusal
from .editing import EDITING
from .expiry import EXPIRE
from .locking import CHECK, Claim, Entry, Locks, Release, lock_state

logger = logging.getLogger(__name__)


class Refusing:
    """Answers every call with ``error``; keeps signals, which have no one to tell.

    They stay in the mailbox as rows of the store, and are given to the next activation: in a process that can
    read the state (after a release with ``migrate``), or that knows the entity (during a
    deployment hosts differ). Dropping them would lose acknowledged messages because of somebody's mistake.

    An edit by hand, or a purge, ends that: all that was kept goes to the activation that can then be made.

    It can be held, one after the other: the holder's calls then fail, which tells more than to wait for ever.
    """

    def __init__(self, actor: ActorId, error: LungfishError, repair: Callable[[], Any] | None = None) -> None:
        self._actor = actor
        self._error = error
        self._repair = repair
        #: What took over, once the state was replaced.
        self._mended: Any = None
        self._arrived: deque[Item] = deque()
        self._kept: list[Item] = []
        self._locks = Locks()

    def accept(self, item: Item) -> None:
        """Queue an item."""
        self._arrived.append(item)

    def run(self, effects: Effects) -> None:
        """Refuse all that has arrived."""
        while self._arrived and self._mended is None:
            self._take(self._arrived.popleft(), effects)
        if self._mended is not None:
            while self._arrived:
                self._mended.accept(self._arrived.popleft())
            self._mended.run(effects)

    def _take(self, item: Item, effects: Effects) -> None:
        message = item.message
        match message:
            case Signal() | ReminderDue():
                self._kept.append(item)
                return
            case LockRequest():
                self._take_request(item, message, effects)
                return
            case LockRelease():
                self._take_release(item, message, effects)
                return
            case Call():
                effects.send(Response(message.reply_to, message.request, None, refusal(self._error)))
            case Inspect():
                told = codec.encode(lock_state(self._locks, 0, []), "state of an entity")
                effects.send(Response(message.reply_to, message.request, told))
            case EntityControl() if message.verb == EXPIRE:
                self._kept.append(item)
                return
            case EntityControl() if message.verb in EDITING and self._repair is not None:
                self._mend(item, self._repair(), effects)
                return
            case EntityControl() if message.reply_to is not None:
                effects.publish(Response(message.reply_to, message.request, None, refusal(self._error)))
            case TimerFired() if message.purpose == CHECK:
                self._locks.check(effects, self._actor)
            case _:
                pass
        effects.done(item)

    def _mend(self, item: Item, made: Any, effects: Effects) -> None:
        """Let ``made`` do an edit; if the state is another one then, it goes on in the place of this."""
        before = made.snapshot
        made.accept(item)
        made.run(effects)
        if made.snapshot == before:  # it was refused, and answered
            made.drop()
            return
        logger.warning("%s was mended by hand; what waited goes on", self._actor)
        held = [claim.item for claim in self._locks.claims.values()]
        self._arrived.extendleft(sorted((*self._kept, *held), key=lambda each: each.row, reverse=True))
        self._mended = made

    def _take_request(self, item: Item, message: LockRequest, effects: Effects) -> None:
        claim = self._locks.request(effects, item, message)
        if claim is None:
            return
        if self._locks.holding is None or claim.since_ms:
            blocked: deque[Entry] = self._locks.holding.blocked if self._locks.holding else deque()
            self._locks.hold(effects, claim).blocked = blocked
        else:
            self._locks.holding.blocked.append(claim)
            self._locks.watch(effects, self._actor)

    def _take_release(self, item: Item, message: LockRelease, effects: Effects) -> None:
        taken = self._locks.release(effects, item, message)
        if isinstance(taken, Claim) and self._locks.holding is not None:
            self._locks.holding.blocked.remove(taken)
        elif isinstance(taken, Release):
            waiting = self._locks.let_go(effects, taken)
            if waiting:
                following = waiting.popleft()
                assert isinstance(following, Claim)
                self._locks.hold(effects, following).blocked = waiting

    @property
    def ready(self) -> bool:
        """False, until it was mended: all that can be done is done at once."""
        return self._mended is not None and bool(self._mended.ready)

    @property
    def passive(self) -> bool:
        """True when nothing waits here; what is kept must not be loaded again and again."""
        if self._mended is not None:
            return bool(self._mended.passive)
        return not (self._arrived or self._kept or self._locks.claims)

    def passivate(self) -> None:
        """Let go of everything."""
        self.drop()

    def drop(self) -> None:
        """Let go of everything."""
        self._arrived.clear()
        if self._mended is not None:
            self._mended.drop()
