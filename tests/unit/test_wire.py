"""Messages to bytes and back; and bytes that are no messages."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungfish.runtime.errors import FailureDetails
from lungfish.runtime.ids import CLIENT, ENTITY, ORCHESTRATION, ActorId
from lungfish.runtime.messages import wire
from lungfish.runtime.messages.messages import (
    ActivityResult,
    ActivityTask,
    Call,
    CancelCall,
    Control,
    EntityControl,
    Inspect,
    LockGranted,
    LockQuery,
    LockRelease,
    LockRequest,
    Message,
    Query,
    RaiseEvent,
    ReminderDue,
    Response,
    Signal,
    Start,
    TimerFired,
    Update,
    Watch,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.integers(-(2**63), 2**63 - 1)
actors = st.builds(ActorId, st.sampled_from([ENTITY, ORCHESTRATION, CLIENT]), texts, texts)
failures = st.builds(
    FailureDetails, texts, texts, texts, st.none() | st.builds(FailureDetails, texts, texts), st.booleans()
)
BY_ANNOTATION: dict[str, st.SearchStrategy[Any]] = {
    "ActorId": actors,
    "ActorId | None": st.none() | actors,
    "FailureDetails | None": st.none() | failures,
    "tuple[str, ...]": st.lists(texts, max_size=3).map(tuple),
    "tuple[ActorId, ...]": st.lists(actors, max_size=3).map(tuple),
    "str": texts,
    "int": numbers,
    "bool": st.booleans(),
    "bytes": st.binary(max_size=20),
    "bytes | None": st.none() | st.binary(max_size=20),
}
CLASSES: list[type[Any]] = [
    Signal,
    Call,
    Response,
    Start,
    RaiseEvent,
    Control,
    Watch,
    ActivityResult,
    TimerFired,
    ActivityTask,
    ReminderDue,
    LockRequest,
    LockGranted,
    LockRelease,
    LockQuery,
    Inspect,
    CancelCall,
    EntityControl,
    Query,
    Update,
]


def instances(cls: type[Any]) -> st.SearchStrategy[Any]:
    return st.builds(cls, *(BY_ANNOTATION[str(field.type)] for field in dataclasses.fields(cls)))


messages = st.one_of([instances(cls) for cls in CLASSES if cls is not ActivityTask])


def required(cls: type[Any]) -> int:
    return sum(field.default is dataclasses.MISSING for field in dataclasses.fields(cls))


ME = ActorId(CLIENT, "", "me")
HITS = ActorId(ENTITY, "Counter", "hits")


def test_every_message_class_is_here() -> None:
    assert set(CLASSES) == {*Message.__args__, ActivityTask}


@given(st.lists(messages, max_size=5))
def test_messages_come_back(batch: list[Message]) -> None:
    found = wire.unpack(wire.pack(batch))
    assert found == batch
    assert [type(message) for message in found] == [type(message) for message in batch]
    assert all(type(message.target) is ActorId for message in found)


@given(instances(ActivityTask))
def test_a_task_comes_back(task: ActivityTask) -> None:
    assert wire.unpack_task(wire.pack([task])) == task


@pytest.mark.parametrize("tag", range(len(CLASSES)))
def test_tags_are_those_of_the_first_release(tag: int) -> None:
    """Stored rows depend on these numbers."""
    samples: list[Message | ActivityTask] = [
        Signal(HITS, "add", b""),
        Call(HITS, "add", b"", "1", ME),
        Response(ME, "1"),
        Start(HITS, "f", b""),
        RaiseEvent(HITS, "e", b""),
        Control(HITS, "terminate"),
        Watch(HITS, "1", ME),
        ActivityResult(HITS, "x", 1, 1),
        TimerFired(HITS, "x", 1, 5),
        ActivityTask(HITS, "x", 1, 1, "f", b"", "key"),
        ReminderDue(HITS, "check", "g", 5),
        LockRequest(HITS, "x:1", ME, (HITS,)),
        LockGranted(HITS, "x:1", (HITS,)),
        LockRelease(HITS, "x:1"),
        LockQuery(HITS, "x:1", HITS),
        Inspect(HITS, "1", ME),
        CancelCall(HITS, "1", ME),
        EntityControl(HITS, "watch"),
        Query(HITS, "q", b"", "1", ME),
        Update(HITS, "u", b"", "id", "1", ME),
    ]
    assert type(samples[tag]) is CLASSES[tag]
    assert wire.to_row(samples[tag])[0] == tag


def test_the_bytes_of_a_batch_are_those_of_the_first_release() -> None:
    data = wire.pack([Signal(HITS, "add", b"\x91\x01", 1, 0, ("a",)), Watch(HITS, "1", ME)])
    assert msgpack.unpackb(data) == [
        1,
        [
            [0, ["e", "Counter", "hits"], "add", b"\x91\x01", 1, 0, ["a"]],
            [6, ["e", "Counter", "hits"], "1", ["c", "", "me"]],
        ],
    ]


@pytest.mark.parametrize("cls", CLASSES)
@given(data=st.data())
def test_a_longer_row_is_cut_and_a_shorter_one_filled(cls: type[Any], data: st.DataObject) -> None:
    message = data.draw(instances(cls))
    row = msgpack.unpackb(wire.pack_rows([wire.to_row(message)]))[1][0]
    names = [field.name for field in dataclasses.fields(cls)]
    # A release with fields behind the headers does not leave these out.
    whole = [*row, *[[]] * (len(names) + 1 - len(row))]
    assert wire.from_row([*whole, "of a later release", 17]) == message
    least = required(cls)
    for length in range(least, len(names) + 1):
        defaults = {field.name: field.default for field in dataclasses.fields(cls)[length:]}
        assert wire.from_row(row[: length + 1]) == dataclasses.replace(message, **defaults)
    for length in range(least):
        with pytest.raises(wire.MalformedBytes):
            wire.from_row(row[: length + 1])


junk = st.recursive(
    st.none() | st.booleans() | numbers | st.floats() | texts | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(texts | numbers, inner, max_size=3),
    max_leaves=15,
)
#: Rows that are nearly right: a known tag, and fields some of which are of the wrong kind.
nearly = st.tuples(
    st.integers(-3, len(CLASSES) + 2),
    st.lists(
        st.one_of(junk, st.just(["e", "Counter", "hits"]), st.just("x"), st.just(b""), st.just(1)), max_size=9
    ),
).map(lambda parts: [parts[0], *parts[1]])


def read_all(payload: bytes) -> None:
    """Read bytes in each way; nothing but ``MalformedBytes`` may be raised, and what is read can
    be packed.
    """
    for read in (wire.unpack, wire.unpack_task, wire.unpack_rows):
        try:
            found: Any = read(payload)
        except wire.MalformedBytes:
            continue
        if read is wire.unpack:
            wire.pack(found)
        elif read is wire.unpack_task:
            wire.pack([found])


@given(st.binary(max_size=100))
def test_any_bytes_are_messages_or_malformed(payload: bytes) -> None:
    read_all(payload)


@given(junk)
def test_any_values_are_messages_or_malformed(value: object) -> None:
    read_all(msgpack.packb(value))
    read_all(msgpack.packb([1, value]))
    read_all(msgpack.packb([1, [value]]))


@given(nearly)
def test_rows_that_are_nearly_right_are_messages_or_malformed(row: list[Any]) -> None:
    read_all(msgpack.packb([1, [row]]))


@given(st.lists(messages, min_size=1, max_size=3), st.data())
def test_a_damaged_batch_is_messages_or_malformed(batch: list[Message], data: st.DataObject) -> None:
    payload = bytearray(wire.pack(batch))
    at = data.draw(st.integers(0, len(payload) - 1))
    payload[at] = data.draw(st.integers(0, 255))
    read_all(bytes(payload))
    read_all(bytes(payload[:at]))


def nested_failure(depth: int) -> list[Any]:
    row: Any = None
    for _ in range(depth):
        row = ["m.E", "why", "", row, False]
    return [2, ["c", "", "me"], "1", None, row]


@pytest.mark.parametrize("depth", [1, 10, 11, 50, 500, 1_000, 1_015, 1_020])
def test_causes_without_end_do_not_exhaust_the_stack(depth: int) -> None:
    read_all(msgpack.packb([1, [nested_failure(depth)]]))


@pytest.mark.parametrize(
    "row",
    [
        [0, "abc", "add", b""],
        [0, {"e": 1, "Counter": 2, "hits": 3}, "add", b""],
        [0, ["e", "Counter"], "add", b""],
        [0, ["e", "Counter", "hits"], b"add", b""],
        [0, ["e", "Counter", "hits"], "add", "str"],
        [0, ["e", "Counter", "hits"], "add", b"", 1.0],
        [0, ["e", "Counter", "hits"], "add", b"", 1, 0, "chain"],
        [0, ["e", "Counter", "hits"], "add", b"", 1, 0, [1]],
        [2, ["c", "", "me"], "1", None, "why"],
        [2, ["c", "", "me"], "1", None, [1, 2, 3, 4, 5]],
        [-1, *wire.to_row(ActivityTask(HITS, "x", 1, 1, "f", b"", "key"))[1:]],
        [99, "of a later release"],
        [],
        None,
        "row",
        b"\x00\x01",
        {},
    ],
)
def test_a_field_of_the_wrong_kind_is_malformed(row: Any) -> None:
    with pytest.raises(wire.MalformedBytes):
        wire.from_row(row)


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xc1", b"\x00" * 3, msgpack.packb([2, []]), msgpack.packb([1, None]), msgpack.packb([1, [], 3])],
)
def test_what_is_no_batch_is_malformed(payload: bytes) -> None:
    with pytest.raises(wire.MalformedBytes):
        wire.unpack(payload)


def test_a_task_is_no_message_and_a_message_no_task() -> None:
    task, signal = ActivityTask(HITS, "x", 1, 1, "f", b"", "key"), Signal(HITS, "add", b"")
    with pytest.raises(wire.MalformedBytes):
        wire.unpack(wire.pack([signal, task]))
    for batch in ([signal], [task, task], []):
        with pytest.raises(wire.MalformedBytes):
            wire.unpack_task(wire.pack(batch))
