"""A history as management tools show it: Durable Functions' ``historyEvents``. Pure.

As there, what was scheduled is merged into what it came to: a ``TaskCompleted`` has the ``FunctionName`` and
the ``ScheduledTime`` of its task. What has not come to anything yet is shown as it was scheduled.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from lungfish.runtime import codec
from lungfish.runtime.errors import FailureDetails, LungfishError
from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages.status import from_ms

from . import events


def management_history(history: Iterable[events.Event]) -> list[dict[str, Any]]:
    """Return the events as plain data, oldest first; values are decoded (``Input``, ``Result``)."""
    return _Reader().read(history)


class _Reader:
    def __init__(self) -> None:
        self._now = from_ms(0)
        #: Where in ``_shown`` a task stands that has not come to anything yet.
        self._scheduled: dict[int, int] = {}
        self._shown: list[dict[str, Any] | None] = []

    def read(self, history: Iterable[events.Event]) -> list[dict[str, Any]]:
        for event in history:
            self._take(event)
        return [row for row in self._shown if row is not None]

    def _take(self, event: events.Event) -> None:
        match event:
            case events.TurnStarted(now_ms):
                self._now = from_ms(now_ms)
            case events.TaskScheduled(id, name):
                self._schedule(id, "TaskScheduled", FunctionName=name, Input=arguments(event.args))
            case events.SubOrchestrationCreated(id, name, instance):
                what = {"FunctionName": name, "InstanceId": instance, "Input": arguments(event.input)}
                self._schedule(id, "SubOrchestrationInstanceCreated", **what)
            case events.TimerCreated(id, due_ms):
                self._schedule(id, "TimerCreated", FireAt=_time(from_ms(due_ms)))
            case events.EntityCalled(id, entity, key, operation):
                self._schedule(id, "EntityOperationCalled", Entity=entity, Key=key, Operation=operation)
            case _:
                self._take_outcome(event)

    def _take_outcome(self, event: events.Event) -> None:
        match event:
            case events.TaskCompleted(id, result):
                self._finish(id, "TaskCompleted", Result=_value(result))
            case events.SubOrchestrationCompleted(id, result):
                self._finish(id, "SubOrchestrationInstanceCompleted", Result=_value(result))
            case events.TaskFailed(id, failure):
                self._finish(id, "TaskFailed", **_reason(failure))
            case events.SubOrchestrationFailed(id, failure):
                self._finish(id, "SubOrchestrationInstanceFailed", **_reason(failure))
            case events.EntityResponded(id, result, failure):
                name = "EntityOperationCompleted" if failure is None else "EntityOperationFailed"
                self._finish(id, name, **_outcome(result, failure))
            case events.TimerFired(id) | events.TaskCanceled(id) | events.TimerCanceled(id):
                self._finish(id, type(event).__name__)
            case _:
                self._take_other(event)

    def _take_other(self, event: events.Event) -> None:
        match event:
            case events.ExecutionStarted():
                row = self._row("ExecutionStarted", FunctionName=event.name, Input=arguments(event.input))
            case events.EventRaised(name, payload):
                row = self._row("EventRaised", Name=name, Input=_value(payload))
            case events.ExecutionCompleted(status, result, failure):
                outcome = _outcome(result, failure)
                row = self._row("ExecutionCompleted", OrchestrationStatus=status, **outcome)
            case _:
                row = self._row(type(event).__name__, **_fields(event))
        self._shown.append(row)

    def _schedule(self, task: int, kind: str, **what: Any) -> None:
        row = self._row(kind, EventId=task, **what)
        self._scheduled[task] = len(self._shown)
        self._shown.append(row)

    def _finish(self, task: int, kind: str, **what: Any) -> None:
        at = self._scheduled.pop(task, None)
        row = self._row(kind, TaskId=task)
        scheduled = self._shown[at] if at is not None else None
        if at is not None and scheduled is not None:
            self._shown[at] = None
            row["ScheduledTime"] = scheduled["Timestamp"]
            row |= {
                name: value for name, value in scheduled.items() if name not in ("EventType", "Timestamp")
            }
        self._shown.append(row | what)

    def _row(self, kind: str, **what: Any) -> dict[str, Any]:
        return {"EventType": kind, "Timestamp": _time(self._now), **what}


def _time(at: dt.datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _reason(failure: FailureDetails) -> dict[str, Any]:
    return {"Reason": failure.message, "Details": str(failure), "ErrorType": failure.error_type}


def _outcome(result: bytes | None, failure: FailureDetails | None) -> dict[str, Any]:
    return {"Result": _value(result)} if failure is None else _reason(failure)


def _value(data: bytes | None) -> Any:
    if not data:
        return None
    try:
        return codec.decode(data, "event")
    except LungfishError:
        return None  # cut off, or of another release: the rest of the history is still worth showing


def arguments(data: bytes) -> Any:
    """Return one argument as it is, several as a list, named ones as an object."""
    match _value(data):
        case [[], {} as named]:
            return named or None
        case [[one], {}]:
            return one
        case [[*several], {} as named] if not named:
            return several
        case other:
            return other


def _fields(event: events.Event) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for item in fields(event):
        value = getattr(event, item.name)
        match value:
            case bytes():
                value = _value(value)
            case FailureDetails():
                value = str(value)
            case ActorId():
                value = str(value)
        shown["".join(part.capitalize() for part in item.name.split("_"))] = value
    return shown
