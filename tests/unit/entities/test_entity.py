"""What a subclass of Entity declares, and what is refused at its registration."""

from __future__ import annotations

import functools
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any, ClassVar

import pytest
from pydantic import ConfigDict, Field, PrivateAttr, field_serializer, field_validator, model_validator

from lungfish.entities import Entity, shared
from lungfish.runtime.declared.app import App
from lungfish.runtime.errors import SerializationError, UsageError
from tests.unit.entities.fakes import Host, value


class Counter(Entity):
    value: int = 0

    def add(self, n: int = 1) -> int:
        self.value += n
        return self.value

    @shared
    def get(self) -> int:
        return self.value

    async def later(self) -> None: ...

    def _private(self) -> None: ...

    @classmethod
    def of(cls, n: int) -> Counter:
        return cls(value=n)

    @staticmethod
    def limit() -> int:
        return 3

    @property
    def double(self) -> int:
        return self.value * 2


def operations(cls: type[Entity]) -> dict[str, tuple[bool, bool]]:
    found = cls.lungfish_definition("E").operations
    own = {name: operation for name, operation in found.items() if not operation.built_in}
    return {name: (operation.shared, operation.is_async) for name, operation in own.items()}


def test_public_methods_are_operations() -> None:
    assert operations(Counter) == {"add": (False, False), "get": (True, False), "later": (False, True)}


def test_an_entity_is_a_plain_model_outside_the_runtime() -> None:
    counter = Counter(value=2)
    assert counter.add(3) == 5
    assert counter == Counter(value=5)
    with pytest.raises(UsageError, match="while the runtime runs"):
        _ = counter.context
    with pytest.raises(UsageError, match="while the runtime runs"):
        _ = counter.key


def test_a_field_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ValueError, match="Extra inputs"):
        Counter(valeu=3)  # type: ignore[call-arg]


def test_methods_named_like_pydantics_old_ones_are_operations() -> None:
    class Order(Entity):
        n: int = 0

        def validate(self) -> str:  # type: ignore[override]
            return "validated"

        def copy(self) -> str:  # type: ignore[override]
            return "copied"

        def json(self) -> str:  # type: ignore[override]
            return "{}"

    assert sorted(operations(Order)) == ["copy", "json", "validate"]
    assert value(Host(Order).call("copy")) == "copied"
    assert value(Host(Order).call("validate")) == "validated"


def test_inherited_operations_count() -> None:
    class Base(Entity):
        n: int = 0

        def up(self) -> int:
            self.n += 1
            return self.n

    class Named(Entity):
        name: str = ""

    class Both(Base, Named):
        def up(self) -> int:
            return super().up() + 10

    assert sorted(operations(Both)) == ["up"]
    assert value(Host(Both).call("up")) == 11


def test_what_pydantic_calls_is_not_an_operation() -> None:
    class Checked(Entity):
        n: int = 0
        _cache: dict[str, int] = PrivateAttr(default_factory=dict)

        def model_post_init(self, context: Any) -> None:
            self._cache["made"] = 1

        @model_validator(mode="after")
        def whole(self) -> Checked:
            return self

        @field_validator("n")
        @classmethod
        def positive(cls, n: int) -> int:
            return n

        @field_serializer("n")
        def stored(self, n: int) -> int:
            return n

        def cached(self) -> int:
            return self._cache["made"]

    assert sorted(operations(Checked)) == ["cached"]
    assert value(Host(Checked).call("cached")) == 1


def test_a_decorated_operation_keeps_its_signature() -> None:
    def twice(function: Any) -> Any:
        @functools.wraps(function)
        def inner(self: Any, n: int) -> int:
            function(self, n)
            result: int = function(self, n)
            return result

        return inner

    class Twice(Entity):
        n: int = 0

        @twice
        def add(self, n: int) -> int:
            self.n += n
            return self.n

    assert value(Host(Twice).call("add", 2)) == 4


def test_private_annotations_and_class_variables_are_no_fields() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        class Mixed(Entity):
            LIMIT: ClassVar[int] = 3
            value: int = 0
            model_name: str = "m"
            key_: str = "k"
            _note: str = "n"

            def read(self) -> list[Any]:
                return [self.value, self.model_name, self._note, self.LIMIT]

    assert sorted(Mixed.model_fields) == ["key_", "model_name", "value"]
    assert value(Host(Mixed).call("read")) == [0, "m", "n", 3]


def test_a_field_needs_a_default() -> None:
    class Needy(Entity):
        name: str
        size: int

    with pytest.raises(UsageError, match=r"entity Needy: name, size must have a default"):
        App("a").entity(Needy)


@pytest.mark.filterwarnings("ignore:Field name")
@pytest.mark.parametrize("name", ["key", "context", "migrate", "lungfish_definition"])
def test_a_field_cannot_take_a_name_of_the_base(name: str) -> None:
    with pytest.raises(UsageError, match=f"cannot be named '{name}'"):
        type("Taken", (Entity,), {"__annotations__": {name: int}, name: 0, "__module__": __name__})


def test_schema_version_is_a_class_variable() -> None:
    with pytest.raises(UsageError, match=r"ClassVar\[int\]"), pytest.warns(UserWarning, match="shadows"):

        class Wrong(Entity):
            schema_version: int = 2  # type: ignore[misc]

    class Right(Entity):
        schema_version = 2

    assert Right.schema_version == 2


@pytest.mark.parametrize("name", ["key", "context", "migrate", "model_dump", "model_copy"])
def test_an_operation_cannot_take_a_name_of_the_base(name: str) -> None:
    def method(self: Any) -> None: ...

    cls: Any = type("Taken", (Entity,), {name: method, "__module__": __name__})
    with pytest.raises(UsageError, match=rf"Taken\.{name} cannot be an operation"):
        App("a").entity(cls)


def test_a_method_that_cannot_be_an_operation_is_refused() -> None:
    class Generating(Entity):
        def items(self) -> Iterator[int]:
            yield 1

    class AsyncGenerating(Entity):
        async def items(self) -> AsyncIterator[int]:
            yield 1

    class Selfless(Entity):
        def nothing() -> None: ...  # type: ignore[misc]

    for cls, why in ((Generating, "generator"), (AsyncGenerating, "generator"), (Selfless, "self")):
        with pytest.raises(UsageError, match=why):
            cls.lungfish_definition("E")


def test_extra_fields_cannot_be_allowed() -> None:
    class Loose(Entity):
        model_config = ConfigDict(extra="allow")

    with pytest.raises(UsageError, match="extra='allow'"):
        App("a").entity(Loose)


def test_only_entities_can_be_registered() -> None:
    with pytest.raises(UsageError, match=r"subclass of lungfish\.Entity"):
        App("a").entity(int)  # type: ignore[type-var]


def test_migrate_must_be_defined_to_be_used() -> None:
    with pytest.raises(SerializationError, match=r"define Counter\.migrate"):
        Counter.migrate({}, 0)


def test_a_stored_state_can_be_read_without_the_runtime() -> None:
    host = Host(Counter)
    host.call("add", 3)
    assert host.snapshot is not None
    assert Counter.lungfish_state(host.snapshot, "k") == Counter(value=3)
    with pytest.raises(SerializationError, match="state of Counter/k"):
        Counter.lungfish_state(b"\xc1", "k")


def test_aliases_do_not_show_in_what_is_stored() -> None:
    class Aliased(Entity):
        count: int = Field(default=0, alias="Count")

        def up(self) -> int:
            self.count += 1
            return self.count

    host = Host(Aliased)
    assert value(host.call("up")) == 1
    assert host.fields == {"count": 1}
    host.reactivate()
    assert value(host.call("up")) == 2


def test_find_by_method_or_name() -> None:
    definition = Counter.lungfish_definition("E")
    assert definition.find(Counter.add) is definition.find("add")
    with pytest.raises(
        UsageError, match=r"no operation of E named 'nope'; there are: add, delete, get, later"
    ):
        definition.find("nope")
