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
from itertools import islice
from pathlib import Path
from types import CodeType, FrameType
from typing import Final, NamedTuple

from lungfish.runtime.errors import NonDeterminism
from lungfish.runtime.ids import ActorId

from .causes import describe, likely_cause
from .events import (
    DECIDED,
    Decided,
    Event,
    LockGranted,
    LockReleased,
    LockRequested,
    PatchMarked,
    SubOrchestrationCanceled,
    SubOrchestrationCompleted,
    SubOrchestrationCreated,
    SubOrchestrationFailed,
    TimerCanceled,
    TimerCreated,
    TimerFired,
    TurnStarted,
)

#: Files whose frames are not the user's: ours and asyncio's.
NOT_USERS: Final = (
    *(str(Path(__file__).parents[1] / name) for name in ("orchestrations", "runtime", "entities")),
    str(Path(asyncio.__file__).parent),
)


#: Whether a file is one of those: asked for every step of a replay.
_known_files: Final[dict[str, bool]] = {}


class Place(NamedTuple):
    """Where in the source a step was taken; the line is looked up only if somebody asks."""

    code: CodeType | None
    instruction: int = -1
    words: str = ""

    def __str__(self) -> str:
        if self.code is None:
            return self.words or "an unknown line"
        lines = next(islice(self.code.co_positions(), self.instruction // 2, None), (None,))
        return f"{self.code.co_filename}:{lines[0] or self.code.co_firstlineno}"


def user_place() -> Place:
    """Return where the innermost frame of user code is."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_not_users(frame.f_code.co_filename):
        frame = frame.f_back
    return Place(None) if frame is None else Place(frame.f_code, frame.f_lasti)


def user_line() -> str:
    """Return ``file:line`` of the innermost frame of user code."""
    return str(user_place())


def _is_not_users(file: str) -> bool:
    known = _known_files.get(file)
    if known is None:
        known = _known_files[file] = file.startswith(NOT_USERS)
    return known


def recorded_decisions(history: Sequence[Event], at: int) -> list[Decided]:
    """Return the decided events that stand at ``at`` and right behind it."""
    end = at
    while end < len(history) and type(history[end]) in DECIDED:
        end += 1
    return list(history[at:end])  # type: ignore[arg-type]


def compare(
    recorded: Sequence[Decided], made: Sequence[Decided], lines: Sequence[Place], at: int, of: int
) -> NonDeterminism | None:
    """Hold what the code decided against what the history has; return the first difference.

    Args:
        recorded: the history's decisions behind one arrived event.
        made: the code's decisions behind the same event.
        lines: source line of each of ``made``.
        at: position in the history of the first of ``recorded``.
        of: length of the history.
    """
    if recorded == made:
        return None
    here = 0
    for place, expected in enumerate(recorded):
        actual = made[here] if here < len(made) else None
        if actual == expected:
            here += 1
        elif not isinstance(expected, PatchMarked):
            line = str(lines[here]) if actual is not None else ""
            cause = likely_cause(expected, actual, recorded[place + 1 :], made[here + 1 :])
            return _mismatch(expected, actual, line=line, at=at + place, of=of, cause=cause)
    if here < len(made):
        cause = likely_cause(None, made[here], (), made[here + 1 :])
        return _mismatch(None, made[here], line=str(lines[here]), at=at + len(recorded), of=of, cause=cause)
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


#: What ends the wait for a sub-orchestration.
_CHILD_ENDS: Final = frozenset({SubOrchestrationCompleted, SubOrchestrationFailed, SubOrchestrationCanceled})


class Outstanding:
    """What a history has begun and not ended, read from the record alone: no code is run for it.

    That is why an instance can be ended properly also when its code fails to replay.
    """

    __slots__ = ("children", "locks", "now_ms", "timers")

    def __init__(self, history: Iterable[Event] = ()) -> None:
        #: The time of the turn that is looked at, if the history says it.
        self.now_ms = 0
        #: When they were set.
        self.timers: dict[int, int] = {}
        self.children: dict[int, str] = {}
        #: Entities, and whether they are held.
        self.locks: dict[int, tuple[tuple[ActorId, ...], bool]] = {}
        for event in history:
            self.see(event)

    def see(self, event: Event) -> None:
        """Take an event of the history into account."""
        kind = type(event)
        if kind is TurnStarted:
            self.now_ms = event.now_ms  # type: ignore[union-attr]
        elif kind is TimerCreated:
            self.timers[event.id] = self.now_ms  # type: ignore[union-attr]
        elif kind is TimerFired or kind is TimerCanceled:
            self.timers.pop(event.id, None)  # type: ignore[union-attr]
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
