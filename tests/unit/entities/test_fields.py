"""How annotations decide on copying and storing."""

# ruff: noqa: UP007, UP045 - users write Optional and Union, too

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import uuid
from typing import Annotated, Any, Literal, NewType, Optional, Union

import pytest
from pydantic import BaseModel, Field

from lungfish.entities.fields import copier_of, copy_value, exact_type, is_immutable, is_plain


class Color(enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    BIG = 1


class Point(BaseModel):
    x: int = 0
    tags: list[str] = []


class Frozen(BaseModel, frozen=True):
    tags: list[str] = []


@dataclasses.dataclass
class Plain:
    items: list[int]


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    items: list[int]


Name = NewType("Name", str)

IMMUTABLE = [
    int, str, float, bool, bytes, None, complex, dt.datetime, dt.date, dt.timedelta, decimal.Decimal,
    uuid.UUID,
    Color, Size, Name, Literal["a", "b"], Optional[int], int | None, Union[int, str], tuple[int, str],
    tuple[int, ...], frozenset[str], Annotated[int, Field(ge=0)], Optional[tuple[Optional[Color], ...]],
]  # fmt: skip

FLAT = [
    list[int], dict[str, int], set[str], list[Color], dict[int, tuple[int, ...]],
    Optional[list[int]],
    list[int] | None, collections.deque[int], collections.defaultdict[str, int],
    Annotated[list[int], Field()], collections.OrderedDict[str, int], collections.Counter[str],
]  # fmt: skip

DEEP = [
    Any, object, list, dict, list[list[int]], dict[str, list[int]], Point, list[Point], tuple[list[int], ...],
    list[int] | dict[str, int], Plain, tuple, Optional[Point],
]  # fmt: skip


@pytest.mark.parametrize("annotation", IMMUTABLE, ids=str)
def test_immutable_fields_are_not_copied(annotation: Any) -> None:
    assert is_immutable(annotation)
    assert copier_of(annotation) is None


@pytest.mark.parametrize("annotation", FLAT, ids=str)
def test_containers_of_immutables_are_copied_flat(annotation: Any) -> None:
    assert not is_immutable(annotation)
    copier = copier_of(annotation)
    assert copier is not None
    assert copier is not copy_value


@pytest.mark.parametrize("annotation", DEEP, ids=str)
def test_all_else_is_copied_by_what_it_is(annotation: Any) -> None:
    assert copier_of(annotation) is copy_value


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (list[int], [1, 2]),
        (list[int], ([1], 2)),  # not what was declared: copied by what it is
        (dict[str, int], {"a": 1}),
        (Optional[list[int]], None),
        (Optional[list[int]], [1]),
        (collections.deque[int], collections.deque([1, 2], maxlen=2)),
        (collections.defaultdict[str, int], collections.defaultdict(int, {"a": 1})),
    ],
)
def test_flat_copies_equal_and_are_apart(annotation: Any, value: Any) -> None:
    copier = copier_of(annotation)
    assert copier is not None
    copied = copier(value)
    assert copied == value
    assert type(copied) is type(value)
    assert value is None or copied is not value
    assert getattr(copied, "maxlen", None) == getattr(value, "maxlen", None)


@pytest.mark.parametrize(
    "value",
    [
        [1, [2, {"a": [3]}]],
        {"a": {"b": [1]}, "c": {1, 2}},
        ([1], 2),
        Point(x=1, tags=["a"]),
        Frozen(tags=["a"]),
        [Point(tags=["b"])],
        Plain([1, 2]),
        Slotted([1, 2]),
        collections.OrderedDict(a=[1]),
        bytearray(b"abc"),
        Color.RED,
        frozenset({1}),
    ],
    ids=repr,
)
def test_copy_value_equals_and_is_apart(value: Any) -> None:
    copied = copy_value(value)
    assert copied == value
    assert type(copied) is type(value)
    assert not shares_mutable(copied, value)


def shares_mutable(one: Any, other: Any) -> bool:
    if isinstance(one, list | dict | set | bytearray | BaseModel | Plain) and one is other:
        return True
    if isinstance(one, BaseModel | Plain):
        return shares_mutable(vars(one), vars(other))
    if isinstance(one, Slotted):
        return shares_mutable(one.items, other.items)
    if isinstance(one, dict):
        return any(shares_mutable(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return any(map(shares_mutable, one, other))
    return False


def test_copied_models_behave() -> None:
    copied = copy_value(Point(x=1))
    copied.x = 2
    assert copied.model_fields_set == {"x"}
    assert copied.model_dump() == {"x": 2, "tags": []}


@pytest.mark.parametrize(
    ("annotation", "plain"),
    [
        (int, True), (list[int], True), (dict[str, list[Color]], True), (Any, True), (tuple[int, ...], True),
        (Optional[set[str]], True), (Point, False), (list[Point], False), (dict[str, Point], False),
        (Plain, False),
    ],
)  # fmt: skip
def test_plain_annotations(annotation: Any, plain: bool) -> None:
    assert is_plain(annotation) is plain


def test_exact_types_are_those_that_msgpack_gives_back() -> None:
    assert [exact_type(annotation) for annotation in (int, float, str, bytes, bool)] == [
        int,
        float,
        str,
        bytes,
        bool,
    ]
    assert [exact_type(annotation) for annotation in (Any, list[int], int | None, Color, dt.datetime)] == [
        None
    ] * 5
