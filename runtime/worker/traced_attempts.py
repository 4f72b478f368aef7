"""Attempts of activities as spans: each run is one, told by the worker that ran it.

An attempt that its worker gives up (it stops, another one runs it again) tells nothing.
"""

from __future__ import annotations

from dataclasses import replace

from lungfish.runtime.declared.app import App
from lungfish.runtime.messages.messages import ActivityTask
from lungfish.runtime.messages.tracing import Attributes, Kind, LiveSpan, messaging, parse
from lungfish.runtime.store.queues import split_lane


def begin(app: App, task: ActivityTask, lane: str) -> LiveSpan | None:
    """Begin the span of an attempt; None: nobody wants it."""
    parent = None if app.tracing is None else parse(task.headers)
    if app.tracing is None or parent is None or not parent.sampled:
        return None
    queue = split_lane(lane)[0]
    told: Attributes = messaging("process", "activity", queue) | {
        "lungfish.hub": app.hub,
        "lungfish.activity": task.name,
        "lungfish.attempt": task.attempt,
        "lungfish.queue": queue,
        "lungfish.instance_id": task.owner.key,
        "lungfish.execution_id": task.execution,
        "lungfish.idempotency_key": task.idempotency_key,
    }
    return app.tracing.begin(f"activity {task.name}", Kind.CONSUMER, told, parent)


def below(span: LiveSpan, task: ActivityTask) -> ActivityTask:
    """Return the task with the span as the parent of all that is sent from it."""
    return replace(task, headers=span.context.put_into(task.headers))


def enter(app: App, task: ActivityTask, span: LiveSpan | None) -> None:
    """Make the span of an attempt the current one of this context; where it has none, the one above it.

    So spans that users begin in an attempt of a trace that is not sampled are not told either.
    """
    if span is not None:
        span.enter()
        return
    above = None if app.tracing is None else parse(task.headers)
    if app.tracing is not None and above is not None:
        app.tracing.enter(above)
