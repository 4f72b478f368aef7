"""How an ended instance leaves nothing at all behind.

Rules:

* Row, history and index entries go in one commit, by the owner: no crash leaves a part of an instance.
* Only an instance that has ended can be purged. Its timers, activities and mailbox rows went with its end.
* Who purges by age names the *edition* that it has looked at, and perhaps archived. Another one, of a new
  start under this id or of a rewind, is left alone.
* Its id is free afterwards. What is still under way for it finds nobody: execution ids are never used twice.
"""

from __future__ import annotations

from lungfish.runtime.errors import InstanceNotFound, InstanceRunning
from lungfish.runtime.messages.messages import Control

from .instance import Instance
from .replies import accept
from .row import InstanceRow

PURGE = "purge"


def edition(row: InstanceRow) -> str:
    """Return what tells this end of an instance from any other under its id; later ones sort behind."""
    return f"{row.updated_ms:013}-{row.execution}"


def edition_of(packed: bytes) -> str:
    """Return the edition of a stored row, if it has ended, else an empty text; raises ``MalformedBytes``."""
    row = InstanceRow.unpack(packed)
    return edition(row) if row.terminal else ""


def purge(instance: Instance, message: Control) -> None:
    """Forget an instance; ``reason`` is the edition that is meant, empty for any."""
    row = instance.row
    if row is None:
        instance.refuse(message, InstanceNotFound(f"no instance {instance.id!r}"))
        return
    if not row.terminal:
        text = f"instance {instance.id!r} is {row.status}: terminate or cancel it, or wait for its end"
        instance.refuse(message, InstanceRunning(text))
        return
    if message.reason in ("", edition(row)):
        instance.forget()
        instance.effects.instance(instance.actor, None)
        instance.listing.remove(instance.effects)
    accept(instance.effects, message)
