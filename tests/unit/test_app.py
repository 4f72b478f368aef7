"""The app: names to what this process has."""

from __future__ import annotations

import datetime as dt
import functools
from typing import Any

import pytest

import lungfish
from lungfish.runtime.errors import InvalidId, NotRegistered, UsageError


class Counter(lungfish.Entity):
    value: int = 0

    def add(self, n: int) -> int:
        return n


def work(n: int) -> int:
    return n


async def later(n: int) -> int:
    return n


async def flow(ctx: lungfish.OrchestrationContext, n: int) -> int:
    return n


@pytest.fixture
def app() -> lungfish.App:
    return lungfish.App("shop")


@pytest.mark.parametrize("hub", ["shop", "Shop-2_x.y", "ä"])
def test_a_hub_name(hub: str) -> None:
    assert lungfish.App(hub).hub == hub


@pytest.mark.parametrize("hub", ["", "a b", "a:b", "{a}", "a/b", "a\n", "x" * 600, None, 3])
def test_a_hub_name_that_cannot_be_part_of_a_key(hub: Any) -> None:
    with pytest.raises(UsageError, match="hub"):
        lungfish.App(hub)


def test_things_are_registered_under_their_own_name(app: lungfish.App) -> None:
    assert app.entity(Counter) is Counter
    assert app.activity(work)(3) == 3
    app.orchestration(flow)
    assert app.find_entity("Counter") is app.find_entity(Counter)
    assert app.find_operation("Counter", "add").name == "add"
    assert app.find_activity("work").function is work
    assert app.find_orchestration("flow").function is flow
    assert repr(app) == "<lungfish.App 'shop': 1 entities, 1 orchestrations, 1 activities>"


def test_or_under_another(app: lungfish.App) -> None:
    app.entity(name="C")(Counter)
    app.activity(name="w")(work)
    app.orchestration(name="f")(flow)
    assert app.find_entity("C") is app.find_entity(Counter)
    assert app.find_activity("w").function is work
    assert app.find_orchestration("f").function is flow


def test_what_is_not_there_is_named_with_what_is(app: lungfish.App) -> None:
    app.activity(work)
    app.activity(name="also")(work)
    with pytest.raises(NotRegistered, match="no activity named 'wrok' in app 'shop'; there are: also, work"):
        app.find_activity("wrok")
    with pytest.raises(NotRegistered, match="no entity named 'Counter'.*there are: none"):
        app.find_entity(Counter)
    with pytest.raises(NotRegistered, match="no orchestration named 'flow'"):
        app.find_orchestration("flow")


def test_a_name_is_taken_once(app: lungfish.App) -> None:
    app.entity(Counter)
    app.activity(work)
    app.orchestration(flow)
    with pytest.raises(UsageError, match="entity named 'Counter' already"):
        app.entity(Counter)
    with pytest.raises(UsageError, match="activity named 'work' already"):
        app.activity(name="work")(later)
    with pytest.raises(UsageError, match="orchestration named 'flow' already"):
        app.orchestration(flow)
    app.activity(name="flow")(work)  # another sort of thing


@pytest.mark.parametrize("name", ["", "a\nb", 3])
def test_a_name_is_an_id(app: lungfish.App, name: Any) -> None:
    if name:  # an empty one is none
        with pytest.raises(InvalidId, match="activity name"):
            app.activity(name=name)(work)
    with pytest.raises(InvalidId, match="queue"):
        app.activity(queue=name)(work)


@pytest.mark.parametrize("wrong", [int, "Counter", work, None, Counter()])
def test_only_entities_are_entities(app: lungfish.App, wrong: Any) -> None:
    with pytest.raises(UsageError, match="subclass of lungfish.Entity"):
        app.entity(name="x")(wrong)


@pytest.mark.parametrize("wrong", ["work", 3, {}])
def test_only_functions_are_activities_and_orchestrations(app: lungfish.App, wrong: Any) -> None:
    with pytest.raises(UsageError, match="@app.activity takes a function, not .*name="):
        app.activity(wrong)
    with pytest.raises(UsageError, match="@app.orchestration takes a function, not .*name="):
        app.orchestration(wrong)


def test_what_has_no_name_must_be_given_one(app: lungfish.App) -> None:
    partial = functools.partial(work, 1)
    with pytest.raises(UsageError, match="has no name of its own; give it one with name="):
        app.activity(partial)
    assert app.activity(name="one")(partial)() == 1


def test_options_of_an_activity(app: lungfish.App) -> None:
    made = app.activity(timeout=3, schedule_to_close=0.5, queue="gpu", num_gpus=1, memory=5e9)(work)
    assert made.settings.timeout == dt.timedelta(seconds=3)
    assert made.settings.schedule_to_close == dt.timedelta(seconds=0.5)
    assert made.settings.resources == {"num_gpus": 1, "memory": 5e9}
    assert made.settings.retry == lungfish.RetryPolicy()
    assert app.queues() == ["default", "gpu"]


def test_an_inline_activity_is_not_async(app: lungfish.App) -> None:
    assert app.activity(inline=True)(work).settings.inline
    with pytest.raises(UsageError, match="activity later: an inline activity must not be async"):
        app.activity(inline=True)(later)
    assert "later" not in app.activities


def test_the_same_things_for_another_hub(app: lungfish.App) -> None:
    app.entity(Counter)
    other = app.with_hub("test")
    other.activity(work)
    assert (other.hub, set(other.entities), set(app.activities)) == ("test", {"Counter"}, set())
