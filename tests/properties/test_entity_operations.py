"""Random operations, with failures of every sort, give what a plain model in a loop gives."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from lungfish.entities import Entity, shared
from lungfish.runtime import codec
from lungfish.runtime.messages.messages import Signal
from tests.unit.entities.fakes import Host, value


class Tally(Entity):
    """Every way to change a state, to fail, to send and to delete, in one operation."""

    WAITS: ClassVar[bool] = False

    total: int = 0
    items: list[int] = Field(default_factory=list)
    by_name: dict[str, list[int]] = Field(default_factory=dict)

    def change(self, n: int, how: str) -> Any:
        self.total += n
        self.items.append(n)
        self.by_name.setdefault(str(n % 3), []).append(n)
        if len(self.items) > 3:
            self.items.pop(0)
        self.context.entity(type(self), "other").signal("change", n, how)
        match how:
            case "raise":
                raise ValueError(n)
            case "exit":
                raise SystemExit(n)
            case "unstorable":
                self.by_name["odd"] = object()  # type: ignore[assignment]
            case "unfit":
                self.total = "many"  # type: ignore[assignment]
            case "unsendable":
                return object()
            case "delete":
                self.context.delete()
        return [self.total, list(self.items)]

    async def wait(self, n: int, how: str) -> Any:
        if n % 2:
            await asyncio.sleep(0)
        result = self.change(n, how)
        if n % 3:
            await asyncio.sleep(0)
        return result

    @shared
    def meddle(self, n: int, how: str) -> Any:
        self.items.append(n)
        self.total = n
        return [self.total, list(self.items)]


class Flat(Entity):
    """The same with immutable fields only."""

    total: int = 0
    text: str = ""

    def change(self, n: int, how: str) -> Any:
        self.total += n
        self.text = (self.text + str(n))[-5:]
        self.context.entity(type(self), "other").signal("change", n, how)
        match how:
            case "raise" | "exit":
                raise (ValueError if how == "raise" else SystemExit)(n)
            case "unstorable":
                self.text = object()  # type: ignore[assignment]
            case "unfit":
                self.total = "many"  # type: ignore[assignment]
            case "unsendable":
                return object()
            case "delete":
                self.context.delete()
        return [self.total, self.text]

    async def wait(self, n: int, how: str) -> Any:
        if n % 2:
            await asyncio.sleep(0)
        return self.change(n, how)

    @shared
    def meddle(self, n: int, how: str) -> Any:
        self.total = n
        return [self.total, self.text]


@dataclasses.dataclass
class Model:
    """What should come out: a state that is replaced only by operations that went well."""

    cls: type[Any]
    fields: dict[str, Any] | None = None
    sent: list[int] = dataclasses.field(default_factory=list)

    def apply(self, operation: str, n: int, how: str) -> Any:
        """Return the result, or None for a failure."""
        before = self.fields if self.fields is not None else self.cls().model_dump()
        after = self._changed(before, n)
        if operation == "meddle":
            return self._result(
                {**before, "total": n, **({"items": [*before["items"], n]} if "items" in before else {})}
            )
        if how not in ("fine", "delete"):
            return None
        self.sent.append(n)
        self.fields = after if how == "fine" else None
        return self._result(after)

    def _changed(self, before: dict[str, Any], n: int) -> dict[str, Any]:
        if self.cls is Flat:
            return {"total": before["total"] + n, "text": (before["text"] + str(n))[-5:]}
        named = {name: list(items) for name, items in before["by_name"].items()}
        named.setdefault(str(n % 3), []).append(n)
        items = [*before["items"], n]
        return {"total": before["total"] + n, "items": items[-3:], "by_name": named}

    def _result(self, fields: dict[str, Any]) -> Any:
        return [fields["total"], fields["text"] if self.cls is Flat else fields["items"]]


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


HOWS = ["fine", "fine", "fine", "raise", "exit", "unstorable", "unfit", "unsendable", "delete"]
OPERATIONS = ["change", "change", "wait", "meddle"]

one = st.tuples(st.integers(0, 9), st.sampled_from(HOWS))
asked = st.one_of(
    st.tuples(st.just("call"), st.sampled_from(OPERATIONS), one.map(lambda row: [row])),
    st.tuples(st.just("signal"), st.sampled_from(OPERATIONS), st.lists(one, max_size=6)),
)
#: True: settle and forget what is in memory; False: run; None: let it queue up.
step = st.tuples(asked, st.sampled_from([None, None, False, True]))


@pytest.mark.parametrize("cls", [Tally, Flat])
@settings(deadline=None, max_examples=150)
@given(steps=st.lists(step, max_size=15))
def test_random_operations_equal_a_plain_model(cls: type[Entity], steps: list[Any]) -> None:
    asyncio.run(_compare(cls, steps))


async def _compare(cls: type[Entity], steps: list[Any]) -> None:
    host, model = Host(cls), Model(cls)
    expected: dict[str, Any] = {}
    for (kind, operation, rows), then in steps:
        hows = {how for _, how in rows}
        if kind == "signal" and "unsendable" in hows:
            continue  # a signal's result is not sent anywhere, so it does not matter
        if "delete" in hows:
            # The state is looked at when a turn ends. Deleting it sooner would hide that it cannot be stored.
            if hows & {"unstorable", "unfit"}:
                continue
            await host.settle()
            then = then or False
        results = [model.apply(operation, *row) for row in rows]
        if kind == "call":
            expected[host.ask(operation, *rows[0])] = results[0]
        else:
            host.signal(operation, *rows)
        if then is not None:
            await host.settle()
            _check(host, model, expected)
        if then:
            await host.crash()
    await host.settle()
    _check(host, model, expected)
    assert host.activation.passive


def _check(host: Host, model: Model, expected: dict[str, Any]) -> None:
    for _ in range(1000):
        if all(host.answered(request) for request in expected):
            break
        host.run()
    for request, result in expected.items():
        answer = host.answer(request)
        assert (value(answer) if answer.failure is None else None) == result
    assert host.fields == model.fields
    assert [n for n, _ in (message_args(m) for m in host.signals)] == model.sent


def message_args(message: Signal) -> tuple[int, str]:
    ((n, how),) = codec.decode(message.batch)
    return n, how


batches = st.lists(st.integers(0, 30), min_size=1, max_size=8)


@settings(deadline=None, max_examples=60)
@given(parts=st.lists(batches, min_size=1, max_size=6), crashes=st.sets(st.integers(0, 40)))
def test_a_crash_between_any_two_runs_neither_loses_nor_doubles(
    parts: list[list[int]], crashes: set[int]
) -> None:
    async def scenario() -> None:
        host = Host(Slow)
        for part in parts:
            host.signal("put", *[[n] for n in part])
        for at in range(400):
            host.run()
            if at in crashes:
                await host.crash()
            await asyncio.sleep(0)
            if host.activation.passive and len(host.effects.finished) >= len(parts):
                break
        got = host.fields or {"got": []}
        assert got["got"] == [n for part in parts for n in part if n % 5]
        assert len(host.effects.finished) == len(parts)

    asyncio.run(scenario())


class Slow(Entity):
    got: list[int] = Field(default_factory=list)

    async def put(self, n: int) -> None:
        self.got.append(n)
        for _ in range(n % 4):
            await asyncio.sleep(0)
        if n % 5 == 0:
            raise ValueError(n)
