"""Stored instances with their large values in them, for those who read them from outside."""

from __future__ import annotations

from lungfish.runtime.messages.payloads import inlined, tokens_in

from .store import Store, StoredInstance


async def with_values(store: Store, stored: StoredInstance) -> StoredInstance:
    """Return row and history with the values in the place of their tokens; raises ``StoreUnavailable``.

    What is gone, because the instance was purged meanwhile, stays a token.
    """
    packed = [*stored.history, stored.row or b""]
    tokens = list(dict.fromkeys(token for each in packed for token in tokens_in(each)))
    if not tokens:
        return stored
    contents = await store.payloads(tokens)
    row = None if stored.row is None else inlined(stored.row, contents)
    return StoredInstance(row, [inlined(batch, contents) for batch in stored.history])
