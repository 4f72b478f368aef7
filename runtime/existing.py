"""Opening a hub that somebody else makes.

What the first host is set to is fixed in a hub for ever; so clients and workers, which know nothing of that,
never make one. They often start at the same time as the hosts, though: so they wait for a while.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from .errors import HubNotFound, UsageError
from .store import HubMeta, Store

#: How long to wait for a hub by default (s), and how often to look meanwhile.
HUB_WAIT_S: Final = 30.0
_POLL_S: Final = 0.1


async def open_existing(store: Store, wait_s: float = HUB_WAIT_S) -> HubMeta:
    """Open a hub that exists, or comes into being within ``wait_s`` (s).

    Raises:
        HubNotFound: it did not.
        HubMismatch, UnsafeStore, StoreUnavailable: as ``Store.open``.
    """
    now_s = asyncio.get_running_loop().time
    until_s = now_s() + wait_s
    while True:
        try:
            return await store.open(create=False)
        except HubNotFound:
            left_s = until_s - now_s()
            if left_s <= 0:
                raise
        await asyncio.sleep(min(_POLL_S, left_s))


def check_wait(wait_s: Any) -> float:
    """Return a time to wait for a hub (s); raise ``UsageError`` for what is none."""
    if not isinstance(wait_s, int | float) or isinstance(wait_s, bool) or not wait_s >= 0:
        raise UsageError(f"wait_s is a number of seconds, 0 or more, not {wait_s!r}")
    return wait_s
