"""Queries and updates: what they may, what is recorded, and what survives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from lungfish.orchestrations import OrchestrationContext, events
from lungfish.orchestrations.limits import Limits
from lungfish.runtime import codec
from lungfish.runtime.declared.app import App
from lungfish.runtime.declared.signatures import encode_arguments
from lungfish.runtime.errors import FailureDetails
from lungfish.runtime.messages.messages import Control, Query, Response, Update
from tests.unit.orchestrations.fakes import CLIENT_ID, FakeHost, instance

app = App("handlers")


@app.activity
def price(item: str) -> int:
    raise AssertionError("workers are played by the test")


@app.orchestration
async def cart(ctx: OrchestrationContext, owner: str) -> list[str]:
    items: list[str] = []
    paid = asyncio.Event()

    @ctx.on_query
    def content(prefix: str = "") -> list[str]:
        return [item for item in items if item.startswith(prefix)]

    @ctx.on_query("broken")
    def fails() -> None:
        raise ValueError("no answer")

    ctx.on_query("time", lambda: ctx.now().timestamp())

    def not_twice(item: str) -> None:
        if item in items:
            raise ValueError(f"{item} is in the cart")

    @ctx.on_update(validator=not_twice)
    async def add(item: str) -> int:
        cost = await ctx.call_activity(price, item)
        items.append(item)
        return cost * 2

    @ctx.on_update("pay")
    def _pay(by: str) -> str:
        paid.set()
        return f"{owner} by {by}"

    @ctx.on_update("fail")
    def _fail() -> None:
        raise KeyError("handler")

    await paid.wait()
    await ctx.updates_finished()
    return items


@pytest.fixture(params=["live", "always_replay"])
def host(request: pytest.FixtureRequest) -> FakeHost:
    return FakeHost(app, always_replay=request.param == "always_replay")


class Asked:
    """What a client asks of an instance, and hears."""

    def __init__(self, host: FakeHost, id: str = "i") -> None:
        self.host = host
        self.actor = instance(id)
        self.requests = 0

    def query(self, name: str, *args: Any) -> Any:
        request = self._request()
        self.host.deliver(Query(self.actor, name, encode_arguments(args, {}, name), request, CLIENT_ID))
        return self.heard(request)

    def update(self, id: str, name: str, *args: Any) -> str:
        request = self._request()
        self.host.deliver(Update(self.actor, name, encode_arguments(args, {}, name), id, request, CLIENT_ID))
        return request

    def updated(self, id: str, name: str, *args: Any) -> Any:
        return self.heard(self.update(id, name, *args))

    def heard(self, request: str) -> Any:
        (response,) = self.host.responses(request)
        return _value(response)

    def _request(self) -> str:
        self.requests += 1
        return f"r{self.requests}"


def _value(response: Response) -> Any:
    if response.failure is not None:
        return str(response.failure).removeprefix("lungfish.runtime.errors.")
    assert response.result is not None
    return codec.decode(response.result)


@pytest.fixture
def asked(host: FakeHost) -> Asked:
    host.start("cart", "ann")
    return Asked(host)


def history(host: FakeHost) -> list[events.Event]:
    return events.unpack_all(host.effects.histories[instance("i")])


def test_a_query_is_answered_and_leaves_no_trace(host: FakeHost, asked: Asked) -> None:
    asked.update("1", "add", "apple")
    host.finish(3)
    before = (history(host), host.effects.rows[instance("i")], list(host.effects.log))
    assert asked.query("content") == ["apple"]
    assert asked.query("content", "b") == []
    assert (history(host), host.effects.rows[instance("i")], host.effects.log[:-2]) == before
    assert host.effects.log[-2:] == ["send", "send"]


def test_a_query_finds_what_a_crash_took_from_memory(host: FakeHost, asked: Asked) -> None:
    asked.update("1", "add", "apple")
    host.finish(3)
    host.crash()
    assert asked.query("content") == ["apple"]
    asked.update("2", "add", "pear")
    host.finish(4)
    assert asked.query("content") == ["apple", "pear"]


@pytest.mark.parametrize("crash", [False, True])
def test_a_query_is_answered_after_the_end(host: FakeHost, asked: Asked, crash: bool) -> None:
    asked.update("1", "add", "apple")
    host.finish(3)
    assert asked.updated("2", "pay", "cash") == "ann by cash"
    assert host.output() == ["apple"]
    if crash:
        host.crash()
    length = len(history(host))
    assert asked.query("content") == ["apple"]
    assert asked.query("content") == ["apple"]
    assert len(history(host)) == length


def test_a_terminated_instance_answers_queries(host: FakeHost, asked: Asked) -> None:
    asked.update("1", "add", "apple")
    host.finish(3)
    host.crash()
    host.deliver(Control(instance("i"), "terminate"))
    assert asked.query("content") == ["apple"]
    host.crash()
    assert asked.query("content") == ["apple"]


@pytest.mark.parametrize(
    ("name", "args", "answer"),
    [
        ("nothing", (), "NotRegistered: the orchestration has no query named 'nothing'; there are: bro"),
        ("content", (1, 2), "InvalidArguments: query 'content'(prefix: 'str' = '') -> 'list[str]': too many"),
        ("content", (1,), "InvalidArguments: query 'content': argument 1"),
        ("broken", (), "QueryFailed: query 'broken': ValueError: no answer (caused by ValueError: no answer"),
    ],
)  # fmt: skip
def test_a_query_that_cannot_be_answered_is_told_why(
    asked: Asked, name: str, args: tuple[Any, ...], answer: str
) -> None:
    assert asked.query(name, *args).startswith(answer)


def test_there_is_nothing_to_ask(host: FakeHost) -> None:
    asked = Asked(host)
    assert asked.query("content") == "InstanceNotFound: no instance 'i'"
    assert asked.updated("1", "pay") == "InstanceNotFound: no instance 'i'"
    host.start("cart", "ann", due_ms=host.effects.now_ms + 5_000)
    assert asked.query("content").startswith("UsageError: instance 'i' has not begun (Pending)")


def test_the_time_of_a_query_is_that_of_the_last_turn(host: FakeHost, asked: Asked) -> None:
    host.advance(5)
    assert asked.query("time") == 1_000


READERS: dict[str, Callable[[OrchestrationContext], Any]] = {
    "activity": lambda ctx: ctx.call_activity(price, "x"),
    "timer": lambda ctx: ctx.sleep(1),
    "child": lambda ctx: ctx.call_orchestration("cart", "x"),
    "event": lambda ctx: ctx.wait_for_external_event("e"),
    "send": lambda ctx: ctx.send_event("other", "e"),
    "status": lambda ctx: ctx.set_custom_status(1),
    "new": lambda ctx: ctx.continue_as_new("x"),
    "patch": lambda ctx: ctx.patched("p"),
    "uuid": lambda ctx: ctx.uuid4(),
    "chance": lambda ctx: ctx.random.random(),
    "register": lambda ctx: ctx.on_query("more", lambda: 1),
    "task": lambda _: asyncio.create_task(asyncio.sleep(1)),
    "call_later": lambda _: asyncio.get_running_loop().call_later(1, print),
    "call_soon": lambda _: asyncio.get_running_loop().call_soon(print),
}


@app.orchestration
async def strict(ctx: OrchestrationContext, what: str) -> None:
    def look() -> str:
        READERS[what](ctx)
        return "changed something"

    ctx.on_query("look", look)
    ctx.on_update("change", lambda: "changed something", validator=look)
    await ctx.wait_for_external_event("end")
    if what == "register":
        raise AssertionError


@pytest.mark.parametrize("what", READERS)
@pytest.mark.parametrize("ended", [False, True])
def test_who_looks_changes_nothing(host: FakeHost, what: str, ended: bool) -> None:
    host.start("strict", what)
    if ended:
        host.deliver(Control(instance("i"), "terminate"))
    before = history(host)
    answer = Asked(host).query("look")
    assert answer.startswith("ReadOnly: the query 'look' may only look: it must not ")
    if not ended:
        asked = Asked(host)
        asked.requests = 10
        assert asked.updated("1", "change").startswith(
            "ReadOnly: the validator of update 'change' may only look"
        )
        host.deliver(Control(instance("i"), "suspend"))
        assert history(host)[:-1] == before


# --- updates ---


def test_an_update_is_recorded_and_answered_when_it_is_done(host: FakeHost, asked: Asked) -> None:
    request = asked.update("1", "add", "apple")
    assert host.responses(request) == []
    assert host.row().updates == [("1", request, CLIENT_ID)]
    host.finish(3)
    assert asked.heard(request) == 6
    assert host.row().updates == []
    kinds = [type(event).__name__ for event in history(host)]
    assert kinds == [
        "TurnStarted", "ExecutionStarted", "TurnStarted", "UpdateAccepted", "TaskScheduled",
        "TurnStarted", "TaskCompleted", "UpdateCompleted",
    ]  # fmt: skip


def test_a_rejected_update_is_not_recorded(host: FakeHost, asked: Asked) -> None:
    asked.update("1", "add", "apple")
    host.finish(3)
    before = history(host)
    answer = asked.updated("2", "add", "apple")
    assert answer.startswith("UpdateRejected: update 'add': ValueError: apple is in the cart")
    assert asked.updated("3", "add").startswith("InvalidArguments")
    assert asked.updated("4", "other").startswith(
        "NotRegistered: the orchestration has no update named 'other'"
    )
    assert history(host) == before


def test_an_update_is_done_once_for_its_id(host: FakeHost, asked: Asked) -> None:
    first = asked.update("1", "add", "apple")
    second = asked.update("1", "add", "apple")
    host.crash()
    third = asked.update("1", "add", "apple")
    assert len(host.effects.dispatched) == 1
    host.finish(3)
    assert [asked.heard(request) for request in (first, second, third)] == [6, 6, 6]
    host.crash()
    assert asked.updated("1", "add", "apple") == 6
    assert asked.query("content") == ["apple"]


def test_an_update_survives_a_crash(host: FakeHost, asked: Asked) -> None:
    request = asked.update("1", "add", "apple")
    host.crash()
    host.finish(3)
    assert asked.heard(request) == 6


def test_a_failed_handler_fails_its_update_only(host: FakeHost, asked: Asked) -> None:
    assert asked.updated("1", "fail") == "KeyError: 'handler'".removeprefix("lungfish")
    assert host.row().status == "Running"
    assert asked.updated("1", "fail") == "KeyError: 'handler'"
    assert asked.updated("2", "pay", "card") == "ann by card"
    assert host.output() == []


def test_the_outcome_is_told_after_the_end_too(host: FakeHost, asked: Asked) -> None:
    asked.update("1", "pay", "card")
    assert host.row().status == "Completed"
    # What its result woke up came later: the outcome stands before the end that it led to.
    assert [type(event).__name__ for event in history(host)][-2:] == ["UpdateCompleted", "ExecutionCompleted"]
    assert asked.updated("1", "pay", "card") == "ann by card"
    host.crash()
    assert asked.updated("1", "pay", "card") == "ann by card"
    assert asked.updated("2", "pay", "card") == "InstanceEnded: instance 'i' has ended (Completed)"


def test_the_end_refuses_updates_that_run(host: FakeHost, asked: Asked) -> None:
    request = asked.update("1", "add", "apple")
    host.deliver(Control(instance("i"), "terminate"))
    assert asked.heard(request).startswith("InstanceEnded: instance 'i' ended (Terminated) before the update")
    assert host.row().updates == []


def test_a_suspended_instance_takes_updates_when_it_goes_on(host: FakeHost, asked: Asked) -> None:
    host.deliver(Control(instance("i"), "suspend"))
    request = asked.update("1", "pay", "card")
    assert host.responses(request) == []
    assert asked.query("content") == []
    host.deliver(Control(instance("i"), "resume"))
    host.deliver()
    host.raise_event("wakes it")
    assert asked.heard(request) == "ann by card"


def test_a_suspended_instance_that_is_terminated_refuses_updates(host: FakeHost, asked: Asked) -> None:
    host.deliver(Control(instance("i"), "suspend"))
    request = asked.update("1", "pay", "card")
    host.deliver(Control(instance("i"), "terminate"))
    assert asked.heard(request) == "InstanceEnded: instance 'i' has ended (Terminated)"


def test_too_many_who_wait_are_refused(host: FakeHost, asked: Asked) -> None:
    host.crash()
    host.kind.limits = Limits(watchers_max=1)
    asked.update("1", "add", "apple")
    assert asked.updated("1", "add", "apple").startswith("Overloaded")


@app.orchestration
async def renews(ctx: OrchestrationContext, round: int) -> int:
    @ctx.on_update
    async def next_round(wait: bool) -> int:
        ctx.continue_as_new(round + 1)
        go.set()
        if wait:
            await ctx.wait_for_external_event("never")
        return round

    go = asyncio.Event()
    await go.wait()
    return round


def test_outcomes_survive_continue_as_new(host: FakeHost) -> None:
    host.start("renews", 1)
    asked = Asked(host)
    assert asked.updated("1", "next_round", False) == 1
    assert asked.updated("1", "next_round", False) == 1
    cut = asked.updated("2", "next_round", True)
    assert cut.startswith("UpdateFailed: the instance continued as new before")
    host.crash()
    assert [asked.updated(id, "next_round", False) for id in ("1", "2", "3")] == [1, cut, 3]


def test_only_the_newest_outcomes_survive_continue_as_new(host: FakeHost) -> None:
    host.kind.limits = Limits(updates_remembered=1)
    host.start("renews", 1)
    asked = Asked(host)
    assert [asked.updated(id, "next_round", False) for id in ("1", "2", "2", "1")] == [1, 2, 2, 3]


@app.orchestration
async def mistaken(ctx: OrchestrationContext, what: str) -> None:
    async def waits() -> None: ...

    def plain() -> None: ...

    if what == "query":
        ctx.on_query("q", waits)
    elif what == "validator":
        ctx.on_update("u", plain, validator=waits)
    elif what == "value":
        ctx.on_update("u", 7)  # type: ignore[call-overload]
    else:
        ctx.on_query("", plain)


@pytest.mark.parametrize("what", ["query", "validator", "value", "name"])
def test_handlers_that_cannot_be_are_refused_where_they_are_registered(host: FakeHost, what: str) -> None:
    host.start("mistaken", what)
    failure = host.row().failure
    assert failure is not None
    assert "UsageError" in failure.error_type or "InvalidId" in failure.error_type


def test_code_that_has_lost_its_handler_is_non_deterministic() -> None:
    old, new = App("old"), App("old")

    @old.orchestration(name="f")
    async def before(ctx: OrchestrationContext) -> None:
        ctx.on_update("u", lambda: 1)
        await ctx.wait_for_external_event("end")

    @new.orchestration(name="f")
    async def after(ctx: OrchestrationContext) -> None:
        await ctx.wait_for_external_event("end")

    host = FakeHost(old)
    host.start("f")
    assert Asked(host).updated("1", "u") == 1
    changed = FakeHost(new)
    changed.effects = host.effects
    changed.effects.sent.clear()
    answer = Asked(changed).query("q")
    assert answer.startswith("QueryFailed: query 'q': ")
    assert "expected: the end of update '1'" in answer
    assert changed.row().status == "Running"
    changed.raise_event("end")
    assert changed.row().status == "Failed"
    assert "expected: the end of update '1'" in str(changed.row().failure)


def test_failures_are_whole(host: FakeHost, asked: Asked) -> None:
    request = asked.update("1", "fail")
    (response,) = host.responses(request)
    assert isinstance(response.failure, FailureDetails)
    assert "in _fail" in response.failure.traceback
