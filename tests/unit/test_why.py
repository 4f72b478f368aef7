"""From facts to words: each kind of waiting, and the sentence of a chain."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from lungfish.orchestrations import events
from lungfish.orchestrations.row import InstanceRow, Status
from lungfish.orchestrations.waiting import read_waits, with_answer
from lungfish.runtime.errors import FailureDetails
from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages.status import EntityStatus, OrchestrationStatus, RuntimeStatus, from_ms
from lungfish.runtime.store.queues import QueueInfo, QueueLimits
from lungfish.runtime.why.facts import (
    ActivityWait,
    Attempt,
    CallWait,
    ChildWait,
    EntityFacts,
    EventWait,
    InstanceFacts,
    LockWait,
    Nobody,
    Place,
    QueueFacts,
    QueueName,
    Recorded,
    TimerWait,
    UpdateWait,
    Wait,
)
from lungfish.runtime.why.reasons import Reason, Why
from lungfish.runtime.why.rules import WAITS_MAX, Finding, findings

NOON = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)
NOON_MS = int(NOON.timestamp() * 1_000)
ORDER = ActorId("o", "", "order-17")
CART = ActorId("e", "Cart", "7")


def instance(*waits: Wait, status: RuntimeStatus = RuntimeStatus.RUNNING, **given: Any) -> InstanceFacts:
    told = {key: given.pop(key) for key in ("start_at", "failure") if key in given}
    stored = {key: given.pop(key) for key in ("suspended_ms", "suspended", "cancel") if key in given}
    shown = OrchestrationStatus("order-17", "order", status, NOON, NOON, **told)
    return InstanceFacts(
        ORDER,
        shown,
        given.pop("place", Place(3)),
        Recorded(waits, **stored),
        given.pop("asked", True),
        **given,
    )


def said(found: list[Finding]) -> list[tuple[str, str, str]]:
    now = NOON + dt.timedelta(minutes=5)
    return [(each.reason.kind, each.reason.words(now), each.reason.who) for each in found]


FIRST = NOON_MS
ATTEMPT = Attempt(4, 10, "gpu", 0, "Busy: no")


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        (
            instance(EventWait("approved", FIRST)),
            ("event", "waits for the external event 'approved' since 12:00:00 UTC (5 min)"),
        ),
        (
            instance(EventWait("approved", FIRST), TimerWait(1, FIRST, FIRST + 7_500_000)),
            (
                "event",
                "waits for the external event 'approved' since 12:00:00 UTC (5 min) "
                "(a timer fires at 14:05:00 UTC, in 2 h)",
            ),
        ),
        (
            instance(TimerWait(1, FIRST, FIRST + 310_000)),
            ("timer", "waits for a timer since 12:00:00 UTC (5 min) (it fires at 12:05:10 UTC, in 10 s)"),
        ),
        (
            instance(TimerWait(1, FIRST, FIRST + 10_000)),
            ("timer", "waits for a timer since 12:00:00 UTC (5 min) (it fires at 12:00:10 UTC, due)"),
        ),
        (instance(UpdateWait(("add", "pay"))), ("update", "waits for an update: add, pay")),
        (
            instance(ChildWait(1, "ship", "s-1", FIRST)),
            ("child", "waits for ship, its sub-orchestration s-1 since 12:00:00 UTC (5 min)"),
        ),
        (
            instance(CallWait(1, CART, "pay", FIRST)),
            ("call", "waits for pay of Cart/7 since 12:00:00 UTC (5 min)"),
        ),
        (
            instance(LockWait(1, (CART,), FIRST)),
            ("lock", "waits for a lock on Cart/7 since 12:00:00 UTC (5 min)"),
        ),
        (
            instance(ActivityWait(1, "charge", FIRST, ATTEMPT)),
            (
                "activity",
                "waits for activity charge: attempt 4 of 10, last error Busy: no since 12:00:00 UTC (5 min)",
            ),
        ),
        (
            instance(ActivityWait(1, "charge", FIRST, Attempt(2, 0, "gpu", FIRST + 312_000, "Busy: no"))),
            (
                "activity",
                "waits for activity charge: attempt 2, last error Busy: no since 12:00:00 UTC (5 min) "
                "(the next attempt begins at 12:05:12 UTC, in 12 s)",
            ),
        ),
        (
            instance(ActivityWait(1, "charge", FIRST, Attempt(1, 1, "gpu", deadline_ms=FIRST + 360_000))),
            (
                "activity",
                "waits for activity charge: attempt 1 of 1 since 12:00:00 UTC (5 min) "
                "(it is given up at 12:06:00 UTC, in 1 min)",
            ),
        ),
        (
            instance(ActivityWait(1, "charge", FIRST)),
            ("activity", "waits for activity charge, which has just ended since 12:00:00 UTC (5 min)"),
        ),
        (
            instance(status=RuntimeStatus.PENDING, start_at=NOON + dt.timedelta(days=1)),
            (
                "pending",
                "waits for its start time since 12:00:00 UTC (5 min) "
                "(it begins at 2026-03-02 12:00:00 UTC, in 23 h 55 min)",
            ),
        ),
        (
            instance(status=RuntimeStatus.PENDING),
            ("pending", "was accepted and has not begun since 12:00:00 UTC (5 min)"),
        ),
        (
            instance(status=RuntimeStatus.SUSPENDED, suspended_ms=FIRST, suspended="audit"),
            ("suspended", "is suspended (audit) since 12:00:00 UTC (5 min)"),
        ),
        (instance(cancel="too late"), ("cancel", "was asked to end (too late), and cleans up")),
        (instance(problem="no host has it"), ("code", "is held: no host has it")),
        (instance(), ("working", "works now")),
        (
            instance(asked=False),
            ("working", "works now, or waits for an event or an update: its host is busy"),
        ),
        (
            instance(status=RuntimeStatus.FAILED, failure=FailureDetails("builtins.ValueError", "no")),
            ("ended", "has ended: Failed, ValueError: no since 12:00:00 UTC (5 min)"),
        ),
        (
            instance(place=Place(3, hosted=False)),
            ("no-host", "lives in partition 3, which no live host runs"),
        ),
        (
            instance(place=Place(3, inbox=100)),
            ("backlog", "shares partition 3 with a backlog: 100 batches in its inbox"),
        ),
        (
            instance(place=Place(3, outbox=2_000)),
            ("backlog", "shares partition 3 with a backlog: 2,000 batches in its outbox"),
        ),
        (
            EntityFacts(CART, True, Place(3), EntityStatus("order-17", NOON)),
            ("lock", "is locked by order-17 since 12:00:00 UTC (5 min)"),
        ),
        (
            EntityFacts(CART, True, Place(34, hosted=False, pool="gpu")),
            ("no-host", "lives in pool 'gpu', which has no live host"),
        ),
        (
            EntityFacts(CART, True, Place(34, hosted=False, pool="gpu", note="no node has GPU: 1")),
            ("no-host", "lives in pool 'gpu', which has no live host: no node has GPU: 1"),
        ),
        (EntityFacts(CART, True, Place(3), EntityStatus(running=("pay",))), ("running", "runs pay")),
        (
            EntityFacts(CART, True, Place(3), EntityStatus(operations=4)),
            ("backlog", "has 4 operations that wait for their turn"),
        ),
        (EntityFacts(CART, True, Place(3), EntityStatus()), ("idle", "is idle: nothing waits there")),
        (
            EntityFacts(CART, True, Place(3), EntityStatus(), reminder="tick", reminder_ms=FIRST + 360_000),
            ("idle", "is idle: nothing waits there (reminder 'tick' comes at 12:06:00 UTC, in 1 min)"),
        ),
        (
            EntityFacts(CART, False, Place(3), EntityStatus()),
            ("idle", "does not exist, and nothing waits there"),
        ),
        (EntityFacts(CART, True, Place(3), problem="no answer"), ("code", "could not be asked: no answer")),
        (
            Nobody(ORDER),
            ("missing", "does not exist: it was not started yet, or it was purged"),
        ),
    ],
)
def test_the_first_reason(facts: Any, told: tuple[str, str]) -> None:
    assert said(findings(facts))[0][:2] == told


def test_an_entity_is_not_in_the_way_of_who_holds_it() -> None:
    facts = EntityFacts(CART, True, Place(3), EntityStatus("order-17", NOON))
    assert [each.reason.kind for each in findings(facts, asker="order-17")] == ["idle"]


@pytest.mark.parametrize(
    ("limits", "paused", "backlog", "running", "workers", "kinds"),
    [
        (QueueLimits(), False, 12, 0, 0, ["no-workers"]),
        (QueueLimits(), True, 12, 0, 2, ["paused"]),
        (QueueLimits(), True, 12, 0, 0, ["no-workers", "paused"]),
        (QueueLimits(concurrency=2), False, 12, 2, 2, ["limit", "queue"]),
        (QueueLimits(concurrency=2), False, 0, 1, 2, ["queue"]),
        (QueueLimits(rate=2.0), False, 1, 1, 2, ["limit", "queue"]),
        (QueueLimits(rate=2.0), False, 0, 0, 2, ["idle"]),
    ],
)
def test_a_queue(
    limits: QueueLimits, paused: bool, backlog: int, running: int, workers: int, kinds: list[str]
) -> None:
    info = QueueInfo("gpu", limits, paused, backlog, running, {}, {})
    found = findings(QueueFacts(QueueName("gpu"), info, workers))
    assert [each.reason.kind for each in found] == kinds
    assert {each.reason.subject for each in found} == {"queue gpu"}
    assert f"{backlog} wait, {running} run" in found[0].reason.text


def test_who_can_unblock_it_is_named() -> None:
    who = {
        "event": instance(EventWait("go", FIRST)),
        "suspended": instance(status=RuntimeStatus.SUSPENDED),
        "no-host": instance(place=Place(1, hosted=False)),
        "code": instance(problem="?"),
        "cancel": instance(cancel=""),
    }
    for kind, facts in who.items():
        reason = findings(facts)[0].reason
        assert (reason.kind, bool(reason.who)) == (kind, True)


def test_what_was_set_aside_is_told_last() -> None:
    found = findings(instance(EventWait("go", FIRST), place=Place(3, dead=2)))
    assert [each.reason.kind for each in found] == ["event", "dead-letters"]
    assert found[1].reason.text == "misses 2 messages, set aside"


def test_many_waits_are_counted() -> None:
    waits = [ActivityWait(n, f"a{n}", FIRST, ATTEMPT) for n in range(WAITS_MAX + 3)]
    found = findings(instance(*waits))
    assert len(found) == WAITS_MAX + 1
    assert found[-1].reason.text == "waits for 3 more"


# --- the sentence ---


def chain(*links: tuple[int, str, str]) -> str:
    reasons = [Reason("event", subject, text, depth=depth) for depth, subject, text in links]
    return Why.of(reasons, NOON).text


def test_the_sentence_follows_the_chain() -> None:
    assert chain((0, "a", "waits for b"), (1, "b", "waits for go")) == "a waits for b, which waits for go"
    assert (
        chain((0, "a", "waits for x and y"), (1, "b", "is locked by c"), (2, "c", "sleeps"))
        == "a waits for x and y, and b is locked by c, which sleeps"
    )


def test_other_reasons_are_counted_and_not_in_the_sentence() -> None:
    assert (
        chain((0, "a", "waits for b"), (1, "b", "sleeps"), (1, "b", "misses 1"), (0, "a", "waits for c"))
        == "a waits for b, which sleeps (and 1 more reason)"
    )


def test_lines_are_indented_and_name_who() -> None:
    reasons = [Reason("event", "a", "waits", who="raise it"), Reason("event", "b", "waits", depth=1)]
    assert Why.of(reasons, NOON).lines() == ["a waits → raise it", "  b waits"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3_600, "1 h"), (7_500, "2 h 5 min"), (90_061, "1 d 1 h")],
)
def test_durations_have_two_units(seconds: int, words: str) -> None:
    reason = Reason("event", "a", "waits", NOON)
    assert reason.words(NOON + dt.timedelta(seconds=seconds)).endswith(f"({words})")


# --- what the store tells ---


def row(**given: Any) -> bytes:
    return InstanceRow("order", Status.RUNNING, 1, 2, "x", b"", **given).pack()


def test_what_has_begun_and_not_ended_is_read_from_the_history() -> None:
    batch = events.pack(
        [
            events.TurnStarted(100),
            events.ExecutionStarted("x", "order", b"", 100),
            events.TaskScheduled(1, "done"),
            events.TaskScheduled(2, "charge"),
            events.TimerCreated(3, 900),
            events.TurnStarted(200),
            events.TaskCompleted(1),
            events.SubOrchestrationCreated(4, "ship", "s-1"),
            events.EntityCalled(5, "Cart", "7", "pay"),
            events.LockRequested(6, (CART,)),
            events.Suspended("audit", 250),
        ]
    )
    found = read_waits(ORDER, row(cancel="late"), [batch])
    assert found.waits == (
        ActivityWait(2, "charge", 100),
        TimerWait(3, 100, 900),
        ChildWait(4, "ship", "s-1", 200),
        CallWait(5, CART, "pay", 200),
        LockWait(6, (CART,), 200),
    )
    assert found.rows == {2: "order-17\x00x\x002"}
    assert (found.suspended, found.suspended_ms, found.cancel) == ("audit", 250, "late")


def test_the_answer_of_the_code_adds_events_and_takes_calls_that_it_gave_up() -> None:
    waits = (CallWait(5, CART, "pay", 200), CallWait(6, CART, "pay", 200), TimerWait(3, 1, 2))
    told = {"events": [["go", 7]], "updates": ["add"], "given_up": [5]}
    assert with_answer(waits, told) == (EventWait("go", 7), waits[1], waits[2])


def test_updates_are_waited_for_only_if_nothing_else_is() -> None:
    told = {"events": [], "updates": ["add"], "given_up": []}
    assert with_answer((), told) == (UpdateWait(("add",)),)
    assert with_answer((TimerWait(3, 1, 2),), told) == (TimerWait(3, 1, 2),)


def test_times_of_the_store_are_aware() -> None:
    assert from_ms(NOON_MS) == NOON
