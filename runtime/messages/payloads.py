"""Large values: kept in the store beside histories and messages, which carry a small token instead.

Rules:

* A token starts with a byte that no encoded value starts with (msgpack never writes 0xC1): it travels in the
  place of a value, and nothing a user sends can be taken for one.
* A payload is *written ahead*: all of it is in the store before the message or the commit that refers to it.
  Until a commit *adopts* it, it stands in its partition's index of ``PENDING``, by the time of writing. One
  that stays there for long belongs to nobody, and is swept.
* It lives in the partition of the actor that it is for, so that it does not depend on its sender's life. Its
  id is unique and not shared: who adopted it deletes it, and asks nobody.
* All of this is pure: a look at a length or at one byte is all that small values cost.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import msgpack

from lungfish.runtime.amounts import check_whole
from lungfish.runtime.codec import TOKEN_MARK
from lungfish.runtime.errors import UsageError

from .messages import ActivityResult, Message, RaiseEvent, Response, Start

#: The index of payloads that no commit has adopted yet: id → when it was written (Unix ms).
PENDING: Final = "payloads"
#: A payload is stored in pieces of this size (bytes): no command holds up the server for long.
CHUNK_BYTES: Final = 512 * 1024

_MARK: Final = TOKEN_MARK
_FIRST: Final = _MARK[:1]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PayloadSettings:
    """How large values of orchestrations and activities are kept.

    Attributes:
        offload_bytes: an encoded value larger than this leaves histories and messages.
        bytes_max: a larger one is refused with ``PayloadTooLarge``.
    """

    offload_bytes: int = 128 * 1024
    bytes_max: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        check_whole("offload_bytes", self.offload_bytes)
        check_whole("bytes_max", self.bytes_max)
        if not 64 <= self.offload_bytes <= 1024 * 1024:
            raise UsageError(f"offload_bytes is 64 to 1,048,576 bytes, not {self.offload_bytes!r}")
        if not self.offload_bytes <= self.bytes_max <= 1024 * 1024 * 1024:
            raise UsageError(f"bytes_max is offload_bytes to 1 GiB, not {self.bytes_max!r}")


DEFAULT: Final = PayloadSettings()


def check_payloads(given: Any) -> PayloadSettings:
    """Return what an app was given; None is the default. Raises ``UsageError``."""
    if given is not None and not isinstance(given, PayloadSettings):
        raise UsageError(f"payloads is a PayloadSettings(offload_bytes=…), not {given!r}")
    return given or DEFAULT


@dataclass(frozen=True, slots=True)
class Payload:
    """A large value on its way into the store; its ``id`` is never used for another."""

    partition: int
    id: str
    content: bytes

    @property
    def token(self) -> bytes:
        """What stands for it."""
        packed: bytes = msgpack.packb([self.partition, self.id, len(self.content)])
        return _MARK + packed


@dataclass(frozen=True, slots=True)
class PayloadKey:
    """Where a payload is stored.

    Attributes:
        size: of its content (bytes).
    """

    partition: int
    id: str
    size: int

    @property
    def chunks(self) -> int:
        """How many pieces it is stored in."""
        return max(1, -(-self.size // CHUNK_BYTES))


#: Reads payloads by their tokens; None where one is gone. Raises ``StoreUnavailable``.
Fetch = Callable[[list[bytes]], Awaitable[dict[bytes, bytes]]]


def is_token(value: bytes | None) -> bool:
    """Tell whether this is a token and no value."""
    return value is not None and value[:1] == _FIRST and value.startswith(_MARK)


def key_of(token: bytes) -> PayloadKey:
    """Return where the content of a token is."""
    partition, id_, size = msgpack.unpackb(token[len(_MARK) :])
    return PayloadKey(partition, id_, size)


def chunks_of(content: bytes) -> list[bytes]:
    """Cut a content into pieces, at least one."""
    return [content[at : at + CHUNK_BYTES] for at in range(0, max(1, len(content)), CHUNK_BYTES)]


# --- in messages -----------------------------------------------------------------------

#: The field of a message that may be large.
_FIELDS: Final[dict[type[Any], str]] = {
    Start: "input",
    RaiseEvent: "payload",
    ActivityResult: "result",
    Response: "result",
}


def carried(message: Message) -> bytes | None:
    """Return the value, or its token, that a message carries; None: it has none that may be large."""
    name = _FIELDS.get(type(message))
    value: bytes | None = None if name is None else getattr(message, name)
    return value


def carrying(message: T, value: bytes) -> T:
    """Return the message with another value, or another form of it."""
    changes: dict[str, Any] = {_FIELDS[type(message)]: value}
    changed: T = replace(message, **changes)  # type: ignore[type-var]
    return changed


# --- in what is packed: rows and batches of a history ----------------------------------


def tokens_in(packed: bytes) -> list[bytes]:
    """Return the tokens in a packed row or batch."""
    if _MARK not in packed:
        return []
    found: list[bytes] = []

    def note(value: bytes) -> bytes:
        if value.startswith(_MARK):
            found.append(value)
        return value

    _mapped(_unpack(packed), note)
    return found


def inlined(packed: bytes, contents: Mapping[bytes, bytes]) -> bytes:
    """Put the values into a packed row or batch, in the place of their tokens; unknown ones stay."""
    if not contents or _MARK not in packed:
        return packed
    return _pack(_mapped(_unpack(packed), lambda value: contents.get(value, value)))


def offloaded(packed: bytes, over: int, put: Callable[[bytes], bytes]) -> bytes:
    """Put tokens, as ``put`` makes them, in the place of values larger than ``over`` bytes."""
    return _pack(_mapped(_unpack(packed), lambda value: put(value) if len(value) > over else value))


def _unpack(packed: bytes) -> Any:
    limit = len(packed)
    return msgpack.unpackb(packed, use_list=True, strict_map_key=False, max_bin_len=limit, max_str_len=limit)


def _pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


def _mapped(value: Any, change: Callable[[bytes], bytes]) -> Any:
    match value:
        case bytes():
            return change(value)
        case list():
            return [_mapped(item, change) for item in value]
        case dict():
            return {key: _mapped(item, change) for key, item in value.items()}
        case _:
            return value
