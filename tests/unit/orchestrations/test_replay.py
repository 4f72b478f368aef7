"""The engine as a function: given a history, expect actions; and what happens if the code has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lungfish.orchestrations import OrchestrationContext, actions, events, when_any
from lungfish.orchestrations.limits import Limits
from lungfish.orchestrations.outcomes import Turn
from lungfish.orchestrations.replay import Execution
from lungfish.runtime import codec
from lungfish.runtime.declared.app import App
from lungfish.runtime.declared.definitions import Orchestration
from lungfish.runtime.declared.signatures import encode_arguments
from lungfish.runtime.errors import FailureDetails

app = App("replay")


@app.activity
def a(n: int = 0) -> int: ...  # type: ignore[empty-body]


@app.activity
def b(n: int = 0) -> int: ...  # type: ignore[empty-body]


@app.activity
def c(n: int = 0) -> int: ...  # type: ignore[empty-body]


def orchestrate(code: Callable[..., Any], name: str = "o") -> Orchestration[..., Any]:
    return Orchestration(code, name)


def started(*args: Any) -> events.ExecutionStarted:
    return events.ExecutionStarted("x1", "o", encode_arguments(args, {}, "o"), 1_000)


def execution(code: Callable[..., Any], limits: Limits | None = None) -> Execution:
    return Execution(app, orchestrate(code), "i", limits)


def run(code: Callable[..., Any], *arrived: events.Arrived) -> list[events.Event]:
    """Run a turn per event and return the history."""
    one = execution(code)
    history = []
    for at, event in enumerate((started(), *arrived)):
        history += one.turn(1_000 + at, [event]).events
    one.close()
    return history


def replay(code: Callable[..., Any], history: Sequence[events.Event]) -> tuple[Execution, Turn]:
    """Replay a history, then do an empty turn."""
    one = execution(code)
    one.replay(history)
    turn = one.turn(9_000, [])
    one.close()
    return one, turn


def message_of(turn: Turn) -> str:
    assert turn.ended is not None
    assert turn.ended.failure is not None
    assert turn.ended.failure.error_type == "lungfish.runtime.errors.NonDeterminism"
    assert isinstance(turn.events[-1], events.ExecutionCompleted)
    return turn.ended.failure.message


def done(sequence: int, result: Any = 1) -> events.TaskCompleted:
    return events.TaskCompleted(sequence, codec.encode(result))


async def two_steps(ctx: OrchestrationContext) -> int:
    first = await ctx.call_activity(a, 1)
    return first + await ctx.call_activity(b, first)


async def both_at_once(ctx: OrchestrationContext) -> tuple[int, int]:
    return await asyncio.gather(ctx.call_activity(a), ctx.call_activity(b))


async def timer_and_entity(ctx: OrchestrationContext) -> None:
    await ctx.create_timer(5)


#: (code, arrived events, what the code decides after the last one)
TABLE: list[tuple[Callable[..., Any], list[events.Arrived], list[actions.Action | str]]] = [
    (two_steps, [], ["ScheduleActivity a"]),
    (two_steps, [done(1)], ["ScheduleActivity b"]),
    (two_steps, [done(1), done(2, 5)], []),
    (both_at_once, [], ["ScheduleActivity a", "ScheduleActivity b"]),
    (both_at_once, [done(2)], []),
    (timer_and_entity, [], [actions.CreateTimer(1, 6_000)]),
    (timer_and_entity, [events.TimerFired(1)], []),
]


@pytest.mark.parametrize(("code", "arrived", "expected"), TABLE)
def test_given_history_expect_actions(code: Any, arrived: list[Any], expected: list[Any]) -> None:
    def shown(action: Any) -> Any:
        return f"ScheduleActivity {action.name}" if isinstance(action, actions.ScheduleActivity) else action

    *before, last = [started(), *arrived]
    live = execution(code)
    history = [event for each in before for event in live.turn(1_000, [each]).events]
    turn = live.turn(1_000, [last])
    live.take_actions()
    replayed = execution(code)
    replayed.replay(history)
    again = replayed.turn(1_000, [last])
    assert [shown(action) for action in again.actions] == expected
    assert again.actions == turn.actions
    assert again.events == turn.events
    assert again.ended == turn.ended
    live.close()
    replayed.close()


def test_replay_makes_no_actions() -> None:
    one, turn = replay(two_steps, run(two_steps, done(1)))
    assert turn.actions == []
    assert turn.events == [events.TurnStarted(9_000)]
    assert not one.replaying


def test_a_result_for_an_unknown_or_finished_id_is_passed_over() -> None:
    one = execution(two_steps)
    one.turn(1, [started()])
    one.turn(2, [done(7), done(1, 1), done(1, 99), done(2, 1)])
    assert one.ended is not None
    assert one.ended.result == codec.encode(2)


def test_time_never_goes_back() -> None:
    seen = []

    async def code(ctx: OrchestrationContext) -> None:
        for _ in range(2):
            seen.append(ctx.now().timestamp())
            await ctx.call_activity(a)

    one = execution(code)
    one.turn(5_000, [started()])
    one.turn(4_000, [done(1)])
    one.close()
    assert seen == [5, 5]


# --- non-determinism ---


async def abc(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(a)
    await asyncio.gather(ctx.call_activity(b), ctx.call_activity(c))
    await ctx.call_activity(a)


HISTORY = run(abc, done(1))


async def added(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(c)
    await ctx.call_activity(a)


async def added_between(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(a)
    await asyncio.gather(ctx.call_activity(a), ctx.call_activity(b), ctx.call_activity(c))


async def added_last(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(a)
    await asyncio.gather(ctx.call_activity(b), ctx.call_activity(c), ctx.call_activity(a))


async def removed(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(a)
    await asyncio.gather(ctx.call_activity(c))


async def removed_last(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(a)
    await asyncio.gather(ctx.call_activity(b))


async def swapped(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(a)
    await asyncio.gather(ctx.call_activity(c), ctx.call_activity(b))


async def renamed(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(a)
    await asyncio.gather(ctx.call_activity("b2"), ctx.call_activity(c))


async def another_kind(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(a)
    await asyncio.gather(ctx.create_timer(1), ctx.call_activity(c))


async def ends_early(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(a)


#: (changed code, expected, actual, position, likely cause)
CHANGES = [
    (added, "activity 'a' (#1)", "activity 'c' (#1)", 3, "renamed or replaced"),
    (added_between, "activity 'b' (#2)", "activity 'a' (#2)", 6, "activity 'a' (#2) was added before"),
    (added_last, "nothing more", "activity 'a' (#4)", 8, "was added here"),
    (removed, "activity 'b' (#2)", "activity 'c' (#2)", 6, "activity 'b' (#2) was removed"),
    (removed_last, "activity 'c' (#3)", "nothing more", 7, "was removed here"),
    (swapped, "activity 'b' (#2)", "activity 'c' (#2)", 6, "swapped"),
    (renamed, "activity 'b' (#2)", "activity 'b2' (#2)", 6, "renamed"),
    (another_kind, "activity 'b' (#2)", "timer (#2)", 6, "another kind of step"),
    (ends_early, "activity 'b' (#2)", "the end of the code, Completed", 6, "the code ends here now"),
]


@pytest.mark.parametrize(("code", "expected", "actual", "position", "cause"), CHANGES)
def test_changed_code_fails_with_an_error_that_teaches(
    code: Any, expected: str, actual: str, position: int, cause: str
) -> None:
    _, turn = replay(code, HISTORY)
    message = message_of(turn)
    assert f"expected: {expected}" in message
    assert f"actual:   {actual}" in message
    assert f"at event {position} of {len(HISTORY)}" in message
    assert cause in message
    assert "ctx.patched(" in message
    assert turn.actions == []
    if actual != "nothing more":
        assert f"{__file__}:" in message


def test_the_message_has_the_line_of_the_call() -> None:
    _, turn = replay(swapped, HISTORY)
    lines = Path(__file__).read_text().splitlines()
    line = 1 + next(at for at, text in enumerate(lines) if "gather(ctx.call_activity(c), ctx.call" in text)
    assert f"{__file__}:{line}" in message_of(turn)


def test_sleep_is_told_with_the_users_line() -> None:
    async def sleeps(ctx: OrchestrationContext) -> None:
        await asyncio.sleep(5)

    _, turn = replay(sleeps, HISTORY)
    assert f"timer (#1) at {__file__}:" in message_of(turn)


def test_what_was_outstanding_is_known_after_a_mismatch() -> None:
    async def before(ctx: OrchestrationContext) -> None:
        _ = ctx.create_timer(10)
        _ = ctx.call_orchestration("child", id="kid")
        await ctx.call_activity(a)

    one, turn = replay(abc, run(before))
    assert "timer" in message_of(turn)
    assert one.outstanding.timers == {1: 1000}
    assert one.outstanding.children == {2: "kid"}


# --- patches ---


async def patched(ctx: OrchestrationContext) -> str:
    await ctx.call_activity(a)
    if ctx.patched("new"):
        await ctx.call_activity(b)
        return "new"
    await ctx.call_activity(c)
    return "old"


async def unpatched(ctx: OrchestrationContext) -> str:
    await ctx.call_activity(a)
    await ctx.call_activity(c)
    return "old"


async def patch_taken_out(ctx: OrchestrationContext) -> str:
    await ctx.call_activity(a)
    await ctx.call_activity(b)
    return "new"


@pytest.mark.parametrize(
    ("before", "now", "outcome"),
    [
        (unpatched, patched, "old"),
        (patched, patched, "new"),
        (patched, patch_taken_out, "new"),
    ],
)
def test_a_patch_keeps_running_instances_on_their_path(before: Any, now: Any, outcome: str) -> None:
    one = execution(now)
    one.replay(run(before, done(1)))
    turn = one.turn(9_000, [done(2)])
    assert turn.ended is not None
    assert turn.ended.result == codec.encode(outcome)


def test_a_patch_is_taken_by_who_reaches_it_after_the_change() -> None:
    one = execution(patched)
    one.replay(run(unpatched))
    turn = one.turn(9_000, [done(1)])
    assert [type(event) for event in turn.events[2:]] == [events.PatchMarked, events.TaskScheduled]
    one.close()


# --- limits ---


def test_too_many_actions_in_a_turn_fail_the_instance() -> None:
    async def greedy(ctx: OrchestrationContext) -> None:
        try:
            await asyncio.gather(*(ctx.call_activity(a) for _ in range(11)))
        except Exception:
            await ctx.call_activity(b)

    one = execution(greedy, Limits(actions_max=10))
    turn = one.turn(1, [started()])
    assert turn.ended is not None
    assert "more than 10 actions" in str(turn.ended.failure)
    assert turn.actions == []


def test_a_busy_loop_fails_the_instance() -> None:
    async def busy(ctx: OrchestrationContext) -> None:
        while True:
            await asyncio.sleep(0)

    turn = execution(busy, Limits(steps_max=1_000)).turn(1, [started()])
    assert turn.ended is not None
    assert "busy loop" in str(turn.ended.failure)


def test_deterministic_chance() -> None:
    async def chance(ctx: OrchestrationContext) -> list[Any]:
        first = [str(ctx.uuid4()), str(ctx.uuid4()), ctx.random.random()]
        await ctx.call_activity(a)
        return [*first, str(ctx.uuid4()), ctx.random.randrange(10**9)]

    history = run(chance, done(1))
    assert isinstance(history[-1], events.ExecutionCompleted)
    assert history[-1].result is not None
    one = execution(chance)
    one.replay(history[:3])
    turn = one.turn(2_000, [done(1)])
    assert turn.ended is not None
    assert turn.ended.result == history[-1].result
    values = codec.decode(history[-1].result)
    assert len(set(map(str, values))) == len(values)


def test_replaying_is_told_and_the_logger_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    seen = []

    async def logs(ctx: OrchestrationContext) -> None:
        seen.append(ctx.is_replaying)
        ctx.logger.warning("first")
        await ctx.call_activity(a)
        seen.append(ctx.is_replaying)
        ctx.logger.warning("second")

    history = run(logs)
    caplog.clear()
    seen.clear()
    one = execution(logs)
    one.replay(history)
    one.turn(9_000, [done(1)])
    assert seen == [True, False]
    assert caplog.messages == ["second"]
    assert caplog.records[0].instance_id == "i"  # type: ignore[attr-defined]


def test_when_any_of_what_is_done_already() -> None:
    async def code(ctx: OrchestrationContext) -> bool:
        task = ctx.call_activity(a)
        await task
        return await when_any(ctx.create_timer(100), task) is task

    one = execution(code)
    one.turn(1, [started()])
    turn = one.turn(2, [done(1)])
    assert turn.ended is not None
    assert turn.ended.result == codec.encode(True)


def test_a_failure_that_is_a_refusal_is_raised_as_what_it_is() -> None:
    async def code(ctx: OrchestrationContext) -> str:
        try:
            await ctx.call_activity(a)
        except Exception as error:
            return type(error).__name__
        return ""

    for kind, expected in (("InvalidArguments", "InvalidArguments"), ("Odd", "ActivityFailed")):
        one = execution(code)
        one.turn(1, [started()])
        failure = FailureDetails(f"lungfish.runtime.errors.{kind}", "no")
        turn = one.turn(2, [events.TaskFailed(1, failure)])
        assert turn.ended is not None
        assert turn.ended.result == codec.encode(expected)
