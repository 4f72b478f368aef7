"""The closed set of messages that travel between clients, actors and workers.

Rules:

* User values are opaque bytes here (``codec`` made them), so that routing, storing and
  forwarding a message never decodes what a user sent, and cannot fail on it.
* A new field goes to the end and has a default: the wire form is positional, and an
  old row must still be readable. A message class is never removed or renumbered.
* Headers (name, value, name, value, ...) are the last field of what has them, and are left out while there
  are none.
* A message is accepted at most once by its target's partition (``store.append``
  drops repeats), so no message carries an id of its own. Requests carry one, so
  that the response finds its way back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from lungfish.runtime.errors import FailureDetails
from lungfish.runtime.ids import ActorId


@dataclass(frozen=True, slots=True)
class Signal:
    """One-way operations on an entity: one or many, applied in order, each on its own.

    Attributes:
        batch: encoded list of argument lists, one per operation.
        count: how many operations ``batch`` holds.
        due_ms: not before this time (Unix ms); 0 is now; negative: so many ms after it is accepted.
            Scheduled signals have no FIFO promise.
        chain: actors that this message came through, for diagnosis.
    """

    target: ActorId
    operation: str
    batch: bytes
    count: int = 1
    due_ms: int = 0
    chain: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """An operation on an entity whose outcome is sent to ``reply_to``.

    Attributes:
        args: encoded ``[positional, keyword]``.
        request: id under which the caller awaits the ``Response``.
        deadline_ms: after this time (Unix ms) it is not started any more; 0 is never, negative: so long
            after it was accepted (a client does not know the store's clock).
        chain: entities (or the orchestration) that wait for this call, outermost first.
    """

    target: ActorId
    operation: str
    args: bytes
    request: str
    reply_to: ActorId
    deadline_ms: int = 0
    chain: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Response:
    """The outcome of a sub-orchestration, or of a message with a ``request``."""

    target: ActorId
    request: str
    result: bytes | None = None
    failure: FailureDetails | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """Create an orchestration instance if its id is free.

    Attributes:
        input: encoded ``[positional, keyword]``.
        request: where ``reply_to`` awaits whether it was created; empty: nobody asks.
        parent: the orchestration that waits for the outcome, under ``parent_request``.
        due_ms: not before this time (Unix ms); 0 is now.
        version: code version to pin; empty is the app's current one.
        tags: labels for queries: name, value, name, value, ...
        reuse: what to do where the id is taken: empty refuses; ``restart`` replaces an instance that has
            ended; ``terminate`` also ends one that has not; ``adopt`` is a rewound parent that wants its
            child's outcome again; ``again`` is one whose child, or its outcome, the store may have forgotten.
        history, source: packed events to begin with: a fork of instance ``source``.
    """

    target: ActorId
    name: str
    input: bytes
    request: str = ""
    reply_to: ActorId | None = None
    parent: ActorId | None = None
    parent_request: str = ""
    due_ms: int = 0
    version: str = ""
    tags: tuple[str, ...] = ()
    reuse: str = ""
    history: bytes = b""
    source: str = ""
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RaiseEvent:
    """An external event for an orchestration; kept until it is waited for."""

    target: ActorId
    name: str
    payload: bytes
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Control:
    """A management verb for an orchestration: ``terminate``, ``cancel``, ``suspend``, ``rewind`` and so on.

    Attributes:
        reason: the operator's words; the output of a terminated instance.
        request: where ``reply_to`` awaits that it took effect; empty: nobody asks.
        parent, parent_request: only meant for the sub-orchestration that was started so: the id may have been
            another's all the time.
    """

    target: ActorId
    verb: str
    reason: str = ""
    request: str = ""
    reply_to: ActorId | None = None
    parent: ActorId | None = None
    parent_request: str = ""


@dataclass(frozen=True, slots=True)
class Watch:
    """Ask for the outcome of an orchestration, now or when it ends."""

    target: ActorId
    request: str
    reply_to: ActorId


@dataclass(frozen=True, slots=True)
class ActivityResult:
    """A worker's report of one attempt of an activity.

    ``execution``, ``task`` and ``attempt`` must all match what the instance waits for;
    anything else is late or doubled, and is dropped.

    Attributes:
        details: what the attempt's last heartbeat said, for the next attempt.
        begun: no outcome yet: the attempt has begun. Told only where ``schedule_to_start`` wants to know.
    """

    target: ActorId
    execution: str
    task: int
    attempt: int
    result: bytes | None = None
    failure: FailureDetails | None = None
    timed_out: bool = False
    details: bytes | None = None
    begun: bool = False


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A due timer of an orchestration, or an engine's own (``purpose``).

    Attributes:
        purpose: ``timer`` (the user's), ``retry``, ``timeout`` or ``unbegun`` (of activity ``task``,
            ``attempt``), ``lost`` (no queue has the activity ``task`` whose row has the checksum ``due_ms``),
            ``start`` (a delayed start), ``forgotten`` (the store may have forgotten what was
            asked for under ``task``).
    """

    target: ActorId
    execution: str
    task: int
    due_ms: int
    purpose: str = "timer"
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class ReminderDue:
    """The alarm of an entity's reminder ``name``; of no meaning if that was set anew or cancelled since.

    Attributes:
        generation, due_ms: the setting that it belongs to.
    """

    target: ActorId
    name: str
    generation: str
    due_ms: int


@dataclass(frozen=True, slots=True)
class LockRequest:
    """Hold an entity for an orchestration, when its turn in the mailbox comes.

    It goes from one entity of ``entities`` to the next; the last one tells ``owner``. So whoever waits for
    one entity holds only such that come before it, and nobody can wait in a circle.

    Attributes:
        lock: id of the request: the owner's execution and sequence id.
        entities: all of them, in the one order that everybody uses.
        again: somebody passes it on a second time, in case it was lost: it may come after its release.
    """

    target: ActorId
    lock: str
    owner: ActorId
    entities: tuple[ActorId, ...]
    again: bool = False


@dataclass(frozen=True, slots=True)
class LockGranted:
    """All ``entities`` are held for ``target``. One that does not want them any more releases them."""

    target: ActorId
    lock: str
    entities: tuple[ActorId, ...]


@dataclass(frozen=True, slots=True)
class LockRelease:
    """Let go of an entity, or forget a request that waits there; unknown ids are no error.

    Attributes:
        rest: entities further down, which may have the request, too; it is passed on to them.
    """

    target: ActorId
    lock: str
    rest: tuple[ActorId, ...] = ()


@dataclass(frozen=True, slots=True)
class LockQuery:
    """Ask an orchestration whether it still wants ``entity``; one that does not answers with a release."""

    target: ActorId
    lock: str
    entity: ActorId


@dataclass(frozen=True, slots=True)
class Inspect:
    """Ask an entity who holds it and what waits there; answered at once, whatever is running."""

    target: ActorId
    request: str
    reply_to: ActorId


@dataclass(frozen=True, slots=True)
class CancelCall:
    """The caller has given up: a call that waits is not started any more. Nothing is answered."""

    target: ActorId
    request: str
    reply_to: ActorId


@dataclass(frozen=True, slots=True)
class EntityControl:
    """What is asked about an entity and is none of its operations: it overtakes those that wait.

    Attributes:
        verb: ``watch``, ``unwatch``, ``expire``, ``inspect``, ``edit``, ``purge``.
        payload: what the verb needs, in a form of its own.
        request: where ``reply_to`` awaits the ``Response``; empty: nobody asks.
    """

    target: ActorId
    verb: str
    payload: bytes = b""
    request: str = ""
    reply_to: ActorId | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """A question to an orchestration's code; it changes nothing.

    Attributes:
        args: encoded ``[positional, keyword]``.
    """

    target: ActorId
    name: str
    args: bytes
    request: str
    reply_to: ActorId


@dataclass(frozen=True, slots=True)
class Update:
    """A change that an orchestration's code may refuse, and answers.

    Attributes:
        args: encoded ``[positional, keyword]``.
        id: of the update: it is done once, however often it is sent.
    """

    target: ActorId
    name: str
    args: bytes
    id: str
    request: str
    reply_to: ActorId


Message: TypeAlias = (
    Signal
    | Call
    | Response
    | Start
    | RaiseEvent
    | Control
    | Watch
    | ActivityResult
    | TimerFired
    | ReminderDue
    | LockRequest
    | LockGranted
    | LockRelease
    | LockQuery
    | Inspect
    | CancelCall
    | EntityControl
    | Query
    | Update
)


@dataclass(frozen=True, slots=True)
class ActivityTask:
    """One attempt of an activity, as a worker finds it in its queue.

    Attributes:
        args: encoded ``[positional, keyword]``.
        idempotency_key: the same for every attempt of this activity.
        timeout_ms: longest run of this attempt; 0 is unlimited.
        row: id of the activity's row in its owner's partition: while it is there, the
            result is not yet recorded.
        heartbeat_ms: longest silence of this attempt; 0 is unlimited.
        details: what the last heartbeat of an earlier attempt said.
        deadline_ms: when all attempts must have ended (Unix ms); 0 is never.
        begin_by_ms: when this attempt must have begun (Unix ms): its beginning is reported; 0 is never.
    """

    owner: ActorId
    execution: str
    task: int
    attempt: int
    name: str
    args: bytes
    idempotency_key: str
    timeout_ms: int = 0
    row: str = ""
    heartbeat_ms: int = 0
    details: bytes | None = None
    deadline_ms: int = 0
    begin_by_ms: int = 0
    headers: tuple[str, ...] = ()
