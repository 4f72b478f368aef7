"""What users declare: activities, orchestrations, operations, durations."""

from __future__ import annotations

import datetime as dt
import math
import typing
from collections.abc import AsyncGenerator, Generator, Iterator
from typing import Any

import pytest

from lungfish.runtime.declared.definitions import (
    Activity,
    ActivityOptions,
    EntityDefinition,
    Orchestration,
    as_duration,
    operations_of,
    shared,
)
from lungfish.runtime.declared.retry import RetryPolicy
from lungfish.runtime.errors import NotRegistered, UsageError

S = dt.timedelta(seconds=1)


def add(a: int, b: int = 1) -> int:
    """Add."""
    return a + b


async def fetch(url: str) -> str:
    return url


def test_an_activity_is_still_the_plain_function() -> None:
    activity = Activity(add, "add", ActivityOptions())
    assert activity(1, b=2) == 3
    assert (activity.__name__, activity.__doc__, activity.__wrapped__) == ("add", "Add.", add)  # type: ignore[attr-defined]
    assert not activity.is_async
    assert repr(activity) == "<activity add>"


async def test_an_async_activity_is_still_awaited() -> None:
    activity = Activity(fetch, "fetch", ActivityOptions())
    assert activity.is_async
    assert await activity("x") == "x"


def test_options_change_a_copy_and_keep_the_rest() -> None:
    activity = Activity(add, "add", ActivityOptions(queue="gpu", timeout=5 * S, resources={"num_gpus": 1}))
    other = activity.options(retry=RetryPolicy(3), timeout=7, schedule_to_close=9 * S, id="mine")
    assert activity.settings == ActivityOptions(queue="gpu", timeout=5 * S, resources={"num_gpus": 1})
    assert other.settings == ActivityOptions(
        RetryPolicy(3), 7 * S, 9 * S, "gpu", resources={"num_gpus": 1}, id="mine"
    )
    assert (other.name, other.function) == ("add", add)
    assert activity.options(queue="slow").settings.queue == "slow"


@pytest.mark.parametrize(
    ("given", "duration"),
    [(None, None), (3, 3 * S), (0.5, 0.5 * S), (2 * S, 2 * S), (-1, -1 * S), (0, 0 * S)],
)
def test_a_duration_is_a_timedelta_or_seconds(given: Any, duration: dt.timedelta | None) -> None:
    assert as_duration(given) == duration


@pytest.mark.parametrize("given", ["3", True, [], dt.time(1), math.inf, -math.inf, math.nan, 10**30])
def test_anything_else_is_refused(given: Any) -> None:
    with pytest.raises(UsageError, match="a duration is a timedelta or a number of seconds"):
        as_duration(given)


async def coroutine(ctx: Any, n: int) -> int:
    return n


def generator(ctx: Any, n: int) -> Generator[Any, Any, int]:
    yield
    return n


def test_an_orchestration_leaves_out_its_context() -> None:
    for function in (coroutine, generator):
        made: Orchestration[..., Any] = Orchestration(function, "it")
        assert (made.signature.least, made.is_generator) == (1, function is generator)


def old_generator(ctx: Any) -> typing.Generator[Any, Any, list[int]]:
    yield
    return []


def yields_anything(ctx: Any) -> Iterator[Any]:
    yield


def no_annotation(ctx, n):  # type: ignore[no-untyped-def]
    yield n


@pytest.mark.parametrize(
    ("function", "result"),
    [
        (coroutine, int),
        (generator, int),
        (old_generator, list[int]),
        (yields_anything, Any),
        (no_annotation, Any),
    ],
)
def test_the_result_of_a_generator_is_what_it_returns(function: Any, result: Any) -> None:
    made: Orchestration[..., Any] = Orchestration(function, "it")
    assert made.signature.result == result


async def no_context() -> None: ...


def plain(ctx: Any) -> None: ...


async def async_generator(ctx: Any) -> AsyncGenerator[int, None]:
    yield 1


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (no_context, "OrchestrationContext as first parameter"),
        (plain, "'async def' or a generator"),
        (async_generator, "'async def' or a generator"),
    ],
)
def test_what_cannot_be_an_orchestration(function: Any, why: str) -> None:
    with pytest.raises(UsageError, match=f"orchestration it must .*{why}"):
        Orchestration(function, "it")


class Base:
    def of_base(self) -> None: ...


class Mixed(Base):
    limit = 3

    def add(self, n: int) -> int:
        return n

    async def fetch(self) -> None: ...

    @shared
    def get(self) -> int:
        return 1

    def _private(self) -> None: ...

    @property
    def prop(self) -> int:
        return 1

    @staticmethod
    def static() -> None: ...

    @classmethod
    def of_class(cls) -> None: ...

    def hook(self) -> None: ...


def test_public_methods_are_operations() -> None:
    found = operations_of(Mixed, "Mixed", Base, ignored={"hook"})
    kinds = {name: (operation.shared, operation.is_async) for name, operation in found.items()}
    assert kinds == {"add": (False, False), "fetch": (False, True), "get": (True, False)}
    assert found["add"].signature.what == "Mixed.add"


def test_inherited_and_overridden_methods_are_operations_too() -> None:
    class Middle(Base):
        def middle(self) -> None: ...

    class Leaf(Middle):
        def of_base(self) -> None: ...

    assert set(operations_of(Leaf, "Leaf", Base)) == {"middle", "of_base"}


class Yields:
    def rows(self) -> Generator[int, None, None]:
        yield 1


class YieldsLater:
    async def rows(self) -> AsyncGenerator[int, None]:
        yield 1


class Selfless:
    def op() -> None: ...  # type: ignore[misc]


@pytest.mark.parametrize(
    ("cls", "why"),
    [
        (Yields, "Yields.rows cannot be an operation: a generator has no result"),
        (YieldsLater, "a generator has no result"),
        (Selfless, "Selfless.op cannot be an operation: it does not take self"),
    ],
)
def test_what_cannot_be_an_operation(cls: type[Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        operations_of(cls, cls.__name__, object)


def test_a_reserved_name_is_refused() -> None:
    with pytest.raises(UsageError, match="Mixed.add cannot be an operation: the name belongs to the base"):
        operations_of(Mixed, "Mixed", Base, reserved={"add"})


def definition(cls: type[Any]) -> EntityDefinition:
    return EntityDefinition(cls.__name__, cls, operations_of(cls, cls.__name__, Base))


def test_an_operation_is_found_by_name_or_by_function() -> None:
    mixed = definition(Mixed)
    assert mixed.find("add") is mixed.find(Mixed.add) is mixed.operations["add"]


def test_an_operation_is_found_under_another_name() -> None:
    class Renamed(Base):
        def one(self) -> None: ...

        two = one

    renamed = definition(Renamed)
    assert renamed.find(Renamed.two).function is Renamed.one


@pytest.mark.parametrize("wanted", ["sub", "_private", "prop", "of_base", plain])
def test_what_is_not_there_is_named_with_what_is(wanted: Any) -> None:
    with pytest.raises(NotRegistered, match="no operation of Mixed named .*there are: add, fetch, get"):
        EntityDefinition("Mixed", Mixed, operations_of(Mixed, "Mixed", Base, ignored={"hook"})).find(wanted)
