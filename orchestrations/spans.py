"""Instances as spans: one for each execution, and one for each timer and event that it waited for.

Rules:

* The span of an execution is told when it ends, by whoever runs it then. Its id follows from instance and
  execution; what the execution sends names it from the beginning, since it is in ``ExecutionStarted``.
* A start that comes without a trace begins one, if tracing is on: a schedule, a reminder, an older client.
* Replay has no part in this: nothing here is called by the code or on its behalf.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from lungfish.runtime.errors import FailureDetails, LungfishError
from lungfish.runtime.messages.headers import Wire
from lungfish.runtime.messages.messages import RaiseEvent
from lungfish.runtime.messages.tracing import Attributes, Kind, Span, TraceContext, messaging, parse
from lungfish.runtime.partitions.kinds import Item

from . import events
from .instance import Instance
from .replay import Execution


def headers_of(instance: Instance) -> Wire:
    """Return the headers with which an execution begins: they name its span as the parent of all it sends."""
    row = instance.known
    if instance.app.tracing is None:
        return row.headers
    if parse(row.headers) is None:
        _begin_trace(instance)
    own = _own(instance)
    return row.headers if own is None else own.put_into(row.headers)


def _begin_trace(instance: Instance) -> None:
    row, tracing = instance.known, instance.app.tracing
    assert tracing is not None
    told = messaging("send", "start", row.name) | _ids(instance)
    root = tracing.begin(f"start {row.name}", Kind.PRODUCER, told, None)
    if root is not None:
        # Also if it is not sampled: that is decided once for all that follows.
        row.headers = root.context.put_into(row.headers)
        instance.effects.after_commit(root.end)


def rewound(instance: Instance) -> None:
    """Let an instance that goes on after its end have another span: below the one that was told."""
    own = _own(instance)
    if own is not None:
        instance.known.headers = own.put_into(instance.known.headers)


def tell_end(
    instance: Instance, execution: Execution | None, status: str, failure: FailureDetails | None
) -> None:
    """Tell an execution that ends with the turn."""
    own = _own(instance)
    if own is None:
        return
    row = instance.known
    told = messaging("process", "start", row.name) | _ids(instance) | {"lungfish.status": status}
    if row.version:
        told["lungfish.version"] = row.version
    began_ms = _began_ms(instance, execution)
    _tell(
        instance, f"orchestration {row.name}", Kind.SERVER, own, told=told, began_ms=began_ms, failure=failure
    )


def tell_timer(instance: Instance, task: int) -> None:
    """Tell a timer that has come due and that the code waits for."""
    own = _own(instance)
    if own is None or instance.execution is None:
        return
    began_ms = instance.execution.outstanding.timers.get(task)
    if began_ms:
        span = own.child("timer", task)
        _tell(instance, "timer", Kind.INTERNAL, span, told=_ids(instance), began_ms=began_ms, above=own)


def tell_event(instance: Instance, item: Item, message: RaiseEvent) -> None:
    """Tell an event that the code is given."""
    own = _own(instance)
    if own is None:
        return
    told = messaging("process", "raise_event", message.name) | _ids(instance)
    name, span = f"event {message.name}", own.child("event", item.row, item.accepted_ms)
    link = parse(message.headers)
    _tell(instance, name, Kind.CONSUMER, span, told=told, began_ms=item.accepted_ms, above=own, link=link)


def _own(instance: Instance) -> TraceContext | None:
    """Return the span of the present execution; None: nobody wants it."""
    parent = _parent(instance)
    return None if parent is None else parent.child(instance.actor, instance.known.execution)


def _parent(instance: Instance) -> TraceContext | None:
    if instance.app.tracing is None:
        return None
    parent = parse(instance.known.headers)
    return parent if parent is not None and parent.sampled else None


def _ids(instance: Instance) -> Attributes:
    row = instance.known
    return {
        "lungfish.hub": instance.app.hub,
        "lungfish.orchestration": row.name,
        "lungfish.instance_id": instance.id,
        "lungfish.execution_id": row.execution,
    }


def _began_ms(instance: Instance, execution: Execution | None) -> int:
    if execution is not None:
        return execution.started.at_ms if execution.started is not None else instance.effects.now_ms
    try:  # it ends without its code
        found: Any = next(
            (event for event in instance.history.read() if type(event) is events.ExecutionStarted), None
        )
    except LungfishError:
        found = None
    return instance.known.created_ms if found is None else int(found.at_ms)


def _tell(
    instance: Instance,
    name: str,
    kind: Kind,
    own: TraceContext,
    *,
    told: Attributes,
    began_ms: int,
    above: TraceContext | None = None,
    failure: FailureDetails | None = None,
    link: TraceContext | None = None,
) -> None:
    tracing, parent = instance.app.tracing, above or _parent(instance)
    assert tracing is not None
    assert parent is not None
    # The store's clock on both ends: they may lie on two hosts.
    ends_ms = instance.effects.now_ms
    span = Span(name, kind, own, parent, began_ms * 1_000_000, ends_ms * 1_000_000, told, failure, link)
    instance.effects.after_commit(partial(tracing.emit, span))
