"""What an instance answers to those who start, watch and control it."""

from __future__ import annotations

from typing import Final

from lungfish.runtime import codec
from lungfish.runtime.errors import FailureDetails
from lungfish.runtime.kinds import Effects
from lungfish.runtime.messages import Control, Response, Start, Watch

from .row import InstanceRow

_NOTHING: Final = codec.encode(None)


def accept(effects: Effects, message: Start | Control, result: bytes = _NOTHING) -> None:
    """Tell the requester, if there is one, that it is done."""
    if message.request and message.reply_to is not None:
        effects.send(Response(message.reply_to, message.request, result))


def refuse(effects: Effects, message: Start | Control | Watch, failure: FailureDetails) -> None:
    """Tell the requester why not; for a sub-orchestration that is its outcome."""
    if isinstance(message, Start) and message.parent is not None:
        effects.send(Response(message.parent, message.parent_request, failure=failure))
    if message.request and message.reply_to is not None:
        effects.send(Response(message.reply_to, message.request, failure=failure))


def announce(effects: Effects, row: InstanceRow) -> None:
    """Tell the outcome to the parent and to everyone who watches; they are told once."""
    if row.parent is not None:
        effects.send(Response(row.parent, row.parent_request, row.output, row.failure))
    for request, reply_to in row.watchers:
        effects.send(Response(reply_to, request, row.output, row.failure))
    row.watchers = []
