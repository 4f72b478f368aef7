"""Rewind: which part of a failed instance's history stays. The code is run, nothing is stored.

Rules:

* Taken out are the end, and the failures that led to it: those in its chain of causes, the one whose arrival
  ended the code, and later ones to which the code did not react. A failure that the code dealt with earlier
  stays.
* What the code did because of them goes with them. All else stays: what has a result is not run again.
* Sequence ids of what was taken out are never used again (``Rewound``), so that an answer to it finds nobody.
* What stays is found by running today's code over it. Where the code decides something else than the record
  has, the history is cut; what arrived later is then delivered anew.
* With nothing to take out but the end, the last turn is run again: the code may have been mended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from lungfish.runtime.errors import FailureDetails

from . import events
from .matching import Place, compare, recorded_decisions
from .replay import Execution

_FAILURES: Final = (events.TaskFailed, events.SubOrchestrationFailed, events.EntityResponded)
#: Arrivals that only count while the code waits for their id.
_ANSWERS: Final = (
    events.TaskCompleted,
    events.SubOrchestrationCompleted,
    events.TimerFired,
    *_FAILURES,
)
#: Arrivals that are not delivered anew.
_MARKS: Final = (events.TurnStarted, events.Suspended, events.Resumed, events.Rewound, events.Forked)
#: What the code does by giving up: no reaction to a failure.
_GIVES_UP: Final = (
    events.TaskCanceled,
    events.TimerCanceled,
    events.SubOrchestrationCanceled,
    events.LockReleased,
    events.ExecutionCompleted,
)


@dataclass(slots=True)
class Rewinding:
    """What a history becomes.

    Attributes:
        kept: the history that stays; today's code repeats it.
        again: arrivals to be delivered anew.
        failed: sequence ids of the failures that were taken out.
        sequence: the last id that was ever used.
        uncanceled: a request to cancel was taken out.
    """

    kept: list[events.Event] = field(default_factory=list)
    again: list[events.Arrived] = field(default_factory=list)
    failed: frozenset[int] = frozenset()
    sequence: int = 0
    uncanceled: bool = False


@dataclass(slots=True)
class _Group:
    """An arrival and what the code decided then."""

    arrived: events.Arrived
    decided: list[events.Decided]

    @property
    def failure(self) -> FailureDetails | None:
        return self.arrived.failure if isinstance(self.arrived, _FAILURES) else None

    @property
    def reacts(self) -> bool:
        return any(not isinstance(event, _GIVES_UP) for event in self.decided)

    @property
    def ends(self) -> bool:
        return any(isinstance(event, events.ExecutionCompleted) for event in self.decided)

    @property
    def last_id(self) -> int:
        return max((getattr(event, "id", 0) for event in self.decided), default=0)


def rewind(
    history: Sequence[events.Event], execution: Callable[[], Execution], *, uncancel: bool
) -> Rewinding:
    """Find what stays of the history of an instance that has ended.

    Args:
        execution: makes an execution of today's code that has not started.
        uncancel: it was cancelled, and is not to be any more.
    """
    groups = list(_groups(history))
    taken = _decisive(groups)
    found = Rewinding(
        failed=frozenset(getattr(groups[place].arrived, "id", 0) for place in taken),
        sequence=max((group.last_id for group in groups), default=0),
    )
    for place, group in enumerate(groups):
        if uncancel and isinstance(group.arrived, events.CancelRequested):
            taken.add(place)
            found.uncanceled = True
    probe = execution()
    try:
        _rebuild(found, groups, taken, probe)
    finally:
        probe.close()
    return found


def _groups(history: Sequence[events.Event]) -> Iterator[_Group]:
    at = 0
    while at < len(history):
        arrived = history[at]
        decided = recorded_decisions(history, at + 1)
        at += 1 + len(decided)
        if isinstance(arrived, events.ExecutionTerminated):
            continue
        yield _Group(arrived, decided)  # type: ignore[arg-type]  # decisions stand behind arrivals


def _decisive(groups: Sequence[_Group]) -> set[int]:
    """Return the places of the failures that led to the end."""
    end = next((place for place, group in enumerate(groups) if group.ends), None)
    if end is None:
        return set()
    (completed,) = (event for event in groups[end].decided if isinstance(event, events.ExecutionCompleted))
    causes = set(_chain(completed.failure))
    failures = {place: group.failure for place, group in enumerate(groups) if group.failure is not None}
    caused = [place for place, failure in failures.items() if _key(failure) in causes]
    latest = {
        max(p for p in caused if _key(failures[p]) == key) for key in {_key(failures[p]) for p in caused}
    }
    if end in failures:
        latest.add(end)
    if not latest:
        return set()
    first = min([*latest, *(place for place in caused if not groups[place].reacts)])
    return latest | {place for place in failures if place >= first and not groups[place].reacts}


def _key(failure: FailureDetails) -> tuple[str, str, str]:
    # Without its causes: they are cut where a chain is long.
    return failure.error_type, failure.message, failure.traceback


def _chain(failure: FailureDetails | None) -> Iterator[tuple[str, str, str]]:
    while failure is not None:
        yield _key(failure)
        failure = failure.cause


def _rebuild(found: Rewinding, groups: Sequence[_Group], taken: set[int], probe: Execution) -> None:
    used = 0
    probe.expect([event for group in groups for event in group.decided])
    for place, group in enumerate(groups):
        used = max(used, group.last_id)
        if place in taken or not _counts(group.arrived, probe):
            _skip(found, group, used, probe)
            continue
        recorded = [event for event in group.decided if not isinstance(event, events.ExecutionCompleted)]
        made = probe.repeat(group.arrived)
        if compare(recorded, made, [Place(None)] * len(made), 0, 0) is None:
            found.kept += [group.arrived, *recorded]
        elif not made:
            # Only what was taken out reacted to it.
            found.kept.append(group.arrived)
            _skip(found, group, used, probe)
        else:
            left = (other.arrived for at, other in enumerate(groups) if at >= place and at not in taken)
            found.again = [event for event in left if not isinstance(event, _MARKS)]
            return


def _counts(arrived: events.Arrived, probe: Execution) -> bool:
    """Tell whether the code that is left waits for an arrival."""
    if isinstance(arrived, events.LockGranted):
        return arrived.id in probe.outstanding.locks
    if isinstance(arrived, events.EntityResponded) and arrived.id in probe.outstanding.children:
        return False  # came after the end, when nobody knew whose answer it was: children are asked again
    return not isinstance(arrived, _ANSWERS) or probe.waits_for(arrived.id)


def _skip(found: Rewinding, group: _Group, used: int, probe: Execution) -> None:
    """Leave out a group; the ids of what it decided are used up."""
    if group.last_id:
        mark = events.Rewound(used)
        found.kept.append(mark)
        probe.repeat(mark)
