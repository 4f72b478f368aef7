"""What is asked about an entity and is none of its operations: watching it.

It does not queue behind operations, which may take long. What is told about the state is what the last
snapshot says: never what a running operation has changed so far.
"""

from __future__ import annotations

import logging

from lungfish.runtime.client.watching import NO_NEWS, pack_state, unpack_seen
from lungfish.runtime.errors import LungfishError, UsageError
from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages.messages import EntityControl, Response
from lungfish.runtime.partitions.kinds import Effects, Item

from .expiry import Expiry
from .jobs import describe
from .turn import Turns
from .watching import Watchers

logger = logging.getLogger(__name__)


class Controls:
    """The controls of one activation.

    Attributes:
        expiry: of an entity that has a ttl.
    """

    def __init__(self, actor: ActorId, turns: Turns) -> None:
        self._actor = actor
        self._turns = turns
        ttl_ms = turns.plan.cls.lungfish_options.ttl_ms
        self.expiry = Expiry(actor, ttl_ms) if ttl_ms else None
        self._watchers = Watchers()
        #: The state has changed in this run, and somebody watches.
        self.untold = False

    def changed(self) -> None:
        """Note that a snapshot was written; ``tell`` follows at the end of the run."""
        self.untold = bool(self._watchers)

    def tell(self, effects: Effects) -> None:
        """Tell the watchers what the state is now."""
        self.untold = False
        version = effects.commit_number
        told = self._watchers.changed(version, effects.now_ms)
        state = pack_state(version, self._turns.base, again=False) if told else b""
        for watcher in told:
            effects.publish(Response(watcher.target, watcher.request, state))

    def take(self, effects: Effects, item: Item, message: EntityControl, *, is_idle: bool) -> None:
        """Do what is asked, at once."""
        effects.done(item)
        client = message.reply_to
        try:
            match message.verb:
                case "watch" if client is not None:
                    self._watch(effects, client, message)
                case "unwatch" if client is not None:
                    self._watchers.leave(client, message.request)
                case "expire":
                    self._expire(effects, message, is_idle=is_idle)
                case _:
                    raise UsageError(f"{self._actor}: {message.verb!r} is unknown to this release")
        except (LungfishError, ValueError) as error:
            logger.warning("%s: %s refused: %s", self._actor, message.verb, error)
            if client is not None:
                effects.send(Response(client, message.request, None, describe(error)))

    def _expire(self, effects: Effects, message: EntityControl, *, is_idle: bool) -> None:
        exists = self._turns.base is not None
        if self.expiry is not None and self.expiry.is_over(effects, message, is_idle=is_idle, exists=exists):
            logger.info("%s had no message for its ttl and is deleted", self._actor)
            self._turns.delete()

    def used(self, effects: Effects) -> None:
        """Note that operations were run."""
        if self.expiry is not None:
            self.expiry.used(effects, exists=self._turns.base is not None)

    def _watch(self, effects: Effects, client: ActorId, message: EntityControl) -> None:
        seen, lost = unpack_seen(message.payload)
        watcher = self._watchers.heard(client, message.request, seen, effects.now_ms, lost=lost)
        version = self._watchers.present(effects.commit_number)
        again = seen > effects.commit_number
        if (watcher.last < version or again) and watcher.may_be_told(version):
            state = pack_state(version, self._turns.base, again=again)
            effects.publish(Response(client, message.request, state))
        elif lost:
            effects.publish(Response(client, message.request, NO_NEWS))
