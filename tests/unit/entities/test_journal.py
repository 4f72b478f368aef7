"""The journal of an unfinished operation: its stored form, and how a re-run reads it."""

from __future__ import annotations

import msgpack
import pytest

from lungfish.entities.journal import CallEntry, CallOutcome, Journal, StartEntry
from lungfish.runtime.errors import FailureDetails, NonDeterminism, SerializationError
from lungfish.runtime.ids import ENTITY, ActorId

A, B = ActorId(ENTITY, "E", "a"), ActorId(ENTITY, "E", "b")


def made(target: ActorId, operation: str) -> CallEntry:
    return CallEntry(target, operation, "", 0)


def entries() -> list[CallEntry | StartEntry]:
    return [
        CallEntry(A, "open", "r1", 5),
        CallEntry(A, "done", "r2", 5, CallOutcome(b"\x01")),
        CallEntry(B, "none", "r3", 5, CallOutcome(None)),
        CallEntry(
            B,
            "failed",
            "r4",
            0,
            CallOutcome(failure=FailureDetails("x.Y", "m", "t", FailureDetails("z", "c"))),
        ),
        CallEntry(B, "left", "r5", 5, abandoned=True),
        StartEntry("order", "id-1"),
    ]


def shown(journal: Journal) -> list[object]:
    return [
        e
        if isinstance(e, StartEntry)
        else (e.target, e.operation, e.request, e.deadline_ms, e.outcome, e.abandoned)
        for e in journal.entries
    ]


@pytest.mark.parametrize("applied", [0, 7])
def test_it_comes_back(applied: int) -> None:
    journal = Journal(applied, entries())
    back = Journal.decode(journal.encode())
    assert back.applied == applied
    assert shown(back) == shown(journal)
    assert [entry.request for entry in back.calls()] == ["r1"]


def test_no_record_is_a_new_journal() -> None:
    journal = Journal.decode(b"")
    assert (journal.applied, journal.entries) == (0, [])


@pytest.mark.parametrize(
    "record",
    [b"\xc1", b"\x05", msgpack.packb([2, 0, []]), msgpack.packb([1, 0, [[9]]]), msgpack.packb([1, 0, [[0]]])],
)
def test_what_is_not_a_journal(record: bytes) -> None:
    with pytest.raises(SerializationError, match="journal of an unfinished operation"):
        Journal.decode(record)


def test_a_rerun_finds_what_was_done_in_order() -> None:
    journal = Journal(
        0, [CallEntry(A, "x", "r1", 0), StartEntry("order", "id-1"), CallEntry(B, "y", "r2", 0)]
    )
    assert journal.call(made(A, "x")) is journal.entries[0]
    assert journal.start(StartEntry("order", "")) is journal.entries[1]
    with pytest.raises(NonDeterminism, match=r"'call E/b\.y'.*'end'"):
        journal.check_end()
    journal.begin()
    for _ in range(2):
        journal.position += 1
    assert journal.call(made(B, "y")) is journal.entries[2]
    journal.check_end()
    assert journal.call(made(A, "new")) is None
    journal.add(CallEntry(A, "new", "r3", 0))
    assert journal.position == 4


@pytest.mark.parametrize(
    ("take", "actual"),
    [
        (lambda journal: journal.call(made(B, "x")), "call E/b.x"),
        (lambda journal: journal.call(made(A, "y")), "call E/a.y"),
        (lambda journal: journal.start(StartEntry("order", "")), "start order"),
    ],
)
def test_another_path_breaks_it_for_good(take, actual: str) -> None:  # type: ignore[no-untyped-def]
    journal = Journal(0, [CallEntry(A, "x", "r1", 0), CallEntry(A, "x", "r2", 0)])
    with pytest.raises(NonDeterminism, match=rf"step 1 .*'call E/a\.x'.*'{actual}'"):
        take(journal)
    with pytest.raises(NonDeterminism):
        journal.call(made(A, "x"))
    with pytest.raises(NonDeterminism):
        journal.check_end()


def test_the_next_operation_of_a_batch_has_an_empty_journal() -> None:
    journal = Journal(3, entries())
    journal.advance(2)
    assert (journal.applied, journal.entries, journal.position) == (5, [], 0)
