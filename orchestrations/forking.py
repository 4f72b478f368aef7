"""Fork: a new instance with the beginning of another one's history.

Rules:

* A position is an index of ``handle.history()``; events before it are taken. It must not part an arrival
  from what the code decided then, nor lie behind the end.
* Chance (``uuid4``, ``random``) repeats what it gave the other one up to the position, and is the fork's
  own from there on. Ids of sub-orchestrations that were made, not given, become the fork's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from lungfish.runtime.errors import UsageError

from . import events
from .context import seed_of

_ENDS: Final = (events.ExecutionCompleted, events.ExecutionTerminated, events.ContinuedAsNew)


def check_position(history: Sequence[events.Event], at: int) -> None:
    """Raise ``UsageError``, which names positions that will do, unless ``history[:at]`` is a beginning."""
    valid = [position for position in range(1, len(history) + 1) if _fits(history, position)]
    if at in valid:
        return
    if not valid:
        raise UsageError("this instance has not begun, or its history cannot be forked: start another one")
    before = max((position for position in valid if position < at), default=None)
    after = min((position for position in valid if position > at), default=None)
    near = " and ".join(str(position) for position in (before, after) if position is not None)
    raise UsageError(
        f"a history of {len(history)} events cannot be forked at {at}: that is not between two steps. The "
        f"nearest positions are {near}"
    )


def _fits(history: Sequence[events.Event], at: int) -> bool:
    prefix = history[:at]
    parts = at < len(history) and type(history[at]) in events.DECIDED
    return (
        not parts
        and any(isinstance(event, events.ExecutionStarted) for event in prefix)
        and not any(isinstance(event, _ENDS) for event in prefix)
    )


def started_of(history: Sequence[events.Event]) -> events.ExecutionStarted:
    """Return the start of the execution; raises ``UsageError`` if there is none."""
    for event in history:
        if isinstance(event, events.ExecutionStarted):
            return event
    raise UsageError("the instance has not begun: its history has no start")


def forked(source: str, prefix: Sequence[events.Event], execution: str) -> list[events.Event]:
    """Return the beginning of a fork's history.

    Args:
        source: id of the instance that ``prefix`` is of.
        execution: id of the new execution.
    """
    started = started_of(prefix)
    old = f"{started.execution}:"

    def own(event: events.Event) -> events.Event:
        match event:
            case events.ExecutionStarted():
                seed = seed_of(source, event)
                return replace(event, execution=execution, seed=seed, parent=None, parent_request="")
            case events.SubOrchestrationCreated() | events.OrchestrationStarted() if (
                event.instance == f"{old}{event.id}"
            ):
                return replace(event, instance=f"{execution}:{event.id}")
            case _:
                return event

    return [own(event) for event in prefix]
