"""Orchestrations as actors: messages in, effects out, over a host in memory."""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
import logging
import time
from typing import Any

import pytest

from lungfish.orchestrations import OrchestrationContext, events
from lungfish.orchestrations.limits import Limits
from lungfish.orchestrations.processor import OrchestrationKind
from lungfish.orchestrations.reading import read_status
from lungfish.runtime import codec
from lungfish.runtime.declared.app import App
from lungfish.runtime.declared.definitions import EntityDefinition, operations_of
from lungfish.runtime.declared.retry import RetryPolicy
from lungfish.runtime.declared.signatures import encode_arguments
from lungfish.runtime.errors import (
    ActivityTimedOut,
    EntityOperationFailed,
    FailureDetails,
    NotRegistered,
    OrchestrationFailed,
    OrchestrationTerminated,
    qualified_name,
)
from lungfish.runtime.ids import CLIENT, ActorId
from lungfish.runtime.messages.messages import (
    Call,
    Control,
    RaiseEvent,
    Response,
    Signal,
    Start,
    TimerFired,
    Watch,
)
from lungfish.runtime.partitions.kinds import load_kinds
from tests.unit.orchestrations.fakes import CLIENT_ID, FakeHost, instance

app = App("processor")


class Base: ...


class Counter:
    def add(self, n: int = 1) -> int: ...  # type: ignore[empty-body]
    async def get(self) -> int: ...  # type: ignore[empty-body]


app.entities["Counter"] = EntityDefinition("Counter", Counter, operations_of(Counter, "Counter", Base))

SECONDS = dt.timedelta(seconds=1)
BROKEN = FailureDetails("builtins.ValueError", "broken")


@app.activity
def work(n: int = 0) -> int: ...  # type: ignore[empty-body]


@app.activity(retry=RetryPolicy(max_attempts=3, initial_interval=10 * SECONDS, non_retriable=("KeyError",)))
def flaky() -> int: ...  # type: ignore[empty-body]


@app.activity(inline=True)
def double(n: int) -> int:
    if n < 0:
        raise SystemExit
    return n * 2


@app.orchestration
async def one_step(ctx: OrchestrationContext, n: int = 1) -> int:
    return await ctx.call_activity(work, n)


@app.orchestration
async def listens(ctx: OrchestrationContext) -> list[Any]:
    return [
        await ctx.wait_for_external_event("Number", int),
        await ctx.wait_for_external_event("number", int),
        await ctx.wait_for_external_event("other", str),
    ]


@pytest.fixture(params=["live", "always_replay", "crash"])
def host(request: pytest.FixtureRequest) -> FakeHost:
    host = FakeHost(app, always_replay=request.param == "always_replay")
    if request.param == "crash":
        deliver = host.deliver

        def deliver_and_crash(*messages: Any) -> None:
            deliver(*messages)
            host.crash()

        host.deliver = deliver_and_crash  # type: ignore[method-assign]
    return host


def control(host: FakeHost, verb: str, reason: str = "", id: str = "i") -> Response:
    host.deliver(Control(instance(id), verb, reason, "control", CLIENT_ID))
    return host.responses("control")[-1]


def history(host: FakeHost, id: str = "i") -> list[events.Event]:
    return events.unpack_all(host.effects.histories[instance(id)])


# --- start ---


def test_the_kind_is_found_by_the_host() -> None:
    assert isinstance(load_kinds(app, ["o"])["o"], OrchestrationKind)


def test_start_is_answered_with_the_execution_id(host: FakeHost) -> None:
    host.start("one_step", 5)
    (response,) = host.responses("start")
    assert response.result == codec.encode(host.row().execution)
    host.finish(10)
    assert host.output() == 10


@app.orchestration
async def takes_text(ctx: OrchestrationContext, text: str) -> int:
    await ctx.call_activity(work)
    return len(text)


def test_a_large_input_is_not_written_at_every_turn(host: FakeHost) -> None:
    host.start("takes_text", "x" * 100_000)
    assert len(host.effects.rows[instance("i")]) < 1_000
    host.finish(1)
    assert host.output() == 100_000


def test_history_row_and_actions_leave_in_one_round(host: FakeHost) -> None:
    host.start("one_step")
    assert host.effects.log == ["send", "history", "instance"]
    assert len(host.effects.dispatched) == len(host.effects.activities) == 1


@pytest.mark.parametrize("ended", [False, True])
def test_an_id_is_taken_whatever_its_status(host: FakeHost, ended: bool) -> None:
    host.start("one_step")
    if ended:
        host.finish(1)
    before = dict(host.effects.rows)
    host.start("one_step")
    failure = host.responses("start")[-1].failure
    assert failure is not None
    assert "InstanceExists" in failure.error_type
    assert host.effects.rows == before


@pytest.mark.parametrize(
    ("name", "args", "error"),
    [
        ("nobody", (), "NotRegistered"),
        ("one_step", ("x",), "InvalidArguments"),
        ("one_step", (1, 2), "InvalidArguments"),
    ],
)
def test_a_start_that_cannot_be_is_refused_and_nothing_created(
    host: FakeHost, name: str, args: Any, error: str
) -> None:
    host.start(name, *args)
    (response,) = host.responses("start")
    assert response.failure is not None
    assert error in response.failure.error_type
    assert not host.effects.rows
    parent = instance("parent")
    host.deliver(
        Start(instance("i"), name, encode_arguments(args, {}, name), parent=parent, parent_request="x:1")
    )
    (response,) = host.responses("x:1")
    assert response.target == parent
    assert response.failure is not None
    assert not host.effects.rows


def test_a_delayed_start_waits_and_keeps_what_comes(host: FakeHost) -> None:
    host.start("listens", due_ms=host.effects.now_ms + 60_000)
    assert host.row().status == "Pending"
    host.raise_event("number", 1)
    host.raise_event("number", 2)
    host.advance(59)
    assert host.row().status == "Pending"
    host.advance(1)
    assert host.row().status == "Running"
    host.raise_event("other", "three")
    assert host.output() == [1, 2, "three"]
    assert not any(host.mailbox.values())


def test_a_delayed_start_can_be_suspended_and_terminated(host: FakeHost) -> None:
    host.start("listens", due_ms=host.effects.now_ms + 60_000)
    control(host, "suspend")
    host.advance(120)
    assert host.row().status == "Suspended"
    control(host, "resume")
    assert host.row().status == "Running"
    host.start("listens", id="j", due_ms=host.effects.now_ms + 60_000)
    control(host, "terminate", id="j")
    assert host.row("j").status == "Terminated"
    assert not host.effects.timers


# --- watch and control ---


def test_watch_answers_at_the_end_and_after(host: FakeHost) -> None:
    watch = Watch(instance("i"), "w", CLIENT_ID)
    host.deliver(watch)
    failure = host.responses("w")[0].failure
    assert failure is not None
    assert "InstanceNotFound" in failure.error_type
    host.start("one_step")
    host.deliver(watch)
    host.finish(3)
    host.deliver(watch)
    assert [response.result for response in host.responses("w")[1:]] == [codec.encode(3)] * 2
    assert host.row().watchers == []


def test_watchers_are_bounded(host: FakeHost) -> None:
    host.kind.limits = Limits(watchers_max=2)
    host.start("one_step")
    for session in "abc":
        host.deliver(Watch(instance("i"), "w", ActorId(CLIENT, "", session)))
    (response,) = host.responses("w")
    assert response.failure is not None
    assert "Overloaded" in response.failure.error_type


def test_a_session_that_asks_again_and_again_waits_once(host: FakeHost) -> None:
    host.kind.limits = Limits(watchers_max=2)
    host.start("one_step")
    for request in range(5):
        host.deliver(Watch(instance("i"), f"w{request}", CLIENT_ID))
    assert host.row().watchers == [("w4", CLIENT_ID)]
    host.finish(3)
    assert [response.result for response in host.responses("w4")] == [codec.encode(3)]


def test_control_of_what_is_not_there_or_has_ended(host: FakeHost) -> None:
    for verb in ("terminate", "suspend", "resume"):
        failure = control(host, verb).failure
        assert failure is not None
        assert "InstanceNotFound" in failure.error_type
    host.start("one_step")
    failure = control(host, "explode").failure
    assert failure is not None
    assert "unknown control verb" in failure.message
    host.finish(1)
    for verb in ("terminate", "suspend", "resume"):
        failure = control(host, verb).failure
        assert failure is not None
        assert "InstanceEnded" in failure.error_type


def test_suspend_buffers_everything_but_resume_and_terminate(host: FakeHost) -> None:
    host.start("listens")
    assert control(host, "suspend", "break").failure is None
    assert control(host, "suspend").failure is None
    host.raise_event("number", 1)
    host.raise_event("number", 2)
    host.raise_event("other", "three")
    assert host.row().status == "Suspended"
    assert len(host.mailbox[instance("i")]) == 3
    assert control(host, "resume").failure is None
    assert host.output() == [1, 2, "three"]
    assert not host.mailbox[instance("i")]
    kinds = [type(event) for event in history(host)]
    assert kinds.count(events.Suspended) == kinds.count(events.Resumed) == 1
    assert not host.effects.finished[-1].record


def test_resume_of_what_is_not_suspended_changes_nothing(host: FakeHost) -> None:
    host.start("listens")
    before = dict(host.effects.rows)
    assert control(host, "resume").failure is None
    assert host.effects.rows == before


def test_terminating_a_suspended_instance_empties_its_mailbox(host: FakeHost) -> None:
    host.start("listens")
    control(host, "suspend")
    host.raise_event("number", 1)
    control(host, "terminate", "enough")
    row = host.row()
    assert row.status == "Terminated"
    assert row.failure is not None
    assert row.failure.message == "enough"
    assert not host.mailbox[instance("i")]


@app.orchestration
async def parent_of_two(ctx: OrchestrationContext) -> int:
    kids = [ctx.call_orchestration(one_step, i, id=f"kid-{i}") for i in range(2)]
    _ = ctx.create_timer(100)
    _ = ctx.call_activity(flaky.options(schedule_to_close=50))
    return sum(await asyncio.gather(*kids))


def children(host: FakeHost) -> list[Start]:
    return [message for message in host.effects.sent if isinstance(message, Start)]


def test_terminate_cascades_and_leaves_nothing_behind(host: FakeHost) -> None:
    host.start("parent_of_two")
    first, second = children(host)
    host.deliver(first, second)
    host.finish(1, at=1)
    host.deliver(*host.responses(first.parent_request))
    assert control(host, "terminate", "why").failure is None
    cascade = [m for m in host.effects.sent if isinstance(m, Control)]
    assert [(m.target, m.verb, m.reason) for m in cascade] == [(second.target, "terminate", "why")]
    host.deliver(*cascade)
    assert host.row("kid-1").status == "Terminated"
    assert not host.effects.timers
    assert not host.effects.activities


def test_an_ended_instance_takes_nothing_more(host: FakeHost, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    host.start("one_step")
    host.finish(1)
    before = list(host.effects.histories[instance("i")])
    host.raise_event("late")
    host.deliver(TimerFired(instance("i"), "x1", 1, 5))
    assert host.effects.histories[instance("i")] == before
    assert "'late' for instance i dropped" in caplog.text
    host.raise_event("lost", id="nobody")
    assert "does not exist" in caplog.text
    assert not any(host.mailbox.values())


# --- events ---


def test_events_wait_in_order_by_name_in_any_case(host: FakeHost) -> None:
    host.start("listens")
    host.raise_event("OTHER", "early")
    host.raise_event("number", 1)
    host.raise_event("NUMBER", 2)
    assert host.output() == [1, 2, "early"]


@app.orchestration
async def two_waiters(ctx: OrchestrationContext) -> list[Any]:
    first, second = ctx.wait_for_external_event("e", int), ctx.wait_for_external_event("e", int)
    cancelled = ctx.wait_for_external_event("x", int)
    cancelled.cancel()
    return [await first, await second, await ctx.wait_for_external_event("x", int)]


def test_the_oldest_waiter_is_first_and_a_cancelled_one_consumes_nothing(host: FakeHost) -> None:
    host.start("two_waiters")
    host.raise_event("x", 9)
    host.raise_event("e", 1)
    host.raise_event("e", 2)
    assert host.output() == [1, 2, 9]


def test_several_messages_of_one_round_make_one_turn(host: FakeHost) -> None:
    host.start("listens")
    host.deliver(*(RaiseEvent(instance("i"), "number", codec.encode(n)) for n in (1, 2)))
    assert len(host.effects.histories[instance("i")]) == 2
    assert [type(event) for event in history(host)].count(events.TurnStarted) == 2


def test_an_event_of_the_wrong_type_fails_its_waiter(host: FakeHost) -> None:
    host.start("listens")
    host.raise_event("number", "many")
    assert "InvalidArguments" in str(host.row().failure)


# --- activities ---


@app.orchestration
async def calls_flaky(ctx: OrchestrationContext) -> int:
    return await ctx.call_activity(flaky)


def test_retries_cost_no_history_and_keep_the_key(host: FakeHost) -> None:
    host.start("calls_flaky")
    before = host.effects.histories[instance("i")][:]
    first = host.finish(failure=BROKEN)
    assert not host.effects.dispatched
    host.advance(9.999)
    assert not host.effects.dispatched
    host.advance(0.001)
    second = host.finish(failure=BROKEN)
    host.advance(20)
    assert host.effects.histories[instance("i")] == before
    third = host.finish(7)
    assert [task.attempt for task in (first, second, third)] == [1, 2, 3]
    assert {task.idempotency_key for task in (first, second, third)} == {"i:x1:1"}
    assert host.output() == 7
    assert not host.effects.activities
    assert not host.effects.timers


def test_the_last_failure_is_raised_when_attempts_are_used_up(host: FakeHost) -> None:
    host.start("calls_flaky")
    for wait in (10, 20):
        host.finish(failure=BROKEN)
        host.advance(wait)
    host.finish(failure=BROKEN)
    row = host.row()
    assert row.status == "Failed"
    assert row.failure is not None
    assert row.failure.is_caused_by("ActivityFailed")
    assert row.failure.is_caused_by(ValueError)
    assert not host.effects.activities


@pytest.mark.parametrize(
    "failure",
    [
        FailureDetails("builtins.KeyError", "k"),
        FailureDetails("builtins.ValueError", "v", non_retriable=True),
    ],
)
def test_some_failures_are_not_retried(host: FakeHost, failure: FailureDetails) -> None:
    host.start("calls_flaky")
    host.finish(failure=failure)
    assert host.row().status == "Failed"


def test_results_of_other_attempts_do_not_count(host: FakeHost) -> None:
    host.start("calls_flaky")
    _, task = host.effects.dispatched[0]
    host.finish(failure=BROKEN)
    host.effects.dispatched.append(("default", task))
    host.finish(99)  # the failed attempt, reported again
    host.advance(10)
    host.effects.dispatched.append(("default", task))
    host.finish(99, at=-1)
    assert host.row().status == "Running"
    host.finish(7)
    assert host.output() == 7


@app.orchestration
async def hurries(ctx: OrchestrationContext) -> str:
    try:
        await ctx.call_activity(flaky.options(schedule_to_close=15, timeout=5, queue="gpu", id="my-key"))
    except ActivityTimedOut as error:
        return str(error)
    return ""


def test_schedule_to_close_ends_all_attempts(host: FakeHost) -> None:
    host.start("hurries")
    queue, task = host.effects.dispatched[0]
    assert (queue, task.timeout_ms, task.idempotency_key) == ("gpu", 5_000, "my-key")
    host.finish(failure=BROKEN)
    host.advance(10)
    assert len(host.effects.dispatched) == 1
    host.advance(5)
    assert "did not end within 15 s" in host.output()
    host.finish(1)
    assert not host.effects.timers
    assert not host.effects.activities


def test_a_timed_out_attempt_is_told_as_such(host: FakeHost) -> None:
    host.start("hurries")
    failure = FailureDetails(qualified_name(ActivityTimedOut), "5 s", non_retriable=True)
    host.finish(failure=failure, timed_out=True)
    assert "5 s" in host.output()


@app.orchestration
async def calls_unknown(ctx: OrchestrationContext) -> str:
    try:
        await ctx.call_activity("nobody", 1)
    except NotRegistered as error:
        return str(error)
    return ""


def test_an_unregistered_activity_is_raised_at_the_await(host: FakeHost) -> None:
    host.start("calls_unknown")
    assert "no activity named 'nobody'" in host.output()
    assert not host.effects.dispatched


@app.orchestration
async def calls_inline(ctx: OrchestrationContext) -> int:
    total = 0
    for n in range(5):
        total += await ctx.call_activity(double, n)
    try:
        await ctx.call_activity(double, -1)
    except Exception:
        total += 100
    return total


def test_inline_activities_run_in_the_turn(host: FakeHost) -> None:
    host.start("calls_inline")
    assert host.output() == 120
    assert len(host.effects.histories[instance("i")]) == 1
    assert not host.effects.dispatched


@app.orchestration
async def leaves(ctx: OrchestrationContext) -> str:
    _ = ctx.call_activity(work, 1)
    _ = ctx.create_timer(5)
    ctx.entity("Counter", "k").signal("add")
    _ = ctx.call_orchestration(one_step, id="kid")
    return "gone"


def test_what_an_ending_instance_asks_for_still_leaves_but_nothing_waits(host: FakeHost) -> None:
    host.start("leaves")
    assert host.output() == "gone"
    (_, task) = host.effects.dispatched[0]
    assert task.row == ""
    assert not host.effects.activities
    assert not host.effects.timers
    assert any(isinstance(message, Signal) for message in host.effects.sent)
    assert children(host)


# --- entities and sub-orchestrations ---


@app.orchestration
async def uses_entity(ctx: OrchestrationContext) -> list[Any]:
    counter = ctx.entity(Counter, "hits")
    counter.signal(Counter.add, 2)
    counter.signal("add", n=3, at=ctx.now() + SECONDS)
    result = await counter.call(Counter.add, 5)
    try:
        await counter.call("get")
    except EntityOperationFailed as error:
        return [result, str(error)]
    return []


def test_entities_are_called_and_signalled(host: FakeHost) -> None:
    host.start("uses_entity")
    target = ActorId("e", "Counter", "hits")
    now, later = [m for m in host.effects.sent if isinstance(m, Signal)]
    assert (now.target, now.operation, codec.decode(now.batch), now.due_ms) == (target, "add", [[2]], 0)
    assert (codec.decode(later.batch), later.due_ms) == ([[3]], host.effects.now_ms + 1_000)
    (call,) = [m for m in host.effects.sent if isinstance(m, Call)]
    assert (call.target, call.operation, codec.decode(call.args)) == (target, "add", [[5], {}])
    assert call.reply_to == instance("i")
    host.deliver(Response(instance("i"), call.request, codec.encode(5)))
    host.deliver(Response(instance("i"), call.request, codec.encode(99)))  # doubled
    call = [m for m in host.effects.sent if isinstance(m, Call)][-1]
    host.deliver(Response(instance("i"), "other:2", codec.encode(99)), Response(instance("i"), "junk", None))
    host.deliver(Response(instance("i"), call.request, failure=BROKEN))
    result, message = host.output()
    assert result == 5
    assert "Counter/hits" in message
    assert "broken" in message


@app.orchestration
async def misuses(ctx: OrchestrationContext) -> list[str]:
    mistakes: list[Any] = [
        lambda: ctx.entity("Nobody", "k"),
        lambda: ctx.entity(Counter, ""),
        lambda: ctx.entity(Counter, "k").signal("nothing"),
        lambda: ctx.entity(Counter, "k").call("add", "many", "more"),
        lambda: ctx.call_activity(work, object()),  # type: ignore[call-overload]
        lambda: ctx.call_activity(work, 1, 2),  # type: ignore[call-overload]
        lambda: ctx.call_activity(print),  # type: ignore[call-overload]
        lambda: ctx.call_orchestration(one_step, id=""),
        lambda: ctx.call_orchestration(print),  # type: ignore[call-overload]
        lambda: ctx.create_timer(dt.datetime(2030, 1, 1)),  # noqa: DTZ001
        lambda: ctx.create_timer("soon"),  # type: ignore[arg-type]
        lambda: ctx.wait_for_external_event(""),
        lambda: ctx.set_custom_status(object()),
        lambda: ctx.continue_as_new(1),
        lambda: ctx.send_event("", "e"),
    ]
    names = []
    for mistake in mistakes:
        try:
            mistake()
        except Exception as error:
            names.append(type(error).__name__)
        else:
            names.append("nothing")
    return names


def test_mistakes_are_told_at_the_call(host: FakeHost) -> None:
    host.start("misuses")
    assert host.output() == [
        "NotRegistered", "InvalidId", "NotRegistered", "InvalidArguments", "SerializationError",
        "InvalidArguments", "UsageError", "InvalidId", "UsageError", "UsageError", "UsageError", "InvalidId",
        "SerializationError", "InvalidArguments", "InvalidId",
    ]  # fmt: skip


def test_children_report_to_their_parent(host: FakeHost) -> None:
    host.start("parent_of_two")
    kids = children(host)
    assert [kid.target for kid in kids] == [instance("kid-0"), instance("kid-1")]
    assert {kid.parent for kid in kids} == {instance("i")}
    host.deliver(*kids)
    host.effects.dispatched.pop(0)
    for result in (10, 20):
        host.finish(result)
    for kid in kids:
        host.deliver(*host.responses(kid.parent_request))
    assert host.output() == 30


@app.orchestration
async def minds_child(ctx: OrchestrationContext) -> list[str]:
    outcomes = []
    for _ in range(3):
        try:
            await ctx.call_orchestration("child")
        except (OrchestrationFailed, NotRegistered) as error:
            outcomes.append(type(error).__name__)
    return outcomes


def test_a_childs_failure_is_raised_as_what_it_is(host: FakeHost) -> None:
    host.start("minds_child")
    for failure in (
        FailureDetails(qualified_name(OrchestrationTerminated), "why"),
        FailureDetails("builtins.ValueError", "v"),
        FailureDetails(qualified_name(NotRegistered), "no"),
    ):
        child = children(host)[-1]
        assert child.target.key == child.parent_request
        host.deliver(Response(instance("i"), child.parent_request, failure=failure))
    assert host.output() == ["OrchestrationTerminated", "OrchestrationFailed", "NotRegistered"]


@app.orchestration
async def sends(ctx: OrchestrationContext) -> None:
    ctx.send_event("other", "go", 5)


def test_events_are_sent_to_other_instances(host: FakeHost) -> None:
    host.start("sends")
    (event,) = [m for m in host.effects.sent if isinstance(m, RaiseEvent)]
    assert (event.target, event.name, codec.decode(event.payload)) == (instance("other"), "go", 5)


# --- continue as new, status, limits ---


@app.orchestration
async def sums(ctx: OrchestrationContext, total: int = 0, rounds: int = 0) -> list[int]:
    _ = ctx.call_activity(work, 1)
    _ = ctx.create_timer(1_000_000)
    ctx.set_custom_status({"rounds": rounds})
    value = await ctx.wait_for_external_event("value", int)
    if value == 0:
        return [total, rounds]
    ctx.continue_as_new(total + value, rounds + 1)
    return []


def test_continue_as_new_loses_no_event(host: FakeHost) -> None:
    host.start("sums")
    first = host.row().execution
    values = [RaiseEvent(instance("i"), "value", codec.encode(n)) for n in range(1, 101)]
    host.deliver(*values[:60])
    host.deliver(*values[60:])
    row = host.row()
    assert row.status == "Running"
    assert row.execution != first
    assert row.custom_status == codec.encode({"rounds": 100})
    assert len(host.effects.timers) == len(host.effects.activities) == 1
    assert row.length == len(history(host)) < 10
    host.raise_event("value", 0)
    assert host.output() == [5050, 100]


@app.orchestration
async def collects(ctx: OrchestrationContext, seen: tuple[str, ...] = ()) -> list[str]:
    name = "odd" if len(seen) % 2 else "even"
    seen = (*seen, await ctx.wait_for_external_event(name, str))
    if len(seen) == 6:
        return list(seen)
    ctx.continue_as_new(seen)
    return []


def test_carried_events_keep_their_order(host: FakeHost) -> None:
    host.start("collects")
    sent = [("odd", "1"), ("odd", "3"), ("odd", "5"), ("even", "0"), ("even", "2"), ("even", "4")]
    host.deliver(*(RaiseEvent(instance("i"), name, codec.encode(value)) for name, value in sent))
    assert host.output() == ["0", "1", "2", "3", "4", "5"]


def test_results_for_an_earlier_execution_do_not_count(host: FakeHost) -> None:
    host.start("sums")
    host.raise_event("value", 1)
    before = history(host)
    host.finish(5)
    assert history(host) == before


@app.orchestration
async def always_continues(ctx: OrchestrationContext) -> None:
    ctx.continue_as_new()


def test_continuing_for_ever_without_waiting_fails(host: FakeHost) -> None:
    host.kind.limits = Limits(continues_max=1_500)  # more than Python's recursion limit
    host.start("always_continues")
    assert "1,500 times" in str(host.row().failure)


@app.orchestration
async def raises_after(ctx: OrchestrationContext) -> None:
    ctx.continue_as_new()
    raise ValueError("after all")


def test_raising_after_continue_as_new_fails(host: FakeHost) -> None:
    host.start("raises_after")
    assert "after all" in str(host.row().failure)


@app.orchestration(version="v7")
async def shows_status(ctx: OrchestrationContext) -> list[Any]:
    ctx.set_custom_status("first")
    await ctx.call_activity(work)
    ctx.set_custom_status(None)
    return [ctx.instance_id, ctx.parent_id, ctx.version]


def test_custom_status_and_identity(host: FakeHost) -> None:
    host.deliver(
        Start(instance("i"), "shows_status", encode_arguments((), {}, ""), parent=instance("p"), version="v7")
    )
    assert host.row().custom_status == codec.encode("first")
    host.finish(1)
    assert host.row().custom_status is None
    assert host.output() == ["i", "p", "v7"]


def test_a_long_history_is_told_once_and_then_fails(host: FakeHost, caplog: pytest.LogCaptureFixture) -> None:
    host.kind.limits = Limits(history_warn=10, history_max=25)
    host.start("sums")
    for _ in range(20):
        host.raise_event("else", 1)
    assert host.row().status == "Failed"
    assert "the limit is 25" in str(host.row().failure)
    assert caplog.text.count("the history has") == 1
    assert host.row().length == len(history(host))
    assert not host.effects.activities
    assert not host.effects.timers


@pytest.mark.parametrize("limits", [Limits(history_warn=10), Limits(history_bytes_warn=100)])
@pytest.mark.parametrize("crash", [False, True])
def test_a_warning_comes_once_and_stays_in_the_status(
    host: FakeHost, caplog: pytest.LogCaptureFixture, limits: Limits, crash: bool
) -> None:
    host.kind.limits = limits
    host.start("sums")
    assert host.row().warning == ""
    for _ in range(20):
        host.raise_event("else", 1)
        if crash:
            host.crash()
    assert caplog.text.count("Use ctx.continue_as_new") == 1
    status = read_status("i", host.effects.rows[instance("i")])
    assert "Use ctx.continue_as_new" in status.warning
    assert status.runtime_status == "Running"
    stored = host.effects.histories[instance("i")]
    assert status.history_bytes == sum(map(len, stored))
    assert status.history_events == len(history(host))


def test_a_history_of_too_many_bytes_fails(host: FakeHost) -> None:
    host.kind.limits = Limits(history_bytes_warn=100, history_bytes_max=200)
    host.start("sums")
    for _ in range(40):
        host.raise_event("else", 1)
    assert host.row().status == "Failed"
    assert "the limit is 200" in str(host.row().failure)
    assert "LimitExceeded" in str(host.row().failure)


def test_a_slow_turn_is_told(host: FakeHost, caplog: pytest.LogCaptureFixture) -> None:
    host.kind.limits = Limits(slow_turn_s=0.01)
    host.start("blocks")
    assert "instance i, kept the host's loop for" in caplog.text


@app.orchestration
async def blocks(ctx: OrchestrationContext) -> None:
    time.sleep(0.02)  # noqa: ASYNC251 - that is the point


# --- what comes back from the store ---


def changed(host: FakeHost, name: str, code: Any) -> FakeHost:
    """Return a host with the same store and another app."""
    other = App("changed")
    other.activities.update(app.activities)
    if code is not None:
        other.orchestration(name=name)(code)
    again = FakeHost(other)
    again.effects, again.mailbox = host.effects, host.mailbox
    return again


def test_changed_code_fails_the_instance_and_leaves_nothing_behind() -> None:
    host = FakeHost(app)
    host.start("parent_of_two")

    async def parent_of_two_now(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(work)

    after = changed(host, "parent_of_two", parent_of_two_now)
    after.raise_event("anything")
    row = after.row()
    assert row.status == "Failed"
    assert row.failure is not None
    assert row.failure.is_caused_by("NonDeterminism")
    assert not host.effects.timers
    assert not host.effects.activities
    assert isinstance(history(host)[-1], events.ExecutionCompleted)


def test_an_instance_waits_for_a_host_that_has_its_code(caplog: pytest.LogCaptureFixture) -> None:
    host = FakeHost(app)
    host.start("parent_of_two")
    before = host.row()
    after = changed(host, "parent_of_two", None)
    after.raise_event("anything")
    assert after.row() == before
    assert len(after.mailbox[instance("i")]) == 1
    assert (
        "instance i waits for a host that has its code: no orchestration named 'parent_of_two'" in caplog.text
    )
    after.deliver(Control(instance("i"), "terminate", "not needed any more"))
    assert after.row().status == "Terminated"


def test_what_cannot_be_replayed_can_be_terminated() -> None:
    host = FakeHost(app)
    host.start("parent_of_two")
    after = changed(host, "parent_of_two", None)
    assert control(after, "terminate").failure is None
    assert after.row().status == "Terminated"
    assert len([m for m in host.effects.sent if isinstance(m, Control)]) == 2


def test_an_unreadable_row_answers_who_asks_and_keeps_the_rest() -> None:
    host = FakeHost(app)
    host.effects.rows[instance("i")] = b"junk"
    host.start("one_step")
    host.deliver(Watch(instance("i"), "w", CLIENT_ID))
    assert control(host, "terminate").failure is not None
    for request in ("start", "w"):
        failure = host.responses(request)[-1].failure
        assert failure is not None
        assert "MalformedBytes" in failure.error_type
    host.raise_event("kept")
    assert len(host.mailbox[instance("i")]) == 1
    assert host.effects.rows[instance("i")] == b"junk"


def test_an_unreadable_history_fails_the_instance() -> None:
    host = FakeHost(app)
    host.start("one_step")
    host.effects.histories[instance("i")] = [b"junk"]
    host.crash()
    host.finish(1)
    assert "MalformedBytes" in str(host.row().failure)


def test_an_error_of_ours_ends_the_instance(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    host = FakeHost(app)
    host.start("one_step")
    monkeypatch.setattr("lungfish.orchestrations.replay.Execution.apply", lambda *_: 1 / 0)
    host.deliver(Watch(instance("i"), "w", CLIENT_ID))
    host.finish(1)
    assert "ZeroDivisionError" in str(host.row().failure)
    assert "internal error" in caplog.text
    (response,) = host.responses("w")
    assert response.failure is not None
    assert not host.mailbox[instance("i")]


def test_messages_for_entities_are_not_for_orchestrations(caplog: pytest.LogCaptureFixture) -> None:
    host = FakeHost(app)
    host.deliver(Signal(instance("i"), "add", b""))
    assert "is for an entity" in caplog.text
    assert not host.mailbox[instance("i")]


def test_an_activation_is_passive_while_its_code_waits() -> None:
    host = FakeHost(app)
    host.start("one_step")
    assert host.activation(instance("i")).passive
    control(host, "suspend")
    host.raise_event("e")
    assert not host.activation(instance("i")).passive
    host.activation(instance("i")).drop()


def test_late_messages_leave_no_trace_in_the_history() -> None:
    host = FakeHost(app)
    host.start("one_step")
    before = list(host.effects.histories[instance("i")])
    execution = host.row().execution
    host.deliver(TimerFired(instance("i"), execution, 77, 1), TimerFired(instance("i"), "older", 1, 1))
    host.deliver(
        Response(instance("i"), f"{execution}:77", None), TimerFired(instance("i"), execution, 1, 1, "odd")
    )
    assert host.effects.histories[instance("i")] == before


def test_dropped_activations_are_silent(caplog: pytest.LogCaptureFixture) -> None:
    gc.collect()  # what earlier tests have left speaks now, and not below
    caplog.clear()
    host = FakeHost(app)
    host.start("cleans_up")
    host.crash()
    gc.collect()
    assert not caplog.messages
    assert len(host.effects.dispatched) == 1


@app.orchestration
async def cleans_up(ctx: OrchestrationContext) -> None:
    try:
        await ctx.call_activity(work)
    finally:
        await ctx.call_activity(work)


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("0", False), ("", False)])
def test_always_replay_can_be_set_from_outside(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: bool
) -> None:
    monkeypatch.setenv("LUNGFISH_ALWAYS_REPLAY", value)
    assert OrchestrationKind(app).always_replay is expected
