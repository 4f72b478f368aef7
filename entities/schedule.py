"""A schedule as an entity: in every hub as ``lungfish.schedule``; its key is the schedule's id.

Rules:

* Everything that a nominal time leads to is one turn: the start of the run, the moved cursor, the next alarm
  (a reminder of its own). So each nominal time is started exactly once, or is counted as missed or skipped.
* It is told of the end of each run, and keeps what is running by that. A time that finds a run asks after it
  all the same: a store that lost writes may have lost that run, or who is to be told of its end.
* What it does not know (deleted meanwhile, or never made) it does not bring into being.
"""

from __future__ import annotations

import itertools
from typing import Any, Final

from pydantic import Field

from lungfish.runtime.declared.calendar import times_between
from lungfish.runtime.declared.schedule_plan import (
    TIMES_PER_TURN,
    Decision,
    Definition,
    SignalTarget,
    StartTarget,
    checked,
    decide,
    plan,
    run_id,
)
from lungfish.runtime.errors import LimitExceeded, ScheduleExists, ScheduleNotFound
from lungfish.runtime.messages.messages import Signal

from . import sending
from .context import from_ms
from .entity import Entity

#: The reminder that wakes a schedule.
ALARM: Final = "due"
#: Ended runs that are kept to be shown.
RECENT_MAX: Final = 20
#: Runs that are asked after at one time, the oldest first.
ASKED_MAX: Final = 16
#: Backfills that may wait at one time.
BACKFILLS_MAX: Final = 100

CATALOG: Final = sending.entity_id("lungfish.schedules", "all")


class Schedule(Entity):
    """One schedule. What clients see of it is ``runtime.schedules``.

    Attributes:
        definition: wire form; empty: there is no such schedule.
        cursor_ms: nominal times up to here are handled.
        remaining: runs that may still begin; -1: no bound.
        running: runs that have not ended, by id: nominal time, begun at.
        buffered: at most one: nominal time and id of the run that waits for the others to end.
        backfills: cursor, last nominal time and overlap policy of each.
        recent: the last runs that ended: id, nominal time, begun, ended, outcome, detail.
    """

    definition: list[Any] = Field(default_factory=list)
    created_ms: int = 0
    paused: bool = False
    note: str = ""
    cursor_ms: int = 0
    remaining: int = -1
    running: dict[str, list[int]] = Field(default_factory=dict)
    buffered: list[tuple[int, str]] = Field(default_factory=list)
    backfills: list[tuple[int, int, str]] = Field(default_factory=list)
    recent: list[list[Any]] = Field(default_factory=list)
    started: int = 0
    skipped: int = 0
    missed: int = 0
    triggered: int = 0

    # --- asked for by clients ---

    def create(self, definition: list[Any], paused: bool, note: str) -> None:
        if self.definition:
            raise ScheduleExists(f"there is a schedule {self.key!r} already; update it, or delete it first")
        made = checked(Definition.from_wire(definition))
        self.definition, self.paused, self.note = definition, paused, note
        self.created_ms = self.cursor_ms = self._now_ms()
        self.remaining = made.runs or -1
        sending.signal(self.context, CATALOG, "add", self.key)
        self._go_on()

    def declare(self, definition: list[Any]) -> None:
        """Be what an app says at every start of a host; what is so already stays as it is."""
        if not self.definition:
            self.create(definition, False, "")
        elif self.definition != definition:
            self.update(definition)

    def update(self, definition: list[Any]) -> None:
        self._check()
        made, before = checked(Definition.from_wire(definition)), self._made()
        self._handle_due()
        if made.runs != before.runs:
            self.remaining = made.runs or -1
        self.definition = definition
        self.cursor_ms = self._now_ms()
        self._go_on()

    def pause(self, note: str) -> None:
        self._check()
        self._handle_due()
        self.paused, self.note = True, note
        self._go_on()

    def resume(self, note: str) -> None:
        self._check()
        if self.paused:
            self.paused, self.cursor_ms = False, self._now_ms()
        self.note = note
        self._go_on()

    def trigger(self, overlap: str) -> str:
        """Have a run now; return its id, or an empty one if the policy skips it."""
        self._check()
        self.triggered += 1
        now_ms = self._now_ms()
        run = run_id(self.key, now_ms, f"-trigger-{self.triggered}")
        return run if self._take(now_ms, run, overlap or self._made().overlap) is not Decision.SKIP else ""

    def backfill(self, start_ms: int, end_ms: int, overlap: str) -> None:
        self._check()
        decide(overlap, running=True, buffered=True)
        if len(self.backfills) >= BACKFILLS_MAX:
            raise LimitExceeded(
                f"schedule {self.key!r} has {BACKFILLS_MAX} backfills under way; wait for them"
            )
        self.backfills = [*self.backfills, (start_ms - 1, end_ms, overlap)]
        self._go_on()

    def remove(self) -> None:
        self._check()
        sending.signal(self.context, CATALOG, "remove", self.key)
        self.context.delete()

    # --- what comes by itself ---

    def due(self) -> None:
        """A nominal time has come."""
        if self._exists():
            self._go_on()

    def news(self, run: str, outcome: str, detail: str) -> None:
        """A run was refused, or has ended; or it has begun, which is no news."""
        is_no_end = outcome in ("Started", "InstanceExists", "Overloaded")
        if not self._exists() or run not in self.running or is_no_end:
            return
        nominal_ms, begun_ms = self.running.pop(run)
        self._remember(run, nominal_ms, begun_ms, outcome, detail)
        if self.buffered and not self.running:
            ((nominal_ms, waiting),) = self.buffered
            self.buffered = []
            self._start(nominal_ms, waiting)

    # --- inside ---

    def _go_on(self) -> None:
        """Do what is due, and set the alarm for what comes next."""
        wake_ms = self._handle_due()
        if self.backfills:
            self._backfill()
            if self.backfills:
                wake_ms = self._now_ms()
        if wake_ms is None:
            self.context.cancel_reminder(ALARM)
        else:
            self.context.set_reminder(ALARM, from_ms(wake_ms), operation="due")

    def _handle_due(self) -> int | None:
        """Handle the nominal times that have come; return when to look again."""
        if self.paused:
            return None
        made = self._made()
        found = plan(self.key, made, self.cursor_ms, self._now_ms())
        self.cursor_ms, self.missed = found.cursor_ms, self.missed + found.missed
        for nominal_ms in found.times:
            if self.remaining == 0:
                break
            replaced = len(self.buffered)
            decision = self._take(nominal_ms, run_id(self.key, nominal_ms), made.overlap)
            if self.remaining > 0 and decision is not Decision.SKIP:
                self.remaining -= 1 - (replaced if decision is Decision.REPLACE else 0)
        if found.times and made.overlap != "allow":
            self._ask_after_runs()
        return found.wake_ms if self.remaining != 0 else None

    def _ask_after_runs(self) -> None:
        now_ms = self._now_ms()
        earlier = (run for run, (_, begun_ms) in self.running.items() if begun_ms < now_ms)
        for run in itertools.islice(earlier, ASKED_MAX):
            sending.watch(self.context, run, news="news")

    def _backfill(self) -> None:
        (cursor_ms, end_ms, overlap), *rest = self.backfills
        taken = 0
        for nominal_ms in times_between(self._made().times, cursor_ms, end_ms):
            if taken == TIMES_PER_TURN:
                self.backfills = [(cursor_ms, end_ms, overlap), *rest]
                return
            self._take(nominal_ms, run_id(self.key, nominal_ms), overlap)
            cursor_ms, taken = nominal_ms, taken + 1
        self.backfills = rest

    def _take(self, nominal_ms: int, run: str, overlap: str) -> Decision:
        decision = decide(overlap, running=bool(self.running), buffered=bool(self.buffered))
        match decision:
            case Decision.START:
                self._start(nominal_ms, run)
            case Decision.SKIP:
                self.skipped += 1
            case Decision.BUFFER:
                self.buffered = [(nominal_ms, run)]
            case Decision.REPLACE:
                self.skipped += len(self.buffered)
                self.buffered = [(nominal_ms, run)]
                verb = "cancel" if overlap == "cancel_running" else "terminate"
                for other in self.running:
                    sending.control(self.context, other, verb, f"schedule {self.key!r} goes on with {run}")
        return decision

    def _start(self, nominal_ms: int, run: str) -> None:
        if run in self.running:
            return  # a backfill over a time whose run has not ended
        now_ms = self._now_ms()
        self.started += 1
        match self._made().target:
            case StartTarget(name, given):
                self.running[run] = [nominal_ms, now_ms]
                sending.watched_start(self.context, run, name, given, news="news")
            case SignalTarget(entity, key, operation, batch):
                sending.send(self.context, Signal(sending.entity_id(entity, key), operation, batch))
                self._remember(run, nominal_ms, now_ms, "Sent", "")

    def _remember(self, run: str, nominal_ms: int, begun_ms: int, outcome: str, detail: str) -> None:
        self.recent = [[run, nominal_ms, begun_ms, self._now_ms(), outcome, detail], *self.recent][
            :RECENT_MAX
        ]

    def _made(self) -> Definition:
        return Definition.from_wire(self.definition)

    def _now_ms(self) -> int:
        return self.context._scope.effects.now_ms

    def _check(self) -> None:
        if not self.definition:
            raise ScheduleNotFound(f"there is no schedule {self.key!r}")

    def _exists(self) -> bool:
        if not self.definition:
            self.context.delete()  # else this operation would write the defaults
        return bool(self.definition)


class Catalog(Entity):
    """The ids of all schedules of a hub, registered as ``lungfish.schedules``; there is one, ``all``."""

    ids: dict[str, None] = Field(default_factory=dict)

    def add(self, id: str) -> None:
        self.ids[id] = None

    def remove(self, id: str) -> None:
        self.ids.pop(id, None)
