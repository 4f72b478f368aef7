"""Operations as spans: in what context they run, and what is told of them.

A message is one span: a batch of signals, too, or as much of it as one turn took. (Of an async operation each
of a batch is a turn; a turn that makes a snapshot after each has one span for each.) What comes without a
trace has none.
"""

from __future__ import annotations

import time
from contextvars import Context
from dataclasses import dataclass
from functools import partial

from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages import headers
from lungfish.runtime.messages.messages import Call
from lungfish.runtime.messages.tracing import (
    Attributes,
    Kind,
    Span,
    TraceContext,
    Tracing,
    messaging,
    parse,
    rpc,
)
from lungfish.runtime.partitions.kinds import Effects

from .jobs import Applied, Job
from .scope import Scope


@dataclass(frozen=True, slots=True)
class OperationSpan:
    """The span of an operation that runs."""

    tracing: Tracing
    actor: ActorId
    hub: str
    parent: TraceContext
    own: TraceContext
    began_ns: int
    waited_ms: int

    def tell(self, effects: Effects, one: Applied) -> None:
        """Tell what became of it, once that is durable."""
        job, actor = one.job, self.actor
        told: Attributes = {
            "lungfish.hub": self.hub,
            "lungfish.entity": actor.name,
            "lungfish.key": actor.key,
            "lungfish.waited_ms": self.waited_ms,
        }
        if isinstance(job.message, Call):
            kind, told = Kind.SERVER, rpc(actor.name, job.operation.name) | told
        else:
            kind, told = Kind.CONSUMER, messaging("process", "signal", actor.name, one.taken) | told
            if one.failed:
                told["lungfish.failed"] = one.failed
        name, ends_ns = f"entity {actor.name}.{job.operation.name}", time.time_ns()
        span = Span(name, kind, self.own, self.parent, self.began_ns, ends_ns, told, one.failure)
        effects.after_commit(partial(self.tracing.emit, span))


def context_of(scope: Scope, job: Job) -> Context:
    """Return a context for an operation whose message has headers; with tracing, its span is in it.

    Raises:
        UsageError: a header cannot be decoded.
    """
    app, wire = scope.app, job.message.headers
    parent = None if app.tracing is None else parse(wire)
    if app.tracing is None or parent is None:
        return headers.inside(app.carried, wire)
    if not parent.sampled:
        # Else spans that users begin in it would be traces of their own, sampled or not.
        context = headers.inside(app.carried, wire)
        context.run(app.tracing.enter, parent)
        return context
    item = job.item
    # Once it has called somebody, its row is stored: a re-run by another host finds the same numbers.
    own = parent.child(scope.actor, item.row, item.accepted_ms, job.at)
    waited_ms = max(0, scope.effects.now_ms - item.accepted_ms)
    job.span = OperationSpan(app.tracing, scope.actor, app.hub, parent, own, time.time_ns(), waited_ms)
    context = headers.inside(app.carried, own.put_into(wire))
    context.run(app.tracing.enter, own)
    return context
