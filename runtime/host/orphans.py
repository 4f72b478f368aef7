"""What deletes payloads that were written ahead of something that never came.

Rules:

* The owner of a partition sweeps it. Pending payloads stand in an index by the time of their writing,
  so a sweep costs what it deletes.
* Young ones are left alone: what refers to them may be on its way. So is what an unfinished message of the
  partition carries, however old it is.
* The store deletes only what is still pending: a commit that adopts one in the meantime wins.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from lungfish.runtime.errors import StoreUnavailable
from lungfish.runtime.messages.payloads import PENDING
from lungfish.runtime.partitions.partition import Partition
from lungfish.runtime.store.store import Store

logger = logging.getLogger(__name__)

#: Payloads that one sweep looks at in a partition.
LOOKS_MAX: Final = 200


async def sweep_orphans(store: Store, partitions: Sequence[Partition], before_ms: int) -> int:
    """Delete what was written before that time (Unix ms) and belongs to nobody; return how many."""
    ends = [(partition.number, PENDING, before_ms) for partition in partitions]
    found = await store.ended_before(ends, count=LOOKS_MAX) if ends else []
    swept = 0
    for partition, ids in zip(partitions, found, strict=True):
        # With entries that were read and not accepted, nobody knows what they carry.
        if ids and not partition.buffered and not partition.dropped:
            wanted = partition.payloads.referred_to()
            orphans = [each for each in ids if each not in wanted]
            swept += await store.sweep_payloads(partition.number, orphans, before_ms)
    return swept


async def sweep_orphans_forever(
    store: Store,
    partitions: Callable[[], Sequence[Partition]],
    now_ms: Callable[[], int],
    *,
    sweep_s: float,
    orphan_ms: int,
) -> None:
    """Sweep now and then."""
    while True:
        await asyncio.sleep(sweep_s)
        try:
            swept = await sweep_orphans(store, partitions(), now_ms() - orphan_ms)
        except StoreUnavailable as error:
            logger.warning("looking for large values without an owner: %s; later", error)
            continue
        if swept:
            logger.info("%d large values that nobody refers to were deleted", swept)
