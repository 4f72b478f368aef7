"""Non-determinism: how a decision of the code is held against the history, and how a difference is told.

Rules:

* Decided events are compared one by one, in order, with ``==``: kind, sequence id, target (see ``events``).
* A ``PatchMarked`` in the history that the code does not repeat is passed over, so that
  ``ctx.patched`` can be taken out again.
* The message is for whoever changed the code: what the history has, what the code did, where, and
  what to do about it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import Final, assert_never

from lungfish.runtime.errors import NonDeterminism
from lungfish.runtime.ids import ActorId

from .events import (
    DECIDED,
    ContinuedAsNew,
    Decided,
    EntityCalled,
    EntitySignaled,
    Event,
    EventSent,
    ExecutionCompleted,
    LockGranted,
    LockReleased,
    LockRequested,
    OrchestrationStarted,
    PatchMarked,
    SubOrchestrationCanceled,
    SubOrchestrationCompleted,
    SubOrchestrationCreated,
    SubOrchestrationFailed,
    TaskCanceled,
    TaskScheduled,
    TimerCanceled,
    TimerCreated,
    TimerFired,
    UpdateCompleted,
)

#: Files whose frames are not the user's: ours and asyncio's.
NOT_USERS: Final = (str(Path(__file__).parent), str(Path(asyncio.__file__).parent))


def user_line() -> str:
    """Return ``file:line`` of the innermost frame of user code."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(NOT_USERS):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "an unknown line"


_CANCELED: Final[dict[type[Event], str]] = {
    TaskCanceled: "activity",
    TimerCanceled: "timer",
    SubOrchestrationCanceled: "sub-orchestration",
}


def describe(event: Decided) -> str:  # noqa: PLR0911 - one line a kind
    """Name a decided event in words."""
    match event:
        case TaskScheduled():
            return f"activity {event.name!r} (#{event.id})"
        case TaskCanceled() | TimerCanceled() | SubOrchestrationCanceled():
            return f"cancellation of {_CANCELED[type(event)]} #{event.id}"
        case TimerCreated():
            return f"timer (#{event.id})"
        case SubOrchestrationCreated():
            return f"sub-orchestration {event.name!r} with id {event.instance!r} (#{event.id})"
        case OrchestrationStarted():
            return f"start of orchestration {event.name!r} with id {event.instance!r} (#{event.id})"
        case EntityCalled():
            return f"call of {event.operation!r} on entity {event.entity}/{event.key} (#{event.id})"
        case EntitySignaled():
            return f"signal {event.operation!r} to entity {event.entity}/{event.key} (#{event.id})"
        case EventSent():
            return f"event {event.name!r} to instance {event.instance!r} (#{event.id})"
        case LockRequested():
            return f"lock of {', '.join(map(str, event.entities))} (#{event.id})"
        case LockReleased():
            return f"release of lock #{event.id}"
        case PatchMarked():
            return f"patch marker {event.patch!r}"
        case UpdateCompleted():
            return f"the end of update {event.update!r}"
        case ContinuedAsNew():
            return "the end of the code, continuing as new"
        case ExecutionCompleted():
            return f"the end of the code, {event.status}"
        case _:
            assert_never(event)


def recorded_decisions(history: Sequence[Event], at: int) -> list[Decided]:
    """Return the decided events that stand at ``at`` and right behind it."""
    end = at
    while end < len(history) and type(history[end]) in DECIDED:
        end += 1
    return list(history[at:end])  # type: ignore[arg-type]


def compare(
    recorded: Sequence[Decided], made: Sequence[Decided], lines: Sequence[str], at: int, of: int
) -> NonDeterminism | None:
    """Hold what the code decided against what the history has; return the first difference.

    Args:
        recorded: the history's decisions behind one arrived event.
        made: the code's decisions behind the same event.
        lines: source line of each of ``made``.
        at: position in the history of the first of ``recorded``.
        of: length of the history.
    """
    here = 0
    for place, expected in enumerate(recorded):
        actual = made[here] if here < len(made) else None
        if actual == expected:
            here += 1
        elif not isinstance(expected, PatchMarked):
            line = lines[here] if actual is not None else ""
            cause = _cause(expected, actual, recorded[place + 1 :], made[here + 1 :])
            return _mismatch(expected, actual, line=line, at=at + place, of=of, cause=cause)
    if here < len(made):
        cause = _cause(None, made[here], (), made[here + 1 :])
        return _mismatch(None, made[here], line=lines[here], at=at + len(recorded), of=of, cause=cause)
    return None


def _mismatch(
    expected: Decided | None, actual: Decided | None, *, line: str, at: int, of: int, cause: str
) -> NonDeterminism:
    history = describe(expected) if expected is not None else "nothing more to be decided"
    code = f"{describe(actual)} at {line}" if actual is not None else "nothing more"
    return NonDeterminism(
        f"replay took another path than the history.\n"
        f"  expected: {history}, at event {at + 1} of {of} in the history\n"
        f"  actual:   {code}\n"
        f"  likely:   {cause}\n"
        f"Let running instances finish on the old code, or keep the old path for them: "
        f"`if ctx.patched('name-of-the-change'): new path, else: old path`."
    )


def _same(one: Decided, other: Decided) -> bool:
    """Tell whether two decisions are the same but for their sequence ids."""
    return type(one) is type(other) and _target(one) == _target(other)


def _target(event: Decided) -> tuple[str, ...]:
    match event:
        case TaskScheduled() | SubOrchestrationCreated() | OrchestrationStarted():
            return (event.name,)
        case EntityCalled() | EntitySignaled():
            return event.entity, event.key, event.operation
        case EventSent():
            return event.instance, event.name
        case PatchMarked():
            return (event.patch,)
        case ExecutionCompleted():
            return (event.status,)
        case UpdateCompleted():
            return (event.update,)
        case LockRequested():
            return tuple(map(str, event.entities))
        case (
            TaskCanceled()
            | TimerCreated()
            | TimerCanceled()
            | LockReleased()
            | SubOrchestrationCanceled()
            | ContinuedAsNew()
        ):
            return ()
        case _:
            assert_never(event)


def _cause(
    expected: Decided | None, actual: Decided | None, recorded: Sequence[Decided], made: Sequence[Decided]
) -> str:
    chance = "or the code depends on what is not repeated (clock, random, environment, I/O, a set's order)"
    if expected is None or actual is None:
        verb = "added" if expected is None else "removed"
        what = actual if expected is None else expected
        assert what is not None
        return f"{describe(what)} was {verb} here since this instance ran, {chance}"
    later, earlier = _any_same(actual, recorded), _any_same(expected, made)
    if later and earlier:
        return f"the two were swapped since this instance ran, {chance}"
    if earlier:
        return f"{describe(actual)} was added before {describe(expected)} since this instance ran, {chance}"
    if later:
        return f"{describe(expected)} was removed, or moved behind {describe(actual)}, {chance}"
    if type(expected) is type(actual):
        return f"renamed or replaced since this instance ran, {chance}"
    return f"added, removed or reordered since this instance ran, {chance}"


def _any_same(wanted: Decided, among: Sequence[Decided]) -> bool:
    return any(_same(wanted, other) for other in among)


#: What ends the wait for a sub-orchestration.
_CHILD_ENDS: Final = frozenset({SubOrchestrationCompleted, SubOrchestrationFailed, SubOrchestrationCanceled})


class Outstanding:
    """What a history has begun and not ended, read from the record alone: no code is run for it.

    That is why an instance can be ended properly also when its code fails to replay.
    """

    __slots__ = ("children", "locks", "timers")

    def __init__(self, history: Iterable[Event] = ()) -> None:
        self.timers: set[int] = set()
        self.children: dict[int, str] = {}
        #: Entities, and whether they are held.
        self.locks: dict[int, tuple[tuple[ActorId, ...], bool]] = {}
        for event in history:
            self.see(event)

    def see(self, event: Event) -> None:
        """Take an event of the history into account."""
        kind = type(event)
        if kind is TimerCreated:
            self.timers.add(event.id)  # type: ignore[union-attr]
        elif kind is TimerFired or kind is TimerCanceled:
            self.timers.discard(event.id)  # type: ignore[union-attr]
        elif kind is SubOrchestrationCreated:
            self.children[event.id] = event.instance  # type: ignore[union-attr]
        elif kind in _CHILD_ENDS:
            self.children.pop(event.id, None)  # type: ignore[union-attr]
        elif kind is LockRequested:
            self.locks[event.id] = (event.entities, False)  # type: ignore[union-attr]
        elif kind is LockGranted:
            entities, _ = self.locks.get(event.id, ((), False))  # type: ignore[union-attr]
            self.locks[event.id] = (entities, True)  # type: ignore[union-attr]
        elif kind is LockReleased:
            self.locks.pop(event.id, None)  # type: ignore[union-attr]
