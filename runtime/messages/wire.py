"""Wire form of messages: the only place that encodes or decodes them.

Rules:

* A batch is ``[WIRE_VERSION, [row, row, ...]]`` in msgpack; a row is the message's tag
  followed by its fields in order. Positional and short, for one msgpack call per batch. A batch of a lane
  that may also hand its batches over says who it is, and its number: ``[..., producer, sequence]``.
* What is handed straight to a host is ``[WIRE_VERSION, producer, [[partition, sequence, rows], ...]]``.
* Decoding checks everything that comes from the store: bytes that no release ever wrote raise
  ``MalformedBytes``, and the caller sets them aside; they never stop a partition.
* Fields are only ever added at the end of a class, with a default: a longer row is cut
  to what this release knows, a shorter one is filled with defaults. Headers are left
  out while there are none.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, fields
from types import NoneType
from typing import Any, Final

import msgpack

from lungfish.runtime.errors import FailureDetails, SerializationError
from lungfish.runtime.ids import ActorId

from .messages import (
    ActivityResult,
    ActivityTask,
    Call,
    CancelCall,
    Control,
    EntityControl,
    Inspect,
    LockGranted,
    LockQuery,
    LockRelease,
    LockRequest,
    Message,
    Query,
    RaiseEvent,
    ReminderDue,
    Response,
    Signal,
    Start,
    TimerFired,
    Update,
    Watch,
)

WIRE_VERSION: Final = 1

_MESSAGES: Final[tuple[type[Any], ...]] = (
    Signal,
    Call,
    Response,
    Start,
    RaiseEvent,
    Control,
    Watch,
    ActivityResult,
    TimerFired,
    ActivityTask,
    ReminderDue,
    LockRequest,
    LockGranted,
    LockRelease,
    LockQuery,
    Inspect,
    CancelCall,
    EntityControl,
    Query,
    Update,
)
#: A tag is a position in ``_MESSAGES``: append only.
_TAGS: Final = {cls: tag for tag, cls in enumerate(_MESSAGES)}


class MalformedBytes(SerializationError):
    """Stored bytes that are not a batch of messages."""


def _pack_extra(value: object) -> object:
    if isinstance(value, FailureDetails):
        return value.to_wire()
    raise TypeError(f"cannot put {type(value).__name__} into a message")


def _has_headers(cls: type[Any]) -> bool:
    return fields(cls)[-1].name == "headers"


def _usual_fields(cls: type[Any]) -> dict[str, str]:
    """Return the annotations of the fields of a usual row: without headers, which most messages lack."""
    found = {field.name: str(field.type) for field in fields(cls)}
    if _has_headers(cls):
        del found["headers"]
    return found


def _row_maker(cls: type[Any], tag: int) -> Callable[[Any], list[Any]]:
    """Compile ``lambda m: [tag, m.a, m.b, ...]``: rows are made a million times."""
    names = ", ".join(f"m.{name}" for name in _usual_fields(cls))
    row = f"[{tag}, {names}]"
    if _has_headers(cls):
        row = f"{row} if not m.headers else [{tag}, {names}, m.headers]"
    maker: Callable[[Any], list[Any]] = eval(f"lambda m: {row}")  # noqa: S307 - own names
    return maker


_ROW_MAKERS: Final = {cls: _row_maker(cls, tag) for cls, tag in _TAGS.items()}


def _actor(value: Any) -> ActorId:
    kind, name, key = _list(value)
    if not (isinstance(kind, str) and isinstance(name, str) and isinstance(key, str)):
        raise ValueError(f"not an actor: {value!r}")
    return ActorId(kind, name, key)


def _optional_actor(value: Any) -> ActorId | None:
    return None if value is None else _actor(value)


def _optional_failure(value: Any) -> FailureDetails | None:
    return None if value is None else FailureDetails.from_wire(value)


def _checked(kinds: type | tuple[type, ...]) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not isinstance(value, kinds):
            raise TypeError(f"not a {kinds}: {value!r}")
        return value

    return check


_list: Final = _checked(list)
_string: Final = _checked(str)


def _strings(value: Any) -> tuple[str, ...]:
    return tuple(_string(item) for item in _list(value))


def _actors(value: Any) -> tuple[ActorId, ...]:
    return tuple(_actor(item) for item in _list(value))


def _are_strings(value: Any) -> bool:
    return set(map(type, value)) == {str}


#: How a field of a message is read back, by its annotation.
_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "ActorId": _actor,
    "ActorId | None": _optional_actor,
    "FailureDetails | None": _optional_failure,
    "tuple[str, ...]": _strings,
    "tuple[ActorId, ...]": _actors,
    "str": _checked(str),
    "int": _checked(int),
    "bool": _checked(bool),
    "bytes": _checked(bytes),
    "bytes | None": _checked((bytes, type(None))),
}


def _required(cls: type[Any]) -> int:
    return sum(field.default is MISSING for field in fields(cls))


_FIELD_READERS: Final = tuple(tuple(_READERS[str(field.type)] for field in fields(cls)) for cls in _MESSAGES)
_REQUIRED: Final = tuple(_required(cls) for cls in _MESSAGES)


#: Of which classes a usual value is, by annotation.
_USUAL_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "ActorId": (list,),
    "ActorId | None": (list, NoneType),
    "FailureDetails | None": (NoneType,),
    "tuple[str, ...]": (list,),
    "tuple[ActorId, ...]": (list,),
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "bytes": (bytes,),
    "bytes | None": (bytes, NoneType),
}
#: What else must hold of a value of these classes, so that it needs no reading but that of ``_FAST_READS``.
_FAST_CHECKS: Final = {
    "ActorId": "tuple(map(type, {0})) == NAMES",
    "ActorId | None": "({0} is None or tuple(map(type, {0})) == NAMES)",
    "tuple[str, ...]": "(not {0} or strings({0}))",
}
_FAST_READS: Final = {
    "ActorId": "new(ActorId, {0})",
    "ActorId | None": "{0} and new(ActorId, {0})",
    "tuple[str, ...]": "tuple({0})",
    "tuple[ActorId, ...]": "actors({0})",
}


def _row_reader(cls: type[Any], tag: int) -> Callable[[Any], Any]:
    """Compile a function that reads the usual row at once, and leaves any other one to ``_read_slowly``."""
    kinds = list(_usual_fields(cls).values())
    values = [(kind, f"row[{at}]") for at, kind in enumerate(kinds, start=1)]
    checks = [_FAST_CHECKS[kind].format(value) for kind, value in values if kind in _FAST_CHECKS]
    reads = [_FAST_READS.get(kind, "{0}").format(value) for kind, value in values]
    # All classes in one look-up: field by field took longer than all else that is done to an arriving call.
    usual = " and ".join([f"tuple(map(type, row)) in TYPES and row[0] == {tag}", *checks])
    names = {
        "cls": cls,
        "TYPES": frozenset(itertools.product((int,), *(_USUAL_TYPES[kind] for kind in kinds))),
        "NAMES": (str, str, str),
        "new": tuple.__new__,
        "ActorId": ActorId,
        "slowly": _read_slowly,
        "strings": _are_strings,
        "actors": _actors,
    }
    reader: Callable[[Any], Any] = eval(  # noqa: S307 - own names
        f"lambda row: cls({', '.join(reads)}) if {usual} else slowly(row)", names
    )
    return reader


def _read_slowly(row: Any) -> Any:
    tag = row[0]
    cls, readers = _MESSAGES[tag], _FIELD_READERS[tag]
    if len(row) - 1 < _REQUIRED[tag] or tag < 0:
        raise ValueError(f"{cls.__name__} row of {len(row) - 1} fields")
    return cls(*[read(value) for read, value in zip(readers, row[1:], strict=False)])


_ROW_READERS: Final = tuple(_row_reader(cls, tag) for tag, cls in enumerate(_MESSAGES))


def to_row(message: Message | ActivityTask) -> list[Any]:
    """Return the positional form of a message, ready to be packed with others."""
    return _ROW_MAKERS[type(message)](message)


#: The field of a message that holds the user's payload.
_PAYLOADS: Final[dict[type, str]] = {
    Signal: "batch",
    Call: "args",
    Start: "input",
    RaiseEvent: "payload",
    Response: "result",
    ActivityResult: "result",
    ActivityTask: "args",
}


def _sizer(cls: type[Any]) -> Callable[[Any], int]:
    name = _PAYLOADS.get(cls)
    sizer: Callable[[Any], int] = eval(  # noqa: S307 - own names
        "lambda m: 128" if name is None else f"lambda m: 64 + len(m.{name}) if m.{name} else 128"
    )
    return sizer


_SIZERS: Final = {cls: _sizer(cls) for cls in _MESSAGES}


def size_of(message: Message | ActivityTask) -> int:
    """Return about how many bytes a message takes: its user payload and a bit."""
    return _SIZERS[type(message)](message)


def from_row(row: Any) -> Any:
    """Read one row; raises ``MalformedBytes`` for what no release ever wrote."""
    try:
        return _ROW_READERS[row[0]](row)
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise MalformedBytes(f"not a message: {error}") from error


#: Made once: that took a third of the time of packing a message. It calls no Python, not even a ``default``,
#: so no other thread can come in between.
_pack_plain: Final[Callable[[Any], bytes]] = msgpack.Packer().pack


def pack_rows(rows: Sequence[Sequence[Any]], *origin: Any) -> bytes:
    """Encode rows made by ``to_row`` as one batch.

    Args:
        origin: the lane and the number of the batch, where its reader wants to know.
    """
    try:
        return _pack_plain([WIRE_VERSION, rows, *origin])
    except TypeError:  # one of them carries a failure
        packed: bytes = msgpack.packb([WIRE_VERSION, rows, *origin], default=_pack_extra)
        return packed


def pack_handed(producer: str, batches: Sequence[Sequence[Any]]) -> bytes:
    """Encode batches ``(partition, sequence, rows)`` that are handed to one host."""
    return _pack_plain([WIRE_VERSION, producer, batches])


def unpack_handed(payload: bytes) -> tuple[str, list[tuple[int, int, list[Any]]]]:
    """Read what ``pack_handed`` made: producer and batches; raises ``MalformedBytes`` for anything else."""
    try:
        version, producer, batches = msgpack.unpackb(payload, use_list=True, strict_map_key=False)
    except Exception as error:  # msgpack raises many kinds for bytes that are not its own
        raise MalformedBytes(f"not handed over by a client: {error!r}") from error
    if version != WIRE_VERSION or not isinstance(producer, str) or not isinstance(batches, list):
        raise MalformedBytes(f"handed over in version {version!r}; this release reads {WIRE_VERSION}")
    for batch in batches:
        if not isinstance(batch, list) or tuple(map(type, batch)) != (int, int, list):
            raise MalformedBytes(f"not a batch: {batch!r:.100}")
    return producer, batches


def pack(messages: Iterable[Message | ActivityTask]) -> bytes:
    """Encode messages as one batch."""
    return pack_rows([to_row(message) for message in messages])


def unpack_batch(payload: bytes) -> tuple[list[Any], str, int]:
    """Return the rows of a batch, not yet read, its lane and its number ('' and 0: it does not say).

    Raises:
        MalformedBytes: it is no batch.
    """
    try:
        version, rows, *origin = msgpack.unpackb(payload, use_list=True, strict_map_key=False)
    except Exception as error:  # msgpack raises many kinds for bytes that are not its own
        raise MalformedBytes(f"not a batch of messages: {error!r}") from error
    if version != WIRE_VERSION or not isinstance(rows, list):
        raise MalformedBytes(f"batch of version {version!r}; this release reads {WIRE_VERSION}")
    match origin:
        case [str(producer), int(sequence), *_]:
            return rows, producer, sequence
        case []:
            return rows, "", 0
    raise MalformedBytes(f"batch of {origin!r:.100}")


def unpack_rows(payload: bytes) -> list[Any]:
    """Return the rows of a batch, not yet read; raises ``MalformedBytes`` if it is not one."""
    return unpack_batch(payload)[0]


def message_from_row(row: Any) -> Message:
    """Read a row that must be a message for an actor or a client."""
    try:
        message = _ROW_READERS[row[0]](row)
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise MalformedBytes(f"not a message: {error}") from error
    if type(message) is ActivityTask:
        raise MalformedBytes("an activity task is not a message for an actor")
    read: Message = message
    return read


def unpack(payload: bytes) -> list[Message]:
    """Decode a batch of messages; raises ``MalformedBytes`` if any part of it is not one."""
    return [message_from_row(row) for row in unpack_rows(payload)]


def unpack_task(payload: bytes) -> ActivityTask:
    """Decode a queue entry: one activity task; raises ``MalformedBytes`` otherwise."""
    rows = unpack_rows(payload)
    task = from_row(rows[0]) if len(rows) == 1 else None
    if not isinstance(task, ActivityTask):
        raise MalformedBytes("not an activity task")
    return task
