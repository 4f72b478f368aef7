"""Stored forms: history events, instance rows, activity rows."""

from __future__ import annotations

import msgpack
import pytest

from lungfish.orchestrations import events
from lungfish.orchestrations.activities import ActivityRow
from lungfish.orchestrations.row import InstanceRow, Status
from lungfish.runtime.declared.retry import RetryPolicy
from lungfish.runtime.errors import FailureDetails
from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages.wire import MalformedBytes

FAILURE = FailureDetails("builtins.ValueError", "no", "trace", FailureDetails("x.Y", "why"), True)
PARENT = ActorId("o", "", "parent")

EVERY: list[events.Event] = [
    events.TurnStarted(17),
    events.ExecutionStarted("x", "name", b"in", 5, "v1", PARENT, "x:1", 1, "s", True, b"outcomes"),
    events.ExecutionStarted("x", "name", b"in", 5),
    events.TaskScheduled(1, "a", b"args"),
    events.TaskCompleted(1, b"r"),
    events.TaskCompleted(1, None),
    events.TaskFailed(1, FAILURE, True),
    events.TaskCanceled(1),
    events.TimerCreated(2, 99),
    events.TimerFired(2),
    events.TimerCanceled(2),
    events.SubOrchestrationCreated(3, "child", "kid", b"in"),
    events.SubOrchestrationCompleted(3, b"r"),
    events.SubOrchestrationFailed(3, FAILURE),
    events.EventRaised("go", b"p"),
    events.EntityCalled(4, "Counter", "k", "add", b"args"),
    events.EntityResponded(4, b"r"),
    events.EntityResponded(4, failure=FAILURE),
    events.EntitySignaled(5, "Counter", "k", "add", 7),
    events.EventSent(6, "other", "go"),
    events.PatchMarked("p"),
    events.ContinuedAsNew(b"in"),
    events.Suspended("r", 1),
    events.Resumed("r", 1),
    events.ExecutionTerminated("r", 1),
    events.ExecutionCompleted("Failed", None, FAILURE),
    events.LockRequested(7, (ActorId("e", "Account", "a"), ActorId("e", "Account", "b"))),
    events.LockGranted(7),
    events.LockReleased(7),
    events.SubOrchestrationCanceled(3),
    events.OrchestrationStarted(7, "other", "o", b"in"),
    events.CancelRequested("r", 1),
    events.Rewound(7, "r", 1),
    events.Forked("source", "x2", 1),
    events.UpdateAccepted("u", "rename", b"args", 5),
    events.UpdateCompleted("u", b"r"),
    events.UpdateCompleted("u", failure=FAILURE),
]


def _fields(event: events.Event) -> list[object]:
    return [getattr(event, name) for name in type(event).__slots__]


def test_every_event_comes_back_whole() -> None:
    back = events.unpack(events.pack(EVERY))
    assert [type(event) for event in back] == [type(event) for event in EVERY]
    assert [_fields(event) for event in back] == [_fields(event) for event in EVERY]
    assert {type(event) for event in EVERY} == set(events._EVENTS)


def test_tags_never_change() -> None:
    # Append only. A change here makes stored histories unreadable.
    names = [cls.__name__ for cls in events._EVENTS]
    assert names == [
        "TurnStarted", "ExecutionStarted", "TaskScheduled", "TaskCompleted", "TaskFailed", "TaskCanceled",
        "TimerCreated", "TimerFired", "TimerCanceled", "SubOrchestrationCreated",
        "SubOrchestrationCompleted", "SubOrchestrationFailed", "EventRaised", "EntityCalled",
        "EntityResponded", "EntitySignaled", "EventSent", "PatchMarked", "ContinuedAsNew", "Suspended",
        "Resumed", "ExecutionTerminated", "ExecutionCompleted", "LockRequested", "LockGranted",
        "LockReleased", "SubOrchestrationCanceled", "OrchestrationStarted", "CancelRequested", "Rewound",
        "Forked", "UpdateAccepted", "UpdateCompleted",
    ]  # fmt: skip


def test_rows_of_later_releases_are_cut_and_shorter_ones_filled() -> None:
    later = msgpack.packb([1, [[3, 1, b"r", "new field"], [6, 2]]])
    assert events.unpack(later) == [events.TaskCompleted(1, b"r"), events.TimerCreated(2)]


@pytest.mark.parametrize(
    "batch",
    [
        b"",
        b"junk",
        b"\xc1",
        msgpack.packb(None),
        msgpack.packb([2, []]),
        msgpack.packb([1, 5]),
        msgpack.packb([1, [[]]]),
        msgpack.packb([1, [[99, 1]]]),
        msgpack.packb([1, [[-1, 1]]]),
        msgpack.packb([1, [[2, 1]]]),
        msgpack.packb([1, [[3, "one", b""]]]),
        msgpack.packb([1, [[1, "x", "n", b"", 1, "", ["o", 5], ""]]]),
    ],
)
def test_what_was_never_written_is_refused(batch: bytes) -> None:
    with pytest.raises(MalformedBytes):
        events.unpack(batch)


def test_instance_rows_come_back_whole() -> None:
    watchers = [("r", PARENT)]
    row = InstanceRow("name", Status.SUSPENDED, 1, 2, "x", b"in", b"out", FAILURE, b"s", PARENT, "x:1")
    row.watchers, row.version, row.begun, row.length = watchers, "v", False, 9
    assert InstanceRow.unpack(row.pack()) == row
    assert not row.terminal
    for junk in (b"", b"junk", msgpack.packb([1]), msgpack.packb([9, "n"]), row.pack()[:-1]):
        with pytest.raises(MalformedBytes):
            InstanceRow.unpack(junk)


def test_activity_rows_come_back_whole() -> None:
    for policy in (RetryPolicy(), RetryPolicy(max_attempts=3, non_retriable=("ValueError",))):
        row = ActivityRow(1, "a", b"args", "q", policy, 5, 6, 7, "key", 2, True)
        assert ActivityRow.unpack(row.pack()) == row
    for junk in (b"", b"junk", msgpack.packb([1])):
        with pytest.raises(MalformedBytes):
            ActivityRow.unpack(junk)
