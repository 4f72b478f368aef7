"""How the fields of an entity class are copied and stored: worked out once per class from its annotations.

Rules:

* An annotation is trusted for *how to copy*: ``list[int]`` is copied flat. That is sound because a state
  that does not fit its annotations is never stored (``state.encode_state`` reads back what it is not
  sure of), so a wrong copy cannot outlive the turn that made the wrong value.
* What is not understood is copied deeply and stored by pydantic. Slow is allowed, wrong is not.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import datetime as dt
import decimal
import enum
import inspect
import pathlib
import types
import typing
import uuid
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from pydantic import BaseModel

Copier: TypeAlias = Callable[[Any], Any]

#: Types whose values cannot change, so that a copy of a reference is a copy.
IMMUTABLE: Final = frozenset({
    int, float, complex, str, bytes, bool, type(None),
    dt.datetime, dt.date, dt.time, dt.timedelta, dt.timezone, decimal.Decimal, uuid.UUID,
    pathlib.Path, pathlib.PurePath, pathlib.PosixPath, pathlib.PurePosixPath,
})  # fmt: skip

#: Types that msgpack gives back exactly as they were: their fields need no reading back.
_EXACT: Final = frozenset({int, float, str, bytes, bool})
#: Containers whose ``copy()`` is all that is needed while their elements are immutable.
_FLAT: Final = frozenset({
    list, dict, set,
    collections.deque, collections.defaultdict, collections.OrderedDict, collections.Counter,
})  # fmt: skip
_FROZEN: Final = frozenset({tuple, frozenset})
#: Recursive aliases are followed this deep; below that a value is copied by what it is.
_DEPTH_MAX: Final = 8


def bare(annotation: Any) -> Any:
    """Strip ``Annotated``, ``NewType`` and type aliases from an annotation."""
    for _ in range(_DEPTH_MAX):
        if typing.get_origin(annotation) is typing.Annotated:
            annotation = typing.get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":  # ``type X = ...``, from 3.12 on
            annotation = annotation.__value__
        else:
            break
    return annotation


def is_immutable(annotation: Any, depth: int = 0) -> bool:
    """Tell whether all values of an annotation are immutable."""
    annotation = bare(annotation)
    if depth > _DEPTH_MAX:
        return False
    if annotation is None or annotation in _hashable(IMMUTABLE, annotation):
        return True
    if inspect.isclass(annotation) and issubclass(annotation, enum.Enum):
        return True
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return True
    if origin in _FROZEN or _is_union(origin):
        return bool(parts) and all(part is Ellipsis or is_immutable(part, depth + 1) for part in parts)
    return False


def is_plain(annotation: Any, depth: int = 0) -> bool:
    """Tell whether the codec stores values of an annotation as pydantic would."""
    annotation = bare(annotation)
    if annotation is Any or is_immutable(annotation):
        return True
    if depth > _DEPTH_MAX:
        return False
    origin, parts = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if _is_union(origin) or origin in _hashable(_FLAT | _FROZEN, origin):
        return all(part is Ellipsis or is_plain(part, depth + 1) for part in parts)
    return False


def exact_type(annotation: Any) -> type | None:
    """Return the one class of all values of an annotation, if they are stored exactly."""
    return annotation if inspect.isclass(annotation) and annotation in _EXACT else None


def copier_of(annotation: Any) -> Copier | None:
    """Return the fastest function that copies values of an annotation; None: no copy is needed."""
    annotation = bare(annotation)
    if is_immutable(annotation):
        return None
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if _is_union(origin):
        changing = [part for part in parts if not is_immutable(part)]
        return copier_of(changing[0]) if len(changing) == 1 else copy_value
    if origin in _FLAT and all(is_immutable(part) for part in parts):
        return _flat_copier(origin)
    return copy_value


def _flat_copier(kind: Any) -> Copier:
    def copy_flat(value: Any) -> Any:
        return value.copy() if type(value) is kind else copy_value(value)

    return copy_flat


def copy_value(value: Any) -> Any:
    """Copy a value so that no change of one is seen in the other.

    Shared references within it are not kept: they would not outlive storing either.
    """
    kind = type(value)
    if kind in IMMUTABLE or isinstance(value, enum.Enum):
        return value
    copier = _BY_TYPE.get(kind)
    if copier is not None:
        return copier(value)
    if isinstance(value, BaseModel) and kind.__deepcopy__ is BaseModel.__deepcopy__:
        return _copy_model(value)
    if dataclasses.is_dataclass(value) and not hasattr(kind, "__deepcopy__"):
        return _copy_dataclass(value)
    return copy.deepcopy(value)


def _copy_list(value: list[Any]) -> list[Any]:
    return value.copy() if IMMUTABLE.issuperset(map(type, value)) else [copy_value(item) for item in value]


def _copy_dict(value: dict[Any, Any]) -> dict[Any, Any]:
    # Keys are hashable, and what is hashable is taken for immutable, here as in a dict itself.
    if IMMUTABLE.issuperset(map(type, value.values())):
        return value.copy()
    return {key: copy_value(item) for key, item in value.items()}


def _copy_tuple(value: tuple[Any, ...]) -> tuple[Any, ...]:
    return value if IMMUTABLE.issuperset(map(type, value)) else tuple([copy_value(item) for item in value])


def _copy_model(value: BaseModel) -> BaseModel:
    made = object.__new__(type(value))
    # Not through the model's own attribute setting, which validates or refuses (frozen models).
    set_attribute = object.__setattr__
    fields: dict[str, Any] = vars(value)
    set_attribute(made, "__dict__", _copy_dict(fields))
    set_attribute(made, "__pydantic_fields_set__", value.__pydantic_fields_set__.copy())
    set_attribute(made, "__pydantic_extra__", copy_value(value.__pydantic_extra__))
    set_attribute(made, "__pydantic_private__", copy_value(value.__pydantic_private__))
    return made


def _copy_dataclass(value: Any) -> Any:
    made = object.__new__(type(value))
    for field in dataclasses.fields(value):
        object.__setattr__(made, field.name, copy_value(getattr(value, field.name)))
    return made


_BY_TYPE: Final[dict[type, Copier]] = {
    list: _copy_list,
    dict: _copy_dict,
    tuple: _copy_tuple,
    set: set.copy,
    frozenset: lambda value: value,
}


def _is_union(origin: Any) -> bool:
    return origin is typing.Union or origin is types.UnionType


def _hashable(known: frozenset[Any], annotation: Any) -> frozenset[Any]:
    """Return ``known``, or nothing for an annotation that cannot be looked up in it."""
    try:
        hash(annotation)
    except TypeError:
        return frozenset()
    return known
