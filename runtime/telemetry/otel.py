"""Spans to OpenTelemetry: the only module that knows it.

Rules:

* The API only: whatever provider the process has, or was given, does the rest (sampling, batches, exporters).
* Ids that are known beforehand go through the id generator of our own tracer; others are the generator's.
* Nothing raises into a host, a worker or a client: a trace that is lost is logged, once a minute at most.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry import trace

from lungfish.runtime.errors import FailureDetails, UsageError
from lungfish.runtime.messages.tracing import Attributes, Kind, Span, TraceContext

logger = logging.getLogger(__name__)

Provider = trace.TracerProvider | Callable[[], trace.TracerProvider] | None

_KINDS: Final = {
    Kind.INTERNAL: trace.SpanKind.INTERNAL,
    Kind.SERVER: trace.SpanKind.SERVER,
    Kind.CLIENT: trace.SpanKind.CLIENT,
    Kind.PRODUCER: trace.SpanKind.PRODUCER,
    Kind.CONSUMER: trace.SpanKind.CONSUMER,
}
_SCOPE: Final = "lungfish"
_QUIET_S: Final = 60.0

#: The id of the span that is made just now; 0: any.
_wanted: ContextVar[int] = ContextVar("lungfish_span_id", default=0)


def check_provider(provider: object) -> None:
    """Raise ``UsageError`` for what is no tracer provider and makes none."""
    if provider is not None and not isinstance(provider, trace.TracerProvider) and not callable(provider):
        raise UsageError(
            f"tracer_provider is a TracerProvider, or a function that makes one, not {provider!r}"
        )


class OpenTelemetry:
    """``Tracing`` over a tracer provider."""

    def __init__(self, provider: Provider = None) -> None:
        self._provider = provider
        self._tracer: trace.Tracer | None = None
        self._complained_s = -_QUIET_S
        self._failed_s = -_QUIET_S

    def __reduce__(self) -> Any:
        """Travel to hosts and workers of a cluster: a provider cannot."""
        if isinstance(self._provider, trace.TracerProvider):
            raise UsageError(
                "a tracer provider cannot travel to hosts and workers: give tracing.install a function that "
                "makes one, or none, and set the global provider in the module that the app is in"
            )
        return OpenTelemetry, (self._provider,)

    def begin(
        self, name: str, kind: Kind, attributes: Attributes, parent: TraceContext | None
    ) -> _LiveSpan | None:
        """Begin a span; None where no provider is set."""
        tracer = self._found()
        if tracer is None:
            return None
        try:
            within = otel_context.Context() if parent is None else _around(parent)
            span = tracer.start_span(
                name,
                within,
                _KINDS[kind],
                attributes,
                record_exception=False,
                set_status_on_exception=False,
            )
        except Exception as error:  # the provider's: a sampler, a processor
            self.complain(error)
            return None
        # A provider that does nothing makes spans without ids.
        return _LiveSpan(self, span) if span.get_span_context().is_valid else None

    def current(self) -> TraceContext | None:
        """Return the current span of OpenTelemetry."""
        return _told(trace.get_current_span().get_span_context())

    def enter(self, context: TraceContext) -> None:
        """Make it the current span of OpenTelemetry."""
        otel_context.attach(trace.set_span_in_context(trace.NonRecordingSpan(_context(context))))

    def emit(self, span: Span) -> None:
        """Tell a span that has ended, under the id that it has."""
        tracer = self._found()
        if tracer is None:
            return
        links = [trace.Link(_context(span.link))] if span.link is not None else None
        given = _wanted.set(int(span.context.span_id, 16))
        try:
            made = tracer.start_span(
                span.name,
                _around(span.parent),
                _KINDS[span.kind],
                span.attributes,
                links,
                span.start_ns,
                record_exception=False,
                set_status_on_exception=False,
            )
            _fail(made, span.failure, span.end_ns)
            made.end(max(span.start_ns, span.end_ns))
        except Exception as error:  # the provider's: a sampler, a processor, an exporter
            self.complain(error)
        finally:
            _wanted.reset(given)

    def _found(self) -> trace.Tracer | None:
        """Return the tracer; None while the process has no provider. It may be set late."""
        if self._tracer is None and time.monotonic() - self._failed_s >= _QUIET_S:
            try:
                self._tracer = self._make()
            except Exception as error:  # the user's function, or the provider's
                self._failed_s = time.monotonic()  # not at every span: it may be slow to fail
                self.complain(error)
        return self._tracer

    def _make(self) -> trace.Tracer | None:
        provider = self._provider
        if provider is not None and not isinstance(provider, trace.TracerProvider):
            provider = provider()
        provider = provider or trace.get_tracer_provider()
        if isinstance(provider, trace.ProxyTracerProvider):
            return None
        return _with_ids(provider.get_tracer(_SCOPE))

    def complain(self, error: Exception) -> None:
        """Say in the log that a span is lost, not often."""
        now_s = time.monotonic()
        if now_s - self._complained_s >= _QUIET_S:
            self._complained_s = now_s
            logger.error("a span is lost; others may be, too", exc_info=error)


class _LiveSpan:
    """``LiveSpan`` over one of OpenTelemetry."""

    __slots__ = ("_span", "_tracing")

    def __init__(self, tracing: OpenTelemetry, span: trace.Span) -> None:
        self._tracing = tracing
        self._span = span

    @property
    def context(self) -> TraceContext:
        """Its ids."""
        found = _told(self._span.get_span_context())
        assert found is not None, "a provider made a span without an id"
        return found

    def set(self, attributes: Mapping[str, str | int | bool]) -> None:
        """Add attributes."""
        self._span.set_attributes(attributes)

    def enter(self) -> None:
        """Make it the current span of OpenTelemetry."""
        otel_context.attach(trace.set_span_in_context(self._span))

    def end(self, failure: FailureDetails | None = None) -> None:
        """Tell it."""
        try:
            _fail(self._span, failure)
            self._span.end()
        except Exception as error:  # the provider's: a processor, an exporter
            self._tracing.complain(error)


class _Ids:
    """An id generator that gives a span the id that it is known by."""

    def __init__(self, usual: Any) -> None:
        self._usual = usual

    def generate_span_id(self) -> int:
        """Return the id that is wanted, or any."""
        found: int = _wanted.get() or self._usual.generate_span_id()
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._usual, name)


def _with_ids(tracer: trace.Tracer) -> trace.Tracer:
    known: Any = tracer
    usual = getattr(known, "id_generator", None)
    if usual is None:
        if not isinstance(tracer, trace.NoOpTracer):
            text = "spans of %s have ids of its own: those of orchestrations are not found as parents"
            logger.warning(text, type(tracer).__qualname__)
    elif not isinstance(usual, _Ids):
        known.id_generator = _Ids(usual)
    return tracer


def _context(context: TraceContext) -> trace.SpanContext:
    state = trace.TraceState.from_header([context.state]) if context.state else None
    flags = trace.TraceFlags(context.flags)
    ids = int(context.trace_id, 16), int(context.span_id, 16)
    return trace.SpanContext(*ids, is_remote=True, trace_flags=flags, trace_state=state)


def _around(context: TraceContext) -> otel_context.Context:
    return trace.set_span_in_context(trace.NonRecordingSpan(_context(context)), otel_context.Context())


def _told(context: trace.SpanContext) -> TraceContext | None:
    if not context.is_valid:
        return None
    ids = trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)
    return TraceContext(*ids, int(context.trace_flags), context.trace_state.to_header())


def _fail(span: trace.Span, failure: FailureDetails | None, at_ns: int | None = None) -> None:
    if failure is None:
        return
    span.set_attribute("error.type", failure.error_type)
    told = {"exception.type": failure.error_type, "exception.message": failure.message}
    span.add_event("exception", told, at_ns)
    span.set_status(trace.Status(trace.StatusCode.ERROR, str(failure)))
