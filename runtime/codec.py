"""User values to bytes and back: arguments, results, states, inputs.

Rules:

* msgpack, never pickle: nothing that is read from the store can run code.
* What a value *was* is told by the annotation at the reading side, as in pydantic: bytes
  are decoded to plain data first, then validated against the annotation. Without an
  annotation the plain data is what you get (a model comes back as a dict).
* Types that msgpack lacks (datetime, Decimal, UUID, set, big int …) have an extension code
  each; codes are never reused.
* numpy arrays are values where numpy is there: this module never imports it for others.
* Encoding happens where the value enters (the call site), so that a value that cannot be
  stored fails there, with its path, and not later on a host.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import logging
import pathlib
import sys
import uuid
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

import msgpack
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from .errors import InvalidArguments, LungfishError, PayloadTooLarge, SerializationError

logger = logging.getLogger(__name__)

#: Largest encoded value that travels in a message or is kept as a state (bytes).
PAYLOAD_BYTES_MAX: Final = 4 * 1024 * 1024

#: What the token of a large value begins with (see ``payloads``): nothing that is encoded here does.
TOKEN_MARK: Final = b"\xc1payload\x01"

_DATETIME, _DATE, _TIME, _TIMEDELTA, _DECIMAL, _UUID, _SET, _BIG_INT, _COMPLEX, _ARRAY = range(1, 11)


def _text(code: int, value: str) -> msgpack.ExtType:
    return msgpack.ExtType(code, value.encode())


def _extension(value: Any) -> Any:  # noqa: PLR0911 - one line a type
    """Turn what msgpack does not know into what it does; raises TypeError otherwise."""
    match value:
        case BaseModel():
            return value.model_dump(round_trip=True)  # without what is computed: it is not input
        case dt.datetime():
            return _text(_DATETIME, value.isoformat())
        case dt.date():
            return _text(_DATE, value.isoformat())
        case dt.time():
            return _text(_TIME, value.isoformat())
        case collections.deque():
            return list(value)
        case dt.timedelta():
            micros = (value.days * 86_400 + value.seconds) * 1_000_000 + value.microseconds
            return _text(_TIMEDELTA, str(micros))
        case decimal.Decimal():
            return _text(_DECIMAL, str(value))
        case uuid.UUID():
            return msgpack.ExtType(_UUID, value.bytes)
        case set() | frozenset():
            return msgpack.ExtType(_SET, _packb(sorted(value, key=_packb)))
        case enum.Enum():
            return value.value
        case complex():
            return _text(_COMPLEX, repr(value))
        case int():  # msgpack calls back for integers over 64 bits only
            return _text(_BIG_INT, str(value))
        case pathlib.PurePath():
            return str(value)
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        case _:
            return _array(value)


def _array(value: Any) -> Any:
    """Turn what numpy made into what msgpack knows; raises TypeError for anything else."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        return value.item()
    if numpy is None or not isinstance(value, numpy.ndarray) or value.dtype.kind in "OV":
        raise TypeError(f"a value of type {type(value).__qualname__} cannot be stored")
    return msgpack.ExtType(_ARRAY, _packb([value.dtype.str, list(value.shape), value.tobytes()]))


def _read_array(data: bytes) -> Any:
    try:
        import numpy as np
    except ImportError as error:
        raise SerializationError("a stored numpy array can be read where numpy is installed only") from error
    kind, shape, raw = _unpackb(data)
    return np.frombuffer(raw, np.dtype(kind)).reshape(shape).copy()  # a view of bytes would be read-only


def _micros(text: bytes) -> dt.timedelta:
    return dt.timedelta(microseconds=int(text))


def _hashable(value: Any) -> Any:
    match value:
        case list():
            return tuple(_hashable(item) for item in value)
        case set():
            return frozenset(value)
        case _:
            return value


def _read_set(data: bytes) -> Any:
    items = [_hashable(item) for item in _unpackb(data)]
    try:
        return set(items)
    except TypeError:  # maps, which were models: the annotation makes a set of them again
        return items


def _with_hashable_keys(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    try:
        return {_hashable(key): value for key, value in pairs}
    except TypeError as error:
        raise SerializationError("a map or a model cannot be the key of a map") from error


_EXTENSIONS: Final[dict[int, Callable[[bytes], Any]]] = {
    _DATETIME: lambda data: dt.datetime.fromisoformat(data.decode()),
    _DATE: lambda data: dt.date.fromisoformat(data.decode()),
    _TIME: lambda data: dt.time.fromisoformat(data.decode()),
    _TIMEDELTA: _micros,
    _DECIMAL: lambda data: decimal.Decimal(data.decode()),
    _UUID: lambda data: uuid.UUID(bytes=data),
    _SET: _read_set,
    _BIG_INT: int,
    _COMPLEX: lambda data: complex(data.decode()),
    _ARRAY: _read_array,
}


def _read_extension(code: int, data: bytes) -> Any:
    reader = _EXTENSIONS.get(code)
    if reader is None:
        raise SerializationError(f"extension {code} is unknown: written by a later release?")
    return reader(data)


#: Packers that nobody uses now. Making one takes longer than packing a usual value; sharing one does not
#: work, since a value's own code may pack others, in this thread or another.
_packers: Final[list[msgpack.Packer]] = []
#: A packer keeps the memory of the largest value that it packed: one that packed more than this goes (bytes).
_KEPT_BYTES_MAX: Final = 65_536


def _packb(value: Any) -> bytes:
    try:
        packer = _packers.pop()
    except IndexError:
        packer = msgpack.Packer(default=_extension)
    packed: bytes = packer.pack(value)
    if len(packed) < _KEPT_BYTES_MAX:
        _packers.append(packer)
    return packed


def _unpackb(data: bytes) -> Any:
    try:
        return msgpack.unpackb(data, ext_hook=_read_extension, strict_map_key=False)
    except TypeError:  # a key that was a tuple or a frozenset: rare, so the usual map stays in C
        return msgpack.unpackb(
            data, ext_hook=_read_extension, strict_map_key=False, object_pairs_hook=_with_hashable_keys
        )


#: Values that came near the limit of their size, by their names; told once each, up to so many.
_told_large: Final = set[str]()
_TOLD_MAX: Final = 1_000


def encode(value: Any, what: str = "value", limit: int = PAYLOAD_BYTES_MAX) -> bytes:
    """Encode a user's value.

    Args:
        value: plain data, pydantic models, dataclasses, datetimes, Decimal, UUID, sets, enums.
        what: names the value in errors ("argument of Counter.add").
        limit: largest result (bytes).

    Raises:
        SerializationError: some part of it has a type that cannot be stored.
        PayloadTooLarge: the result is over ``limit``.
    """
    try:
        data = _packb(value)
    except RecursionError as error:
        raise SerializationError(f"{what} refers to itself or is nested too deeply") from error
    except (TypeError, ValueError, OverflowError) as error:
        # msgpack raises OverflowError for big integers before it asks ``default``.
        data = _encode_slowly(value, what, error)
    if 5 * len(data) > 4 * limit:
        _check_size(len(data), what, limit)
    return data


def join_rows(rows: Sequence[bytes]) -> bytes:
    """Return the encoded list of values that were encoded one by one."""
    header: bytes = msgpack.Packer().pack_array_header(len(rows))
    return header + b"".join(rows)


def _check_size(size: int, what: str, limit: int) -> None:
    """Refuse what is over the limit; tell once about what comes near it."""
    if size > limit:
        raise PayloadTooLarge(
            f"{what} is {size:,} bytes encoded; the limit is {limit:,}. "
            "Store it elsewhere and send a reference."
        )
    if what not in _told_large and len(_told_large) < _TOLD_MAX:
        _told_large.add(what)
        text = "%s is %s bytes encoded; it will be refused over %s. Store it elsewhere and send a reference."
        logger.warning(text, what, f"{size:,}", f"{limit:,}")


def _encode_slowly(value: Any, what: str, first: Exception) -> bytes:
    try:
        return _packb(_plain(value, what))
    except RecursionError as error:
        raise SerializationError(f"{what} refers to itself or is nested too deeply") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise SerializationError(f"{what} cannot be stored: {error}") from first


def _plain(value: Any, path: str) -> Any:
    """Walk a value, replacing big integers and naming the path of what cannot be stored."""
    match value:
        case bool() | None | float() | str() | bytes():
            return value
        case enum.Enum():
            return _plain(value.value, path)
        case int():
            return value if -(2**63) <= value < 2**64 else _extension(value)
        case dict():
            return {
                _plain(key, f"key of {path}"): _plain(item, f"{path}[{key!r}]") for key, item in value.items()
            }
        case list() | tuple():
            return [_plain(item, f"{path}[{at}]") for at, item in enumerate(value)]
        case bytearray() | memoryview():
            return bytes(value)
        case set() | frozenset():
            items = sorted((_plain(item, path) for item in value), key=_packb)
            return msgpack.ExtType(_SET, _packb(items))
        case _:
            try:
                replaced = _extension(value)
            except TypeError as error:
                raise SerializationError(f"{path} cannot be stored: {error}") from error
            return replaced if isinstance(replaced, msgpack.ExtType) else _plain(replaced, path)


def decode(data: bytes, what: str = "value") -> Any:
    """Decode to plain data; raises ``SerializationError`` for bytes that ``encode`` never made.

    Also for the token of a large value whose content is gone.
    """
    try:
        return _unpackb(data)
    except SerializationError:
        raise
    except Exception as error:  # msgpack raises many kinds for bytes that are not its own
        if data.startswith(TOKEN_MARK):
            raise SerializationError(
                f"{what} is a large value, and its content is gone from the store"
            ) from error
        raise SerializationError(f"{what}: the stored bytes cannot be decoded: {error!r}") from error


@lru_cache(maxsize=4096)
def _cached_adapter(annotation: Any) -> TypeAdapter[Any]:
    if getattr(annotation, "__module__", "") == "numpy":  # known to the codec, not to pydantic
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    return TypeAdapter(annotation)


def adapter(annotation: Any) -> TypeAdapter[Any]:
    """Return the pydantic adapter of an annotation, made once per annotation.

    Raises:
        SerializationError: pydantic does not know how to make such a value.
    """
    try:
        return _cached_adapter(annotation) if _is_hashable(annotation) else TypeAdapter(annotation)
    except Exception as error:  # mostly PydanticUserError; but anything may go wrong in a user's class
        raise SerializationError(
            f"the annotation {annotation!r} is not a type whose values can be stored; "
            "use a pydantic model, a dataclass or plain data"
        ) from error


def _is_hashable(annotation: Any) -> bool:
    try:
        hash(annotation)
    except TypeError:  # such as Annotated[int, []]
        return False
    return True


#: Annotations whose values need no validation when the class already is exactly theirs.
_EXACT: Final = frozenset({int, float, str, bool, bytes, type(None)})


def exact_class(annotation: Any) -> type | None:
    """Return the class whose own instances fit an annotation as they are; None: there is none."""
    return annotation if isinstance(annotation, type) and annotation in _EXACT else None


def validate(value: Any, annotation: Any, what: str) -> Any:
    """Return plain ``value`` as its annotation wants it; raises ``InvalidArguments``.

    An annotation of ``Any`` (or none, given as ``Any``) takes everything as it is.
    """
    if annotation is Any or (type(value) is annotation and annotation in _EXACT):
        return value
    try:
        # By name, too: a model is stored under the names of its fields, whatever their aliases.
        return adapter(annotation).validate_python(value, by_alias=True, by_name=True)
    except ValidationError as error:
        raise InvalidArguments(f"{what}: {_explain(error)}") from error
    except LungfishError:
        raise
    except Exception as error:  # a user's validator may raise anything, and must not take a host with it
        raise InvalidArguments(f"{what}: validation raised {type(error).__name__}: {error}") from error


def _explain(error: ValidationError) -> str:
    parts = []
    for item in error.errors(include_url=False):
        where = ".".join(str(part) for part in item["loc"])
        parts.append(f"{where + ': ' if where else ''}{item['msg']} (got {item['input']!r:.80})")
    return "; ".join(parts)
