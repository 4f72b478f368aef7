"""Payloads in Redis: a hash each, of pieces; written and read a few at a time.

A call carries at most ``CALL_CHUNKS`` pieces, so that neither its answer nor anybody else's comes late.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from lungfish.runtime.messages.payloads import PENDING, Payload, chunks_of, key_of

from .keys import Keys
from .link import Reply
from .scripts import script
from .servers import Call

#: Pieces in one call: 4 MiB.
CALL_CHUNKS: Final = 8


def put_calls(keys: Keys, payloads: Sequence[Payload]) -> Iterator[list[Call]]:
    """Return the calls that write payloads."""
    calls: list[Call] = []
    for payload in payloads:
        names = keys.partition(payload.partition)
        key = names.payload(payload.id)
        for number, chunk in enumerate(chunks_of(payload.content)):
            calls.append((key, script("put_chunk", [key, names.by(PENDING)], number, chunk, payload.id)))
    for at in range(0, len(calls), CALL_CHUNKS):
        yield calls[at : at + CALL_CHUNKS]


def read_calls(keys: Keys, tokens: Sequence[bytes]) -> Iterator[list[Call]]:
    """Return the calls that read payloads, piece by piece, in the order of ``assembled``."""
    calls: list[Call] = []
    for found in map(key_of, tokens):
        key = keys.partition(found.partition).payload(found.id)
        calls += [(key, ("HGET", key, number)) for number in range(found.chunks)]
    for at in range(0, len(calls), CALL_CHUNKS):
        yield calls[at : at + CALL_CHUNKS]


def assembled(tokens: Sequence[bytes], replies: Sequence[Reply]) -> dict[bytes, bytes]:
    """Put the pieces together; a payload of which one is missing is left out."""
    pieces, whole = iter(replies), dict[bytes, bytes]()
    for token in tokens:
        chunks: list[Any] = [next(pieces) for _ in range(key_of(token).chunks)]
        if None not in chunks:
            whole[token] = b"".join(chunks)
    return whole


def sweep_calls(keys: Keys, partition: int, ids: Sequence[str], before_ms: int) -> list[Call]:
    """Return the calls that delete payloads which are still pending."""
    names, calls = keys.partition(partition), list[Call]()
    for payload_id in ids:
        key = names.payload(payload_id)
        calls.append((key, script("sweep_payload", [key, names.by(PENDING)], payload_id, before_ms)))
    return calls
