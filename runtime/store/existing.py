"""Opening a hub that somebody else makes.

What the first host is set to is fixed in a hub for ever; so clients and workers, which know nothing of that,
never make one. They often start at the same time as the hosts, though: so they wait for a while.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from lungfish.runtime.errors import HubNotFound, UsageError

from .store import HubMeta, Store

logger = logging.getLogger(__name__)

#: How long to wait for a hub by default (s), and how often to look meanwhile.
HUB_WAIT_S: Final = 30.0
_POLL_S: Final = 0.1
#: After how long a wait is told (s): processes that start together find one another before.
SAY_AFTER_S: Final = 3.0


async def open_existing(store: Store, wait_s: float = HUB_WAIT_S) -> HubMeta:
    """Open a hub that exists, or comes into being within ``wait_s`` (s).

    Raises:
        HubNotFound: it did not.
        HubMismatch, UnsafeStore, StoreUnavailable: as ``Store.open``.
    """
    now_s = asyncio.get_running_loop().time
    began_s = now_s()
    has_said = False
    while True:
        try:
            return await store.open(create=False)
        except HubNotFound as error:
            waited_s = now_s() - began_s
            if waited_s >= wait_s:
                raise HubNotFound(f"{error}; nobody made it within {wait_s:g} s (wait_s)") from None
            if waited_s >= SAY_AFTER_S and not has_said:
                # A warning, since who has configured no logging sees nothing less, and would wait for a hang.
                logger.warning("waiting up to %g s: %s", wait_s, error)
                has_said = True
        await asyncio.sleep(min(_POLL_S, wait_s - waited_s))


def check_wait(wait_s: Any) -> float:
    """Return a time to wait for a hub (s); raise ``UsageError`` for what is none."""
    if not isinstance(wait_s, int | float) or isinstance(wait_s, bool) or not wait_s >= 0:
        raise UsageError(f"wait_s is a number of seconds, 0 or more, not {wait_s!r}")
    return wait_s
