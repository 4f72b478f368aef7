"""Ephemeral fields: they live as long as the activation, are never stored, and nothing rolls them back."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, ClassVar

import pydantic
import pytest

import lungfish
from lungfish.entities import Entity, ephemeral, shared
from lungfish.entities.state import plan_of
from lungfish.runtime.errors import UsageError
from lungfish.testing import crash_everywhere, environment
from tests.unit.entities.fakes import Host, error, value, virtually

MADE: list[str] = []


@pytest.fixture(autouse=True)
def _clean() -> None:
    MADE.clear()


class Line:
    """Something that cannot be stored, copied or compared."""

    def __init__(self) -> None:
        MADE.append("line")
        self.closed = False
        self.lock = threading.Lock()

    def __deepcopy__(self, memo: Any) -> Any:
        raise AssertionError("an ephemeral value is never copied")

    def __eq__(self, other: object) -> bool:
        raise AssertionError("an ephemeral value is never compared")

    __hash__ = None  # type: ignore[assignment]


class Room(Entity):
    guests: int = 0
    names: list[str] = []
    line: Line = ephemeral(factory=Line)
    asked: list[str] = ephemeral(factory=list)
    mark: str | None = ephemeral(None)

    def enter(self, name: str) -> int:
        self.asked.append(name)
        self.mark = name
        assert not self.line.closed
        self.guests += 1
        self.names.append(name)
        if name == "nobody":
            raise ValueError(name)
        return self.guests

    async def enter_slowly(self, name: str) -> int:
        self.asked.append(name)
        await asyncio.sleep(0)
        return self.enter(name)

    def enter_oddly(self, name: str) -> None:
        self.asked.append(name)
        self.names.append(object())  # type: ignore[arg-type]

    def leave(self) -> None:
        self.asked.append("leave")
        self.context.delete()

    def only_look(self) -> None:
        self.mark = "looked"

    def forget(self) -> None:
        del self.asked
        del self.mark

    @shared
    def seen(self) -> list[Any]:
        return [self.guests, self.names, self.asked, self.mark]

    @shared
    def note(self, what: str) -> None:
        self.asked.append(what)
        self.mark = what


def test_values_last_from_operation_to_operation_and_are_made_once() -> None:
    host = Host(Room)
    assert MADE == [], "who does not need a value does not pay for it"
    host.call("enter", "ada")
    host.call("enter", "bob")
    assert value(host.call("seen")) == [2, ["ada", "bob"], ["ada", "bob"], "bob"]
    assert MADE == ["line"]
    assert host.fields == {"guests": 2, "names": ["ada", "bob"]}


def test_another_activation_begins_with_the_defaults() -> None:
    host = Host(Room)
    host.call("enter", "ada")
    host.reactivate()
    assert value(host.call("seen")) == [1, ["ada"], [], None]
    host.call("enter", "bob")
    assert MADE == ["line", "line"]


def test_entities_do_not_share_values() -> None:
    one, other = Host(Room, key="one"), Host(Room, key="other")
    one.call("enter", "ada")
    assert value(other.call("seen")) == [0, [], [], None]


@pytest.mark.parametrize("operation", ["enter", "enter_slowly"])
def test_a_failed_operation_is_rolled_back_but_not_its_ephemeral_values(operation: str) -> None:
    async def test() -> None:
        host = Host(Room)
        host.call("enter", "ada")
        line = MADE.copy()
        request = host.ask(operation, "nobody")
        await host.settle()
        assert error(host.answer(request)) == "ValueError"
        guests, names, asked, mark = value(host.call("seen"))
        assert (guests, names, mark) == (1, ["ada"], "nobody")
        assert set(asked) == {"ada", "nobody"}
        assert line == MADE, "the line is still the same"

    virtually(test())


def test_operations_beside_one_that_fails_run_once() -> None:
    """Without an image a turn with a failure in its middle is run again: with such fields there is one."""
    host = Host(Room)
    for name in ("ada", "nobody", "bob"):
        host.ask("enter", name)
    host.run()
    assert value(host.call("seen")) == [2, ["ada", "bob"], ["ada", "nobody", "bob"], "bob"]


def test_elements_of_a_batch_too() -> None:
    host = Host(Room)
    host.signal("enter", ["ada"], ["nobody"], ["bob"])
    host.run()
    assert value(host.call("seen")) == [2, ["ada", "bob"], ["ada", "nobody", "bob"], "bob"]


def test_a_turn_whose_snapshot_cannot_be_made_is_run_again_and_meets_what_the_first_run_left() -> None:
    host = Host(Room)
    host.ask("enter", "ada")
    odd = host.ask("enter_oddly", "odd")
    host.run()
    assert error(host.answer(odd)) == "SerializationError"
    guests, names, asked, _ = value(host.call("seen"))
    assert (guests, names) == (1, ["ada"])
    assert asked == ["ada", "odd", "ada", "odd"]


def test_deleting_the_state_leaves_them() -> None:
    host = Host(Room)
    host.call("enter", "ada")
    host.call("leave")
    assert host.fields is None
    assert value(host.call("seen")) == [0, [], ["ada", "leave"], "ada"]
    assert MADE == ["line"]


def test_shared_operations_share_them() -> None:
    host = Host(Room)
    host.call("enter", "ada")
    host.kind.is_strict = True
    host.call("note", "read")
    assert value(host.call("seen")) == [1, ["ada"], ["ada", "read"], "read"]


def test_a_change_of_them_alone_writes_nothing() -> None:
    host = Host(Room)
    host.call("enter", "ada")
    written = len(host.effects.snapshots)
    host.call("only_look")
    assert len(host.effects.snapshots) == written


def test_deleting_one_brings_its_default_back() -> None:
    host = Host(Room)
    host.call("enter", "ada")
    host.call("forget")
    assert value(host.call("seen")) == [1, ["ada"], [], None]


class Hooked(Entity):
    value: int = 0
    opened: list[str] = ephemeral(factory=list)
    trace: ClassVar[list[Any]] = []
    fails: ClassVar[list[bool]] = []

    def on_activate(self) -> None:
        self.opened.append("opened")
        if self.fails and self.fails.pop():
            raise ConnectionError("no line")

    def on_passivate(self) -> None:
        self.trace.append([*self.opened, "closed"])

    @shared
    def get(self) -> list[str]:
        return self.opened


def test_on_activate_sets_them_and_on_passivate_finds_them() -> None:
    host = Host(Hooked)
    assert value(host.call("get")) == ["opened"]
    host.activation.passivate()
    assert Hooked.trace.pop() == ["opened", "closed"]


def test_a_failed_activation_leaves_nothing() -> None:
    Hooked.fails.append(True)
    host = Host(Hooked)
    assert error(host.call("get")) == "ActivationFailed"
    assert value(host.call("get")) == ["opened"]


class Constructed(Entity):
    value: int = 0
    cache: dict[str, int] = ephemeral(factory=dict)

    def model_post_init(self, context: Any, /) -> None:
        MADE.append("constructed")
        self.cache["constructed"] = len(MADE)

    def fail(self) -> None:
        self.cache["failed"] = 1
        raise ValueError

    async def fail_slowly(self) -> None:
        self.fail()

    @shared
    def get(self) -> dict[str, int]:
        return self.cache


def test_what_a_constructor_sets_counts_for_the_first_instance_of_an_activation() -> None:
    async def test() -> None:
        host = Host(Constructed)
        first = value(host.call("get"))
        host.ask("fail_slowly")  # an async one is rolled back to a new instance
        await host.settle()
        assert value(host.call("get")) == {**first, "failed": 1}
        assert len(MADE) > first["constructed"]

    virtually(test())


class Older(Entity):
    cache: dict[str, int] = {}

    def put(self) -> None:
        self.cache["a"] = 1


def test_a_field_that_was_durable_is_not_dropped_in_silence() -> None:
    class Newer(Entity):
        cache: dict[str, int] = ephemeral(factory=dict)

        @shared
        def get(self) -> int:
            return len(self.cache)

    host = Host(Older)
    host.call("put")
    newer = Host(Newer)
    newer.effects.snapshots.append(host.snapshot)
    newer.reactivate()
    assert error(newer.call("get")) == "StateMismatch"


def test_migrate_does_not_see_them() -> None:
    class Newer(Entity):
        schema_version: ClassVar[int] = 2
        migrations = {1: lambda state: {"size": len(state.pop("cache")), **state}}
        size: int = 0
        cache: dict[str, int] = ephemeral(factory=dict)

        @shared
        def get(self) -> list[int]:
            return [self.size, len(self.cache)]

    host = Host(Older)
    host.call("put")
    newer = Host(Newer)
    newer.effects.snapshots.append(host.snapshot)
    newer.reactivate()
    assert value(newer.call("get")) == [1, 0]


# --- the class --------------------------------------------------------------------------------


def test_outside_the_runtime_it_is_an_attribute() -> None:
    room = Room()
    room.line.closed = True
    room.mark = "x"
    assert (room.line.closed, Room().line.closed) == (True, False)
    assert room.model_dump() == {"guests": 0, "names": []}
    assert repr(room) == "Room(guests=0, names=[])"
    assert room.model_copy().mark is None
    assert room == Room()
    assert set(Room.model_json_schema()["properties"]) == {"guests", "names"}


def test_it_is_no_part_of_the_plan() -> None:
    plan = plan_of(Room, "Room")
    assert plan.ephemeral
    assert plan.names == ("guests", "names")
    assert not plan_of(Older, "Older").ephemeral


def test_it_cannot_be_given_to_the_constructor() -> None:
    with pytest.raises(pydantic.ValidationError, match="mark"):
        Room(mark="x")


def test_it_is_inherited() -> None:
    class Hall(Room):
        size: int = 0

    host = Host(Hall)
    host.call("enter", "ada")
    assert value(host.call("seen")) == [1, ["ada"], ["ada"], "ada"]


class Mixin:
    told: list[str] = ephemeral(factory=list)


def test_it_may_come_from_a_mixin() -> None:
    class Mixed(Mixin, Entity):
        def tell(self) -> list[str]:
            self.told.append("x")
            return self.told

    host = Host(Mixed)
    host.call("tell")
    assert value(host.call("tell")) == ["x", "x"]
    assert host.fields == {}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (ephemeral, "a default, or a factory"),
        (lambda: ephemeral(1, factory=int), "a default, or a factory"),  # type: ignore[call-overload]
        (lambda: ephemeral([]), "factory=list"),
        (lambda: ephemeral(factory=7), "is a function"),  # type: ignore[call-overload]
        (lambda: ephemeral(factory=abs), "without arguments"),  # type: ignore[arg-type]
        (lambda: ephemeral(factory=asyncio.sleep), "async"),  # type: ignore[arg-type]
    ],
)
def test_nonsense_is_refused_where_it_is_written(make: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make()


def _private() -> Any:
    class Wrong(Entity):
        _cache: dict[str, int] = ephemeral(factory=dict)


def _reserved() -> Any:
    class Wrong(Entity):
        context: Any = ephemeral(None)


def _hook() -> Any:
    class Wrong(Entity):
        on_activate: Any = ephemeral(None)


def _of_pydantic() -> Any:
    class Wrong(Entity):
        model_fields: Any = ephemeral(None)


def _durable_above() -> Any:
    class Wrong(Older):
        cache = ephemeral(factory=dict)


def _durable_below() -> Any:
    class Wrong(Room):
        mark: str | None = ""


@pytest.mark.filterwarnings("ignore:Field name .* shadows")
@pytest.mark.parametrize(
    ("define", "words"),
    [
        (_private, "underscore"),
        (_reserved, "belongs to the base class"),
        (_hook, "belongs to the base class"),
        (_of_pydantic, "belongs to the base class"),
        (_durable_above, "durable in one class"),
        (_durable_below, "durable in one class"),
    ],
)
def test_nonsense_is_refused_with_the_class(define: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        define()


def test_it_belongs_to_entities() -> None:
    class Other(pydantic.BaseModel):
        x: Any = ephemeral(None)

    with pytest.raises(UsageError, match=r"no lungfish\.Entity"):
        _ = Other().x


# --- a whole runtime --------------------------------------------------------------------------

app = lungfish.App("ephemeral")


@app.entity
class Desk(lungfish.Entity):
    total: int = 0
    rates: dict[str, int] = lungfish.ephemeral(factory=dict)

    async def pay(self, currency: str, amount: int) -> int:
        if currency not in self.rates:
            self.rates[currency] = await self.context.entity(Bank, currency).call(Bank.rate)
        self.total += amount * self.rates[currency]
        return self.total


@app.entity
class Bank(lungfish.Entity):
    asked: int = 0

    def rate(self) -> int:
        self.asked += 1
        return 3


async def pays(client: lungfish.Client) -> tuple[int, int]:
    desk = client.entity(Desk, "d")
    await desk.call(Desk.pay, "eur", 1)
    return await desk.call(Desk.pay, "eur", 2), await desk.call(Desk.pay, "usd", 1)


def test_a_cache_may_be_lost_at_any_instant() -> None:
    report = crash_everywhere(app, pays)
    assert report.outcome == (9, 12)
    assert report.runs > 10


async def test_no_view_of_the_state_has_it() -> None:
    async with environment(app) as env:
        desk = env.client.entity(Desk, "d")
        await desk.call(Desk.pay, "eur", 1)
        state = await desk.state()
        assert state is not None
        assert state.rates == {}
        assert (await env.client.entity(Bank, "eur").state()) == Bank(asked=1)
        async with asyncio.timeout(30):
            async for watched in desk.watch():
                assert watched is not None
                assert watched.model_dump() == {"total": 3}
                break
        with pytest.raises(lungfish.InvalidArguments, match="rates"):
            await desk.edit({"rates": {}}, reason="test", by="test")
        await desk.edit({"total": 10}, reason="test", by="test")
        assert await desk.call(Desk.pay, "eur", 1) == 13
        assert (await env.client.entity(Bank, "eur").state()) == Bank(asked=1), "an edit leaves the cache"
