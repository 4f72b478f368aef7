"""What the replay engine decides: a closed union of actions, in the order of the code's calls.

An action is data; the processor turns it into effects. Its ``id`` is the sequence id of the event
that records it. Actions exist for new decisions only: in replay there are none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from lungfish.runtime.declared.definitions import ActivityOptions
from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages import headers

if TYPE_CHECKING:
    from lungfish.runtime.declared.app import App


@dataclass(frozen=True, slots=True)
class ScheduleActivity:
    """Run an activity; ``args`` is the wire form of its arguments."""

    id: int
    name: str
    args: bytes
    options: ActivityOptions
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CancelActivity:
    """Do not try an activity again, and pass its result over."""

    id: int


@dataclass(frozen=True, slots=True)
class CreateTimer:
    """Fire timer ``id`` at ``due_ms``, never earlier."""

    id: int
    due_ms: int


@dataclass(frozen=True, slots=True)
class CancelTimer:
    """Forget timer ``id``."""

    id: int


@dataclass(frozen=True, slots=True)
class StartOrchestration:
    """Start an orchestration; unless it is ``detached``, its outcome is reported to this instance.

    ``reuse``: see ``messages.Start``.
    """

    id: int
    name: str
    instance: str
    input: bytes
    detached: bool = False
    reuse: str = ""
    version: str = ""
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CancelOrchestration:
    """Ask sub-orchestration ``id`` to end."""

    id: int
    instance: str


@dataclass(frozen=True, slots=True)
class CallEntity:
    """Call an operation; the response comes back under ``id``."""

    id: int
    target: ActorId
    operation: str
    args: bytes
    deadline_ms: int = 0
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SignalEntity:
    """Signal an operation; ``batch`` holds one list of arguments."""

    id: int
    target: ActorId
    operation: str
    batch: bytes
    due_ms: int = 0
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SendEvent:
    """Raise an external event for another orchestration."""

    id: int
    instance: str
    name: str
    payload: bytes
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RequestLock:
    """Hold ``entities``, which are in the order that everybody uses."""

    id: int
    entities: tuple[ActorId, ...]


@dataclass(frozen=True, slots=True)
class ReleaseLock:
    """Let go of ``entities``; if it was not granted, of as many as are held."""

    id: int
    entities: tuple[ActorId, ...]
    granted: bool


@dataclass(frozen=True, slots=True)
class CancelCall:
    """Tell an entity that nobody waits for call ``id`` any more."""

    id: int
    target: ActorId


Action: TypeAlias = (
    ScheduleActivity
    | CancelActivity
    | CreateTimer
    | CancelTimer
    | StartOrchestration
    | CancelOrchestration
    | CallEntity
    | SignalEntity
    | SendEvent
    | RequestLock
    | ReleaseLock
    | CancelCall
)


def with_headers(action: Action, app: App) -> Action:
    """Return an action with what its message takes along, if it sends one that can."""
    travelling = headers.outgoing(app.carried)
    match action:
        case _ if not travelling:
            return action
        case ScheduleActivity() | StartOrchestration() | CallEntity() | SignalEntity() | SendEvent():
            return replace(action, headers=travelling)
        case _:
            return action
