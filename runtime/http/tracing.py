"""The trace that an HTTP request belongs to: what the routes send goes on with it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

from lungfish.runtime.messages.headers import sending
from lungfish.runtime.messages.tracing import TRACEPARENT, TRACESTATE, read


def trace_of(headers: Mapping[str, str]) -> AbstractContextManager[None]:
    """Return a block in which messages carry the request's ``traceparent``; one that is none is ignored."""
    found = read(headers.get(TRACEPARENT, ""), headers.get(TRACESTATE, ""))
    if found is None:
        return nullcontext()
    return sending({TRACEPARENT: found.traceparent, **({TRACESTATE: found.state} if found.state else {})})
