"""What is told about the mailbox of an entity: to whoever inspects it, to logs, to metrics."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lungfish.runtime import codec
from lungfish.runtime.messages.messages import Call, CancelCall

from .editing import Edit
from .jobs import Applied, Job
from .locking import Entry, Locks, lock_state
from .running import Running
from .turn import Turns


@dataclass(slots=True)
class Counts:
    """What happened in the entities of a host, for its metrics."""

    operations: int = 0
    failed: int = 0
    #: Of these, those that ended with ``Refused``.
    refused: int = 0
    #: Signals of unknown entities or operations, and elements of batches with bad arguments.
    signals_dropped: int = 0


def told_of(
    turns: Turns,
    locks: Locks | None,
    mailbox: Iterable[Entry],
    running: Iterable[Running | None],
) -> bytes:
    """Return what ``inspect`` is answered: who holds the entity, what waits there and what runs."""
    locks = locks or Locks()
    blocked = locks.holding.blocked if locks.holding is not None else ()
    waiting = sum(isinstance(entry, Job | Edit) for queue in (mailbox, blocked) for entry in queue)
    names = [one.job.operation.name for one in running if one is not None]
    size = {"size": len(turns.base or b""), "edits": turns.edits}
    return codec.encode({**lock_state(locks, waiting, names), **size}, "state of an entity")


def is_call(entry: Entry, message: CancelCall) -> bool:
    """Tell whether an entry is what its sender gives up, and may still be forgotten."""
    if isinstance(entry, Edit):
        return (entry.message.request, entry.message.reply_to) == (message.request, message.reply_to)
    if not isinstance(entry, Job) or not isinstance(entry.message, Call) or entry.item.record:
        return False
    return entry.message.request == message.request and entry.message.reply_to == message.reply_to


def listed(applied: list[Applied]) -> str:
    """Return what a turn did, for a log."""
    names = sorted({one.job.operation.name for one in applied})
    return f"{sum(one.taken for one in applied)} operations ({', '.join(names)})"
