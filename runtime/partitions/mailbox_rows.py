"""Rows of a partition: accepted, unfinished messages as the store keeps them; names of rows."""

from __future__ import annotations

from typing import Final

import msgpack

from lungfish.runtime.messages import wire

from .kinds import Item

_ROW_VERSION: Final = 1


def row_name(row: int) -> str:
    """Return the id of a row; ids sort like numbers."""
    return f"{row:016x}"


def pack_item(item: Item) -> bytes:
    """Return the row of an item."""
    payload = wire.pack([item.message])
    row = [_ROW_VERSION, item.accepted_ms, item.record, payload]
    packed: bytes = msgpack.packb([*row, item.attempts] if item.attempts else row)
    return packed


def unpack_item(row: int, data: bytes) -> Item | None:
    """Read a row; None: it is none, and is set aside by the caller."""
    try:
        _version, accepted_ms, record, payload, *rest = msgpack.unpackb(data)
        (message,) = wire.unpack(payload)
        return Item(message, row, record, accepted_ms, int(rest[0]) if rest else 0)
    except Exception:  # whatever is wrong with it
        return None


def group_of(row_id: str) -> str:
    """Return what the id of an activity's row begins with: one group per execution."""
    return row_id.rpartition("\x00")[0]
