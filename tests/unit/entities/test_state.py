"""Snapshots: what comes back is what was stored, and what could not come back is not stored."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import functools
import uuid
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, computed_field, field_serializer, model_validator

from lungfish.entities import Entity
from lungfish.entities.state import (
    FORMAT,
    StatePlan,
    decode_state,
    encode_state,
    fresh_state,
    plan_of,
    restore,
    shell,
)
from lungfish.runtime import codec
from lungfish.runtime.errors import PayloadTooLarge, SerializationError


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Line(BaseModel):
    name: str
    count: int = 1
    parts: list[Line] = []

    @computed_field  # type: ignore[prop-decorator]
    @property
    def total(self) -> int:
        return self.count * 2


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int = 0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def b(self) -> int:
        return self.a


@dataclasses.dataclass
class Spot:
    x: int
    y: list[int]


class Counter(Entity):
    value: int = 0


class Everything(Entity):
    integer: int = 0
    big: int = 0
    number: float = 0.0
    text: str = ""
    raw: bytes = b""
    flag: bool = False
    nothing: None = None
    maybe: int | None = None
    choice: Literal["a", "b"] = "a"
    color: Color = Color.RED
    when: dt.datetime = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    day: dt.date = dt.date(2020, 1, 1)
    long: dt.timedelta = dt.timedelta(days=1)
    price: decimal.Decimal = decimal.Decimal(0)
    id: uuid.UUID = uuid.UUID(int=0)
    pair: tuple[int, str] = (0, "")
    items: list[int] = []
    words: dict[str, int] = {}
    by_color: dict[Color, int] = {}
    by_number: dict[int, str] = {}
    seen: set[str] = set()
    fixed: frozenset[int] = frozenset()
    last: collections.deque[int] = Field(default_factory=collections.deque)
    counts: collections.defaultdict[str, int] = Field(default_factory=lambda: collections.defaultdict(int))
    lines: list[Line] = []
    strict: Strict = Strict()
    spot: Spot = Field(default_factory=lambda: Spot(0, []))
    anything: Any = None
    bounded: Annotated[int, Field(ge=0)] = 0


FULL = Everything(
    integer=-1,
    big=2**100,
    number=1.5,
    text="ä\x00",
    raw=b"\x00\xff",
    flag=True,
    maybe=0,
    choice="b",
    color=Color.BLUE,
    when=dt.datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=dt.timezone(dt.timedelta(hours=2))),
    day=dt.date(2024, 2, 29),
    long=dt.timedelta(microseconds=1),
    price=decimal.Decimal("1.10"),
    id=uuid.UUID(int=5),
    pair=(1, "x"),
    items=[1, 2],
    words={"a": 1},
    by_color={Color.BLUE: 1},
    by_number={1: "a"},
    seen={"x"},
    fixed=frozenset({1}),
    last=collections.deque([1, 2]),
    counts=collections.defaultdict(int, {"a": 1}),
    lines=[Line(name="l", parts=[Line(name="p")])],
    strict=Strict(a=1),
    spot=Spot(1, [2]),
    anything={"a": [1, None]},
    bounded=3,
)


def plan(cls: type[Entity]) -> StatePlan:
    return plan_of(cls, cls.__name__)


@pytest.mark.parametrize(
    "state", [Everything(), FULL, Counter(), Counter(value=7)], ids=lambda state: type(state).__name__
)
def test_a_state_comes_back(state: Entity) -> None:
    made = plan(type(state))
    data = encode_state(made, state)
    back = decode_state(made, data)
    assert back == state
    assert encode_state(made, back) == data, "the same state is the same bytes: that is how changes are seen"


def test_the_form_of_a_snapshot() -> None:
    assert codec.decode(encode_state(plan(Counter), Counter(value=3))) == [FORMAT, 1, {"value": 3}]


@pytest.mark.parametrize("value", [0, "", 0.0, False, None, [], {}])
def test_falsy_is_a_state(value: Any) -> None:
    class Holder(Entity):
        value: Any = "something"

    holder = Holder()
    holder.value = value
    back = decode_state(plan(Holder), encode_state(plan(Holder), holder))
    assert back.value == value
    assert type(back.value) is type(value)


@dataclasses.dataclass(frozen=True)
class Point:
    x: int


class Boundless(Entity):
    number: int = 0
    items: list[int] = []
    table: dict[Any, int] = {}
    bounded: Annotated[int, Field(le=10)] = 0
    anything: Any = None


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("number", "abc", "number: Input should be a valid integer"),
        ("number", object(), "cannot be stored"),
        ("items", [1, "x"], r"items\.1: Input should be a valid integer"),
        ("items", None, "items: Input should be a valid list"),
        ("bounded", 11, "bounded: Input should be less than or equal to 10"),
        ("table", {Point(1): 3}, "cannot be stored"),
        ("anything", lambda: 1, r"\['anything'\]"),
        ("anything", "\ud800", "cannot be stored"),
    ],
)
def test_what_could_not_be_read_back_is_not_stored(field: str, value: Any, why: str) -> None:
    state = Boundless()
    setattr(state, field, value)
    with pytest.raises(SerializationError, match=why):
        encode_state(plan(Boundless), state)


def test_a_state_that_refers_to_itself_is_not_stored() -> None:
    state = Boundless()
    state.anything = [state]
    with pytest.raises(SerializationError):
        encode_state(plan(Boundless), state)


def test_what_is_missing_is_not_stored() -> None:
    state = Counter()
    del state.value
    with pytest.raises(SerializationError, match="state of Counter"):
        encode_state(plan(Counter), state)


def test_over_the_limit() -> None:
    small = dataclasses.replace(plan(Counter), limit=10)
    with pytest.raises(PayloadTooLarge, match="state of Counter"):
        encode_state(small, Counter(value=2**60))


def test_an_int_in_a_float_field_comes_back_as_a_float() -> None:
    class Mean(Entity):
        total: float = 0.0

    mean = Mean()
    mean.total = 3
    back = decode_state(plan(Mean), encode_state(plan(Mean), mean))
    assert type(back.total) is float


def test_cached_properties_are_not_stored() -> None:
    class Cached(Entity):
        value: int = 2

        @functools.cached_property
        def double(self) -> int:
            return self.value * 2

    state = Cached()
    assert state.double == 4
    assert codec.decode(encode_state(plan(Cached), state))[2] == {"value": 2}


def test_serializers_and_excluded_fields() -> None:
    class Custom(Entity):
        secret: str = "s"
        scratch: int = Field(default=1, exclude=True)

        @field_serializer("secret")
        def hidden(self, secret: str) -> str:
            return secret[::-1]

    state = Custom(secret="ab", scratch=5)
    data = encode_state(plan(Custom), state)
    assert codec.decode(data)[2] == {"secret": "ba"}
    assert decode_state(plan(Custom), data) == Custom(secret="ba", scratch=1)


def test_defaults_that_raise_are_a_clear_error() -> None:
    class Broken(Entity):
        value: int = Field(default_factory=lambda: 1 // 0)

    with pytest.raises(SerializationError, match="state of Broken cannot be made from its defaults"):
        fresh_state(plan(Broken))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "cannot be decoded"),
        (b"\xc1", "cannot be decoded"),
        (codec.encode(5), "not a snapshot"),
        (codec.encode([1, 1]), "not a snapshot"),
        (codec.encode([99, 1, {}]), "snapshot format 99 is unknown"),
        (codec.encode([FORMAT, "1", {}]), "snapshot format"),
        (codec.encode([FORMAT, 1, []]), "snapshot format"),
        (codec.encode([FORMAT, 2, {"value": 1}]), "stored with schema version 2; this process knows 1"),
        (codec.encode([FORMAT, 1, {"value": "x"}]), r"does not fit its model \(schema version 1\): value: "),
        (codec.encode([FORMAT, 1, {"gone": 1}]), "gone: Extra inputs .*define migrate"),
        (codec.encode([FORMAT, 0, {"value": 1}]), "define Counter.migrate"),
    ],
)
def test_what_is_not_a_state_of_this_class(data: bytes, why: str) -> None:
    with pytest.raises(SerializationError, match=why):
        decode_state(plan(Counter), data)


def test_new_fields_take_their_defaults() -> None:
    class Grown(Entity):
        value: int = 0
        added: str = "new"

    assert decode_state(plan(Grown), codec.encode([FORMAT, 1, {"value": 3}])) == Grown(value=3)


class Renamed(Entity):
    schema_version: ClassVar[int] = 3
    total: int = 0

    @classmethod
    def migrate(cls, state: dict[str, Any], from_version: int) -> dict[str, Any]:
        if from_version < 2:
            state["sum"] = state.pop("value")
        if from_version < 3:
            state["total"] = state.pop("sum") * 100
        return state


@pytest.mark.parametrize(("version", "stored"), [(1, {"value": 2}), (2, {"sum": 2}), (3, {"total": 200})])
def test_migrate(version: int, stored: dict[str, int]) -> None:
    assert decode_state(plan(Renamed), codec.encode([FORMAT, version, stored])) == Renamed(total=200)


def test_migrate_that_raises_is_a_clear_error() -> None:
    with pytest.raises(
        SerializationError, match=r"migrate\(\) from schema version 1 raised KeyError\('value'\)"
    ):
        decode_state(plan(Renamed), codec.encode([FORMAT, 1, {}]))


def test_unknown_fields_are_let_go_where_the_class_says_so() -> None:
    class Lenient(Entity):
        model_config = ConfigDict(extra="ignore")
        value: int = 0

    assert decode_state(plan(Lenient), codec.encode([FORMAT, 1, {"value": 1, "gone": 2}])) == Lenient(value=1)


def test_validators_that_raise_anything() -> None:
    class Wild(Entity):
        value: int = 0

        @model_validator(mode="after")
        def check(self) -> Wild:
            if self.value == 13:
                raise RuntimeError("unlucky")
            return self

    with pytest.raises(SerializationError, match="unlucky"):
        decode_state(plan(Wild), codec.encode([FORMAT, 1, {"value": 13}]))
    state = Wild()
    state.value = 13
    with pytest.raises(SerializationError, match="unlucky"):
        encode_state(plan(Wild), state)


@pytest.mark.parametrize("cls", [Counter, Everything])
def test_images_restore_in_place(cls: type[Entity]) -> None:
    made = plan(cls)
    state = fresh_state(made)
    before = encode_state(made, state)
    image = made.capture()(state.__dict__)
    if isinstance(state, Everything):
        state.items.append(1)
        state.lines.append(Line(name="x"))
        state.words["a"] = 1
        state.spot.y.append(1)
        state.strict.a = 5
        state.last.append(1)
        del state.integer
    else:
        state.value = 9
    restore(state, image)
    assert encode_state(made, state) == before


def test_a_shell_has_its_own_fields_and_the_same_private_attributes() -> None:
    class Private(Entity):
        value: int = 0
        _cache: dict[str, int] = {}

    state = Private()
    other = shell(plan(Private), state, state.__dict__.copy())
    other.value = 5
    other._cache["a"] = 1
    assert state.value == 0
    assert state._cache == {"a": 1}
