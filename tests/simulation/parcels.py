"""Large values in the simulation: parcels that are carried in and out of everything, and purged.

Rules:

* The app's threshold is low: what is carried here leaves histories and messages.
* Whatever a row, a history, an activity or a message in a mailbox refers to is in the store.
* What is in the store is referred to by one of them, or is pending, for the sweep.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import lungfish
from lungfish.orchestrations.activities import ActivityRow
from lungfish.orchestrations.processor import OrchestrationKind
from lungfish.runtime.messages.payloads import PENDING, carried, inlined, is_token, key_of, tokens_in
from lungfish.runtime.messages.status import OrchestrationStatus
from lungfish.runtime.partitions.mailbox_rows import unpack_item
from lungfish.runtime.testing.memory_server import Hub, Partition
from tests.simulation.app import app

SIZE: Final = 1_500


@app.activity
def carry(parcel: str) -> str:
    """Carry a parcel through an activity."""
    return parcel


@app.orchestration
async def addressee(ctx: lungfish.OrchestrationContext, parcel: str, again: bool) -> str:
    """Take a parcel as input and one as an event; go on as new with it, and give both."""
    if again:
        second: str = await ctx.wait_for_external_event("parcel", str)
        ctx.continue_as_new(parcel + second, False)
        return ""
    return parcel


@app.orchestration
async def parcels(ctx: lungfish.OrchestrationContext, parcel: str) -> str:
    """Send a parcel to everybody."""
    child = f"{ctx.instance_id}.0"
    answer = ctx.call_orchestration(addressee, parcel, True, id=child)
    carried_there: str = await ctx.call_activity(carry, parcel)
    ctx.send_event(child, "parcel", parcel)
    back: str = await answer
    if (carried_there, back) != (parcel, 2 * parcel):
        raise ValueError("a parcel came back as another one")
    return back


def accounts(hub: Hub, *, lossy: bool) -> Iterator[str]:
    """Yield payloads that are missing, and those that nobody knows of."""
    for number, rows in hub.partitions.items():
        wanted = _wanted(rows)
        pending = rows.indexes.get(PENDING, {}).keys()
        if not lossy:  # else the store may have lost it before what refers to it was written
            for each in sorted(wanted - rows.payloads.keys()):
                yield f"partition {number}: payload {each} is referred to, and missing"
        for each in sorted(rows.payloads.keys() - wanted - pending):
            yield f"partition {number}: payload {each} belongs to nobody, and is not pending"
        for each in sorted(pending - rows.payloads.keys()):
            yield f"partition {number}: payload {each} is pending, and missing"


def _wanted(rows: Partition) -> set[str]:
    packed = [*rows.instances.values(), *(batch for each in rows.histories.values() for batch in each)]
    tokens = [token for each in packed for token in tokens_in(each)]
    tokens += [args for row in rows.activities.values() if is_token(args := ActivityRow.unpack(row).args)]
    items = [unpack_item(int(row, 16), packed) for row, packed in rows.mailbox.items()]
    values = [carried(item.message) for item in items if item is not None]
    tokens += [value for value in values if value is not None and is_token(value)]
    return {key_of(token).id for token in tokens}


def status_of(rows: Partition, instance: str, packed: bytes) -> OrchestrationStatus:
    """Return the status that a stored row tells, with its large values in it."""
    keys = {token: key_of(token).id for token in tokens_in(packed)}
    contents = {token: rows.payloads[each] for token, each in keys.items() if each in rows.payloads}
    return OrchestrationKind.read_status(instance, inlined(packed, contents))
