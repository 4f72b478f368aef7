"""The public names: sorted, complete, documented, and those that are promised."""

from __future__ import annotations

import inspect
import types
from typing import Any

import pydantic
import pytest

import lungfish

#: Examples, docs and independent checks are written against these (DESIGN, "The face").
PROMISED = {
    "App",
    "Entity",
    "OrchestrationContext",
    "OrchestrationFailed",
    "RetryPolicy",
    "activity_info",
    "connect",
    "connect_sync",
    "shared",
    "start",
}
#: Attributes of instances (instance_id, parent_id, version) are set in ``__init__`` and not listed here.
PROMISED_MEMBERS = {
    lungfish.OrchestrationContext: (
        "call_activity call_orchestration entity lock create_timer sleep wait_for_external_event "
        "when_all when_any continue_as_new set_custom_status now uuid4 random logger is_replaying patched"
    ),
    lungfish.EntityContext: "signal entity start now caller set_reminder cancel_reminder reminders delete",
    lungfish.Entity: "key context",
    lungfish.Client: "entity start instances",
    lungfish.EntityRef: "signal signal_many call state reminders",
    lungfish.OrchestrationHandle: "raise_event status result suspend resume terminate history",
    lungfish.BlockingClient: "entity start instances",
    lungfish.Activity: "options",
}
#: Promised, and still to come.
MISSING: set[str] = set()


def public(value: Any) -> list[str]:
    return [name for name in vars(value) if not name.startswith("_")]


def test_all_is_sorted_and_has_no_doubles() -> None:
    assert lungfish.__all__ == sorted(set(lungfish.__all__))


def test_all_is_complete() -> None:
    names = {name for name in public(lungfish) if not isinstance(getattr(lungfish, name), types.ModuleType)}
    assert names <= set(lungfish.__all__)
    for name in lungfish.__all__:
        assert getattr(lungfish, name) is not None


def test_the_promised_names_are_there() -> None:
    assert set(lungfish.__all__) >= PROMISED
    assert lungfish.__version__.count(".") == 2


def test_the_promised_members_are_there() -> None:
    missing = {
        f"{cls.__name__}.{name}"
        for cls, names in PROMISED_MEMBERS.items()
        for name in names.split()
        if not hasattr(cls, name)
    }
    assert missing == MISSING


@pytest.mark.parametrize("name", lungfish.__all__)
def test_public_names_have_a_docstring(name: str) -> None:
    value = getattr(lungfish, name)
    assert value.__doc__, name
    assert not value.__doc__.startswith(f"{name}("), "that is the one that dataclass makes"
    if inspect.isclass(value):
        assert undocumented_members(value) == []


def undocumented_members(cls: type[Any]) -> list[str]:
    """Return public methods and properties that say nothing and are defined by us."""
    missing = []
    for owner in cls.__mro__:
        if not owner.__module__.startswith("lungfish") or owner is pydantic.BaseModel:
            continue
        for name in public(owner):
            member = inspect.getattr_static(owner, name)
            if isinstance(member, staticmethod | classmethod):
                member = member.__func__
            if inspect.isfunction(member) or isinstance(member, property):
                overloads_or_inherits = inspect.getdoc(getattr(owner, name, None)) or member.__doc__
                if not overloads_or_inherits:
                    missing.append(f"{owner.__qualname__}.{name}")
    return missing


def test_errors_say_what_they_mean_by_default() -> None:
    for name in lungfish.__all__:
        value = getattr(lungfish, name)
        if inspect.isclass(value) and issubclass(value, BaseException):
            assert issubclass(value, lungfish.LungfishError), name
            assert value.__doc__, name
            assert value.__doc__.splitlines()[0].endswith("."), f"{name}: the first line is a sentence"
