"""History events of an orchestration, and their stored form.

Rules:

* The union is closed and its tags are positions in ``_EVENTS``: append only, never renumber.
  A new field goes to the end of its class and has a default; a longer row is cut to what
  this release knows, a shorter one is filled with defaults.
* Events are of two sorts. *Arrived* events come from outside and make the code go on; *decided* events
  are what the code then did. In a history, the decided events stand right behind the
  arrived event that led to them, in the order in which the code decided.
* Two decided events are equal when replay may take one for the other: kind, sequence id and target
  count, payloads do not (``compare=False``). A longer timer or another argument is
  a change that replay survives.
* One commit stores one batch, ``[SCHEMA, [row, row, ...]]``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Final, TypeAlias

import msgpack

from lungfish.runtime.errors import FailureDetails
from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages.wire import MalformedBytes

#: Version of the stored form, in every batch and in every ``ExecutionStarted``.
SCHEMA: Final = 1

#: Arguments up to this size (bytes) are kept in the history for whoever reads it; replay makes them anew.
SHOWN_BYTES_MAX: Final = 1024


@dataclass(frozen=True, slots=True)
class TurnStarted:
    """A turn begins; ``now_ms`` is the time that the code sees until the next turn."""

    now_ms: int


@dataclass(frozen=True, slots=True)
class ExecutionStarted:
    """An execution begins: the first event, but for its turn and events that were carried over.

    Attributes:
        seed: of ``ctx.random`` and ``ctx.uuid4``, where it is not this instance's own (a fork).
        pinned: only code of exactly ``version`` may run it.
        headers: what its start came with.
        updates: outcomes of updates of the executions before this one (see ``handlers.pack_outcomes``).
    """

    execution: str
    name: str
    input: bytes
    at_ms: int
    version: str = ""
    parent: ActorId | None = None
    parent_request: str = ""
    schema: int = SCHEMA
    seed: str = ""
    pinned: bool = False
    updates: bytes = b""
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskScheduled:
    """An activity was asked for."""

    id: int
    name: str
    args: bytes = field(default=b"", compare=False)


@dataclass(frozen=True, slots=True)
class TaskCompleted:
    """An activity's recorded result."""

    id: int
    result: bytes | None = None


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """An activity failed for good, after all its retries."""

    id: int
    failure: FailureDetails
    timed_out: bool = False


@dataclass(frozen=True, slots=True)
class TaskCanceled:
    """The code does not wait for an activity any more; it is not tried again."""

    id: int


@dataclass(frozen=True, slots=True)
class TimerCreated:
    """A durable timer was set."""

    id: int
    due_ms: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A durable timer came due."""

    id: int


@dataclass(frozen=True, slots=True)
class TimerCanceled:
    """A durable timer was cancelled by the code."""

    id: int


@dataclass(frozen=True, slots=True)
class SubOrchestrationCreated:
    """A sub-orchestration was asked for."""

    id: int
    name: str
    instance: str
    input: bytes = field(default=b"", compare=False)


@dataclass(frozen=True, slots=True)
class SubOrchestrationCompleted:
    """A sub-orchestration's result."""

    id: int
    result: bytes | None = None


@dataclass(frozen=True, slots=True)
class SubOrchestrationFailed:
    """A sub-orchestration failed, was terminated, or could not be started."""

    id: int
    failure: FailureDetails


@dataclass(frozen=True, slots=True)
class EventRaised:
    """An external event arrived."""

    name: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class EntityCalled:
    """An operation of an entity was called."""

    id: int
    entity: str
    key: str
    operation: str
    args: bytes = field(default=b"", compare=False)


@dataclass(frozen=True, slots=True)
class EntityResponded:
    """The outcome of a call of an entity."""

    id: int
    result: bytes | None = None
    failure: FailureDetails | None = None


@dataclass(frozen=True, slots=True)
class EntitySignaled:
    """An entity was signalled."""

    id: int
    entity: str
    key: str
    operation: str
    due_ms: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class EventSent:
    """An external event was sent to another orchestration."""

    id: int
    instance: str
    name: str


@dataclass(frozen=True, slots=True)
class PatchMarked:
    """``ctx.patched(patch)`` was true here."""

    patch: str


@dataclass(frozen=True, slots=True)
class ContinuedAsNew:
    """The code returned after ``ctx.continue_as_new``; the history starts again."""

    input: bytes = field(default=b"", compare=False)


@dataclass(frozen=True, slots=True)
class Suspended:
    """An operator suspended the instance."""

    reason: str = ""
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Resumed:
    """An operator resumed the instance."""

    reason: str = ""
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class ExecutionTerminated:
    """An operator, or a terminated parent, ended the instance."""

    reason: str = ""
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class ExecutionCompleted:
    """The code returned or raised."""

    status: str
    result: bytes | None = field(default=None, compare=False)
    failure: FailureDetails | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class LockRequested:
    """A critical section over ``entities`` was asked for."""

    id: int
    entities: tuple[ActorId, ...]


@dataclass(frozen=True, slots=True)
class LockGranted:
    """All entities of the critical section are held."""

    id: int


@dataclass(frozen=True, slots=True)
class LockReleased:
    """The code left the critical section, or does not wait for it any more."""

    id: int


@dataclass(frozen=True, slots=True)
class SubOrchestrationCanceled:
    """The code does not wait for a sub-orchestration any more; it is asked to end."""

    id: int


@dataclass(frozen=True, slots=True)
class OrchestrationStarted:
    """Another orchestration was started, to live by itself."""

    id: int
    name: str
    instance: str
    input: bytes = field(default=b"", compare=False)


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Somebody asked the instance to end: ``CancelledError`` is raised where the code waits."""

    reason: str = ""
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Rewound:
    """What stood here has been taken out, so that it happens again; new ids follow behind ``sequence``."""

    sequence: int
    reason: str = ""
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Forked:
    """Up to here the history is another instance's; from here on, chance is this one's own."""

    instance: str
    execution: str
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class UpdateAccepted:
    """An update passed its validator; its handler begins."""

    update: str
    name: str
    args: bytes
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class UpdateCompleted:
    """The outcome of an update."""

    update: str
    result: bytes | None = field(default=None, compare=False)
    failure: FailureDetails | None = field(default=None, compare=False)


Arrived: TypeAlias = (
    TurnStarted
    | ExecutionStarted
    | TaskCompleted
    | TaskFailed
    | TimerFired
    | SubOrchestrationCompleted
    | SubOrchestrationFailed
    | EventRaised
    | EntityResponded
    | Suspended
    | Resumed
    | ExecutionTerminated
    | LockGranted
    | CancelRequested
    | Rewound
    | Forked
    | UpdateAccepted
)
Decided: TypeAlias = (
    TaskScheduled
    | TaskCanceled
    | TimerCreated
    | TimerCanceled
    | SubOrchestrationCreated
    | EntityCalled
    | EntitySignaled
    | EventSent
    | PatchMarked
    | ContinuedAsNew
    | ExecutionCompleted
    | LockRequested
    | LockReleased
    | SubOrchestrationCanceled
    | OrchestrationStarted
    | UpdateCompleted
)
Event: TypeAlias = Arrived | Decided

#: Append only: the position is the tag.
_EVENTS: Final[tuple[type[Any], ...]] = (
    TurnStarted,
    ExecutionStarted,
    TaskScheduled,
    TaskCompleted,
    TaskFailed,
    TaskCanceled,
    TimerCreated,
    TimerFired,
    TimerCanceled,
    SubOrchestrationCreated,
    SubOrchestrationCompleted,
    SubOrchestrationFailed,
    EventRaised,
    EntityCalled,
    EntityResponded,
    EntitySignaled,
    EventSent,
    PatchMarked,
    ContinuedAsNew,
    Suspended,
    Resumed,
    ExecutionTerminated,
    ExecutionCompleted,
    LockRequested,
    LockGranted,
    LockReleased,
    SubOrchestrationCanceled,
    OrchestrationStarted,
    CancelRequested,
    Rewound,
    Forked,
    UpdateAccepted,
    UpdateCompleted,
)
#: The classes of ``Decided``, for quick tests.
DECIDED: Final[frozenset[type[Any]]] = frozenset(Decided.__args__)


def shown(payload: bytes) -> bytes:
    """Return ``payload`` if it is small enough to be kept in a history for its readers."""
    return payload if len(payload) <= SHOWN_BYTES_MAX else b""


def _pack_extra(value: object) -> object:
    if isinstance(value, FailureDetails):
        return value.to_wire()
    raise TypeError(f"cannot put {type(value).__name__} into a history")


def _row_maker(cls: type[Any], tag: int) -> Callable[[Any], list[Any]]:
    """Compile ``lambda e: [tag, e.a, e.b, ...]``: this runs for every event of every turn."""
    names = ", ".join(f"e.{item.name}" for item in fields(cls))
    maker: Callable[[Any], list[Any]] = eval(f"lambda e: [{tag}, {names}]")  # noqa: S307 - own names
    return maker


def _checked(kinds: type | tuple[type, ...]) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not isinstance(value, kinds):
            raise TypeError(f"not a {kinds}: {value!r}")
        return value

    return check


def _optional_actor(value: Any) -> ActorId | None:
    return None if value is None else ActorId(*map(_checked(str), value))


def _actors(value: Any) -> tuple[ActorId, ...]:
    return tuple(ActorId(*map(_checked(str), actor)) for actor in value)


def _strings(value: Any) -> tuple[str, ...]:
    return tuple(map(_checked(str), _checked(list)(value)))


def _failure(value: Any) -> FailureDetails:
    return FailureDetails.from_wire(_checked(list)(value))


def _optional_failure(value: Any) -> FailureDetails | None:
    return None if value is None else _failure(value)


#: How a field is read back, by its annotation.
_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "ActorId | None": _optional_actor,
    "tuple[ActorId, ...]": _actors,
    "tuple[str, ...]": _strings,
    "FailureDetails": _failure,
    "FailureDetails | None": _optional_failure,
    "str": _checked(str),
    "int": _checked(int),
    "bool": _checked(bool),
    "bytes": _checked(bytes),
    "bytes | None": _checked((bytes, type(None))),
}

_ROW_MAKERS: Final = {cls: _row_maker(cls, tag) for tag, cls in enumerate(_EVENTS)}
_FIELD_READERS: Final = tuple(tuple(_READERS[str(item.type)] for item in fields(cls)) for cls in _EVENTS)
_REQUIRED: Final = tuple(sum(item.default is MISSING for item in fields(cls)) for cls in _EVENTS)


def pack(events: Iterable[Event]) -> bytes:
    """Encode the events of one commit."""
    rows = [_ROW_MAKERS[type(event)](event) for event in events]
    packed: bytes = msgpack.packb([SCHEMA, rows], default=_pack_extra)
    return packed


def unpack(batch: bytes) -> list[Event]:
    """Decode a batch; raises ``MalformedBytes`` for what no release up to this one ever wrote."""
    try:
        schema, rows = msgpack.unpackb(batch, use_list=True, strict_map_key=False)
    except Exception as error:  # msgpack raises many kinds for bytes that are not its own
        raise MalformedBytes(f"not a batch of history events: {error!r}") from error
    if schema != SCHEMA or not isinstance(rows, list):
        raise MalformedBytes(f"history of schema {schema!r}; this release reads {SCHEMA}")
    try:
        return [_ROW_READERS[row[0]](row) for row in rows]
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise MalformedBytes(f"not a history event: {error}") from error


def unpack_all(batches: Iterable[bytes]) -> list[Event]:
    """Decode a whole history."""
    return [event for batch in batches for event in unpack(batch)]


def _read_slowly(row: Any) -> Event:
    tag = row[0]
    if not 0 <= tag < len(_EVENTS) or len(row) - 1 < _REQUIRED[tag]:
        raise ValueError(f"event {tag!r} of {len(row) - 1} fields")
    values = [read(value) for read, value in zip(_FIELD_READERS[tag], row[1:], strict=False)]
    event: Event = _EVENTS[tag](*values)
    return event


#: What a value looks like that needs no reading, by annotation.
_USUAL: Final = {
    "ActorId | None": "{0} is None",
    "FailureDetails | None": "{0} is None",
    "str": "type({0}) is str",
    "int": "type({0}) is int",
    "bool": "type({0}) is bool",
    "bytes": "type({0}) is bytes",
    "bytes | None": "({0} is None or type({0}) is bytes)",
}


def _row_reader(cls: type[Any], tag: int) -> Callable[[Any], Event]:
    """Compile a function that reads the usual row at once: a long history is read at each takeover."""
    checks = [
        _USUAL.get(str(item.type), "False").format(f"row[{at}]") for at, item in enumerate(fields(cls), 1)
    ]
    usual = " and ".join([f"len(row) == {len(checks) + 1} and row[0] == {tag}", *checks])
    values = ", ".join(f"row[{at}]" for at in range(1, len(checks) + 1))
    names = {"cls": cls, "slowly": _read_slowly}
    reader: Callable[[Any], Event] = eval(  # noqa: S307 - own names
        f"lambda row: cls({values}) if {usual} else slowly(row)", names
    )
    return reader


_ROW_READERS: Final = {tag: _row_reader(cls, tag) for tag, cls in enumerate(_EVENTS)}
