"""From facts to reasons: what each thing that can be in the way is called, and who can remove it. Pure.

Rules:

* What is in the way of everything comes first (no host, a suspension), then what the code waits for, then
  what is worth knowing. There is always at least one reason.
* A reason may name whom to ask next; who walks from one to the next is ``why.walk``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, assert_never

from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages.status import RuntimeStatus, from_ms

from .facts import (
    ActivityWait,
    CallWait,
    ChildWait,
    EntityFacts,
    EventWait,
    Facts,
    InstanceFacts,
    LockWait,
    Nobody,
    Place,
    QueueFacts,
    QueueName,
    Subject,
    TimerWait,
    UpdateWait,
    Wait,
)
from .reasons import Kind, Reason

#: Batches in an inbox or an outbox that are worth a word.
BACKLOG: Final = 100
#: Things that one instance waits for and that are told one by one.
WAITS_MAX: Final = 8
_START_A_HOST: Final = "start a host: lungfish dev, lungfish up"


@dataclass(frozen=True, slots=True)
class Finding:
    """A reason, and whom to ask next.

    Attributes:
        then: whom it waits for.
        lock: they are entities of a critical section, asked for one after the other: only the first that
            somebody else holds is in the way.
    """

    reason: Reason
    then: tuple[Subject, ...] = ()
    lock: bool = False


def findings(facts: Facts, asker: str = "") -> list[Finding]:
    """Return the reasons that facts tell, the most important first.

    Args:
        asker: id of the instance that waits for it: its own locks are not in its way.
    """
    match facts:
        case InstanceFacts():
            found = list(_instance(facts))
        case EntityFacts():
            found = list(_entity(facts, asker))
        case QueueFacts():
            found = [Finding(reason) for reason in _queue(facts)]
        case Nobody():
            text = "does not exist: it was not started yet, or it was purged"
            found = [Finding(Reason("missing", str(facts.actor), text, who=f"start {facts.actor}"))]
        case _:
            assert_never(facts)
    return found


# --- instances ---


def _instance(facts: InstanceFacts) -> Iterator[Finding]:
    name, status = str(facts.actor), facts.status
    if status.runtime_status.is_terminal:
        yield Finding(_ended(facts))
        return
    yield from map(Finding, _blocked(name, facts.place))
    recorded = facts.recorded
    if status.runtime_status is RuntimeStatus.SUSPENDED:
        why = f" ({recorded.suspended})" if recorded.suspended else ""
        since = _time(recorded.suspended_ms)
        yield Finding(Reason("suspended", name, f"is suspended{why}", since, who=f"resume {name}"))
    elif status.runtime_status is RuntimeStatus.PENDING:
        yield Finding(_pending(facts))
    if recorded.cancel is not None:
        why = f" ({recorded.cancel})" if recorded.cancel else ""
        text = f"was asked to end{why}, and cleans up"
        yield Finding(Reason("cancel", name, text, who=f"terminate {name}"))
    if facts.problem:
        text = f"is held: {facts.problem}"
        yield Finding(Reason("code", name, text, who="deploy a host with the code that it began with"))
    yield from _waits(facts)
    yield from map(Finding, _set_aside(name, facts.place))


def _ended(facts: InstanceFacts) -> Reason:
    status = facts.status
    text = f"has ended: {status.runtime_status.value}"
    if status.failure is not None:
        text += f", {status.failure}"
    failed = status.runtime_status is RuntimeStatus.FAILED
    who = f"rewind {facts.actor}" if failed else ""
    return Reason("ended", str(facts.actor), text, status.updated_at, who=who)


def _pending(facts: InstanceFacts) -> Reason:
    name, status = str(facts.actor), facts.status
    if status.start_at is None:
        return Reason("pending", name, "was accepted and has not begun", status.created_at)
    text = "waits for its start time"
    return Reason("pending", name, text, status.created_at, status.start_at, "it begins")


def _waits(facts: InstanceFacts) -> Iterator[Finding]:
    name, status = str(facts.actor), facts.status.runtime_status
    if status is RuntimeStatus.PENDING:
        return
    timers = sorted(
        (each for each in facts.recorded.waits if isinstance(each, TimerWait)), key=lambda each: each.due_ms
    )
    others = [each for each in facts.recorded.waits if not isinstance(each, TimerWait)]
    limit = _time(timers[0].due_ms) if timers else None
    for each in others[:WAITS_MAX]:
        yield _wait(name, each, limit)
    if len(others) > WAITS_MAX:
        yield Finding(Reason("more", name, f"waits for {len(others) - WAITS_MAX} more"))
    for timer in timers[:WAITS_MAX]:
        yield _wait(name, timer, None)
    if facts.recorded.waits or facts.problem or not facts.place.hosted:
        return
    if status is RuntimeStatus.RUNNING:
        text = (
            "works now" if facts.asked else "works now, or waits for an event or an update: its host is busy"
        )
        yield Finding(Reason("working", name, text))


def _wait(name: str, wait: Wait, limit: dt.datetime | None) -> Finding:
    at = "a timer fires" if limit is not None else ""
    match wait:
        case EventWait():
            text, who = f"waits for the external event {wait.name!r}", f"raise event {wait.name!r} for {name}"
            return Finding(Reason("event", name, text, _time(wait.since_ms), limit, at, who))
        case UpdateWait():
            text = f"waits for an update: {', '.join(wait.names)}"
            return Finding(Reason("update", name, text, None, limit, at, f"update {name}"))
        case TimerWait():
            since, until = _time(wait.since_ms), _time(wait.due_ms)
            return Finding(Reason("timer", name, "waits for a timer", since, until, "it fires"))
        case ChildWait():
            text = f"waits for {wait.name}, its sub-orchestration {wait.instance}"
            reason = Reason("child", name, text, _time(wait.since_ms), limit, at)
            return Finding(reason, (ActorId("o", "", wait.instance),))
        case CallWait():
            text = f"waits for {wait.operation} of {wait.entity}"
            return Finding(Reason("call", name, text, _time(wait.since_ms), limit, at), (wait.entity,))
        case LockWait():
            text = f"waits for a lock on {', '.join(map(str, wait.entities))}"
            reason = Reason("lock", name, text, _time(wait.since_ms), limit, at)
            return Finding(reason, wait.entities, lock=True)
        case ActivityWait():
            return _activity(name, wait, limit)
        case _:
            assert_never(wait)


def _activity(name: str, wait: ActivityWait, limit: dt.datetime | None) -> Finding:
    attempt, since = wait.attempt, _time(wait.since_ms)
    if attempt is None:
        return Finding(
            Reason("activity", name, f"waits for activity {wait.name}, which has just ended", since)
        )
    of = f" of {attempt.most}" if attempt.most else ""
    text = f"waits for activity {wait.name}: attempt {attempt.number}{of}"
    if attempt.error:
        text += f", last error {attempt.error}"
    if attempt.retry_ms:
        next_at = _time(attempt.retry_ms)
        return Finding(Reason("activity", name, text, since, next_at, "the next attempt begins"))
    until, at = limit, "a timer fires"
    if attempt.deadline_ms:
        until, at = _time(attempt.deadline_ms), "it is given up"
    reason = Reason("activity", name, text, since, until, at if until else "")
    return Finding(reason, (QueueName(attempt.queue),))


# --- entities ---


def _entity(facts: EntityFacts, asker: str) -> Iterator[Finding]:
    name = f"entity {facts.actor}"
    yield from map(Finding, _blocked(name, facts.place))
    count = 0
    status = facts.status
    if status is not None and status.holder is not None and status.holder != asker:
        count += 1
        text = f"is locked by {status.holder}"
        holder = ActorId("o", "", status.holder)
        yield Finding(Reason("lock", name, text, status.since, who=f"the end of {holder}"), (holder,))
    for reason in _busy(name, facts):
        count += 1
        yield Finding(reason)
    if facts.problem:
        yield Finding(Reason("code", name, f"could not be asked: {facts.problem}"))
    elif not count and facts.place.hosted and not facts.place.dead:
        text = "is idle: nothing waits there" if facts.exists else "does not exist, and nothing waits there"
        at = f"reminder {facts.reminder!r} comes" if facts.reminder_ms else ""
        yield Finding(Reason("idle", name, text, None, _time(facts.reminder_ms), at))
    yield from map(Finding, _set_aside(str(facts.actor), facts.place, name))


def _busy(name: str, facts: EntityFacts) -> Iterator[Reason]:
    status = facts.status
    if status is None:
        return
    if status.running:
        yield Reason("running", name, f"runs {', '.join(status.running)}", who="the operation's own code")
    if status.operations:
        yield Reason("backlog", name, f"has {status.operations} operations that wait for their turn")
    if status.waiting:
        shown = ", ".join(status.waiting[:WAITS_MAX])
        yield Reason("backlog", name, f"is waited for, to be locked, by {shown}")


# --- queues ---


def _queue(facts: QueueFacts) -> Iterator[Reason]:
    info, name = facts.info, str(facts.queue)
    limits = info.limits
    load = f"{info.backlog} wait, {info.running} run"
    if not facts.workers:
        text = f"has 0 live workers; {load}"
        yield Reason("no-workers", name, text, who=f"start a worker for {name}")
    if info.paused:
        yield Reason("paused", name, f"is paused; {load}", who=f"resume {name}")
    if limits.concurrency is not None and info.running >= limits.concurrency:
        text = f"runs as many as it may ({limits.concurrency}); {load}"
        yield Reason("limit", name, text, who=f"raise the concurrency of {name}")
    if limits.rate is not None and info.backlog:
        text = f"begins at most {limits.rate:g} a second; {load}"
        yield Reason("limit", name, text, who=f"raise the rate of {name}")
    if facts.workers and not info.paused:
        workers = "1 live worker" if facts.workers == 1 else f"{facts.workers} live workers"
        kind: Kind = "queue" if info.backlog or info.running else "idle"
        yield Reason(kind, name, f"has {workers}; {load}")


# --- all of them ---


def _blocked(name: str, place: Place) -> Iterator[Reason]:
    if place.pool:
        note = f": {place.note}" if place.note else ""
        text = f"lives in pool {place.pool!r}, which has no live host{note}"
        yield Reason("no-host", name, text, who=f"start a host of pool {place.pool!r}")
    elif not place.hosted:
        text = f"lives in partition {place.partition}, which no live host runs"
        yield Reason("no-host", name, text, who=_START_A_HOST)
    for what, count in (("inbox", place.inbox), ("outbox", place.outbox)):
        if count >= BACKLOG:
            text = f"shares partition {place.partition} with a backlog: {count:,} batches in its {what}"
            yield Reason("backlog", name, text)


def _set_aside(target: str, place: Place, name: str = "") -> Iterator[Reason]:
    if place.dead:
        text = f"misses {place.dead} message{'s' if place.dead > 1 else ''}, set aside"
        who = f"lungfish dead-letters list --target {target}"
        yield Reason("dead-letters", name or target, text, who=who)


def _time(milliseconds: int) -> dt.datetime | None:
    return from_ms(milliseconds) if milliseconds else None
