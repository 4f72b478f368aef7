"""A client's session that begins spans: for an app with traces switched on.

It looks at messages and not at methods, so that every way to send one is covered and none knows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from lungfish.runtime.errors import FailureDetails, InstanceExists
from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages.headers import Wire
from lungfish.runtime.messages.messages import Call, Message, RaiseEvent, Response, Signal, Start
from lungfish.runtime.messages.tracing import Attributes, Kind, LiveSpan, Tracing, messaging, parse, rpc

from .connection import Connection

_TAKEN: Final = InstanceExists.__name__


class TracedConnection(Connection):
    """A ``Connection`` whose calls, signals, starts and events are spans."""

    def __init__(self, tracing: Tracing, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._tracing = tracing

    async def send(self, actor: ActorId, messages: Sequence[Message]) -> None:
        """Send messages to one actor, as one span; see ``Connection.send``."""
        span = self._begin(messages)
        if span is None:
            await super().send(actor, messages)
            return
        try:
            await super().send(actor, [_below(span, message) for message in messages])
        except BaseException as error:
            span.end(FailureDetails.of(error))
            raise
        span.end()

    async def request(
        self,
        actor: ActorId,
        make: Callable[[str], Message],
        *,
        timeout_s: float | None,
        what: str,
        give_up: Callable[[str], Message] | None = None,
    ) -> Response:
        """Send a message and return its response, as one span; see ``Connection.request``."""
        span: LiveSpan | None = None

        def traced(request: str) -> Message:
            nonlocal span
            message = make(request)
            span = self._begin([message])
            return message if span is None else _below(span, message)

        try:
            response = await super().request(actor, traced, timeout_s=timeout_s, what=what, give_up=give_up)
        except BaseException as error:
            if span is not None:
                span.end(FailureDetails.of(error))
            raise
        if span is not None:
            _answered(span, response)
        return response

    def _begin(self, messages: Sequence[Message]) -> LiveSpan | None:
        """Begin the span of what is sent; None where nothing is told of it."""
        told = described(messages, self.store.hub)
        if told is None:
            return None
        # The span around goes first: it is the innermost, since an operation or an attempt sets it, too.
        parent = self._tracing.current() or parse(told.headers)
        return self._tracing.begin(told.name, told.kind, told.attributes, parent)


class Described(NamedTuple):
    """What is told of messages that are sent."""

    name: str
    kind: Kind
    attributes: Attributes
    headers: Wire


def described(messages: Sequence[Message], hub: str) -> Described | None:
    """Describe messages to one actor, of one sort; None: they carry no trace.

    Names have no keys and ids in them; attributes have.
    """
    match messages[0]:
        case Call(target, operation, headers=wire):
            said = {**rpc(target.name, operation), "lungfish.entity": target.name, "lungfish.key": target.key}
            found = Described(f"call {target.name}.{operation}", Kind.CLIENT, said, wire)
        case Signal(target, operation, headers=wire):
            count = sum(message.count for message in messages if isinstance(message, Signal))
            said = messaging("send", "signal", target.name, count)
            said |= {"lungfish.entity": target.name, "lungfish.key": target.key}
            found = Described(f"signal {target.name}.{operation}", Kind.PRODUCER, said, wire)
        case Start(target, name, headers=wire):
            said = messaging("send", "start", name) | {"lungfish.instance_id": target.key}
            found = Described(f"start {name}", Kind.PRODUCER, said, wire)
        case RaiseEvent(target, name, headers=wire):
            said = messaging("send", "raise_event", name) | {"lungfish.instance_id": target.key}
            found = Described(f"raise_event {name}", Kind.PRODUCER, said, wire)
        case _:
            return None
    found.attributes["lungfish.hub"] = hub
    return found


def _below(span: LiveSpan, message: Message) -> Message:
    """Return a message that names a span as its parent."""
    if isinstance(message, Call | Signal | Start | RaiseEvent):
        return replace(message, headers=span.context.put_into(message.headers))
    return message


def _answered(span: LiveSpan, response: Response) -> None:
    failure = response.failure
    if failure is not None and failure.error_type.rpartition(".")[2] == _TAKEN:
        # By far the most who start under an id want just that; who does not is raised an error.
        span.set({"lungfish.existed": True})
        failure = None
    span.end(failure)
