"""What is told about an orchestration instance to whoever asks."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from lungfish.runtime.errors import FailureDetails, UsageError


class RuntimeStatus(StrEnum):
    """Where an instance stands; names as in Durable Functions."""

    #: Accepted; its first turn has not run (a delayed start, too).
    PENDING = "Pending"
    #: Begun and not ended; also while it waits.
    RUNNING = "Running"
    #: Takes nothing in until it is resumed.
    SUSPENDED = "Suspended"
    #: Returned.
    COMPLETED = "Completed"
    #: Raised, or could not be replayed.
    FAILED = "Failed"
    #: Ended from outside.
    TERMINATED = "Terminated"
    #: Asked to end, and did: its cleanup has run.
    CANCELED = "Canceled"

    @property
    def is_terminal(self) -> bool:
        """True if nothing more will happen to the instance."""
        return self not in (RuntimeStatus.PENDING, RuntimeStatus.RUNNING, RuntimeStatus.SUSPENDED)


@dataclass(frozen=True, slots=True)
class OrchestrationStatus:
    """An instance as last committed.

    Attributes:
        output: what it returned, decoded; what ``terminate`` was given; None otherwise.
        failure: why it failed.
        created_at, updated_at: aware datetimes (UTC), on the store's clock.
        custom_status: the last value given to ``set_custom_status``.
        execution_id: new for every run of the instance (continue-as-new).
        parent_id: the orchestration that started it, if one did.
        tags: what it was labelled with at its start.
        history_events, history_bytes: extent of the history of its present execution.
        warning: which limit it has come near, and what to do; empty: none.
        input: what it was given: one argument as it is, several as a list, named ones as a dict; None where
            that is larger than 1 KiB.
        start_at: when it begins, or was to begin; None: at once.
        version: of the code that runs it, or of the app that started it.
    """

    instance_id: str
    name: str
    runtime_status: RuntimeStatus
    created_at: dt.datetime
    updated_at: dt.datetime
    output: Any = None
    failure: FailureDetails | None = None
    custom_status: Any = None
    execution_id: str = ""
    parent_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    history_events: int = 0
    history_bytes: int = 0
    warning: str = ""
    start_at: dt.datetime | None = None
    version: str = ""
    input: Any = None


@dataclass(frozen=True, slots=True)
class EntityStatus:
    """Who holds an entity and what waits there, as its host knows it now.

    Attributes:
        holder: id of the orchestration instance whose critical section it is in; None: nobody holds it.
        since: held since (aware, UTC); None: nobody holds it.
        waiting: instance ids of those who asked for a lock and wait, in the order in which they get it.
        operations: how many calls and batches of signals wait to be run.
        running: names of the operations that run now.
        size: of the stored state (bytes); 0: the entity does not exist.
        edits: how often its state was edited by hand.
    """

    holder: str | None = None
    since: dt.datetime | None = None
    waiting: tuple[str, ...] = ()
    operations: int = 0
    running: tuple[str, ...] = ()
    size: int = 0
    edits: int = 0


def entity_status(told: dict[str, Any]) -> EntityStatus:
    """Return what an entity's answer to ``Inspect`` tells."""
    return EntityStatus(
        holder=told["holder"],
        since=from_ms(told["since_ms"]) if told["since_ms"] else None,
        waiting=tuple(told["waiting"]),
        operations=told["operations"],
        running=tuple(told["running"]),
        size=told.get("size", 0),
        edits=told.get("edits", 0),
    )


_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class ArchivedInstance:
    """An instance as it was when it was archived.

    Attributes:
        status: as ``OrchestrationHandle.status`` returned it last.
        history: the events of its last execution, oldest first.
        exported: the same as JSON, as ``export_history`` returns it, for ``Replayer``.
    """

    status: OrchestrationStatus
    history: Sequence[Any]
    exported: str


#: Reads a stored row of an instance: instance id, row → status.
StatusReader = Callable[[str, bytes], OrchestrationStatus]


def from_ms(milliseconds: int) -> dt.datetime:
    """Return the aware UTC datetime of a Unix time in milliseconds."""
    return dt.datetime.fromtimestamp(milliseconds / 1_000, dt.UTC)


def to_ms(when: dt.datetime) -> int:
    """Return the Unix time (ms) of an aware datetime, rounded up: nothing is to happen before it.

    Raises:
        UsageError: it has no time zone, so that it means another instant on each machine.
    """
    if when.tzinfo is None or when.utcoffset() is None:
        raise UsageError(f"{when!r} has no time zone: use datetime.now(timezone.utc), or ctx.now()")
    return math.ceil((when - _EPOCH) / dt.timedelta(milliseconds=1))
