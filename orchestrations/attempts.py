"""The activities of one execution that have no result yet, and what workers and timers say about them.

Rules:

* Retries, time-outs and late results are settled here, in the activity's row; the engine hears of
  an activity once, at its end.
* After a recovery the rows are read from the store when they are first needed.
"""

from __future__ import annotations

import logging
import zlib

from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages.messages import ActivityResult, TimerFired
from lungfish.runtime.messages.payloads import DEFAULT, is_token
from lungfish.runtime.partitions.kinds import Effects

from . import actions, events
from .activities import ActivityRow

log = logging.getLogger("lungfish.orchestrations")


class Attempts:
    """Outstanding activities. Every method may be called with the effects of any round."""

    __slots__ = ("_actor", "_execution", "_known")

    def __init__(self, actor: ActorId, execution: str, *, recovered: bool) -> None:
        """Make the attempts of ``execution``.

        Args:
            recovered: the execution began in another activation: the store has its rows.
        """
        self._actor = actor
        self._execution = execution
        self._known: dict[int, ActivityRow] | None = None if recovered else {}

    def schedule(
        self,
        effects: Effects,
        action: actions.ScheduleActivity,
        *,
        detached: bool,
        over: int = DEFAULT.offload_bytes,
    ) -> None:
        """Dispatch the first attempt.

        Args:
            detached: the execution ends in this turn, so that nobody waits for the result: the
                activity is run, but there is no row, no retry and no result.
            over: arguments larger than this (bytes) are kept beside the row.
        """
        key = f"{self._actor.key}:{self._execution}:{action.id}"
        args = action.args if len(action.args) <= over else effects.payloads.offload(self._actor, action.args)
        row = ActivityRow.scheduled(
            action.id, action.name, args, action.options, default_key=key, now_ms=effects.now_ms
        )
        row.headers = action.headers
        if detached:
            effects.dispatch(row.lane, row.task_of(self._actor, self._execution, ""))
            return
        if is_token(args):
            effects.payloads.adopt(args)
        self._rows(effects)[action.id] = row
        self._dispatch(effects, row)
        if row.deadline_ms:
            fires = TimerFired(self._actor, self._execution, action.id, row.deadline_ms, "timeout")
            effects.timer(self._timer_id(action.id, "timeout"), row.deadline_ms, fires)

    def report(
        self, effects: Effects, message: ActivityResult
    ) -> events.TaskCompleted | events.TaskFailed | None:
        """Take a worker's report; return the event if it settles the activity."""
        row = self._rows(effects).get(message.task)
        if row is None or row.attempt != message.attempt or row.waiting:
            return None
        if message.begun:
            self._begin(effects, row)
            return None
        if message.failure is None:
            self._drop(effects, row)
            return events.TaskCompleted(message.task, message.result)
        due_ms = row.retry_after(message.failure, effects.now_ms)
        if due_ms is None:
            self._drop(effects, row)
            return events.TaskFailed(message.task, message.failure, message.timed_out)
        self._no_longer_unbegun(effects, row)
        row.next_attempt(message.details, due_ms, message.failure)
        effects.activity(self._row_id(row.task), row.pack())
        fires = TimerFired(self._actor, self._execution, row.task, due_ms, "retry", row.attempt)
        effects.timer(self._timer_id(row.task, "retry"), due_ms, fires)
        return None

    def fired(self, effects: Effects, message: TimerFired) -> events.TaskFailed | None:
        """Take a timer, or the news that an activity is lost; return the event if it settles the activity."""
        row = self._rows(effects).get(message.task)
        if row is None:
            return None
        match message.purpose:
            case "retry":
                self._retry(effects, row, message.attempt)
            case "timeout":
                self._drop(effects, row)
                return events.TaskFailed(row.task, row.out_of_time(), timed_out=True)
            case "unbegun":
                return self._time_out_unbegun(effects, row, message.attempt)
            case "lost":
                self._dispatch_again(effects, row, message.due_ms)
            case _:
                log.error(
                    "activity %d of %s: timer of unknown purpose %r", row.task, self._actor, message.purpose
                )
        return None

    def _retry(self, effects: Effects, row: ActivityRow, attempt: int) -> None:
        """The wait before an attempt is over: dispatch it."""
        if row.waiting and row.attempt == attempt:
            row.waiting = False
            row.dispatches = 1
            self._dispatch(effects, row)

    def _time_out_unbegun(self, effects: Effects, row: ActivityRow, attempt: int) -> events.TaskFailed | None:
        if row.waiting or row.begun or row.attempt != attempt:
            return None
        self._drop(effects, row)
        return events.TaskFailed(row.task, row.never_begun(), timed_out=True)

    def _begin(self, effects: Effects, row: ActivityRow) -> None:
        if not row.begun:
            self._no_longer_unbegun(effects, row)
            row.begun = True
            effects.activity(self._row_id(row.task), row.pack())

    def _no_longer_unbegun(self, effects: Effects, row: ActivityRow) -> None:
        if row.unbegun_ms and not row.begun:
            effects.cancel_timer(self._timer_id(row.task, "unbegun"))

    def _dispatch_again(self, effects: Effects, row: ActivityRow, checksum: int) -> None:
        """No queue has the activity. A row that was written since then tells of another dispatch.

        Whoever found it missing says so through the inbox, so behind a result that it cannot have seen.
        """
        row_id = self._row_id(row.task)
        stored = effects.activity_rows(self._prefix).get(row_id)
        if row.waiting or stored is None or zlib.crc32(stored) != checksum:
            return
        log.warning(
            "activity %r of %s was lost with its queue entry; dispatched again", row.name, self._actor
        )
        row.dispatches += 1
        self._dispatch(effects, row)

    def cancel(self, effects: Effects, task: int) -> None:
        """Forget an activity: whatever a worker reports about it from here on does not count."""
        row = self._rows(effects).get(task)
        if row is not None:
            self._drop(effects, row)

    def cancel_all(self, effects: Effects) -> None:
        """Forget every activity."""
        for row in list(self._rows(effects).values()):
            self._drop(effects, row)

    def _dispatch(self, effects: Effects, row: ActivityRow) -> None:
        row_id = self._row_id(row.task)
        effects.activity(row_id, row.pack())
        begin_by_ms = 0
        if row.unbegun_ms and not row.begun:
            begin_by_ms = effects.now_ms + row.unbegun_ms
            fires = TimerFired(self._actor, self._execution, row.task, begin_by_ms, "unbegun", row.attempt)
            effects.timer(self._timer_id(row.task, "unbegun"), begin_by_ms, fires)
        task = row.task_of(self._actor, self._execution, row_id, begin_by_ms=begin_by_ms)
        effects.dispatch(row.lane, task)

    def _drop(self, effects: Effects, row: ActivityRow) -> None:
        self._rows(effects).pop(row.task, None)
        effects.activity(self._row_id(row.task), None)
        if is_token(row.args):
            effects.payloads.forget(row.args)
        if row.waiting:
            effects.cancel_timer(self._timer_id(row.task, "retry"))
        else:
            self._no_longer_unbegun(effects, row)
        if row.deadline_ms:
            effects.cancel_timer(self._timer_id(row.task, "timeout"))

    def _rows(self, effects: Effects) -> dict[int, ActivityRow]:
        if self._known is None:
            found = effects.activity_rows(self._prefix)
            rows = [ActivityRow.unpack(packed) for packed in found.values()]
            self._known = {row.task: row for row in rows}
        return self._known

    @property
    def _prefix(self) -> str:
        return f"{self._actor.key}\x00{self._execution}\x00"

    def _row_id(self, task: int) -> str:
        return row_id(self._actor, self._execution, task)

    def _timer_id(self, task: int, purpose: str) -> str:
        return timer_id(self._actor, self._execution, task, purpose)


def row_id(actor: ActorId, execution: str, task: int) -> str:
    """Return the id of an activity's row."""
    return f"{actor.key}\x00{execution}\x00{task}"


def timer_id(actor: ActorId, execution: str, task: int, purpose: str) -> str:
    """Return the id of a timer: unique in the partition, the same at every replay."""
    return f"{actor.key}\x00{execution}\x00{task}\x00{purpose}"
