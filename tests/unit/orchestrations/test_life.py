"""The life of instances over a host in memory: starts, ends, cancellation, children."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import msgpack
import pytest

from lungfish.orchestrations import OrchestrationContext, events
from lungfish.orchestrations.row import InstanceRow, Status
from lungfish.runtime import codec
from lungfish.runtime.declared.app import App
from lungfish.runtime.declared.retry import RetryPolicy
from lungfish.runtime.declared.signatures import encode_arguments
from lungfish.runtime.errors import FailureDetails, InternalError, OrchestrationCanceled, qualified_name
from lungfish.runtime.messages.messages import Control, RaiseEvent, Response, Start, Watch
from tests.unit.orchestrations.fakes import CLIENT_ID, FakeHost, instance

app = App("life")
CANCELED = qualified_name(OrchestrationCanceled)


@app.activity
def work(n: int = 0) -> int: ...  # type: ignore[empty-body]


@app.orchestration
async def one_step(ctx: OrchestrationContext, n: int = 1) -> int:
    return await ctx.call_activity(work, n)


@app.orchestration
async def cleans_up(ctx: OrchestrationContext) -> str:
    try:
        async with asyncio.timeout(1000):
            await asyncio.gather(ctx.call_orchestration(one_step, id="kid"), ctx.sleep(50))
    finally:
        ctx.set_custom_status("cleaning")
        await ctx.call_activity(work, -1)
    return "whole"


@app.orchestration
def generates(ctx: OrchestrationContext) -> Generator[Any, Any, str]:
    try:
        yield ctx.create_timer(100)
    except asyncio.CancelledError:
        yield ctx.call_activity(work, -1)
        raise
    return "whole"


@app.orchestration
async def swallows(ctx: OrchestrationContext) -> str:
    with contextlib.suppress(asyncio.CancelledError):
        await ctx.create_timer(100)
    await ctx.create_timer(100)
    return "went on"


@app.orchestration
async def breaks_down(ctx: OrchestrationContext) -> None:
    try:
        await ctx.create_timer(100)
    except asyncio.CancelledError:
        raise ValueError("cannot clean up") from None


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


def starts(host: FakeHost) -> list[Start]:
    return [message for message in host.effects.sent if isinstance(message, Start)]


def controls(host: FakeHost) -> list[Control]:
    return [message for message in host.effects.sent if isinstance(message, Control)]


# --- cancellation -----------------------------------------------------------------------------------


def test_a_cancelled_instance_cleans_up_and_ends_canceled(host: FakeHost) -> None:
    host.start("cleans_up")
    (kid,) = starts(host)
    host.deliver(kid)
    assert control(host, "cancel", "enough").failure is None
    assert host.row().status == "Running"
    assert not host.effects.timers
    (asked,) = controls(host)
    assert (asked.target, asked.verb, asked.parent) == (instance("kid"), "cancel", instance("i"))
    host.deliver(asked)
    assert host.row("kid").status == "Canceled"
    host.deliver(*host.responses(kid.parent_request))  # too late: nobody waits for it
    host.finish(0, at=1)
    row = host.row()
    assert (row.status, row.failure and row.failure.error_type) == ("Canceled", CANCELED)
    assert row.failure is not None
    assert row.failure.message == "enough"
    assert events.SubOrchestrationCanceled(2) in history(host)
    assert any(isinstance(event, events.CancelRequested) for event in history(host))
    assert not host.effects.activities


def test_a_second_cancel_changes_nothing(host: FakeHost) -> None:
    host.start("cleans_up")
    for reason in ("one", "two"):
        assert control(host, "cancel", reason).failure is None
    assert sum(isinstance(event, events.CancelRequested) for event in history(host)) == 1
    host.finish(0)
    assert host.row().failure is not None
    assert host.row().failure.message == "one"  # type: ignore[union-attr]
    assert control(host, "cancel").failure is not None  # it has ended


def test_generators_are_cancelled_where_they_yield(host: FakeHost) -> None:
    host.start("generates")
    control(host, "cancel")
    assert host.row().status == "Running"
    host.finish(0)
    assert host.row().status == "Canceled"


def test_a_cancel_can_be_swallowed(host: FakeHost) -> None:
    host.start("swallows")
    control(host, "cancel")
    host.advance(101)
    assert host.output() == "went on"


def test_cleanup_that_raises_fails_the_instance(host: FakeHost) -> None:
    host.start("breaks_down")
    control(host, "cancel")
    assert host.row().status == "Failed"
    assert "cannot clean up" in str(host.row().failure)


def test_a_suspended_instance_is_told_when_it_is_resumed(host: FakeHost) -> None:
    host.start("swallows")
    control(host, "suspend")
    assert control(host, "cancel", "later").failure is None
    assert control(host, "cancel", "again").failure is None
    assert not any(isinstance(event, events.CancelRequested) for event in history(host))
    control(host, "resume")
    (asked,) = (event for event in history(host) if isinstance(event, events.CancelRequested))
    assert asked.reason == "later"
    host.advance(101)
    assert host.output() == "went on"


def test_what_has_not_begun_is_cancelled_at_once(host: FakeHost) -> None:
    host.start("one_step", due_ms=host.effects.now_ms + 60_000)
    assert host.row().due_ms == host.effects.now_ms + 60_000
    assert control(host, "cancel", "not needed").failure is None
    assert host.row().status == "Canceled"
    assert not host.effects.timers
    host.advance(100)
    assert not host.effects.dispatched


@app.orchestration
async def gives_up(ctx: OrchestrationContext) -> str:
    try:
        async with asyncio.timeout(10):
            await ctx.call_orchestration(swallows, id="slow")
    except TimeoutError:
        return "gave up"
    return "never"


def test_a_timeout_cancels_the_child(host: FakeHost) -> None:
    host.start("gives_up")
    host.deliver(*starts(host))
    host.advance(11)
    assert host.output() == "gave up"
    (asked,) = controls(host)
    assert (asked.target, asked.verb) == (instance("slow"), "cancel")
    host.deliver(asked)
    assert any(isinstance(event, events.CancelRequested) for event in history(host, "slow"))


def test_a_strangers_instance_does_not_listen(host: FakeHost) -> None:
    host.start("one_step", id="kid")
    for verb in ("cancel", "terminate"):
        host.deliver(Control(instance("kid"), verb, "", parent=instance("i"), parent_request="x1:1"))
    assert host.row("kid").status == "Running"


# --- children of those who end ----------------------------------------------------------------------


@app.orchestration
async def parent(ctx: OrchestrationContext, how: str) -> str:
    _ = ctx.call_orchestration(one_step, id="kid")
    await ctx.wait_for_external_event("go")
    _ = ctx.call_orchestration(one_step, id="late")
    ctx.start_orchestration(one_step, id="other")
    if how == "raise":
        raise ValueError(how)
    if how == "continue":
        ctx.continue_as_new("wait")
        return ""
    if how == "wait":
        await ctx.wait_for_external_event("more")
    return how


@pytest.mark.parametrize(
    ("how", "verb", "last"),
    [("return", None, True), ("continue", None, True), ("raise", "cancel", False)],
)
def test_children_of_a_failed_parent_are_cancelled(
    host: FakeHost, how: str, verb: str | None, last: bool
) -> None:
    host.start("parent", how)
    host.raise_event("go")
    to_kid = [message.verb for message in controls(host) if message.target == instance("kid")]
    assert to_kid == ([verb] if verb else [])
    started = {message.target.key: message for message in starts(host)}
    assert ("late" in started) is last
    # What was started to live by itself does so, however its starter ended.
    assert started["other"].parent is None


# --- starting again ---------------------------------------------------------------------------------


def test_an_id_is_used_again_when_its_instance_has_ended(host: FakeHost) -> None:
    host.start("one_step", 1)
    old = host.row().execution
    host.start("one_step", 2, reuse="restart")
    assert "InstanceExists" in str(host.responses("start")[-1].failure)
    host.finish(1)
    host.start("one_step", 2, reuse="restart")
    assert host.responses("start")[-1].failure is None
    assert host.row().status == "Running"
    assert host.row().execution != old
    assert len(history(host)) == 3
    host.finish(5)
    assert host.output() == 5


def test_a_running_instance_is_replaced(host: FakeHost) -> None:
    host.start("cleans_up")
    host.deliver(*starts(host))
    host.deliver(Watch(instance("i"), "watch", CLIENT_ID))
    host.start("one_step", 2, reuse="terminate")
    (outcome,) = host.responses("watch")
    assert "replaced" in str(outcome.failure)
    assert not host.effects.timers
    assert [message.verb for message in controls(host)] == ["terminate"]
    assert host.row().status == "Running"
    assert host.row().name == "one_step"
    host.finish(7, at=1)
    assert host.output() == 7


def test_a_start_that_is_refused_leaves_the_one_before_alone(host: FakeHost) -> None:
    host.start("one_step", 1)
    host.start("nothing of that name", reuse="terminate")
    assert host.responses("start")[-1].failure is not None
    assert host.row().status == "Running"


# --- retries of sub-orchestrations ------------------------------------------------------------------


@app.orchestration
async def persists(ctx: OrchestrationContext, id: str | None) -> Any:
    policy = RetryPolicy(3, dt.timedelta(seconds=10))
    return await ctx.call_orchestration(one_step, 4, id=id, retry=policy)


@pytest.mark.parametrize("id", [None, "kid"])
def test_a_failed_child_is_started_again(host: FakeHost, id: str | None) -> None:
    host.start("persists", id)
    for attempt in range(3):
        (kid,) = starts(host)[attempt:]
        assert kid.reuse == ("restart" if attempt else "")
        host.deliver(kid)
        assert id is None or kid.target.key == id
        if attempt < 2:
            host.finish(failure=FailureDetails("builtins.OSError", "no luck"))
            host.deliver(*host.responses(kid.parent_request))
            assert len(starts(host)) == attempt + 1
            host.advance(10 * 2**attempt)
    host.finish(8)
    host.deliver(*host.responses(starts(host)[-1].parent_request))
    assert host.output() == 8


# --- errors of ours ---------------------------------------------------------------------------------


def test_who_asks_a_broken_instance_is_told(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    host.start("one_step")
    host.crash()

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("lungfish.orchestrations.processor.feed", broken)
    host.deliver(
        RaiseEvent(instance("i"), "go", b"\xc0"),
        Control(instance("i"), "suspend", "", "a", CLIENT_ID),
        Watch(instance("i"), "b", CLIENT_ID),
        Start(instance("i"), "one_step", b"", "c", CLIENT_ID),
    )
    for request in "abc":
        (answer,) = host.responses(request)
        assert answer.failure is not None
        assert answer.failure.error_type == qualified_name(InternalError)
    assert host.row().status == "Failed"


def test_rows_of_earlier_releases_are_filled() -> None:
    later = {"due_ms": 5, "cancel": "why", "cancel_told": True, "tags": {"a": "b"}, "size": 7, "warning": "w"}
    later["headers"] = ("a", "b")
    row = InstanceRow("n", Status.RUNNING, 1, 2, "x", b"", **later)  # type: ignore[arg-type]
    assert InstanceRow.unpack(row.pack()) == row
    older = msgpack.packb(msgpack.unpackb(row.pack())[: -len(later) - 2])
    assert InstanceRow.unpack(older) == InstanceRow("n", Status.RUNNING, 1, 2, "x", b"")


# --- a start of a child that arrives twice ----------------------------------------------------------


def kid_start() -> Start:
    given = encode_arguments((7,), {}, "one_step")
    return Start(instance("kid"), "one_step", given, parent=instance("i"), parent_request="x1:1")


def outcomes(host: FakeHost) -> list[Any]:
    told = host.responses("x1:1")
    return [each.failure if each.result is None else codec.decode(each.result) for each in told]


@pytest.mark.parametrize("reuse", ["", "restart"])
def test_a_child_that_has_ended_is_not_run_again_by_the_start_it_came_from(
    host: FakeHost, reuse: str
) -> None:
    """A parent that a failover took back in time asks again for the same call: it is told the outcome."""
    asked = kid_start()
    host.deliver(asked)
    host.finish(70)
    execution = host.row("kid").execution
    host.deliver(replace(asked, reuse=reuse))
    assert host.row("kid").execution == execution
    assert not host.effects.dispatched
    assert outcomes(host) == [70, 70]
    host.deliver(replace(asked, parent_request="x1:2"))
    assert host.row("kid").execution != execution


def test_a_child_that_runs_goes_on_when_its_start_arrives_again(host: FakeHost) -> None:
    asked = kid_start()
    host.deliver(asked, asked)
    assert not outcomes(host)  # the parent would take a refusal for the end of it
    host.finish(70)
    assert outcomes(host) == [70]
