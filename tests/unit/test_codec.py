"""User values to bytes and back, with and without an annotation."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import pathlib
import uuid
from typing import Annotated, Any, NamedTuple

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, computed_field, field_validator

from lungfish.runtime import codec
from lungfish.runtime.errors import InvalidArguments, PayloadTooLarge, SerializationError

texts = st.text(st.characters(exclude_categories=["Cs"]))
zones = st.none() | st.integers(-14 * 60, 14 * 60).map(lambda m: dt.timezone(dt.timedelta(minutes=m)))
hashables = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False)
    | texts
    | st.binary()
    | st.datetimes(timezones=zones)
    | st.dates()
    | st.times(timezones=zones)
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
)
#: Values that come back equal without any annotation.
plain = st.recursive(
    hashables | st.sets(hashables) | st.complex_numbers(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(hashables, inner),
    max_leaves=20,
)


def back(value: object) -> Any:
    return codec.decode(codec.encode(value))


@given(plain)
def test_plain_values_come_back(value: object) -> None:
    found = back(value)
    assert found == value
    assert type(found) is type(value)


def test_a_datetime_keeps_its_offset() -> None:
    value = dt.datetime(2026, 5, 4, 3, 2, 1, 999_999, dt.timezone(dt.timedelta(hours=-3, minutes=-30)))
    assert back(value).isoformat() == value.isoformat()
    assert back(value.replace(tzinfo=None)).tzinfo is None


@pytest.mark.parametrize("value", [2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**400])
def test_integers_of_any_size(value: int) -> None:
    assert back(value) == value
    assert back({"a": [1, {"b": value}]}) == {"a": [1, {"b": value}]}
    assert back({value: 1}) == {value: 1}
    assert back({value}) == {value}


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: int = 0


class Pair(NamedTuple):
    a: int
    b: str


class Model(BaseModel):
    at: dt.datetime
    tags: set[str] = set()
    inner: Model | None = None


NOW = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("value", "decoded", "annotation"),
    [
        (Colour.RED, "red", Colour),
        (Level.LOW, 1, Level),
        (Point(1, 2), {"x": 1, "y": 2}, Point),
        (Pair(1, "b"), [1, "b"], Pair),
        ((1, (2, "x")), [1, [2, "x"]], tuple[int, tuple[int, str]]),
        (frozenset({1}), {1}, frozenset[int]),
        (collections.deque([1, 2]), [1, 2], collections.deque[int]),
        (pathlib.PurePosixPath("/a/b"), "/a/b", pathlib.PurePosixPath),
        (Model(at=NOW, tags={"b", "a"}, inner=Model(at=NOW)), None, Model),
        ([Model(at=NOW)], None, list[Model]),
        ({"k": Point(1)}, {"k": {"x": 1, "y": 0}}, dict[str, Point]),
        ({(1, 2): "a", (3, 4): "b"}, {(1, 2): "a", (3, 4): "b"}, dict[tuple[int, int], str]),
        ({"in": {((1, 2), 3): 4}}, None, dict[str, dict[tuple[tuple[int, int], int], int]]),
        ({frozenset({1}): 2}, {frozenset({1}): 2}, dict[frozenset[int], int]),
        ({(1, 2), (3, 4)}, {(1, 2), (3, 4)}, set[tuple[int, int]]),
        ({frozenset({2**70}), frozenset()}, None, set[frozenset[int]]),
        ({Point(1), Point(2)}, None, set[Point]),
        ({(Point(1), 2)}, None, set[tuple[Point, int]]),
    ],
)
def test_values_come_back_as_their_annotation_says(value: Any, decoded: Any, annotation: Any) -> None:
    found = back(value)
    if decoded is not None:
        assert found == decoded
    restored = codec.validate(found, annotation, "it")
    assert restored == value
    assert type(restored) is type(value)


def test_equal_sets_have_equal_bytes() -> None:
    one, other = {0, 8}, {8, 0}
    assert list(one) != list(other)
    assert codec.encode(one) == codec.encode(other)


class Aliased(BaseModel):
    order_id: int = Field(alias="orderId")
    kind: str = Field("x", validation_alias=AliasChoices("kind", "typ"))
    note: str = Field("", serialization_alias="Note")


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    price: int = 1

    @computed_field  # type: ignore[prop-decorator]
    @property
    def total(self) -> int:
        return self.price * 2


@pytest.mark.parametrize("value", [Aliased(orderId=3, kind="y", note="n"), Strict(price=4)])
def test_models_come_back_whatever_they_look_like_outside(value: BaseModel) -> None:
    assert codec.validate(back(value), type(value), "it") == value
    assert codec.validate(back([value]), list[type(value)], "it") == [value]  # type: ignore[misc]


def test_a_model_given_by_alias_is_a_model_too() -> None:
    assert codec.validate({"orderId": 3, "typ": "y"}, Aliased, "it") == Aliased(orderId=3, kind="y", note="")


# --- what cannot be stored ---------------------------------------------------------------


class Opaque:
    pass


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Opaque(), "argument"),
        ([1, Opaque()], r"argument\[1\]"),
        ({"a": {"b": [Opaque()]}}, r"argument\['a'\]\['b'\]\[0\]"),
        ({1: (0, {2: Opaque()})}, r"argument\[1\]\[1\]\[2\]"),
        ({Opaque(): 1}, "key of argument"),
        ([{Opaque()}], r"argument\[0\]"),
        ([Point(1, Opaque())], r"argument\[0\]\['y'\]"),  # type: ignore[arg-type]
        ([2**70, Opaque()], r"argument\[1\]"),
    ],
)
def test_the_error_names_the_path_of_what_cannot_be_stored(value: object, path: str) -> None:
    with pytest.raises(SerializationError, match=f"^{path} cannot be stored.*type Opaque"):
        codec.encode(value, "argument")


@pytest.mark.parametrize("value", [print, Opaque, Point, "\ud800", {"a": ["\ud800"]}, iter([]), 1j.__class__])
def test_what_is_no_value_is_refused(value: object) -> None:
    with pytest.raises(SerializationError, match="^argument"):
        codec.encode(value, "argument")


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_what_is_nested_too_deeply_is_refused_where_it_enters() -> None:
    """What is accepted can be read back: there is no depth that packs and does not unpack."""
    refused = 0
    for depth in (1, 100, 300, 500, *range(505, 520), *range(1_015, 1_035), 5_000, 200_000):
        try:
            data = codec.encode(nested(depth), "argument")
        except SerializationError:
            refused += 1
        else:
            codec.decode(data)
    assert refused >= 2


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_what_refers_to_itself_is_refused(kind: str) -> None:
    value: Any
    if kind == "list":
        value = []
        value.append(value)
    else:
        value = {}
        value["me"] = value
    with pytest.raises(SerializationError, match="argument refers to itself or is nested too deeply"):
        codec.encode(value, "argument")


def test_the_size_is_bounded() -> None:
    assert codec.encode(b"x" * 90, "argument", limit=92) == b"\xc4\x5a" + b"x" * 90
    with pytest.raises(PayloadTooLarge, match="argument is 93 bytes encoded; the limit is 92.*reference"):
        codec.encode(b"x" * 91, "argument", limit=92)
    with pytest.raises(PayloadTooLarge, match=f"limit is {codec.PAYLOAD_BYTES_MAX:,}"):
        codec.encode(b"x" * codec.PAYLOAD_BYTES_MAX)


# --- what cannot be read -------------------------------------------------------------------


@given(st.binary(max_size=64))
def test_bytes_of_any_kind_are_a_value_or_a_typed_error(data: bytes) -> None:
    try:
        codec.decode(data, "it")
    except SerializationError:
        return


@settings(deadline=None)  # the first array that is read imports numpy
@given(st.binary(max_size=30), st.integers(0, 127))
def test_so_are_extensions(data: bytes, code: int) -> None:
    test_bytes_of_any_kind_are_a_value_or_a_typed_error.hypothesis.inner_test(  # type: ignore[attr-defined]
        msgpack.packb([msgpack.ExtType(code, data)])
    )


def test_an_extension_of_a_later_release() -> None:
    with pytest.raises(SerializationError, match="extension 99 is unknown: written by a later release"):
        codec.decode(msgpack.packb([msgpack.ExtType(99, b"")]), "it")


def test_a_map_as_a_key_of_a_map() -> None:
    data = msgpack.packb({1: 2}).replace(b"\x01", b"\x81\x03\x04")
    for _ in range(40):  # no work is done twice per level
        data = b"\xc7" + bytes([len(data) + 1]) + b"\x07" + b"\x91" + data
    with pytest.raises(SerializationError, match="cannot be the key of a map"):
        codec.decode(data)


def test_extension_codes_are_those_of_the_first_release() -> None:
    values = [
        NOW,
        NOW.date(),
        NOW.time(),
        dt.timedelta(1),
        decimal.Decimal(1),
        uuid.UUID(int=1),
        {1},
        2**64,
        1j,
    ]
    codes = [msgpack.unpackb(codec.encode(value), strict_map_key=False).code for value in values]
    assert codes == [1, 2, 3, 4, 5, 6, 7, 8, 9]


# --- annotations -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "annotation", "restored"),
    [
        (3, int, 3),
        (True, int, 1),
        ("7", int, 7),
        (3, float, 3.0),
        (None, None, None),
        (None, int | None, None),
        ([1], Any, [1]),
        (5, Annotated[int, Field(ge=5)], 5),
        # An annotation that cannot be hashed is one all the same.
        (3, Annotated[int, []], 3),
        ("3", Annotated[int, {"doc": []}], 3),
        ([3], list[Annotated[int, []]], [3]),
    ],
)
def test_validation(value: object, annotation: Any, restored: object) -> None:
    found = codec.validate(value, annotation, "it")
    assert found == restored
    assert type(found) is type(restored)


class Picky(BaseModel):
    name: str

    @field_validator("name")
    @classmethod
    def _check(cls, name: str) -> str:
        raise ValueError(f"{name} is not welcome")


@pytest.mark.parametrize(
    ("value", "annotation", "why"),
    [
        ("x", int, r"it: Input should be a valid integer.*got 'x'"),
        (4, Annotated[int, Field(ge=5)], "it: .*greater than or equal to 5"),
        ({"at": "x"}, Model, r"it: at: .*got 'x'"),
        ([{"at": NOW}, {}], list[Model], r"it: 1\.at: Field required"),
        ("x" * 1_000, int, r"got 'x{79}\)$"),
        ("x", Annotated[int, []], "valid integer"),
        ({"name": "Bob"}, Picky, "Bob is not welcome"),
    ],
)
def test_what_does_not_fit_is_explained(value: object, annotation: Any, why: str) -> None:
    with pytest.raises(InvalidArguments, match=why):
        codec.validate(value, annotation, "it")


def test_a_type_that_pydantic_cannot_make_is_a_typed_error() -> None:
    with pytest.raises(SerializationError, match="Opaque.*not a type whose values can be stored"):
        codec.validate({}, Opaque, "it")


def test_an_adapter_is_made_once() -> None:
    assert codec.adapter(list[Point]) is codec.adapter(list[Point])


class Broken(BaseModel):
    n: int

    @field_validator("n")
    @classmethod
    def check(cls, n: int) -> int:
        raise KeyError(n)  # neither a ValueError nor an AssertionError: pydantic lets it through


def test_a_validator_that_breaks_is_a_typed_error() -> None:
    with pytest.raises(InvalidArguments, match="it: validation raised KeyError"):
        codec.validate({"n": 1}, Broken, "it")


def test_what_comes_near_the_limit_is_told_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "_told_large", set[str]())
    for what in ("small", "near", "near", "other"):
        codec.encode(b"x" * (70 if what == "small" else 85), what, limit=100)
    assert [record.args[0] for record in caplog.records if record.args] == ["near", "other"]  # type: ignore[index]
    monkeypatch.setattr(codec, "_TOLD_MAX", 2)
    codec.encode(b"x" * 85, "one more", limit=100)
    assert len(caplog.records) == 2, "bounded"
