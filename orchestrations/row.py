"""The metadata row of an orchestration instance: what a status query reads.

Positional msgpack with a version in front; fields are only added at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import msgpack

from lungfish.runtime.errors import FailureDetails
from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages.wire import MalformedBytes

ROW_VERSION: Final = 1


class Status(StrEnum):
    """The life of an instance, as in Durable Functions."""

    #: Accepted, not begun: its start time has not come.
    PENDING = "Pending"
    #: Begun; it works or waits.
    RUNNING = "Running"
    #: Takes events but does not go on until it is resumed.
    SUSPENDED = "Suspended"
    #: Returned.
    COMPLETED = "Completed"
    #: Raised, or broke a rule of replay.
    FAILED = "Failed"
    #: Ended from outside.
    TERMINATED = "Terminated"
    #: Asked to end, and did.
    CANCELED = "Canceled"


#: What fields hold that a row of an earlier release does not have.
_LATER: Final[list[Any]] = [{}, 0, None, False, False, [], 0, "", ()]

TERMINAL: Final = frozenset({Status.COMPLETED, Status.FAILED, Status.TERMINATED, Status.CANCELED})


@dataclass(slots=True)
class InstanceRow:
    """What is known of an instance without its history.

    Attributes:
        execution: id of the present run; continue-as-new changes it.
        output: encoded result of a completed instance.
        failure: why a failed or terminated instance ended.
        custom_status: encoded value that the code published.
        parent, parent_request: who waits for the outcome of a sub-orchestration.
        watchers: ``(request, reply_to)`` of everyone who waits for the outcome.
        input: encoded arguments of the present run; once it has begun, only if they are small.
        version: code version of the run.
        begun: False until the first turn (a delayed start).
        length: events in the history.
        tags: what it was labelled with at its start, for queries.
        due_ms: when it was to begin (Unix ms); 0: at once.
        cancel: why it was asked to end; None: it was not, in this execution.
        cancel_told: the code has been told.
        pinned: only code of exactly ``version`` may run it.
        updates: ``(update, request, reply_to)`` of everyone who waits for an update's outcome.
        size: bytes of the history.
        warning: what was said when it came near a limit; empty: it did not.
        headers: what its start came with, for all its executions.
    """

    name: str
    status: Status
    created_ms: int
    updated_ms: int
    execution: str
    input: bytes
    output: bytes | None = None
    failure: FailureDetails | None = None
    custom_status: bytes | None = None
    parent: ActorId | None = None
    parent_request: str = ""
    watchers: list[tuple[str, ActorId]] = field(default_factory=list)
    version: str = ""
    begun: bool = True
    length: int = 0
    tags: dict[str, str] = field(default_factory=dict)
    due_ms: int = 0
    cancel: str | None = None
    cancel_told: bool = False
    pinned: bool = False
    updates: list[tuple[str, str, ActorId]] = field(default_factory=list)
    size: int = 0
    warning: str = ""
    headers: tuple[str, ...] = ()

    @property
    def terminal(self) -> bool:
        """Whether the instance has ended."""
        return self.status in TERMINAL

    def pack(self) -> bytes:
        """Return the stored form."""
        failure = self.failure.to_wire() if self.failure is not None else None
        packed: bytes = msgpack.packb(
            [
                ROW_VERSION,
                self.name,
                self.status.value,
                self.created_ms,
                self.updated_ms,
                self.execution,
                self.input,
                self.output,
                failure,
                self.custom_status,
                self.parent,
                self.parent_request,
                self.watchers,
                self.version,
                self.begun,
                self.length,
                self.tags,
                self.due_ms,
                self.cancel,
                self.cancel_told,
                self.pinned,
                self.updates,
                self.size,
                self.warning,
                self.headers,
            ]
        )
        return packed

    @classmethod
    def unpack(cls, packed: bytes) -> InstanceRow:
        """Read what ``pack`` wrote; raises ``MalformedBytes`` for anything else."""
        try:
            version, *row = msgpack.unpackb(packed, use_list=True, strict_map_key=False)
            if version != ROW_VERSION:
                raise ValueError(f"row of version {version!r}; this release reads {ROW_VERSION}")
            return cls._of(row)
        except Exception as error:  # msgpack raises many kinds for bytes that are not its own
            raise MalformedBytes(f"not an instance row: {error!r}") from error

    @classmethod
    def _of(cls, row: list[Any]) -> InstanceRow:
        name, status, created_ms, updated_ms, execution, given, output, failure, custom, parent, *rest = row
        parent_request, watchers, version, begun, length, *later = rest
        tags, due_ms, cancel, cancel_told, pinned, updates, size, warning, headers, *_ = [
            *later,
            *_LATER[len(later) :],
        ]
        return cls(
            name=name,
            status=Status(status),
            created_ms=created_ms,
            updated_ms=updated_ms,
            execution=execution,
            input=given,
            output=output,
            failure=None if failure is None else FailureDetails.from_wire(failure),
            custom_status=custom,
            parent=None if parent is None else ActorId(*parent),
            parent_request=parent_request,
            watchers=[(request, ActorId(*reply_to)) for request, reply_to in watchers],
            version=version,
            begun=begun,
            length=length,
            tags=dict(tags),
            due_ms=due_ms,
            cancel=cancel,
            cancel_told=cancel_told,
            pinned=pinned,
            updates=[(update, request, ActorId(*reply_to)) for update, request, reply_to in updates],
            size=size,
            warning=warning,
            headers=tuple(headers),
        )
