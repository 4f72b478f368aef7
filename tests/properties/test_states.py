"""States of any shape come back as they were, whatever is in them, and through every migration."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import uuid
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

import lungfish
from lungfish.entities.state import decode_state, encode_state, fresh_state, plan_of, restore
from lungfish.runtime import codec
from lungfish.runtime.errors import StateMismatch, UsageError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
zones = st.none() | st.integers(-14 * 60, 14 * 60).map(lambda m: dt.timezone(dt.timedelta(minutes=m)))
moments = st.datetimes(timezones=zones)


class Shade(enum.Enum):
    DARK = "dark"
    LIGHT = 2


@dataclasses.dataclass
class Spot:
    x: int
    tags: set[str]


class Cat(BaseModel):
    sort: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    sort: Literal["dog"] = "dog"
    born: dt.datetime | None = None
    friends: tuple[Cat, ...] = ()


Pet = Annotated[Cat | Dog, Field(discriminator="sort")]


class Zoo(lungfish.Entity):
    seen: dt.datetime | None = None
    price: decimal.Decimal = decimal.Decimal(0)
    ids: frozenset[uuid.UUID] = frozenset()
    raw: bytes = b""
    shade: Shade = Shade.DARK
    numbers: set[int] = set()
    pair: tuple[int, str] = (0, "")
    spots: list[Spot] = []
    by_number: dict[int, dict[tuple[int, int], str]] = {}
    by_day: dict[dt.date, decimal.Decimal] = {}
    by_shade: dict[Shade, int] = {}
    pets: list[Pet] = []
    note: str | None = Field(default_factory=lambda: "new")
    _cache: dict[str, int] = PrivateAttr(default_factory=dict)


cats = st.builds(Cat, lives=st.integers())
pets = cats | st.builds(Dog, born=st.none() | moments, friends=st.lists(cats, max_size=2).map(tuple))
zoos = st.builds(
    Zoo,
    seen=st.none() | moments,
    price=st.decimals(allow_nan=False, allow_infinity=False),
    ids=st.frozensets(st.uuids(), max_size=3),
    raw=st.binary(max_size=9),
    shade=st.sampled_from(Shade),
    numbers=st.sets(st.integers(), max_size=4),
    pair=st.tuples(st.integers(), texts),
    spots=st.lists(st.builds(Spot, x=st.integers(), tags=st.sets(texts, max_size=2)), max_size=2),
    by_number=st.dictionaries(
        st.integers(), st.dictionaries(st.tuples(st.integers(), st.integers()), texts, max_size=2), max_size=2
    ),
    by_day=st.dictionaries(st.dates(), st.decimals(allow_nan=False, allow_infinity=False), max_size=2),
    by_shade=st.dictionaries(st.sampled_from(Shade), st.integers()),
    pets=st.lists(pets, max_size=3),
    note=st.none() | texts,
)
ZOO = plan_of(Zoo, "Zoo")


@given(zoos)
def test_a_state_comes_back_as_it_was(state: Zoo) -> None:
    state._cache["x"] = 1
    data = encode_state(ZOO, state)
    found = decode_state(ZOO, data)
    assert found.model_dump() == state.model_dump()
    assert type(found.pair) is tuple
    assert [type(pet) for pet in found.pets] == [type(pet) for pet in state.pets]
    assert found._cache == {}
    assert found.seen is None or found.seen.isoformat() == (state.seen and state.seen.isoformat())
    # Stored again it is the same bytes: a state that was only read is not written.
    assert encode_state(ZOO, found) == data


@given(zoos)
def test_a_copy_shares_nothing_that_changes(state: Zoo) -> None:
    before = encode_state(ZOO, state)
    image = ZOO.capture()(vars(state))
    for spot in state.spots:
        spot.tags.add("changed")
    state.numbers.add(10**30)
    state.by_number.setdefault(1, {})[1, 2] = "changed"
    restore(state, image)
    assert encode_state(ZOO, state) == before


class Grid(lungfish.Entity):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    cells: np.ndarray = Field(default_factory=lambda: np.zeros((2, 3)))


@given(
    st.sampled_from(["int8", "<i4", ">i4", "float32", "float64", "complex128", "bool", "M8[ns]", "U3"]),
    st.lists(st.integers(0, 3), max_size=3),
)
def test_numpy_arrays_come_back(kind: str, shape: list[int]) -> None:
    array = np.ones(shape).astype("int64").astype(kind)
    found = codec.decode(codec.encode({"a": [array, np.int64(3), np.float32(0.5)]}))["a"]
    assert found[1:] == [3, 0.5]
    assert found[0].dtype == array.dtype
    assert found[0].shape == array.shape
    assert np.array_equal(found[0], array)
    assert found[0].flags.writeable


def test_numpy_arrays_in_a_state_and_as_an_argument() -> None:
    plan = plan_of(Grid, "Grid")
    state = fresh_state(plan)
    before = plan.capture()(state.__dict__)
    state.cells[0, 0] = 7.0
    assert before["cells"][0, 0] == 0.0
    found = decode_state(plan, encode_state(plan, state))
    assert np.array_equal(found.cells, state.cells)
    assert codec.validate(state.cells, np.ndarray, "x") is state.cells
    with pytest.raises(lungfish.SerializationError, match="ndarray cannot be stored"):
        codec.encode(np.array([object()]))


# --- versions ------------------------------------------------------------------------------


def _split(state: dict[str, Any]) -> dict[str, Any]:
    first, _, last = state.pop("name").partition(" ")
    return {**state, "first": first, "last": last}


def _count(state: dict[str, Any]) -> dict[str, Any]:
    return {**state, "letters": len(state["first"])}


class PersonV1(lungfish.Entity):
    name: str = ""


class Person(lungfish.Entity):
    schema_version: ClassVar[int] = 3
    migrations = {1: _split, 2: _count}
    first: str = ""
    last: str = ""
    letters: int = 0


@given(texts, texts)
def test_a_state_goes_through_all_versions(first: str, last: str) -> None:
    old = encode_state(plan_of(PersonV1, "Person"), PersonV1(name=f"{first} {last}"))
    found = decode_state(plan_of(Person, "Person"), old)
    assert f"{found.first} {found.last}" == f"{first} {last}"
    assert found.letters == len(found.first)


def test_a_state_that_does_not_fit_names_entity_key_and_field() -> None:
    old = encode_state(plan_of(PersonV1, "Person"), PersonV1(name="a"))

    class Renamed(lungfish.Entity):
        title: str = ""

    with pytest.raises(
        StateMismatch,
        match=r"state of Person/p-7 does not fit .*name: Extra inputs.*migrate\(\).*entities edit",
    ):
        decode_state(plan_of(Renamed, "Person"), old, "p-7")


def test_a_later_version_is_refused() -> None:
    later = encode_state(plan_of(Person, "Person"), Person(first="a"))
    with pytest.raises(StateMismatch, match=r"Person/p-7 was stored with schema version 3; .* knows 1"):
        decode_state(plan_of(PersonV1, "Person"), later, "p-7")


def test_a_migration_that_returns_nothing_is_refused() -> None:
    class Forgot(lungfish.Entity):
        schema_version: ClassVar[int] = 2
        migrations = {1: lambda state: None}  # type: ignore[dict-item, return-value]

    old = encode_state(plan_of(PersonV1, "Person"), PersonV1(name="a"))
    with pytest.raises(StateMismatch, match="must return the fields as a dict, not None"):
        decode_state(plan_of(Forgot, "Forgot"), old)


@pytest.mark.parametrize(
    ("steps", "current"), [({1: _split}, 3), ({1: _split, 3: _count}, 4), ({2: _split}, 2)]
)
def test_steps_that_lead_nowhere_are_refused_at_registration(steps: dict[int, Any], current: int) -> None:
    class Gap(lungfish.Entity):
        schema_version: ClassVar[int] = current
        migrations = steps

    with pytest.raises(UsageError, match="do not lead to schema_version"):
        lungfish.App("gap").entity(Gap)


def test_a_step_before_the_oldest_one_is_missing() -> None:
    class Late(lungfish.Entity):
        schema_version: ClassVar[int] = 3
        migrations = {2: _count}

    old = encode_state(plan_of(PersonV1, "Late"), PersonV1(name="a"))
    with pytest.raises(StateMismatch, match=r"migrations\[1\]"):
        decode_state(plan_of(Late, "Late"), old)


@pytest.mark.parametrize("version", [0, -1, True, "2", 1.5])
def test_a_schema_version_is_a_positive_integer(version: Any) -> None:
    class Odd(lungfish.Entity):
        schema_version: ClassVar[int] = version

    with pytest.raises(UsageError, match="schema_version"):
        lungfish.App("odd").entity(Odd)


# --- options -------------------------------------------------------------------------------


class Small(lungfish.Entity, ttl=dt.timedelta(days=30), state_bytes_max=100):
    text: str = ""


class Smaller(Small, state_bytes_max=50): ...


def test_options_are_inherited() -> None:
    assert Small.lungfish_options.ttl_ms == Smaller.lungfish_options.ttl_ms == 30 * 86_400_000
    assert (Small.lungfish_options.state_bytes_max, Smaller.lungfish_options.state_bytes_max) == (100, 50)
    assert lungfish.Entity.lungfish_options.ttl_ms == 0


@pytest.mark.parametrize(
    "options",
    [{"ttl": 0}, {"ttl": -1}, {"ttl": "1d"}, {"state_bytes_max": 0}, {"state_bytes_max": 1e9}],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):

        class Wrong(lungfish.Entity, **options): ...


def test_the_size_limit_names_the_entity() -> None:
    with pytest.raises(lungfish.PayloadTooLarge, match=r"state of Small is .* the limit is 100"):
        encode_state(plan_of(Small, "Small"), Small(text="x" * 100))
