"""What an unfinished operation has done that must not be done again: its journal.

Rules:

* Only what left the entity is journaled: calls (their request and outcome), the ids of
  orchestrations it chose, and how many operations of a signal's batch are applied. State and
  buffered messages are not: a re-run makes them again.
* A re-run must make the same calls in the same order. Position n of the operation's own code is entry n of
  it; another call there than the recorded one is ``NonDeterminism``: the recorded one has had its effect.
* Branches that run at once (``gather``, task groups) have no order among them: it depends on whose answer
  comes first. What they do is found by what it is: entity, operation and arguments, those of the same
  branch first. One that was given up need not come as far again. One that ends on another path is told
  at the end of the operation.
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
        branch: 0: the operation's own code made it; else which of its concurrent branches.
        digest: of the arguments.
    """

    target: ActorId
    operation: str
    request: str
    deadline_ms: int
    outcome: CallOutcome | None = None
    abandoned: bool = False
    waiter: asyncio.Future[None] | None = None
    branch: int = 0
    digest: int = 0

    def is_same(self, other: Entry) -> bool:
        """Tell whether a call of a branch may stand for this one."""
        return isinstance(other, CallEntry) and (self.target, self.operation, self.digest) == (
            other.target,
            other.operation,
            other.digest,
        )

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
    branch: int = 0

    def is_same(self, other: Entry) -> bool:
        """Tell whether a start of a branch may stand for this one."""
        return isinstance(other, StartEntry) and self.name == other.name

    def __str__(self) -> str:
        return f"start {self.name}"


Entry: TypeAlias = CallEntry | StartEntry


@dataclass(slots=True, eq=False)
class _Run:
    """One run of an operation, held against its journal.

    Attributes:
        own: what the operation's own code did.
        others: what branches did and have not met again.
        anew: what branches did for the first time.
    """

    own: list[Entry]
    others: list[Entry]
    anew: list[Entry] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Journal:
    """The journal of one accepted message.

    Attributes:
        applied: how many operations of a signal's batch are committed.
        entries: what the operation that runs now, or ran before a crash, did.
        position: how far the operation's own code has come in the run that goes on now.
        broken: set when it took another path than recorded; the operation fails, whatever it catches.
        met: ends when a recorded step is met again, or the run ends; not stored (``inside``).
    """

    applied: int = 0
    entries: list[Entry] = field(default_factory=list)
    position: int = 0
    broken: NonDeterminism | None = None
    met: asyncio.Future[None] | None = None
    _run: _Run | None = None

    def call(self, wanted: CallEntry) -> CallEntry | None:
        """Return the recorded call that ``wanted`` is; None: it was never made.

        Raises:
            NonDeterminism: the operation's own code did something else at this point.
        """
        entry = self._next(wanted)
        if entry is None or (isinstance(entry, CallEntry) and _name(entry) == _name(wanted)):
            return entry
        raise self._mismatch(entry, str(wanted))

    def start(self, wanted: StartEntry) -> StartEntry | None:
        """Return the recorded start that ``wanted`` is, whatever its id; None: there is none.

        Raises:
            NonDeterminism: the operation's own code did something else at this point.
        """
        entry = self._next(wanted)
        if entry is None or (isinstance(entry, StartEntry) and entry.name == wanted.name):
            return entry
        raise self._mismatch(entry, str(wanted))

    def add(self, entry: Entry) -> None:
        """Record what the operation does."""
        run = self._begun()
        self.entries.append(entry)
        if entry.branch:
            run.anew.append(entry)
            return
        assert self.position == len(run.own), "recorded entries must be taken first"
        run.own.append(entry)
        self.position += 1

    def begin(self) -> None:
        """Start a run from the beginning; what is recorded stays."""
        self.position = 0
        self.broken = None
        self._run = None

    def check_end(self) -> None:
        """Raise ``NonDeterminism`` if this run ended on another path than the one that is recorded."""
        if self.broken is not None:
            raise self.broken
        if not self.entries:
            return
        run = self._begun()
        if self.position < len(run.own):
            raise self._mismatch(run.own[self.position], "end")
        anew = {entry.branch: entry for entry in reversed(run.anew)}
        for entry in run.others:
            if entry.branch in anew:
                raise self._mismatch(entry, str(anew[entry.branch]))

    def advance(self, applied: int) -> None:
        """Note that operations of the batch are committed; the next one has an empty journal."""
        self.applied += applied
        self.entries = []
        self.begin()

    def calls(self) -> list[CallEntry]:
        """Return the calls that still wait for an answer."""
        return [e for e in self.entries if isinstance(e, CallEntry) and e.outcome is None and not e.abandoned]

    def has_met(self, entry: Entry) -> bool:
        """Tell whether the run that goes on now has come to a recorded entry."""
        run = self._begun()
        left = run.others if entry.branch else run.own[self.position :]
        return not any(one is entry for one in left)

    def tell_met(self) -> None:
        """Wake up who waits for ``met``."""
        if self.met is not None and not self.met.done():
            self.met.set_result(None)

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

    def _begun(self) -> _Run:
        if self._run is None:
            own = [entry for entry in self.entries if not entry.branch]
            self._run = _Run(own, [entry for entry in self.entries if entry.branch])
        return self._run

    def _next(self, wanted: Entry) -> Entry | None:
        if self.broken is not None:
            raise self.broken
        if wanted.branch:
            return self._met_again(wanted)
        own = self._begun().own
        if self.position == len(own):
            return None
        self.position += 1
        self.tell_met()
        return own[self.position - 1]

    def _met_again(self, wanted: Entry) -> Entry | None:
        run = self._begun()
        same = [entry for entry in run.others if wanted.is_same(entry)]
        found = next((entry for entry in same if entry.branch == wanted.branch), same[0] if same else None)
        if found is not None:
            run.others = [entry for entry in run.others if entry is not found]
            self.tell_met()
        return found

    def _mismatch(self, recorded: Entry, actual: str) -> NonDeterminism:
        at = next(at for at, entry in enumerate(self.entries) if entry is recorded)
        self.broken = NonDeterminism(
            f"step {at + 1} of this operation was '{recorded}' before it was interrupted, and is "
            f"'{actual}' in the re-run. An operation that calls others must make the same calls again: do "
            "not let the clock, random numbers or private attributes decide between them."
        )
        return self.broken


def _name(entry: CallEntry) -> tuple[ActorId, str]:
    return entry.target, entry.operation


def _row(entry: Entry) -> list[Any]:
    match entry:
        case StartEntry(name=name, id=chosen, branch=branch):
            return [_START, name, chosen, branch]
        case CallEntry():
            outcome = entry.outcome
            failure = (
                outcome.failure.to_wire() if outcome is not None and outcome.failure is not None else None
            )
            ended = None if outcome is None else [outcome.result, failure]
            return [
                _CALL, entry.target, entry.operation, entry.request, entry.deadline_ms, ended,
                entry.abandoned, entry.branch, entry.digest,
            ]  # fmt: skip


def _entry(row: list[Any]) -> Entry:
    kind, *values = row
    if kind == _START:
        name, chosen, *rest = values
        return StartEntry(name, chosen, *rest[:1])
    if kind != _CALL:
        raise ValueError(f"entry of kind {kind!r}")
    target, operation, request, deadline_ms, ended, abandoned, *rest = values
    branch, digest, *_ = rest or (0, 0)
    outcome = None
    if ended is not None:
        result, failure = ended
        outcome = CallOutcome(result, None if failure is None else FailureDetails.from_wire(failure))
    return CallEntry(
        ActorId(*target), operation, request, deadline_ms, outcome, abandoned, branch=branch, digest=digest
    )
