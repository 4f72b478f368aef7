"""Attempts of activities as the instance sees them: retries, time-outs, heartbeats, lost dispatches."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any

import msgpack
import pytest

import lungfish
from lungfish.orchestrations.activities import ActivityRow
from lungfish.runtime.errors import FailureDetails
from lungfish.runtime.messages.messages import ActivityResult, ActivityTask, Control, TimerFired
from tests.unit.orchestrations.fakes import FakeHost, instance

app = lungfish.App("attempts")
BROKE = FailureDetails("shop.Broke", "broke")


@app.activity(
    retry=lungfish.RetryPolicy(max_attempts=3),
    timeout=100,
    heartbeat_timeout=10,
    schedule_to_start=60,
    schedule_to_close=1_000,
    priority=2,
    queue="gpu",
)
def convert(n: int) -> int:
    return n


@app.orchestration
async def job(ctx: lungfish.OrchestrationContext) -> str:
    try:
        return f"got {await ctx.call_activity(convert, 1)}"
    except lungfish.ActivityTimedOut as error:
        return f"{error.timeout}: {error.details.message if error.details else ''}"


@pytest.fixture(params=[False, True], ids=["live", "replayed"])
def host(request: pytest.FixtureRequest) -> FakeHost:
    host = FakeHost(app, always_replay=request.param)
    host.start("job")
    return host


def task_of(host: FakeHost) -> ActivityTask:
    ((_, task),) = host.effects.dispatched
    return task


def begun(host: FakeHost, task: ActivityTask) -> None:
    host.deliver(ActivityResult(task.owner, task.execution, task.task, task.attempt, begun=True))


def lost(host: FakeHost, **changes: Any) -> None:
    """Say what a host says that found no queue to have the activity."""
    ((row_id, row),) = host.effects.activities.items()
    key, execution, task = row_id.split("\x00")
    fields = {"due_ms": zlib.crc32(row), "purpose": "lost", **changes}
    host.deliver(TimerFired(instance(key), execution, int(task), **fields))


def test_a_task_says_all_that_a_worker_must_know(host: FakeHost) -> None:
    ((lane, task),) = host.effects.dispatched
    assert lane == "gpu\x1f2"
    assert (task.timeout_ms, task.heartbeat_ms) == (100_000, 10_000)
    assert task.begin_by_ms == host.effects.now_ms + 60_000
    assert task.deadline_ms == host.effects.now_ms + 1_000_000


@pytest.mark.parametrize("crash", [False, True])
def test_details_go_to_the_next_attempt_and_stay(host: FakeHost, *, crash: bool) -> None:
    host.finish(failure=BROKE, details=b"\xc4\x01a")
    if crash:
        host.crash()
    host.advance(1)
    assert task_of(host).details == b"\xc4\x01a"
    host.finish(failure=BROKE)
    host.advance(2)
    assert task_of(host).attempt == 3
    assert task_of(host).details == b"\xc4\x01a", "the second attempt said nothing"


def test_an_attempt_that_nobody_begins(host: FakeHost) -> None:
    host.advance(59)
    assert task_of(host).attempt == 1
    host.advance(1)
    assert host.output().startswith("schedule_to_start: no worker has begun attempt 1 of activity 'convert'")
    assert "queue 'gpu'" in host.output()
    assert host.effects.timers == {}
    assert host.effects.activities == {}


@pytest.mark.parametrize("crash", [False, True])
def test_an_attempt_that_has_begun_may_run(host: FakeHost, *, crash: bool) -> None:
    host.advance(59)
    task = task_of(host)
    begun(host, task)
    begun(host, task)
    if crash:
        host.crash()
    host.advance(30)
    host.finish(5)
    assert host.output() == "got 5"
    assert host.effects.timers == {}


def test_every_attempt_has_its_own_time_to_begin(host: FakeHost) -> None:
    begun(host, task_of(host))
    host.finish(failure=BROKE)
    host.advance(1)
    second = task_of(host)
    assert second.begin_by_ms == host.effects.now_ms + 60_000
    begun(host, replace(second, attempt=1))
    host.advance(60)
    assert "no worker has begun attempt 2" in host.output(), "that the first one had begun is not news"


def test_the_time_for_all_attempts_outlives_crashes(host: FakeHost) -> None:
    begun(host, task_of(host))
    host.advance(400)
    host.crash()
    host.advance(599)
    assert host.row().status == "Running"
    host.crash()
    host.advance(1)
    assert host.output().startswith("schedule_to_close: activity 'convert' did not end within 1000 s")
    assert host.effects.timers == {}


def test_a_time_out_of_the_worker_is_named(host: FakeHost) -> None:
    for _ in range(3):
        failure = FailureDetails("builtins.TimeoutError", "silent", timeout="heartbeat_timeout")
        host.finish(failure=failure, timed_out=True)
        host.advance(5)
    assert host.output() == "heartbeat_timeout: silent"


# --- lost dispatches -------------------------------------------------------------------------


@pytest.mark.parametrize("crash", [False, True])
def test_what_no_queue_has_is_dispatched_again(host: FakeHost, *, crash: bool) -> None:
    first = host.effects.dispatched.pop()
    if crash:
        host.crash()
    lost(host)
    again = host.effects.dispatched.pop()
    assert again[0] == first[0]
    assert (again[1].attempt, again[1].idempotency_key) == (1, first[1].idempotency_key)
    host.effects.dispatched.append(again)
    host.finish(5)
    assert host.output() == "got 5"


def test_news_of_an_older_dispatch_is_none(host: FakeHost) -> None:
    ((_, row),) = host.effects.activities.items()
    old = zlib.crc32(row)
    host.effects.dispatched.clear()
    lost(host)
    host.effects.dispatched.clear()
    lost(host, due_ms=old)
    assert host.effects.dispatched == []


def test_an_attempt_that_waits_for_its_retry_is_not_lost(host: FakeHost) -> None:
    host.finish(failure=BROKE)
    lost(host)
    assert host.effects.dispatched == []
    host.advance(1)
    assert task_of(host).attempt == 2


def test_a_result_that_came_before_counts(host: FakeHost) -> None:
    ((row_id, row),) = host.effects.activities.items()
    _, execution, task = row_id.split("\x00")
    news = TimerFired(instance("i"), execution, int(task), zlib.crc32(row), "lost")
    host.finish(5)
    host.deliver(news)
    assert host.effects.dispatched == []
    assert host.output() == "got 5"


def test_while_suspended_nothing_is_dispatched_again(host: FakeHost) -> None:
    host.deliver(Control(instance("i"), "suspend"))
    host.effects.dispatched.clear()
    lost(host)
    assert host.effects.dispatched == []
    host.deliver(Control(instance("i"), "resume"))
    assert task_of(host).attempt == 1


# --- rows ------------------------------------------------------------------------------------


def test_rows_of_an_earlier_release_are_read(host: FakeHost) -> None:
    (packed,) = host.effects.activities.values()
    short: list[Any] = msgpack.unpackb(packed)[:12]
    row = ActivityRow.unpack(msgpack.packb(short))
    assert (row.priority, row.heartbeat_ms, row.unbegun_ms, row.dispatches) == (5, 0, 0, 1)
    assert ActivityRow.unpack(packed).pack() == packed
