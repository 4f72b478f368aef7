"""Spans that were told, collected in the test's process."""

from __future__ import annotations

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

import lungfish
import lungfish.tracing


class Told:
    """What an app tells, from here on."""

    def __init__(self, app: lungfish.App, sampler: Sampler | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        lungfish.tracing.install(app, self.provider)

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    @property
    def names(self) -> list[str]:
        return sorted(span.name for span in self.spans)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (found,) = self.named(name)
        return found

    def edges(self) -> list[tuple[str, str]]:
        """Every span below its parent, by name, sorted; an unknown parent is ``?``, none is empty."""
        names = {span_id(span): span.name for span in self.spans}
        assert len(names) == len(self.spans), "two spans with one id"
        return sorted(
            (names.get(span.parent.span_id, "?") if span.parent is not None else "", span.name)
            for span in self.spans
        )

    def traces(self) -> set[int]:
        return {span.context.trace_id for span in self.spans if span.context is not None}


def span_id(span: ReadableSpan) -> int:
    assert span.context is not None
    found: int = span.context.span_id
    return found
