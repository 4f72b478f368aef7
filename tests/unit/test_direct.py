"""Batches past the inbox: whose turn it is, what is taken twice, and what is refused."""

from __future__ import annotations

from typing import Any

from lungfish.runtime.session.direct import (
    PATIENCE_MS,
    WAITING_MAX,
    DirectLanes,
    Handed,
    read_end,
    read_note,
    refused_note,
    taken_note,
)

A, B = "c:a:e", "c:b:e"


def lanes(**doubled: int) -> DirectLanes:
    return DirectLanes({f"c:{name}:e": number for name, number in doubled.items()})


def handed(sequence: int, lane: str = A, end: str = "") -> Handed:
    rows: list[Any] = []
    return Handed(lane, sequence, rows, read_end(end), 0)


def taken(known: DirectLanes, now_ms: int = 0, accepted: str = "5-0") -> list[int]:
    return [batch.sequence for batch in known.sift(accepted, now_ms)]


def test_the_next_after_what_was_read_is_taken_and_the_next_after_that() -> None:
    known = lanes()
    assert known.read(A, 7)
    known.hand(handed(8))
    known.hand(handed(9))
    assert taken(known) == [8, 9]
    assert (known.refused, known.waiting) == ([], [])


def test_of_a_lane_that_was_never_read_nothing_is_taken() -> None:
    known = lanes(a=4)
    known.hand(handed(5))
    assert taken(known) == []
    assert known.take_refused() == [(A, 5)]
    assert known.take_refused() == []


def test_refusing_forgets_nothing_that_was_taken() -> None:
    known = lanes()
    known.read(A, 1)
    known.hand(handed(2))
    assert taken(known) == [2]
    known.refuse(handed(3))
    assert known.take_refused() == [(A, 3)]
    assert not known.read(A, 2)
    assert known.read(A, 3)


def test_a_second_copy_is_passed_over() -> None:
    known = lanes()
    known.read(A, 1)
    for _ in range(3):
        known.hand(handed(2))
    assert taken(known) == [2]
    known.hand(handed(1))
    assert taken(known) == []
    assert known.refused == []


def test_one_that_came_too_early_waits_for_what_is_still_to_be_read() -> None:
    known = lanes()
    known.read(A, 1)
    known.hand(handed(3))
    assert taken(known) == []
    assert not known.ready, "asking again would find nothing new"
    assert known.read(A, 2)
    assert taken(known) == [3]


def test_it_does_not_wait_for_ever() -> None:
    known = lanes()
    known.read(A, 1)
    known.hand(handed(3))
    assert taken(known, PATIENCE_MS - 1) == []
    assert known.refused == []
    assert taken(known, PATIENCE_MS) == []
    assert known.refused == [(A, 3)]


def test_one_waits_for_all_that_was_in_the_inbox_when_it_was_sent() -> None:
    known = lanes()
    known.read(A, 1)
    known.hand(handed(2, end="12-3"))
    assert taken(known, accepted="5-0") == []
    assert taken(known, accepted="12-2") == []
    assert taken(known, accepted="12-10") == [2]


def test_too_many_that_wait_are_refused() -> None:
    known = lanes()
    for sequence in range(WAITING_MAX + 1):
        known.hand(handed(sequence + 2))
    assert known.refused == [(A, WAITING_MAX + 2)]


def test_what_was_taken_directly_is_not_taken_from_the_inbox() -> None:
    known = lanes()
    known.read(A, 1)
    known.hand(handed(2))
    assert taken(known) == [2]
    assert not known.read(A, 2)
    assert known.read(A, 3)
    assert known.read(B, 2)


def test_what_an_earlier_owner_took_directly_is_not_taken_from_the_inbox() -> None:
    known = lanes(a=3)
    assert not known.read(A, 2)
    assert not known.read(A, 3)
    assert known.read(A, 4)
    known.hand(handed(5))
    assert taken(known) == [5]


def test_a_gap_in_the_inbox_is_what_its_sender_gave_up() -> None:
    known = lanes()
    known.read(A, 1)
    assert known.read(A, 5)
    known.hand(handed(4))
    known.hand(handed(6))
    assert taken(known) == [6]


def test_idle_lanes_are_forgotten_and_others_kept() -> None:
    known = lanes()
    known.read(A, 1)
    known.read(B, 1)
    assert known.age(committed=1, making=2) == []
    known.hand(handed(2))
    assert taken(known) == [2]
    idle = known.age(committed=2, making=3)
    assert idle == [B]
    known.forget(idle, {})
    known.hand(handed(3))
    known.hand(handed(2, B))
    assert taken(known) == [3]
    assert known.refused == [(B, 2)]


def test_no_lane_is_forgotten_before_its_commit_is_in_the_store() -> None:
    known = lanes()
    known.read(A, 1)
    known.hand(handed(2))
    assert taken(known) == [2]
    assert known.age(committed=4, making=6) == []
    assert known.age(committed=5, making=6) == []
    assert not known.read(A, 2), "it is still known"
    assert known.age(committed=6, making=7) == []
    assert known.age(committed=7, making=8) == [A]


def test_what_is_to_be_read_of_a_forgotten_lane_is_still_passed_over() -> None:
    known = lanes()
    known.read(A, 1)
    known.hand(handed(2))
    assert taken(known) == [2]
    known.age(committed=1, making=2)
    known.forget(known.age(committed=2, making=3), {A: 2, B: 7})
    assert known.doubled == {A: 2}
    assert not known.read(A, 2)
    assert known.doubled == {}, "nothing of it is left to be read"
    assert known.read(A, 3)


def test_a_lane_that_came_back_is_not_forgotten() -> None:
    known = lanes()
    known.read(A, 1)
    known.age(committed=1, making=2)
    idle = known.age(committed=2, making=3)
    known.hand(handed(2))
    assert taken(known) == [2]
    known.forget(idle, {})
    known.hand(handed(3))
    assert taken(known) == [3]


def test_notes_are_no_ids_of_requests() -> None:
    assert read_note(taken_note(3, 17)) == (True, 3, 17)
    assert read_note(refused_note(31, 2)) == (False, 31, 2)
    assert read_note("17") is None
    assert read_note("") is None
