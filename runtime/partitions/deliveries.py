"""How rows of messages become the delivery to a target, as part of a commit."""

from __future__ import annotations

from typing import Any

from lungfish.runtime.messages import wire
from lungfish.runtime.store.store import Delivery


def delivery_of(target: str, rows: list[list[Any]], sequences: dict[str, int], base: int) -> Delivery:
    """Return a delivery; it takes the next of the target's sequence numbers, where the target counts.

    Args:
        base: the numbers of this owner lie behind it.
    """
    if target[:2] == "c:":
        return Delivery(target, 0, (wire.pack_rows(rows),))
    sequence = sequences[target] = max(sequences.get(target, 0), base) + 1
    if target[:2] == "q:":
        # One entry per activity: workers share a queue entry by entry.
        return Delivery(target, sequence, tuple(wire.pack_rows([row]) for row in rows))
    return Delivery(target, sequence, (wire.pack_rows(rows),))
