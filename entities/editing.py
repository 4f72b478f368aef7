"""Edits and purges of an entity's state, at the owner.

Rules:

* An edit stands in the mailbox like an exclusive operation, and runs alone. So it sees what was
  sent before it, and critical sections keep it out.
* The new state is validated as one that is read from the store. What does not fit changes nothing.
* The state, its record and the answer are one commit.
* How many edits there were is in the snapshot: it says which row of the ring is the next. When the
  entity goes, the rows go with it.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from pydantic import ValidationError

from lungfish.runtime import codec
from lungfish.runtime.client.editing import (
    BEFORE_BYTES_MAX,
    EDIT,
    EDITS_KEPT,
    PURGE,
    Order,
    ring_row,
    unpack_order,
)
from lungfish.runtime.declared.definitions import Operation
from lungfish.runtime.declared.signatures import Signature
from lungfish.runtime.errors import DeadlineExceeded, InvalidArguments, LungfishError
from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages.messages import EntityControl, Response
from lungfish.runtime.partitions.kinds import Effects, Item

from .jobs import describe
from .state import StatePlan, explain
from .turn import Turns

logger = logging.getLogger(__name__)

#: Verbs that wait in the mailbox.
EDITING: Final = frozenset({EDIT, PURGE})

#: What the mailbox sees of an edit: exclusive, and not a part of a turn of operations.
_EDITING: Final = Operation(
    "edit", lambda: None, Signature.of(lambda: None, "edit"), shared=False, is_async=True
)


@dataclass(slots=True, eq=False)
class Edit:
    """An edit or a purge on its way through the mailbox."""

    item: Item
    message: EntityControl
    operation: ClassVar[Operation] = _EDITING
    is_tick: ClassVar[bool] = False

    def run(self, turns: Turns, effects: Effects) -> None:
        """Do what is asked, and answer; the snapshot is the caller's to write."""
        message, failure = self.message, None
        try:
            order = unpack_order(message.payload, f"{message.verb} of {message.target}")
            self._check_time(order, effects.now_ms)
            if order.fields is None or message.verb == PURGE:
                turns.delete()
                logger.warning("%s was purged by %r: %s", message.target, order.by, order.reason)
            else:
                _replace(turns, effects, message.target, order, order.fields)
        except LungfishError as error:
            failure = describe(error)
        if message.reply_to is not None:
            effects.send(Response(message.reply_to, message.request, None, failure))
        effects.done(self.item)

    def _check_time(self, order: Order, now_ms: int) -> None:
        late_ms = now_ms - self.item.accepted_ms - order.patience_ms
        if order.patience_ms and late_ms > 0:
            raise DeadlineExceeded(
                f"{self.message.verb} of {self.message.target} was not done: "
                f"its turn came {late_ms:,} ms too late"
            )


def _replace(turns: Turns, effects: Effects, actor: ActorId, order: Order, fields: dict[str, Any]) -> None:
    before, number = turns.base, turns.edits
    state = validated(turns.plan, fields, f"the new state of {actor}")
    turns.replace(state, number + 1)
    record = record_of(number, effects.now_ms, order, before, turns.base)
    effects.snapshot(ring_row(actor, number), codec.encode(record, f"record of an edit of {actor}"))


def validated(plan: StatePlan, fields: dict[str, Any], what: str) -> Any:
    """Return fields as a state of the class; raises ``InvalidArguments`` if they do not fit."""
    try:
        return plan.cls.__pydantic_validator__.validate_python(fields, by_alias=True, by_name=True)
    except ValidationError as error:
        raise InvalidArguments(f"{what} does not fit: {explain(error)}") from error
    except Exception as error:  # a validator or model_post_init of the user's raised
        raise InvalidArguments(f"{what} does not fit: {error!r}") from error


def record_of(number: int, now_ms: int, order: Order, before: bytes | None, after: bytes | None) -> list[Any]:
    """Return the stored form of an edit's record: positional; fields are only added at the end."""
    old_hash, old = _stored(before)
    new_hash, _ = _stored(after)
    return [number, now_ms, order.reason, order.by, old, old_hash, new_hash]


def _stored(snapshot: bytes | None) -> tuple[str, Any]:
    """Return the hash of a snapshot's fields, and the fields if they are few."""
    if snapshot is None:
        return "", None
    try:
        fields = codec.decode(snapshot, "state")[2]
        data = codec.encode(fields, "state")
    except Exception:  # it could not be read: that may be why it is edited
        return hashlib.sha256(snapshot).hexdigest(), None
    return hashlib.sha256(data).hexdigest(), fields if len(data) <= BEFORE_BYTES_MAX else None


class Trail:
    """The records of one entity's edits, as far as they are in the store."""

    __slots__ = ("_actor", "_count")

    def __init__(self, actor: ActorId, count: int) -> None:
        self._actor = actor
        self._count = count

    def follow(self, effects: Effects, count: int) -> None:
        """Note how many edits the snapshot tells of; fewer than before: the entity was deleted meanwhile."""
        if count < self._count:
            for number in range(count, min(self._count, EDITS_KEPT)):
                effects.snapshot(ring_row(self._actor, number), None)
        self._count = count
