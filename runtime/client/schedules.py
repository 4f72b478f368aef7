"""Schedules, as a client sees them: made, looked at, changed. They themselves are entities of every hub.

Rules:

* What changes a schedule is a call: durable, and in force, when it returns.
* What looks at one reads its last committed state and activates nothing.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from lungfish.runtime import codec
from lungfish.runtime.declared.calendar import Recurrence
from lungfish.runtime.declared.reminders import at_ms
from lungfish.runtime.declared.schedule_plan import (
    CATALOG,
    SCHEDULE,
    Definition,
    Overlap,
    SignalTarget,
    StartTarget,
    decide,
    next_times,
)
from lungfish.runtime.declared.schedule_target import Known, Target, check_schedule_id, define, target_of
from lungfish.runtime.errors import ScheduleExists, ScheduleNotFound, UsageError

from .refs import EntityRef

NEXT_TIMES: Final = 5

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MS: Final = dt.timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class ScheduleRun:
    """A run of a schedule.

    Attributes:
        id: of the orchestration instance: the schedule's id and the nominal time.
        nominal: the time that it is the run of.
        begun: when it was started.
        ended: when it ended; None: it is running.
        outcome: ``Running``, ``Completed``, ``Failed``, ``Terminated``, ``Canceled``; ``Sent``: a signal;
            ``NotFound``: it was purged; else why it could not be started (``NotRegistered`` …).
        detail: what it failed with.
    """

    id: str
    nominal: dt.datetime
    begun: dt.datetime
    ended: dt.datetime | None
    outcome: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ScheduleDescription:
    """A schedule as last committed.

    Attributes:
        id: its id.
        spec: when it is due.
        target: the name of the orchestration, or the entity and operation, that it starts or signals.
        overlap: what becomes of a time at which an earlier run is still running.
        paused: nothing is started, except by ``trigger`` and ``backfill``.
        note: what was said when it was made, paused or resumed last.
        created: when it was made.
        next_times: the next nominal times; none while it is paused, or when it has come to its end.
        running: runs that have not ended.
        recent: the last 20 runs that ended, latest first.
        buffered: nominal time of the run that waits for the others to end.
        started, skipped, missed: how many times were started; passed over because of an earlier run; not
            handled within ``catch_up``.
        remaining: how many runs there may still be; None: no bound.
        backfilling: whether a backfill is under way.
    """

    id: str
    spec: Recurrence
    target: str
    overlap: str
    paused: bool
    note: str
    created: dt.datetime
    next_times: tuple[dt.datetime, ...]
    running: tuple[ScheduleRun, ...]
    recent: tuple[ScheduleRun, ...]
    buffered: dt.datetime | None
    started: int
    skipped: int
    missed: int
    remaining: int | None
    backfilling: bool


class Schedules:
    """The schedules of a hub: ``client.schedules``."""

    def __init__(self, entity: Callable[[str, str], EntityRef[Any]], known: Known | None) -> None:
        """Make it from what makes references to entities, and what is known of the app."""
        self._entity = entity
        self._known = known

    async def create(
        self,
        id: str,
        spec: Recurrence,
        target: Target,
        args: Sequence[Any] = (),
        *,
        overlap: Overlap = "skip",
        catch_up: dt.timedelta = dt.timedelta(hours=1),
        jitter: dt.timedelta = dt.timedelta(0),
        start_at: dt.datetime | None = None,
        end_at: dt.datetime | None = None,
        runs: int | None = None,
        paused: bool = False,
        note: str = "",
        if_exists: Literal["raise", "return"] = "raise",
    ) -> ScheduleHandle:
        """Make a schedule; it is in force when this returns. As Temporal's schedules.

        Each nominal time is started exactly once, whatever crashes, or is counted as skipped or missed. Its
        run has an id of its own: ``nightly-2026-01-31T09:00:00Z`` (in UTC).

        Args:
            id: the schedule's id.
            spec: when: ``lungfish.cron("0 9 * * MON-FRI", tz="Europe/Berlin")`` or
                ``lungfish.every(timedelta(hours=1))``.
            target: an orchestration to start, or its registered name; or an entity to signal:
                ``(class or name, key, operation)``.
            args: positional arguments of the orchestration or operation.
            overlap: what becomes of a time at which an earlier run has not ended. ``"skip"``: nothing.
                ``"buffer_one"``: one run waits for that. ``"allow"``: it runs beside. ``"cancel_running"``,
                ``"terminate_running"``: the earlier one is ended, and the run begins when it has.
            catch_up: a time that nobody could handle for so long (hosts were down) is missed.
            jitter: each run begins up to so much later than its nominal time.
            start_at, end_at: first and last nominal time there may be (aware).
            runs: how many runs there may be; ``trigger`` and ``backfill`` do not count.
            paused: make it paused.
            note: for people.
            if_exists: ``"raise"`` ``ScheduleExists``, or ``"return"`` a handle to the one that is there.

        Raises:
            ScheduleExists: there is one of that id already.
            UsageError: something does not fit; a subclass where a name or argument does not.
            DeadlineExceeded, StoreUnavailable: the outcome is unknown.
        """
        definition = define(
            self._known,
            spec,
            target,
            args,
            overlap=overlap,
            catch_up=catch_up,
            jitter=jitter,
            start_at=start_at,
            end_at=end_at,
            runs=runs,
        )
        handle = self.get(id)
        try:
            await handle._ref.call("create", definition.to_wire(), bool(paused), str(note))
        except ScheduleExists:
            if if_exists == "raise":
                raise
        return handle

    def get(self, id: str) -> ScheduleHandle:
        """Return a handle to a schedule; talks to nobody."""
        return ScheduleHandle(self._entity(SCHEDULE, check_schedule_id(id)), self._known)

    async def list(self) -> AsyncIterator[ScheduleDescription]:
        """Iterate over all schedules of the hub, by id."""
        catalog = await self._entity(CATALOG, "all").state()
        for id in sorted(catalog["ids"]) if catalog is not None else ():
            try:
                yield await self.get(id).describe()
            except ScheduleNotFound:
                continue  # deleted a moment ago


class ScheduleHandle:
    """A handle to one schedule."""

    def __init__(self, ref: EntityRef[Any], known: Known | None) -> None:
        self._ref = ref
        self._known = known

    @property
    def id(self) -> str:
        """The schedule's id."""
        return self._ref.key

    async def describe(self) -> ScheduleDescription:
        """Return the schedule as last committed: next times, runs, and what was skipped or missed.

        Raises:
            ScheduleNotFound: there is none.
            StoreUnavailable: the store cannot be reached.
        """
        return _describe(self.id, await self._state())

    async def update(
        self,
        *,
        spec: Recurrence | None = None,
        target: Target | None = None,
        args: Sequence[Any] = (),
        **changes: Any,
    ) -> None:
        """Change a schedule; what is not named stays. What was due before is still handled as it was.

        Args:
            spec, target, args: as ``create``; ``args`` go with ``target``.
            changes: ``overlap``, ``catch_up``, ``jitter``, ``start_at``, ``end_at``, ``runs``, as ``create``.

        Raises:
            ScheduleNotFound: there is none.
            UsageError: as ``create``.
        """
        before = _definition(self.id, await self._state())
        if args and target is None:
            raise UsageError("args go with a target: name it again")
        unknown = set(changes) - {"overlap", "catch_up", "jitter", "start_at", "end_at", "runs"}
        if unknown:
            raise UsageError(f"a schedule has no {', '.join(sorted(unknown))}")
        made = define(None, spec or before.times, "checked", **changes)
        names = {"catch_up": "catch_up_ms", "jitter": "jitter_ms", "start_at": "start_ms", "end_at": "end_ms"}
        changed = {name: getattr(made, name) for name in (names.get(known, known) for known in changes)}
        goal = before.target if target is None else target_of(self._known, target, args)
        after = replace(before, times=made.times, target=goal, **changed)
        await self._ref.call("update", after.to_wire())

    async def pause(self, note: str = "") -> None:
        """Start nothing from now on; runs go on. Times that pass meanwhile are neither started nor missed.

        Raises:
            ScheduleNotFound: there is none.
        """
        await self._ref.call("pause", str(note))

    async def resume(self, note: str = "") -> None:
        """Undo ``pause``, for times from now on; idempotent.

        Raises:
            ScheduleNotFound: there is none.
        """
        await self._ref.call("resume", str(note))

    async def trigger(self, *, overlap: Overlap | None = None) -> str | None:
        """Have a run now, paused or not; return its id, or None if it is skipped.

        Args:
            overlap: another policy than the schedule's, for this run.

        Raises:
            ScheduleNotFound: there is none.
        """
        if overlap is not None:
            decide(overlap, running=True, buffered=True)
        return await self._ref.call("trigger", overlap or "") or None

    async def backfill(self, start: dt.datetime, end: dt.datetime, *, overlap: Overlap = "allow") -> None:
        """Have the runs of the nominal times from ``start`` to ``end``, both included, as if they came now.

        A time that has had its run already does not get another. Accepted when this returns; thousands of
        runs take a while.

        Args:
            start, end: aware.
            overlap: the policy among these runs.

        Raises:
            ScheduleNotFound: there is none.
            UsageError: bad times; ``LimitExceeded``: 100 backfills wait already.
        """
        decide(overlap, running=True, buffered=True)
        start_ms, end_ms = at_ms(start, 0, "start"), at_ms(end, 0, "end")
        if end_ms < start_ms:
            raise UsageError("end lies before start")
        await self._ref.call("backfill", start_ms, end_ms, overlap)

    async def delete(self) -> None:
        """Delete the schedule. Runs that have begun go on.

        Raises:
            ScheduleNotFound: there is none.
        """
        await self._ref.call("remove")

    async def _state(self) -> dict[str, Any]:
        state: dict[str, Any] | None = await self._ref.state()
        if not state or not state["definition"]:
            raise ScheduleNotFound(f"there is no schedule {self.id!r}")
        return state

    def __repr__(self) -> str:
        return f"<schedule {self.id}>"


def _definition(id: str, state: dict[str, Any]) -> Definition:
    return Definition.from_wire(codec.validate(state["definition"], list[Any], f"schedule {id}"))


def _describe(id: str, state: dict[str, Any]) -> ScheduleDescription:
    definition = _definition(id, state)
    remaining = state["remaining"]
    times: tuple[dt.datetime, ...] = ()
    if not state["paused"] and remaining != 0:
        most = NEXT_TIMES if remaining < 0 else min(NEXT_TIMES, remaining)
        times = tuple(map(_time, itertools.islice(next_times(definition, state["cursor_ms"]), most)))
    match definition.target:
        case StartTarget(name):
            target = name
        case SignalTarget(entity, key, operation):
            target = f"{entity}/{key}.{operation}"
    return ScheduleDescription(
        id=id,
        spec=definition.times,
        target=target,
        overlap=definition.overlap,
        paused=state["paused"],
        note=state["note"],
        created=_time(state["created_ms"]),
        next_times=times,
        running=tuple(
            ScheduleRun(run, _time(nominal), _time(begun), None, "Running")
            for run, (nominal, begun) in state["running"].items()
        ),
        recent=tuple(
            ScheduleRun(run, _time(nominal), _time(begun), _time(ended), outcome, detail)
            for run, nominal, begun, ended, outcome, detail in state["recent"]
        ),
        buffered=_time(state["buffered"][0][0]) if state["buffered"] else None,
        started=state["started"],
        skipped=state["skipped"],
        missed=state["missed"],
        remaining=None if remaining < 0 else remaining,
        backfilling=bool(state["backfills"]),
    )


def _time(at_ms: int) -> dt.datetime:
    return _EPOCH + at_ms * _MS
