"""What is known of somebody who waits, before it is put into words. Data only.

Times are Unix milliseconds on the store's clock; 0: not known, or never.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages.status import EntityStatus, OrchestrationStatus
from lungfish.runtime.store.queues import QueueInfo

#: The query that every instance answers: what its code waits for and no history tells.
WAITS: Final = "lungfish.waits"


class QueueName(NamedTuple):
    """An activity queue, as somebody that others wait for."""

    name: str

    def __str__(self) -> str:
        return f"queue {self.name}"


#: Whom one may ask about.
Subject: TypeAlias = ActorId | QueueName


@dataclass(frozen=True, slots=True)
class Attempt:
    """How far an activity is.

    Attributes:
        number: of the present attempt, from 1; most: how many there may be; 0: any number.
        retry_ms: when it is dispatched; 0: it was.
        error: how the attempt before ended.
        deadline_ms: when all attempts must have ended.
        begin_ms: longest wait in the queue (ms).
    """

    number: int
    most: int
    queue: str
    retry_ms: int = 0
    error: str = ""
    deadline_ms: int = 0
    begin_ms: int = 0


@dataclass(frozen=True, slots=True)
class ActivityWait:
    """An activity without a result; ``attempt`` is None if it has just ended."""

    id: int
    name: str
    since_ms: int
    attempt: Attempt | None = None


@dataclass(frozen=True, slots=True)
class TimerWait:
    """A timer that has not fired."""

    id: int
    since_ms: int
    due_ms: int


@dataclass(frozen=True, slots=True)
class EventWait:
    """An external event that the code waits for."""

    name: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class UpdateWait:
    """Updates that the code takes, and waits for nothing else."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ChildWait:
    """A sub-orchestration that has not ended."""

    id: int
    name: str
    instance: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class CallWait:
    """A call of an entity without an answer."""

    id: int
    entity: ActorId
    operation: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class LockWait:
    """A critical section that was asked for and not granted."""

    id: int
    entities: tuple[ActorId, ...]
    since_ms: int


Wait: TypeAlias = ActivityWait | TimerWait | EventWait | UpdateWait | ChildWait | CallWait | LockWait


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the store tells of an instance that has not ended.

    Attributes:
        waits: what its history has begun and not ended.
        rows: row ids of its activities, by sequence id.
        suspended_ms, suspended: since when and why it is suspended.
        cancel: why it was asked to end; None: it was not.
    """

    waits: tuple[Wait, ...] = ()
    rows: Mapping[int, str] | None = None
    suspended_ms: int = 0
    suspended: str = ""
    cancel: str | None = None

    @property
    def ids(self) -> list[int]:
        """The sequence ids of what is waited for."""
        return [wait.id for wait in self.waits if not isinstance(wait, EventWait | UpdateWait)]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an actor lives.

    Attributes:
        hosted: a live host owns its partition.
        inbox, outbox: batches that wait there.
        dead: messages for the actor that were set aside.
        pool: whose partition it is, if no host of that pool is alive.
        note: what that pool waits for, as far as it is known.
    """

    partition: int
    hosted: bool = True
    inbox: int = 0
    outbox: int = 0
    dead: int = 0
    pool: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class InstanceFacts:
    """An orchestration instance.

    Attributes:
        asked: its code was asked what it waits for.
        problem: why its code could not be asked: no host has it, it cannot be replayed.
    """

    actor: ActorId
    status: OrchestrationStatus
    place: Place
    recorded: Recorded = Recorded()
    asked: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class EntityFacts:
    """An entity.

    Attributes:
        status: None: nobody could be asked.
        problem: why not.
        reminder, reminder_ms: the next one.
    """

    actor: ActorId
    exists: bool
    place: Place
    status: EntityStatus | None = None
    problem: str = ""
    reminder: str = ""
    reminder_ms: int = 0


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """A queue, and how many live workers serve it."""

    queue: QueueName
    info: QueueInfo
    workers: int


@dataclass(frozen=True, slots=True)
class Nobody:
    """An instance that somebody waits for and that is not there."""

    actor: ActorId


Facts: TypeAlias = InstanceFacts | EntityFacts | QueueFacts | Nobody
