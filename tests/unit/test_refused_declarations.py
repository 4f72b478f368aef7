"""What makes no sense in a declaration is refused where it is declared, with its name and value."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

import lungfish
from lungfish import HostPool, HostSettings, PayloadSettings, RetryPolicy, UsageError

NAN = math.nan


def app() -> lungfish.App:
    return lungfish.App("refusing")


def add(a: int, b: int) -> int:
    return a + b


class Adder:
    def __init__(self, a: int) -> None: ...


def numbers() -> Iterator[int]:
    yield 1


async def later_numbers() -> AsyncIterator[int]:
    yield 1


class Cart(lungfish.Entity):
    pass


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (Adder, "@app.activity takes a function, not the class Adder: write one that makes it"),
        (numbers, "activity numbers: a generator has no result; return a list"),
        (later_numbers, "activity later_numbers: a generator has no result; return a list"),
        (17, "@app.activity takes a function, not 17"),
    ],
)
def test_what_is_no_activity(function: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        app().activity(function)


ACTIVITY: list[tuple[str, Any, str]] = [
    ("retry", 3, "retry is a RetryPolicy"),
    ("retry", 0, "retry is a RetryPolicy"),
    ("timeout", "1h", "timeout is a timedelta or a number of seconds, not '1h'"),
    ("timeout", NAN, "timeout is a timedelta or a number of seconds, not nan"),
    ("timeout", 0, "timeout must be more than nothing"),
    ("heartbeat_timeout", True, "heartbeat_timeout is a timedelta or a number of seconds, not True"),
    ("schedule_to_close", [], "schedule_to_close is a timedelta"),
    ("queue", 5, "queue must be a str, not int: 5"),
    ("queue", "", "queue must not be empty"),
    ("inline", "no", "inline is True or False, not 'no'"),
    ("priority", 10, "priority must be 0 .first. to 9 .last., not 10"),
    ("name", "", "activity name must not be empty"),
    ("num_cpus", "1", "num_cpus is a number from 0 to 1e[+]15, not '1'"),
    ("num_gpus", -1, "num_gpus is a number from 0 to 1e[+]15, not -1"),
    ("num_gpus", NAN, "num_gpus is a number .* not nan"),
    ("num_cpus", True, "num_cpus is a number .* not True"),
    ("memory", math.inf, "memory is a number .* not inf"),
    ("resources", "fpga", "resources is a dict of amounts, as in {'fpga': 1}, not 'fpga'"),
    ("resources", {"fpga": "1"}, "resources: 'fpga' is a number .* not '1'"),
    ("resources", {1: 1}, "resources: a resource has a name, a str, not 1"),
    ("resources", {"GPU": 2}, "resources: 'GPU' has an option of its own: num_gpus=2"),
]


@pytest.mark.parametrize(("option", "value", "says"), ACTIVITY)
def test_options_of_an_activity(option: str, value: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        app().activity(**{option: value})(add)


def test_an_inline_activity_reserves_nothing() -> None:
    with pytest.raises(UsageError, match="an inline activity runs in its host, without num_gpus"):
        app().activity(inline=True, num_gpus=1)(add)


@pytest.mark.parametrize(
    "wanted",
    [
        {"num_cpus": 0.5, "num_gpus": 0, "memory": 2**30, "resources": {"fpga": 1}},
        {"resources": {}, "retry": RetryPolicy(max_attempts=3), "timeout": dt.timedelta(hours=1)},
    ],
)
def test_options_that_make_sense(wanted: dict[str, Any]) -> None:
    assert app().activity(**wanted)(add)(1, 2) == 3


def with_pools(pools: Any) -> lungfish.App:
    return lungfish.App("refusing", pools=pools)


def pool_with(resources: Any) -> HostPool:
    return HostPool(resources=resources)


def carrying(var: Any, **how: Any) -> None:
    app().propagate(var, **how)


OTHERS: dict[str, tuple[Callable[[], Any], str]] = {
    "entity name": (lambda: app().entity(name=5)(Cart), "entity name must be a str, not int: 5"),  # type: ignore[call-overload]
    "app version": (lambda: lungfish.App("a", version=2), "version must be a str, not int: 2"),  # type: ignore[arg-type]
    "app without a version": (lambda: lungfish.App("a", version=None), "version must be a str"),  # type: ignore[arg-type]
    "payloads": (lambda: lungfish.App("a", payloads=5), r"payloads is a PayloadSettings\(.*\), not 5"),  # type: ignore[arg-type]
    "falsy payloads": (lambda: lungfish.App("a", payloads={}), "payloads is a PayloadSettings"),  # type: ignore[arg-type]
    "list of pools": (lambda: with_pools(["gpu"]), "pools is a dict of HostPools, as in .*, not"),
    "pool": (lambda: with_pools({"gpu": 5}), r"pool 'gpu' is a HostPool\(\.\.\.\), not 5"),
    "pool's class": (
        lambda: with_pools({"gpu": HostPool}),
        r"pool 'gpu' is a HostPool\(\.\.\.\), not <class",
    ),
    "resources of a pool": (
        lambda: pool_with("GPU"),
        "resources of a pool is a dict, .*, not 'GPU'",
    ),
    "resource's name": (lambda: pool_with({5: 1}), "a resource of a pool has a name, a str, not 5"),
    "labels of a pool": (lambda: HostPool(labels={"zone": 5}), "labels of a pool is a dict of str"),  # type: ignore[dict-item]
    "attempts": (lambda: RetryPolicy(max_attempts=True), "max_attempts is a whole number, not True"),
    "no interval": (lambda: RetryPolicy(initial_interval=None), "initial_interval is a timedelta, not None"),  # type: ignore[arg-type]
    "coefficient": (lambda: RetryPolicy(backoff_coefficient="2"), "must be at least 1, not '2'"),  # type: ignore[arg-type]
    "jitter": (lambda: RetryPolicy(jitter=None), "jitter is a number from 0 to 1, not None"),  # type: ignore[arg-type]
    "offload": (lambda: PayloadSettings(offload_bytes="1k"), "offload_bytes is a whole number .* not '1k'"),  # type: ignore[arg-type]
    "heartbeat": (lambda: HostSettings(heartbeat_ms=0), "heartbeat_ms is a whole number of 1 or more, not 0"),
    "idle": (lambda: HostSettings(idle_ms=NAN), "HostSettings: idle_ms is a whole number .* not nan"),  # type: ignore[arg-type]
    "drain": (lambda: HostSettings(drain_s=-1), "HostSettings: drain_s is a number of 0 or more, not -1"),
    "archive": (lambda: app().retention(default=1, archive=5), "archive is a folder, or an address .* not 5"),  # type: ignore[arg-type]
    "kept": (lambda: app().retention(failed="1d"), "how long instances are kept is a timedelta .* not '1d'"),  # type: ignore[arg-type]
    "kept of": (lambda: app().retention(default=1, orchestration=add), "orchestration name must be a str"),  # type: ignore[arg-type]
    "variable": (lambda: carrying(5), r"propagate takes a ContextVar, encode= and decode= functions, not .5"),
    "encoder": (lambda: carrying(ContextVar("a"), encode=5), "propagate takes a ContextVar, encode= and"),
}


@pytest.mark.parametrize("declared", OTHERS)
def test_other_declarations(declared: str) -> None:
    declare, says = OTHERS[declared]
    with pytest.raises(UsageError, match=says):
        declare()
