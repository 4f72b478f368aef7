"""Spans: what becomes one, under which id, below which other. Nothing here sends anything anywhere.

Rules:

* A trace comes with a message, in its headers ``traceparent`` and ``tracestate`` (W3C Trace Context). Who
  handles the message has a span below the one named there, and names that span in all that it sends.
* What may be interrupted and run again (an operation, an orchestration) has a span whose id follows from
  what it is. So others can name it as their parent long before it is told, whoever tells it, and a re-run
  is the same span.
* A host tells a span when the commit that it belongs to is in the store (``Effects.after_commit``). What was
  not committed did not happen: replay, a redone turn, a refused commit tell nothing.
* What is not sampled leaves no span; its headers travel on as they are. What cannot be read as a trace
  context is no trace context.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from hashlib import blake2b
from typing import Final, Protocol

from lungfish.runtime.errors import FailureDetails

from .headers import HEADERS_BYTES_MAX, Wire

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
#: Longest ``tracestate`` that is carried on; W3C asks for at least this.
STATE_MAX: Final = 512

#: A later version may have further parts; version ff is none.
_FORM: Final = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_FORM_MAX: Final = 256
_SAMPLED: Final = 1

Attributes = dict[str, str | int | bool]


class Kind(Enum):
    """The sorts of spans, as in OpenTelemetry."""

    INTERNAL = "internal"
    SERVER = "server"
    CLIENT = "client"
    PRODUCER = "producer"
    CONSUMER = "consumer"


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span, as others name it.

    Attributes:
        trace_id: 32 hexadecimal digits.
        span_id: 16 hexadecimal digits.
        flags: of W3C; the lowest bit says that the trace is sampled.
        state: ``tracestate``, as it came.
    """

    trace_id: str
    span_id: str
    flags: int = _SAMPLED
    state: str = ""

    @property
    def sampled(self) -> bool:
        """Whether spans of this trace are told."""
        return bool(self.flags & _SAMPLED)

    @property
    def traceparent(self) -> str:
        """The header's value."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    def child(self, *parts: object) -> TraceContext:
        """Return the span below this one that ``parts`` name: the same for the same parts, anywhere."""
        name = "\x00".join((self.trace_id, self.span_id, *map(str, parts)))
        digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        return TraceContext(
            self.trace_id, digest if int(digest, 16) else "1".zfill(16), self.flags, self.state
        )

    def put_into(self, wire: Wire) -> Wire:
        """Return headers that name this span; where that makes them too many, the same headers."""
        rest = [
            text
            for name, value in zip(wire[::2], wire[1::2], strict=False)
            if name not in (TRACEPARENT, TRACESTATE)
            for text in (name, value)
        ]
        state = (TRACESTATE, self.state) if self.state else ()
        made = (*rest, TRACEPARENT, self.traceparent, *state)
        # Nobody's message is refused for the sake of a trace.
        fits = sum(len(text.encode("utf-8", "surrogatepass")) for text in made) <= HEADERS_BYTES_MAX
        return made if fits else wire


def parse(wire: Wire) -> TraceContext | None:
    """Return the trace context in headers; None where there is none that can be read."""
    if TRACEPARENT not in wire[::2]:
        return None
    found = dict(zip(wire[::2], wire[1::2], strict=False))
    return read(found[TRACEPARENT], found.get(TRACESTATE, ""))


def read(traceparent: str, tracestate: str = "") -> TraceContext | None:
    """Return the trace context that the two texts are; None: they are none."""
    form = _FORM.fullmatch(traceparent) if len(traceparent) <= _FORM_MAX else None
    if form is None:
        return None
    version, trace_id, span_id, flags, more = form.groups()
    if (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    state = tracestate if len(tracestate) <= STATE_MAX and tracestate.isprintable() else ""
    return TraceContext(trace_id, span_id, int(flags, 16), state)


@dataclass(frozen=True, slots=True)
class Span:
    """A span that has ended.

    Attributes:
        context: its own; ``parent``: the span above it.
        start_ns, end_ns: Unix time.
        failure: what it failed with; None: it did not.
        link: a span elsewhere that it has to do with.
    """

    name: str
    kind: Kind
    context: TraceContext
    parent: TraceContext
    start_ns: int
    end_ns: int
    attributes: Attributes = field(default_factory=dict)
    failure: FailureDetails | None = None
    link: TraceContext | None = None


class LiveSpan(Protocol):
    """A span that was begun here and will end here, or never be told."""

    @property
    def context(self) -> TraceContext:
        """What is sent from within names this as its parent."""
        ...

    def set(self, attributes: Mapping[str, str | int | bool]) -> None:
        """Add attributes."""
        ...

    def enter(self) -> None:
        """Make it the current span of this context: spans that users begin here are below it."""
        ...

    def end(self, failure: FailureDetails | None = None) -> None:
        """Tell it. Never raises."""
        ...


class Tracing(Protocol):
    """Where spans go; see ``otel``. None of it raises."""

    def begin(
        self, name: str, kind: Kind, attributes: Attributes, parent: TraceContext | None
    ) -> LiveSpan | None:
        """Begin a span below ``parent``; without one it may begin a trace. None: nobody listens."""
        ...

    def current(self) -> TraceContext | None:
        """Return the span that the code around has made the current one; None: there is none."""
        ...

    def enter(self, context: TraceContext) -> None:
        """Make a span that is told later the current one of this context."""
        ...

    def emit(self, span: Span) -> None:
        """Tell a span that has ended."""
        ...


def messaging(what: str, operation: str, destination: str, count: int = 1) -> Attributes:
    """Return the attributes of what is sent one-way, or taken.

    Args:
        what: ``send`` or ``process``.
    """
    attributes: Attributes = {
        "messaging.system": "lungfish",
        "messaging.operation.type": what,
        "messaging.operation.name": operation,
        "messaging.destination.name": destination,
    }
    if count != 1:
        attributes["messaging.batch.message_count"] = count
    return attributes


def rpc(name: str, operation: str) -> Attributes:
    """Return the attributes of a call that is answered."""
    return {"rpc.system.name": "lungfish", "rpc.method": f"{name}/{operation}"}
