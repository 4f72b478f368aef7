"""Messages that were set aside: what is kept of them, and how it is read.

A letter is ``["letter", version, reason, set aside at (ms), batch of messages]``. What earlier releases
kept was the bare batch, and so it is read: without a reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgpack

from lungfish.runtime.errors import FailureDetails, LungfishError, SerializationError
from lungfish.runtime.ids import ActorId

from . import wire
from .messages import Message, Response, Signal

_LETTER: Final = "letter"
_VERSION: Final = 1
#: Why bytes are set aside that are no message.
UNREADABLE: Final = "its bytes are not a message that this release knows"


@dataclass(frozen=True, slots=True)
class Letter:
    """What is kept: the reason, when it was (Unix ms; 0: not known), and the bytes as they came."""

    reason: str
    at_ms: int
    payload: bytes

    def messages(self) -> list[Message]:
        """Return the messages; none where the bytes cannot be read."""
        try:
            return wire.unpack(self.payload)
        except SerializationError:
            return []


def pack_letter(reason: str, at_ms: int, payload: bytes) -> bytes:
    """Return what is kept of a message that is set aside."""
    packed: bytes = msgpack.packb([_LETTER, _VERSION, reason, at_ms, payload])
    return packed


def unpack_letter(data: bytes) -> Letter:
    """Read what was kept, of any release."""
    try:
        row: Any = msgpack.unpackb(data)
    except Exception:  # bytes that nobody could read: they are here because of that
        row = None
    match row:
        case ["letter", int(), str(reason), int(at_ms), bytes(payload), *_]:
            return Letter(reason, at_ms, payload)
    return Letter("", 0, data)


def refusal_of(message: Message, error: LungfishError) -> Response | None:
    """Return the answer to a message that nobody can apply; None if nobody waits for one."""
    asker: ActorId | None = getattr(message, "reply_to", None)
    request: str = getattr(message, "request", "")
    if asker is None or not request:
        return None
    return Response(asker, request, None, FailureDetails.of(error))


def described(message: Message) -> str:
    """Return what a message is, for people: ``Signal add ×3``."""
    name = getattr(message, "operation", None) or getattr(message, "name", None)
    name = name or getattr(message, "verb", "")
    count = f" ×{message.count}" if isinstance(message, Signal) and message.count > 1 else ""
    return f"{type(message).__name__} {name}".strip() + count
