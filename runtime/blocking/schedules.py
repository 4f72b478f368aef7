"""Schedules for code without an event loop; see ``schedules``."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeAlias

from lungfish.runtime.client.schedules import ScheduleDescription, ScheduleHandle, Schedules
from lungfish.runtime.declared.calendar import Recurrence
from lungfish.runtime.declared.schedule_plan import Overlap
from lungfish.runtime.declared.schedule_target import Target

#: Runs a coroutine in the client's loop and waits for it here.
Run: TypeAlias = Callable[[Coroutine[Any, Any, Any]], Any]


class BlockingSchedules:
    """``Schedules`` without ``await``: see there."""

    def __init__(self, run: Run, schedules: Schedules) -> None:
        self._run = run
        self._schedules = schedules

    def create(
        self, id: str, spec: Recurrence, target: Target, args: Sequence[Any] = (), **options: Any
    ) -> BlockingScheduleHandle:
        """Make a schedule; see ``Schedules.create``, also for the options."""
        made = self._run(self._schedules.create(id, spec, target, args, **options))
        return BlockingScheduleHandle(self._run, made)

    def get(self, id: str) -> BlockingScheduleHandle:
        """Return a handle to a schedule; talks to nobody."""
        return BlockingScheduleHandle(self._run, self._schedules.get(id))

    def list(self) -> Iterator[ScheduleDescription]:
        """Iterate over all schedules of the hub, by id."""
        found = self._schedules.list()

        async def following() -> ScheduleDescription | None:
            return await anext(found, None)

        while (schedule := self._run(following())) is not None:
            yield schedule


class BlockingScheduleHandle:
    """``ScheduleHandle`` without ``await``: see there."""

    def __init__(self, run: Run, handle: ScheduleHandle) -> None:
        self._run = run
        self._handle = handle

    @property
    def id(self) -> str:
        """The schedule's id."""
        return self._handle.id

    def describe(self) -> ScheduleDescription:
        """Return the schedule as last committed."""
        described: ScheduleDescription = self._run(self._handle.describe())
        return described

    def update(self, **changes: Any) -> None:
        """Change a schedule; see ``ScheduleHandle.update``."""
        self._run(self._handle.update(**changes))

    def pause(self, note: str = "") -> None:
        """Start nothing from now on."""
        self._run(self._handle.pause(note))

    def resume(self, note: str = "") -> None:
        """Undo ``pause``."""
        self._run(self._handle.resume(note))

    def trigger(self, *, overlap: Overlap | None = None) -> str | None:
        """Have a run now; return its id, or None if it is skipped."""
        run: str | None = self._run(self._handle.trigger(overlap=overlap))
        return run

    def backfill(self, start: dt.datetime, end: dt.datetime, *, overlap: Overlap = "allow") -> None:
        """Have the runs of the nominal times from ``start`` to ``end``; see ``ScheduleHandle.backfill``."""
        self._run(self._handle.backfill(start, end, overlap=overlap))

    def delete(self) -> None:
        """Delete the schedule. Runs that have begun go on."""
        self._run(self._handle.delete())

    def __repr__(self) -> str:
        return repr(self._handle)
