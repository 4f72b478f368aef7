"""Editing an entity's state by hand: what is sent, what is kept of it, and the handle's part of it.

Rules:

* An edit waits in the mailbox like an operation, and is one commit: the new state and its record.
* Records are rows beside the snapshot, in the entity's partition: a ring of ``EDITS_KEPT``. So they cost
  nothing while the entity works. They go when the entity goes.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from lungfish.runtime import codec
from lungfish.runtime.errors import EntityOperationFailed, SerializationError, UsageError
from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages.messages import CancelCall, EntityControl
from lungfish.runtime.messages.status import from_ms
from lungfish.runtime.session.connection import Connection, raise_usage_error

EDIT: Final = "edit"
PURGE: Final = "purge"
#: Edits of one entity whose records are kept, the latest.
EDITS_KEPT: Final = 32
#: A state before an edit is kept with its record up to this size (bytes).
BEFORE_BYTES_MAX: Final = 64 * 1024
#: Longest reason, and longest name of who edits.
WORDS_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class StateEdit:
    """The record of one edit.

    Attributes:
        number: how many edits the entity had before it.
        at: when it was applied (aware, UTC).
        reason, by: as they were given.
        before: fields before it as plain data; None: the entity did not exist, or over 64 KiB.
        before_hash, after_hash: SHA-256 of the stored fields, as hex; empty: the entity did not exist.
    """

    number: int
    at: dt.datetime
    reason: str
    by: str
    before: Any
    before_hash: str
    after_hash: str


@dataclass(frozen=True, slots=True)
class Order:
    """What an owner is asked for.

    Attributes:
        fields: of the new state; None for a purge.
        patience_ms: not after so long after it was accepted; 0: whenever its turn comes.
    """

    fields: dict[str, Any] | None
    reason: str
    by: str
    patience_ms: int = 0


def pack_order(order: Order, what: str) -> bytes:
    """Return the payload of an edit or a purge; raises as ``codec.encode`` does."""
    return codec.encode([order.fields, order.reason, order.by, order.patience_ms], what)


def unpack_order(payload: bytes, what: str) -> Order:
    """Read what ``pack_order`` made.

    Raises:
        SerializationError: it is nothing of that kind.
    """
    match codec.decode(payload, what):
        case [dict() | None as fields, str(reason), str(by), int(patience_ms), *_]:
            return Order(fields, reason, by, patience_ms)
    raise SerializationError(f"{what}: not what a client sends")


def ring_row(actor: ActorId, number: int) -> ActorId:
    """Return where the record of an entity's edit is kept. No entity can have such a name."""
    return ActorId(actor.kind, f"{actor.name}\x00edits", f"{actor.key}\x00{number % EDITS_KEPT}")


def read_edit(row: bytes, what: str) -> StateEdit:
    """Read a record.

    Raises:
        SerializationError: it is none.
    """
    match codec.decode(row, what):
        case [int(number), int(at_ms), str(reason), str(by), before, str(old), str(new), *_]:
            return StateEdit(number, from_ms(at_ms), reason, by, before, old, new)
    raise SerializationError(f"{what}: not the record of an edit")


class Editable:
    """The part of an entity's handle that replaces or deletes its state by hand."""

    _connection: Connection
    _actor: ActorId
    _timeout_s: float | None

    async def edit(self, state: Any, *, reason: str, by: str = "") -> None:
        """Replace the state; durable, with its record, when this returns.

        It waits its turn like an operation, also for critical sections. The owner validates it with the
        entity's class; fields that are not given take their defaults. Reminders stay. A state that does not
        fit its class any more (``StateMismatch``) can be replaced, too: at once, and what waits goes on.

        Args:
            state: an instance of the class, or its fields by name.
            reason: why; kept with who, when, and the state before it, in the same commit: see ``edits``.
            by: who.

        Raises:
            InvalidArguments: it does not fit the class; nothing was changed.
            StateMismatch: the stored state is of a later release than the owner's.
            SerializationError, PayloadTooLarge, UsageError: refused; nothing was changed.
            NotRegistered: the owner does not know the entity.
            DeadlineExceeded: no answer in time. If its turn has not come by then, it is not applied.
        """
        if isinstance(state, BaseModel):
            fields = {name: getattr(state, name) for name in type(state).model_fields}
        elif isinstance(state, Mapping) and all(isinstance(name, str) for name in state):
            fields = dict(state)
        else:
            raise UsageError(f"the new state of {self._actor} is an instance of its class, or its fields")
        await self._order(EDIT, fields, reason, by)

    async def purge(self, *, reason: str, by: str = "") -> None:
        """Delete the state, the reminders and the records of edits; durable when this returns.

        It waits its turn like an operation. What is sent afterwards finds the defaults. Signals that are
        scheduled stay: they are messages, and will find them, too. An entity that is not there is no error.
        A state that cannot be read is deleted at once.

        Args:
            reason: why; logged by the owner, since nothing of the entity is kept.
            by: who.

        Raises:
            UsageError: no reason.
            NotRegistered: the owner does not know the entity.
            DeadlineExceeded: no answer in time. If its turn has not come by then, it is not done.
        """
        await self._order(PURGE, None, reason, by)

    async def edits(self) -> list[StateEdit]:
        """Return the records of the last edits, at most 32, oldest first; as last committed.

        Raises:
            SerializationError: what is stored cannot be read.
            StoreUnavailable: the store cannot be reached.
        """
        partition = await self._connection.place(self._actor)
        ring = [ring_row(self._actor, number) for number in range(EDITS_KEPT)]
        rows = await self._connection.store.snapshots([(partition, row.name, row.key) for row in ring])
        what = f"record of an edit of {self._actor}"
        return sorted((read_edit(row, what) for row in rows if row), key=lambda edit: edit.number)

    async def _order(self, verb: str, fields: dict[str, Any] | None, reason: str, by: str) -> None:
        _check_words(verb, "reason", reason, required=True)
        _check_words(verb, "by", by, required=False)
        actor, me, what = self._actor, self._connection.me, f"{verb} of {self._actor}"
        patience_ms = 0 if self._timeout_s is None else max(1, round(self._timeout_s * 1_000))
        payload = pack_order(Order(fields, reason, by, patience_ms), what)
        response = await self._connection.request(
            actor,
            lambda request: EntityControl(actor, verb, payload, request, me),
            timeout_s=self._timeout_s,
            what=what,
            give_up=lambda request: CancelCall(actor, request, me),
        )
        if response.failure is not None:
            raise_usage_error(response.failure)
            raise EntityOperationFailed(f"{what}: {response.failure}", response.failure)


def _check_words(verb: str, what: str, words: Any, *, required: bool) -> None:
    if not isinstance(words, str) or len(words) > WORDS_MAX or (required and not words.strip()):
        raise UsageError(
            f"{verb}: {what} is a text of {'1' if required else '0'} to {WORDS_MAX:,} characters, "
            f"not {words!r:.80}"
        )
