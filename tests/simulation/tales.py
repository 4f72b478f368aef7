"""What a traced run tells: each span once, and below one that was told, unless somebody died in between."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping

from lungfish.runtime.errors import FailureDetails
from lungfish.runtime.messages.tracing import Attributes, Kind, LiveSpan, Span, TraceContext


class Tales:
    """``Tracing`` that remembers.

    Attributes:
        told: (name, id) of what hosts told behind their commits → how often.
        begun: ids of what was begun by clients and workers, or as the beginning of a trace.
        below: (name, id of the parent) of everything.
    """

    def __init__(self) -> None:
        self.told: Counter[tuple[str, str]] = Counter()
        self.begun: set[str] = set()
        self.below: set[tuple[str, str]] = set()
        self._numbers = itertools.count(1)

    def begin(
        self, name: str, kind: Kind, attributes: Attributes, parent: TraceContext | None
    ) -> LiveSpan | None:
        number = next(self._numbers)
        trace_id = f"{number:032x}" if parent is None else parent.trace_id
        made = _Live(TraceContext(trace_id, f"{number:016x}"))
        self.begun.add(made.context.span_id)
        if parent is not None:
            self.below.add((name, parent.span_id))
        return made

    def current(self) -> TraceContext | None:
        return None

    def enter(self, context: TraceContext) -> None:
        return None

    def emit(self, span: Span) -> None:
        self.told[span.name, span.context.span_id] += 1
        self.below.add((span.name, span.parent.span_id))

    def violations(self, *, lossy: bool, calm: bool) -> Iterator[str]:
        """Yield what is wrong.

        Args:
            lossy: acknowledged writes were lost: what they were about happened again.
            calm: nobody died, so nothing may be missing.
        """
        for (name, span_id), times in self.told.items():
            if times > 1 and not lossy:
                yield f"span {name} {span_id} was told {times} times"
        if calm:
            known = self.begun | {span_id for _, span_id in self.told}
            for name, parent in sorted(self.below):
                if parent not in known:
                    yield f"span {name} is below {parent}, which was never told"


class _Live:
    def __init__(self, context: TraceContext) -> None:
        self.context = context

    def set(self, attributes: Mapping[str, str | int | bool]) -> None:
        return None

    def enter(self) -> None:
        return None

    def end(self, failure: FailureDetails | None = None) -> None:
        return None
