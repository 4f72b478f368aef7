"""A callable's parameters as a contract: checked where the call is made, restored where it runs."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from pydantic import BaseModel, Field

from lungfish.runtime import codec
from lungfish.runtime.declared.signatures import Signature, encode_arguments, encode_signal_arguments
from lungfish.runtime.errors import InvalidArguments, SerializationError

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForCheckers


class Order(BaseModel):
    id: str
    at: dt.datetime


NOW = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)


class Subject:
    def none(self) -> None: ...
    def one(self, n: int) -> int: ...  # type: ignore[empty-body]
    def default(self, n: int = 1, m: str = "x") -> int: ...  # type: ignore[empty-body]
    def keyword(self, n: int, *, loud: bool = False) -> None: ...
    def needs_keyword(self, *, loud: bool) -> None: ...
    def positional(self, n: int, /, m: int = 0) -> None: ...
    def rest(self, n: int, *others: float) -> None: ...
    def names(self, n: int, **others: str) -> None: ...
    def order(self, order: Order, *more: Order) -> list[Order]: ...  # type: ignore[empty-body]
    def bare(self, a, b=1): ...  # type: ignore[no-untyped-def]
    def half(self, n: int, x: OnlyForCheckers, order: Order) -> OnlyForCheckers: ...  # type: ignore[empty-body]
    def unhashable(self, n: Annotated[int, []]) -> Annotated[int, []]: ...  # type: ignore[empty-body]
    def bounded(self, n: Annotated[int, Field(le=9)]) -> None: ...


def signature(name: str) -> Signature:
    return Signature.of(getattr(Subject, name), f"Subject.{name}", skip=1)


GOOD: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("none", [], {}),
    ("one", [1], {}),
    ("one", [], {"n": 1}),
    ("default", [], {}),
    ("default", [1, "y"], {}),
    ("default", [], {"m": "y"}),
    ("keyword", [1], {}),
    ("keyword", [1], {"loud": True}),
    ("needs_keyword", [], {"loud": True}),
    ("positional", [1], {"m": 2}),
    ("rest", [1, 2.0, 3.0], {}),
    ("names", [1], {"a": "b"}),
    ("order", [Order(id="1", at=NOW), Order(id="2", at=NOW)], {}),
    ("bare", [1, [2]], {}),
    ("bare", [], {"a": {"x": 1}}),
    ("unhashable", [1], {}),
]


@pytest.mark.parametrize(("name", "args", "kwargs"), GOOD)
def test_arguments_arrive_as_they_were_given(name: str, args: list[Any], kwargs: dict[str, Any]) -> None:
    subject = signature(name)
    assert subject.decode(subject.encode(args, kwargs)) == (args, kwargs)


@pytest.mark.parametrize(("name", "args", "kwargs"), GOOD)
def test_a_signal_is_a_batch_of_one(name: str, args: list[Any], kwargs: dict[str, Any]) -> None:
    (element,) = codec.decode(signature(name).encode_signal(args, kwargs))
    given = (element["args"], element["kwargs"]) if kwargs else (element, {})
    assert signature(name).restore(*given) == (args, kwargs)


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "why"),
    [
        ("none", [1], {}, r"Subject.none\(\).*: too many positional"),
        ("one", [], {}, "missing a required argument: 'n'"),
        ("one", [1, 2], {}, "too many positional"),
        ("one", [1], {"n": 2}, "multiple values"),
        ("one", [1], {"m": 2}, "unexpected keyword argument 'm'"),
        ("default", [1, "x", 2], {}, "too many positional"),
        ("needs_keyword", [], {}, "missing a required.*'loud'"),
        ("needs_keyword", [True], {}, "missing a required.*'loud'|too many positional"),
        ("positional", [], {"n": 1}, "'n'"),
        ("rest", [], {}, "missing a required argument: 'n'"),
    ],
)
def test_a_call_that_cannot_be_made_is_refused_at_the_call_site(
    name: str, args: list[Any], kwargs: dict[str, Any], why: str
) -> None:
    subject = signature(name)
    for refuse in (subject.check, subject.encode, subject.encode_signal, subject.restore):
        with pytest.raises(InvalidArguments, match=why):
            refuse(args, kwargs)


def test_arguments_are_validated_where_the_code_runs() -> None:
    data = encode_arguments([{"id": "1", "at": "2026-01-02T00:00:00Z"}], {}, "it")
    assert signature("order").decode(data) == ([Order(id="1", at=NOW)], {})


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "why"),
    [
        ("one", ["x"], {}, "Subject.one: argument 1: .*valid integer.*'x'"),
        ("default", [1, 2], {}, "Subject.default: argument 2: .*valid string"),
        ("one", [], {"n": "x"}, "Subject.one: argument n: .*valid integer"),
        ("rest", [1, 2.0, "x"], {}, "Subject.rest: argument 3: .*valid number"),
        ("order", [{"id": "1"}], {}, "Subject.order: argument 1: at: Field required"),
        ("unhashable", ["x"], {}, "Subject.unhashable: argument 1: .*valid integer"),
        ("bounded", [10], {}, "less than or equal to 9"),
        ("one", [1], {3: 4}, "Subject.one"),
    ],
)
def test_arguments_that_do_not_fit_name_the_parameter(
    name: str, args: list[Any], kwargs: dict[Any, Any], why: str
) -> None:
    with pytest.raises(InvalidArguments, match=why):
        signature(name).decode(codec.encode([args, kwargs]))


@pytest.mark.parametrize("stored", [1, [1], [[1], {}, 3], {"a": 1}, [{}, []], None, "ab"])
def test_what_is_stored_but_no_arguments_is_a_typed_error(stored: object) -> None:
    with pytest.raises(SerializationError, match="arguments of Subject.one"):
        signature("one").decode(codec.encode(stored))


def test_an_annotation_for_checkers_only_is_not_validated_but_the_others_are() -> None:
    subject = signature("half")
    stored = [1, "anything", {"id": "1", "at": NOW}]
    assert subject.restore(stored, {}) == ([1, "anything", Order(id="1", at=NOW)], {})
    assert subject.result is Any
    with pytest.raises(InvalidArguments, match="argument 1"):
        subject.restore(["x", 1, stored[2]], {})


def test_an_argument_that_cannot_be_stored_names_the_callable() -> None:
    with pytest.raises(SerializationError, match=r"arguments of Subject.bare\[0\]\[0\] cannot be stored"):
        signature("bare").encode([object()], {})


@pytest.mark.parametrize(
    ("name", "result", "restored"),
    [
        ("one", 3, 3),
        ("none", None, None),
        ("order", [{"id": "1", "at": NOW}], [Order(id="1", at=NOW)]),
        ("bare", {"any": 1}, {"any": 1}),
        ("unhashable", 3, 3),
    ],
)
def test_a_result_is_restored(name: str, result: object, restored: object) -> None:
    assert signature(name).decode_result(codec.encode(result)) == restored


def test_no_result_is_none() -> None:
    assert signature("one").decode_result(None) is None


def test_a_result_that_breaks_its_promise_is_no_mistake_of_the_caller() -> None:
    with pytest.raises(SerializationError, match="result of Subject.one.*'x'.*annotation promises"):
        signature("one").decode_result(codec.encode("x"))


def test_a_batch_of_signals() -> None:
    data, count = signature("default").encode_many([(1,), [], (2, "y")])
    assert (codec.decode(data), count) == ([[1], [], [2, "y"]], 3)
    assert signature("default").encode_many([])[1] == 0


@pytest.mark.parametrize("batch", [[(1,), (1, 2)], [(1,), ()]])
def test_one_element_that_cannot_be_called_refuses_the_batch(batch: list[tuple[int, ...]]) -> None:
    with pytest.raises(InvalidArguments, match="Subject.one"):
        signature("one").encode_many(batch)


def test_an_unchecked_signal_has_the_same_form() -> None:
    assert codec.decode(encode_signal_arguments([1], {}, "x")) == [[1]]
    assert codec.decode(encode_signal_arguments([1], {"m": 2}, "x")) == [{"args": [1], "kwargs": {"m": 2}}]


def test_the_first_parameters_can_be_left_out() -> None:
    def orchestration(ctx: Any, n: int) -> None: ...

    for skip, least in ((0, 2), (1, 1)):
        made: Callable[..., Any] = orchestration
        assert Signature.of(made, "it", skip=skip).least == least


@dataclasses.dataclass
class Ordered:
    id: str
    at: dt.datetime


@pytest.mark.parametrize(
    ("name", "batch", "says"),
    [
        ("one", [(1,), ("x",)], r"signal 2: Subject.one: argument 1: .*'x'"),
        ("one", [(None,)], r"signal 1: Subject.one: argument 1"),
        ("default", [(1, "x"), (1, 2)], r"signal 2: Subject.default: argument 2"),
        ("bounded", [(9,), (10,)], r"signal 2: Subject.bounded: argument 1"),
        ("rest", [(1, 2.0), (1, 2.0, "y")], r"signal 2: Subject.rest: argument 3"),
        ("order", [(Order(id="a", at=NOW),), ({"id": "a"},)], r"signal 2: .*at: Field required"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_where_the_signal_is_sent(
    name: str, batch: list[tuple[Any, ...]], says: str
) -> None:
    with pytest.raises(InvalidArguments, match=says):
        signature(name).encode_many(batch)
    with pytest.raises(InvalidArguments, match=f"Subject.{name}"):
        signature(name).encode_signal(batch[-1], {})


def test_the_position_in_the_whole_is_told() -> None:
    with pytest.raises(InvalidArguments, match="signal 1002: "):
        signature("one").encode_many([(1,), ("x",)], first=1001)


def test_a_value_given_by_name_is_checked_too() -> None:
    with pytest.raises(InvalidArguments, match="argument m"):
        signature("default").encode_signal([1], {"m": 2})


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("one", (True,)),
        ("one", ("7",)),
        ("bare", (object, 1)[1:]),
        ("order", (Order(id="a", at=NOW),)),
        ("order", ({"id": "a", "at": NOW},)),
        ("order", (Ordered("a", NOW),)),
        ("rest", (1, 2, 3.5)),
        ("half", (1, object.__name__, Order(id="a", at=NOW))),
    ],
)
def test_what_the_receiver_would_take_is_sent(name: str, args: tuple[Any, ...]) -> None:
    assert signature(name).encode_many([args])[1] == 1
    assert signature(name).encode_signal(args, {})
