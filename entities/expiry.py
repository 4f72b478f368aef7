"""Entities that are deleted when nobody asks them anything for long: ``class Cart(Entity, ttl=...)``.

Rules:

* One durable timer per existing entity, in its partition. It is set later than the entity may go by a
  sixteenth of the ttl, and set anew only when that is used up: so an operation costs no write, an entity
  some per ttl, and none goes before its time is over; it may go a sixteenth later.
* An activation does not know when the timer of an earlier one is due: it sets it with its first
  operation.
* A timer that fires while something waits or runs, or the entity is locked, is set anew. One that was set
  anew since it fired means nothing.
"""

from __future__ import annotations

from typing import Final

import msgpack

from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages.messages import EntityControl
from lungfish.runtime.partitions.kinds import Effects

EXPIRE: Final = "expire"
_SLACK: Final = 16


class Expiry:
    """The end of one entity that has a ttl."""

    def __init__(self, actor: ActorId, ttl_ms: int) -> None:
        self._actor = actor
        self._ttl_ms = ttl_ms
        self._timer_id = f"ttl\x00{actor.name}\x00{actor.key}"
        #: When the timer is due; 0: not known, or there is none.
        self._due_ms = 0

    def used(self, effects: Effects, *, exists: bool) -> None:
        """Note that operations were run; sets the timer if it is due too early."""
        if not exists:
            if self._due_ms:
                effects.cancel_timer(self._timer_id)
                self._due_ms = 0
            return
        now_ms = effects.now_ms
        if self._due_ms < now_ms + self._ttl_ms:
            self._due_ms = now_ms + self._ttl_ms + self._ttl_ms // _SLACK
            due: bytes = msgpack.packb(self._due_ms)
            effects.timer(self._timer_id, self._due_ms, EntityControl(self._actor, EXPIRE, due))

    def is_over(self, effects: Effects, message: EntityControl, *, is_idle: bool, exists: bool) -> bool:
        """Tell whether the timer that fired ends the entity; if not, it is set anew where it must be."""
        if self._due_ms and msgpack.unpackb(message.payload) != self._due_ms:
            return False
        self._due_ms = 0
        if not is_idle:
            self.used(effects, exists=exists)
        return is_idle and exists
