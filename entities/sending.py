"""What built-in entities send besides signals: orchestrations started under their eyes, events.

Only for entities of this package: what is sent here is not checked against any signature.
"""

from __future__ import annotations

from typing import Any, Final

from lungfish.runtime import codec
from lungfish.runtime.errors import (
    FailureDetails,
    InstanceNotFound,
    OrchestrationCanceled,
    OrchestrationTerminated,
)
from lungfish.runtime.ids import ENTITY, ORCHESTRATION, ActorId
from lungfish.runtime.messages.messages import Control, Message, RaiseEvent, Response, Signal, Start, Watch

from .context import EntityContext

#: How a request begins whose answer is to be an operation: ``op:<operation>:<which answer>:<instance id>``.
#: That operation is called with instance id, outcome and detail.
NEWS: Final = "op:"

_OUTCOMES: Final = {
    InstanceNotFound.__name__: "NotFound",
    OrchestrationCanceled.__name__: "Canceled",
    OrchestrationTerminated.__name__: "Terminated",
}


def send(context: EntityContext, message: Message) -> None:
    """Send a message with the operation that runs now."""
    context._scope.send(message)


def signal(context: EntityContext, target: ActorId, operation: str, *args: Any) -> None:
    """Signal an entity that may be of an app that this host does not have."""
    send(context, Signal(target, operation, codec.encode([list(args)])))


def watched_start(context: EntityContext, instance: str, name: str, given: bytes, *, news: str) -> None:
    """Start an orchestration and be told: ``news`` is called if it is refused, and when it ends.

    One that exists is watched all the same.
    """
    me, target = context._scope.actor, ActorId(ORCHESTRATION, "", instance)
    send(context, Start(target, name, given, f"{NEWS}{news}:begin:{instance}", me))
    watch(context, instance, news=news)


def watch(context: EntityContext, instance: str, *, news: str) -> None:
    """Be told when an orchestration ends, or that there is none."""
    target = ActorId(ORCHESTRATION, "", instance)
    send(context, Watch(target, f"{NEWS}{news}:end:{instance}", context._scope.actor))


def control(context: EntityContext, instance: str, verb: str, reason: str) -> None:
    """Ask an orchestration to end."""
    send(context, Control(ActorId(ORCHESTRATION, "", instance), verb, reason))


def event(context: EntityContext, instance: str, name: str, payload: bytes) -> None:
    """Raise an event for an orchestration."""
    send(context, RaiseEvent(ActorId(ORCHESTRATION, "", instance), name, payload))


def news_signal(actor: ActorId, answer: Response) -> Signal:
    """Return the operation that an answer to a request of this module calls."""
    operation, which, instance = answer.request[len(NEWS) :].split(":", 2)
    began = which == "begin" and answer.failure is None
    outcome = "Started" if began else outcome_of(answer.failure)
    detail = "" if answer.failure is None else answer.failure.message[:500]
    return Signal(actor, operation, codec.encode([[instance, outcome, detail]]))


def outcome_of(failure: FailureDetails | None) -> str:
    """Return in a word how an orchestration ended, or why it did not begin."""
    if failure is None:
        return "Completed"
    kind = failure.error_type.rpartition(".")[2]
    if kind in ("InstanceExists", "NotRegistered", "InvalidArguments", "SerializationError", "Overloaded"):
        return kind
    return _OUTCOMES.get(kind, "Failed")


def entity_id(name: str, key: str) -> ActorId:
    """Return the id of an entity."""
    return ActorId(ENTITY, name, key)
