"""What an unfinished operation has done that must not be done again: its journal.

Rules:

* Only what left the entity is journaled: calls (their request and outcome), the ids of
  orchestrations it chose, and how many operations of a signal's batch are applied. State and
  buffered messages are not: a re-run makes them again.
* A re-run must make the same calls in the same order. Position n of the run is entry n of the journal;
  another call there than the recorded one is ``NonDeterminism``: the recorded one has had its effect.
* The journal is kept beside the unfinished message, in the same commit as the call it tells of.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import msgpack

from lungfish.runtime.errors import FailureDetails, NonDeterminism, SerializationError
from lungfish.runtime.ids import ActorId

_VERSION: Final = 1
_CALL, _START = 0, 1


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """How a call ended: with an encoded result, or with a failure."""

    result: bytes | None = None
    failure: FailureDetails | None = None


@dataclass(slots=True, eq=False)
class CallEntry:
    """A call that was made.

    Attributes:
        abandoned: the operation stopped waiting (its own time-out) and went on. A re-run must
            come to the same point, so it gets no answer either.
        waiter: what the running operation waits on; not stored.
    """

    target: ActorId
    operation: str
    request: str
    deadline_ms: int
    outcome: CallOutcome | None = None
    abandoned: bool = False
    waiter: asyncio.Future[None] | None = None

    def settle(self, outcome: CallOutcome) -> bool:
        """Take the outcome; False if it is late: the call has ended for the operation."""
        if self.outcome is not None or self.abandoned:
            return False
        self.outcome = outcome
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)
        return True

    def __str__(self) -> str:
        return f"call {self.target}.{self.operation}"


@dataclass(frozen=True, slots=True)
class StartEntry:
    """An orchestration that the operation starts, under an id that it did not choose itself."""

    name: str
    id: str

    def __str__(self) -> str:
        return f"start {self.name}"


Entry: TypeAlias = CallEntry | StartEntry


@dataclass(slots=True, eq=False)
class Journal:
    """The journal of one accepted message.

    Attributes:
        applied: how many operations of a signal's batch are committed.
        entries: what the operation that runs now, or ran before a crash, did.
        position: how far the run that goes on now has come.
        broken: set when it took another path than recorded; the operation fails, whatever it catches.
    """

    applied: int = 0
    entries: list[Entry] = field(default_factory=list)
    position: int = 0
    broken: NonDeterminism | None = None

    def call(self, target: ActorId, operation: str) -> CallEntry | None:
        """Return the recorded call at this position; None: it was never made."""
        entry = self._next()
        if entry is None or (
            isinstance(entry, CallEntry) and entry.target == target and entry.operation == operation
        ):
            return entry
        raise self._mismatch(self.position - 1, f"call {target}.{operation}")

    def start(self, name: str) -> StartEntry | None:
        """Return the recorded start at this position; None: there is none."""
        entry = self._next()
        if entry is None or (isinstance(entry, StartEntry) and entry.name == name):
            return entry
        raise self._mismatch(self.position - 1, f"start {name}")

    def add(self, entry: Entry) -> None:
        """Record what the operation does at the end of the journal."""
        assert self.position == len(self.entries), "recorded entries must be taken first"
        self.entries.append(entry)
        self.position += 1

    def begin(self) -> None:
        """Start a run from the beginning; what is recorded stays."""
        self.position = 0
        self.broken = None

    def check_end(self) -> None:
        """Raise ``NonDeterminism`` if this run ended before it had done all that is recorded."""
        if self.broken is not None:
            raise self.broken
        if self.position < len(self.entries):
            raise self._mismatch(self.position, "end")

    def advance(self, applied: int) -> None:
        """Note that operations of the batch are committed; the next one has an empty journal."""
        self.applied += applied
        self.entries = []
        self.begin()

    def calls(self) -> list[CallEntry]:
        """Return the calls that still wait for an answer."""
        return [e for e in self.entries if isinstance(e, CallEntry) and e.outcome is None and not e.abandoned]

    def encode(self) -> bytes:
        """Return the stored form."""
        packed: bytes = msgpack.packb([_VERSION, self.applied, [_row(entry) for entry in self.entries]])
        return packed

    @classmethod
    def decode(cls, record: bytes) -> Journal:
        """Read a stored journal; an empty record is a new one.

        Raises:
            SerializationError: bytes of a later release, or not a journal.
        """
        if not record:
            return cls()
        try:
            version, applied, rows = msgpack.unpackb(record)
            if version != _VERSION:
                raise ValueError(f"version {version}")
            return cls(applied, [_entry(row) for row in rows])
        except Exception as error:  # msgpack raises many kinds
            raise SerializationError(
                f"the journal of an unfinished operation cannot be read: {error!r}"
            ) from error

    def _next(self) -> Entry | None:
        if self.broken is not None:
            raise self.broken
        if self.position == len(self.entries):
            return None
        self.position += 1
        return self.entries[self.position - 1]

    def _mismatch(self, at: int, actual: str) -> NonDeterminism:
        recorded = self.entries[at]
        self.broken = NonDeterminism(
            f"step {at + 1} of this operation was '{recorded}' before it was interrupted, and is "
            f"'{actual}' in the re-run. An operation that calls others must make the same calls again: do "
            "not let the clock, random numbers or private attributes decide between them."
        )
        return self.broken


def _row(entry: Entry) -> list[Any]:
    match entry:
        case StartEntry(name=name, id=chosen):
            return [_START, name, chosen]
        case CallEntry():
            outcome = entry.outcome
            failure = (
                outcome.failure.to_wire() if outcome is not None and outcome.failure is not None else None
            )
            ended = None if outcome is None else [outcome.result, failure]
            return [
                _CALL, entry.target, entry.operation, entry.request, entry.deadline_ms, ended, entry.abandoned
            ]  # fmt: skip


def _entry(row: list[Any]) -> Entry:
    kind, *values = row
    if kind == _START:
        return StartEntry(*values)
    if kind != _CALL:
        raise ValueError(f"entry of kind {kind!r}")
    target, operation, request, deadline_ms, ended, abandoned = values
    outcome = None
    if ended is not None:
        result, failure = ended
        outcome = CallOutcome(result, None if failure is None else FailureDetails.from_wire(failure))
    return CallEntry(ActorId(*target), operation, request, deadline_ms, outcome, abandoned)
