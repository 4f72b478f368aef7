"""Where a call back belongs: inside the operation that waits for it, or into the mailbox (``@reentrant``).

Rules:

* Inside is it only if the operation that runs waits for it: one of its calls that is not answered is to an
  entity on the way of this one. Else that operation has given up, and another one runs: what that one has
  not committed is not for others, so the call waits in the mailbox like any other.
* An operation that is run again after a crash has to come as far as it was: before it has made that call
  again, its state is not what the call is about, and the call waits for it.
"""

from __future__ import annotations

import asyncio
from enum import Enum

from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages.messages import Call

from .journal import Journal


class Place(Enum):
    """Where a call back goes."""

    #: It runs now.
    INSIDE = "inside"
    #: It waits until the operation has made the call again that leads here.
    NOT_YET = "not yet"
    #: Whoever waited for it does not any more.
    MAILBOX = "mailbox"


def place_of(call: Call, journal: Journal | None) -> Place:
    """Return where a call back goes, by the journal of the exclusive operation that runs; None: none runs."""
    if journal is None:
        return Place.INSIDE
    way = _way(call.chain, call.target)
    open_calls = [entry for entry in journal.calls() if str(entry.target) in way]
    if not open_calls:
        return Place.MAILBOX
    return Place.INSIDE if any(map(journal.has_met, open_calls)) else Place.NOT_YET


def _way(chain: tuple[str, ...], actor: ActorId) -> tuple[str, ...]:
    """Return who was called on the way from the entity back to it; at least one."""
    after = chain.index(str(actor)) + 1
    return chain[after:] or (str(actor),)


async def until(met: asyncio.Future[None]) -> None:
    """Wait for the next call that is met again."""
    await met
