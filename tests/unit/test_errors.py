"""Failures: what is kept of an exception, and what comes back after a trip through the store."""

from __future__ import annotations

import pickle

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungfish.runtime import errors
from lungfish.runtime.errors import (
    CAUSES_MAX,
    MESSAGE_CHARS_MAX,
    TRACEBACK_CHARS_MAX,
    ActivityFailed,
    EntityOperationFailed,
    FailureDetails,
    InvalidArguments,
    LungfishError,
    OrchestrationFailed,
    UsageError,
    qualified_name,
    usage_error,
)
from lungfish.runtime.ids import CLIENT, ActorId
from lungfish.runtime.messages import wire
from lungfish.runtime.messages.messages import Response

texts = st.text(st.characters(exclude_categories=["Cs"]))
failures: st.SearchStrategy[FailureDetails] = st.recursive(
    st.builds(FailureDetails, texts, texts, texts, st.none(), st.booleans()),
    lambda inner: st.builds(FailureDetails, texts, texts, texts, inner, st.booleans()),
    max_leaves=CAUSES_MAX,
)


def failure_of(error: BaseException) -> FailureDetails:
    try:
        raise error
    except type(error) as caught:
        return FailureDetails.of(caught)


def chain_of(details: FailureDetails) -> list[str]:
    messages = [details.message]
    while details.cause is not None:
        details = details.cause
        messages.append(details.message)
    return messages


@given(failures)
def test_what_is_stored_comes_back(details: FailureDetails) -> None:
    stored = msgpack.unpackb(msgpack.packb(details.to_wire()))
    assert FailureDetails.from_wire(stored) == details


def test_fields_of_a_later_release_are_passed_over() -> None:
    details = FailureDetails("builtins.ValueError", "no", cause=FailureDetails("m.E", "why"))
    assert FailureDetails.from_wire([*details.to_wire(), "new", 17]) == details


@pytest.mark.parametrize(
    "row",
    [
        [],
        ["builtins.ValueError", "no", "", None],
        [1, "no", "", None, False],
        ["builtins.ValueError", None, "", None, False],
        ["builtins.ValueError", "no", "", "cause", False],
        ["builtins.ValueError", "no", "", [], False],
        ["builtins.ValueError", "no", "", None, 0],
        "abcde",
        {"a": 1, "b": 2, "c": 3, "d": None, "e": False},
    ],
)
def test_what_was_never_stored_is_refused(row: list[object]) -> None:
    with pytest.raises(ValueError, match="not a failure"):
        FailureDetails.from_wire(row)


def test_an_exception_is_described() -> None:
    details = failure_of(ValueError("no"))
    assert (details.error_type, details.message) == ("builtins.ValueError", "no")
    assert details.traceback.startswith("Traceback (most recent call last)")
    assert "raise error" in details.traceback
    assert (details.cause, details.non_retriable) == (None, False)
    assert str(details) == "ValueError: no"


def test_explicit_and_implicit_causes_are_kept_in_order() -> None:
    def explicit() -> None:
        try:
            raise KeyError("deepest")
        except KeyError as error:
            raise OSError("middle") from error

    def implicit() -> None:
        try:
            explicit()
        except OSError:
            raise ValueError("top")  # noqa: B904 - that is what is tested

    with pytest.raises(ValueError, match="top") as raised:
        implicit()
    details = FailureDetails.of(raised.value)
    assert chain_of(details) == ["top", "middle", "'deepest'"]
    assert str(details) == "ValueError: top (caused by OSError: middle (caused by KeyError: 'deepest'))"


def test_raise_from_none_hides_the_cause() -> None:
    def hides() -> None:
        try:
            raise KeyError("hidden")
        except KeyError:
            raise ValueError("top") from None

    with pytest.raises(ValueError, match="top") as raised:
        hides()
    assert FailureDetails.of(raised.value).cause is None


def test_a_falsy_exception_is_a_cause_like_any_other() -> None:
    class Empty(Exception):
        def __len__(self) -> int:
            return 0

    error = ValueError("top")
    error.__cause__ = Empty("nothing")
    assert chain_of(FailureDetails.of(error)) == ["top", "nothing"]


def test_the_chain_of_causes_is_cut() -> None:
    error = top = ValueError("0")
    for depth in range(1, 50):
        error.__cause__ = error = ValueError(str(depth))
    assert chain_of(FailureDetails.of(top)) == [str(depth) for depth in range(CAUSES_MAX + 1)]


def test_failures_of_failures_do_not_grow_without_a_bound() -> None:
    """Sub-orchestrations of sub-orchestrations: each fails because of the one below."""
    details = failure_of(ValueError("deepest"))
    for level in range(1_000):
        details = failure_of(OrchestrationFailed(f"level {level}", details))
    assert chain_of(details) == [f"level {level}" for level in range(999, 999 - CAUSES_MAX - 1, -1)]


def test_a_long_traceback_keeps_its_end() -> None:
    def ping(depth: int) -> None:
        if depth == 0:
            raise ValueError("the end")
        pong(depth - 1)

    def pong(depth: int) -> None:
        ping(depth)

    with pytest.raises(ValueError, match="the end") as raised:
        ping(200)
    details = FailureDetails.of(raised.value)
    assert len(details.traceback) == TRACEBACK_CHARS_MAX
    assert details.traceback.endswith("ValueError: the end\n")


def test_a_long_message_neither_travels_whole_nor_hides_the_traceback() -> None:
    details = failure_of(ValueError("begin" + "x" * 10_000_000 + "end"))
    assert len(details.message) < MESSAGE_CHARS_MAX + 100
    assert details.message.startswith("begin")
    assert details.message.endswith("end")
    assert "9,984,008 characters left out" in details.message
    assert len(details.traceback) <= TRACEBACK_CHARS_MAX
    assert "in failure_of" in details.traceback
    assert "ValueError: begin" in details.traceback


def test_the_details_of_what_failed_below_become_the_cause() -> None:
    below = failure_of(ZeroDivisionError("division by zero"))
    details = failure_of(ActivityFailed("activity ship failed", below))
    assert details.cause == below
    assert details.is_caused_by(ZeroDivisionError)
    wrapped = ValueError("no shipment")
    wrapped.__cause__ = ActivityFailed("activity ship failed", below)
    assert FailureDetails.of(wrapped).cause == below


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (KeyError, True),
        ("KeyError", True),
        ("builtins.KeyError", True),
        (ValueError, True),
        (LookupError, False),
        ("Key", False),
        ("other.KeyError", False),
    ],
)
def test_a_cause_is_found_by_class_or_by_name(wanted: type[BaseException] | str, found: bool) -> None:
    details = FailureDetails("builtins.ValueError", "", cause=FailureDetails("builtins.KeyError", ""))
    assert details.is_caused_by(wanted) is found


def test_who_says_so_and_who_made_a_mistake_is_not_tried_again() -> None:
    class Final(Exception):
        non_retriable = True

    assert failure_of(Final()).non_retriable
    assert failure_of(InvalidArguments("bad")).non_retriable
    assert not failure_of(OSError()).non_retriable


def test_an_exception_that_cannot_be_shown_is_described_all_the_same() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("mute")

    assert failure_of(Mute()).message == "<str() of Mute raised RuntimeError>"


def test_a_message_that_is_not_utf8_can_be_stored() -> None:
    """``os.listdir`` makes such names: the failure must not break the batch that carries it."""
    details = failure_of(FileNotFoundError("caf\udce9"))
    assert details.message == "caf\\udce9"
    response = Response(ActorId(CLIENT, "", "me"), "1", failure=details)
    assert wire.unpack(wire.pack([response])) == [response]


def all_errors() -> list[type[LungfishError]]:
    found: list[type[LungfishError]] = []
    todo: list[type[LungfishError]] = [LungfishError]
    while todo:
        todo.extend(todo[0].__subclasses__())
        found.append(todo.pop(0))
    return [cls for cls in found if cls.__module__ == errors.__name__]


@pytest.mark.parametrize("cls", all_errors())
def test_every_error_survives_pickling_and_is_in_the_tree(cls: type[LungfishError]) -> None:
    """Ray pickles what a task raises."""
    error = cls(1.5, "why") if issubclass(cls, errors.RetryAfter) else cls("why")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is cls
    assert str(copy) == "why"
    assert errors.__doc__ is not None
    assert cls.__name__ in errors.__doc__
    assert cls.__doc__


def test_details_survive_pickling() -> None:
    error = EntityOperationFailed("why", FailureDetails("builtins.ValueError", "no"))
    copy = pickle.loads(pickle.dumps(error))
    assert copy.details == error.details


@pytest.mark.parametrize("cls", [cls for cls in all_errors() if issubclass(cls, UsageError)])
def test_a_refusal_on_a_host_is_the_same_class_at_the_caller(cls: type[UsageError]) -> None:
    refusal = usage_error(failure_of(cls("why")))
    assert type(refusal) is cls
    assert str(refusal) == "why"


@pytest.mark.parametrize(
    "error_type",
    ["builtins.ValueError", "shop.InvalidArguments", "InvalidArguments", "", qualified_name(ActivityFailed)],
)
def test_what_is_not_ours_is_no_refusal(error_type: str) -> None:
    assert usage_error(FailureDetails(error_type, "why")) is None
