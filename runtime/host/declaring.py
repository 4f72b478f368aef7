"""Says to a hub what schedules an app declares: once for every host that starts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from lungfish.runtime.declared.schedule_plan import SCHEDULE, Definition
from lungfish.runtime.declared.signatures import encode_signal_arguments
from lungfish.runtime.errors import Unavailable
from lungfish.runtime.ids import ENTITY, ActorId, partition_of
from lungfish.runtime.messages.messages import Signal
from lungfish.runtime.session.sender import Sender
from lungfish.runtime.store.store import Store, partition_target

logger = logging.getLogger(__name__)

#: After how long it is said again to a store that could not be reached, or a full inbox (s).
AGAIN_S: Final = 5.0


async def declare(store: Store, producer: str, schedules: Mapping[str, Definition], partitions: int) -> None:
    """Send every declared schedule to the partition that owns it; what is so already is left alone there.

    Saying it twice does no harm, so it is simply said until it is heard.
    """
    for attempt in range(1_000_000):
        sender = Sender(store, f"{producer}:{attempt}")
        try:
            for id, definition in schedules.items():
                target = ActorId(ENTITY, SCHEDULE, id)
                batch = encode_signal_arguments([definition.to_wire()], {}, f"schedule {id}")
                inbox = partition_target(partition_of(target, partitions))
                await sender.send(inbox, [Signal(target, "declare", batch)])
        except Unavailable as error:
            logger.warning("declaring schedules: %s; trying again", error)
            await asyncio.sleep(AGAIN_S)
        else:
            return
        finally:
            await sender.close()
