"""Replay equals live, for random programs and random orders of completion.

A program is a tree that one orchestration interprets with everything the context and asyncio offer. It is
run live, turn by turn. Then, for every turn, a fresh execution replays the history up to it and does the turn
again: events, actions and outcome must be the same, to the byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Awaitable, Sequence
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lungfish.orchestrations import OrchestrationContext, actions, events, when_all, when_any
from lungfish.orchestrations.replay import Execution
from lungfish.runtime import codec
from lungfish.runtime.declared.app import App
from lungfish.runtime.declared.definitions import EntityDefinition, Orchestration, operations_of
from lungfish.runtime.declared.signatures import encode_arguments
from lungfish.runtime.errors import FailureDetails

app = App("replay")


class Base: ...


class Counter:
    def add(self, n: int) -> int: ...  # type: ignore[empty-body]


app.entities["Counter"] = EntityDefinition("Counter", Counter, operations_of(Counter, "Counter", Base))

Node = list[Any]
NAMES = ("x", "X", "y")


def leaf(ctx: OrchestrationContext, node: Node) -> Awaitable[Any]:
    kind, value = node
    match kind:
        case "activity":
            return ctx.call_activity(f"activity-{value}", value)
        case "timer":
            return ctx.create_timer(value)
        case "sleep":
            return asyncio.sleep(value, "slept")
        case "event":
            return ctx.wait_for_external_event(NAMES[value % len(NAMES)])
        case "entity":
            return ctx.entity("Counter", str(value)).call(Counter.add, value)
        case _:
            return ctx.call_orchestration(f"child-{value}", value)


async def interpret(ctx: OrchestrationContext, node: Node, trace: list[Any]) -> Any:
    """Run a node; failures of what it waits for are results, as replay must repeat those, too."""
    try:
        return await run(ctx, node, trace)
    except Exception as error:
        trace.append(type(error).__name__)
        return str(error)


async def run(ctx: OrchestrationContext, node: Node, trace: list[Any]) -> Any:
    kind, parts = node
    match kind:
        case "seq":
            return [await interpret(ctx, part, trace) for part in parts]
        case "gather":
            return await asyncio.gather(*(interpret(ctx, part, trace) for part in parts))
        case "group":
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(run(ctx, part, trace)) for part in parts]
            return [task.result() for task in tasks]
        case "all":
            return await when_all(*(interpret(ctx, part, trace) for part in parts))
        case "any":
            racing: list[asyncio.Future[Any]] = [asyncio.ensure_future(run(ctx, p, trace)) for p in parts]
            return racing.index(await when_any(*racing))
        case "wait":
            return await first_of(ctx, parts, trace)
        case "completed":
            return [await each for each in asyncio.as_completed([interpret(ctx, p, trace) for p in parts])]
        case "timeout":
            async with asyncio.timeout(parts[0]):
                return await run(ctx, parts[1], trace)
        case "cancel":
            task = asyncio.ensure_future(leaf(ctx, parts))
            await asyncio.sleep(0)
            return task.cancel()
        case "signal":
            ctx.entity("Counter", "k").signal("add", parts)
            ctx.send_event("other", "e", parts)
            return ctx.random.random()
        case "lock":
            refs = [ctx.entity("Counter", name) for name in ("a", "b")[: 1 + parts % 2]]
            async with ctx.lock(*refs):
                return await refs[0].call(Counter.add, parts)
        case "patched":
            return ctx.patched(f"patch-{parts}") and await ctx.call_activity("patched", str(ctx.uuid4()))
        case _:
            result = await leaf(ctx, node)
            trace.append([result, ctx.now().timestamp()])
            return result


async def first_of(ctx: OrchestrationContext, parts: list[Node], trace: list[Any]) -> int:
    """What asyncio.wait gives are sets: their order decides what is scheduled next."""
    tasks = {asyncio.ensure_future(interpret(ctx, part, trace)) for part in parts}
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    for task in tasks:
        await ctx.call_activity(f"after-{task in done}", len(trace))
    return len(done)


async def program(ctx: OrchestrationContext, node: Any) -> Any:
    trace: list[Any] = []

    @ctx.on_query
    def look() -> int:
        return len(trace)

    def even(n: int) -> None:
        if n % 2:
            raise ValueError("odd")

    @ctx.on_update(validator=even)
    async def update(n: int) -> list[Any]:
        trace.append(["update", n])
        found = list(await asyncio.gather(leaf(ctx, ["activity", n]), asyncio.sleep(n % 3, "slept")))
        trace.append(["updated", n, ctx.now().timestamp()])
        return found

    result = await interpret(ctx, node, trace)
    ctx.set_custom_status(trace)
    if len(trace) > 6:
        ctx.continue_as_new(node)
    return [result, trace]


LEAVES = st.tuples(
    st.sampled_from(["activity", "activity", "timer", "sleep", "event", "entity", "child"]), st.integers(0, 3)
)
SMALL = st.one_of(
    LEAVES,
    LEAVES,
    st.tuples(st.just("cancel"), LEAVES),
    st.tuples(st.sampled_from(["signal", "patched", "lock"]), st.integers(0, 2)),
)
KINDS = st.sampled_from(["seq", "gather", "group", "all", "any", "wait", "completed"])


def larger(nodes: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.tuples(KINDS, st.lists(nodes, min_size=1, max_size=4))
    return st.one_of(several, several, st.tuples(st.just("timeout"), st.tuples(st.integers(0, 3), nodes)))


PROGRAMS = st.recursive(SMALL, larger, max_leaves=12)


class World:
    """Answers what a program asks for, in a random order."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now_ms = 1_000
        self.open: dict[int, actions.Action] = {}
        self.past: list[events.Arrived] = []

    def take(self, decided: Sequence[actions.Action]) -> None:
        for action in decided:
            match action:
                case (
                    actions.CancelActivity()
                    | actions.CancelTimer()
                    | actions.CancelOrchestration()
                    | actions.ReleaseLock()
                ):
                    self.open.pop(action.id, None)
                case actions.SignalEntity() | actions.SendEvent():
                    pass
                case _:
                    self.open[action.id] = action

    def next_events(self) -> list[events.Arrived]:
        self.now_ms += self.random.randrange(1_500)
        arrived = [self.next_event() for _ in range(self.random.randrange(1, 4))]
        self.past += arrived
        return arrived

    def next_event(self) -> events.Arrived:
        chance = self.random.random()
        if chance < 0.08:
            number = self.random.randrange(6)
            args = encode_arguments((2 * number,), {}, "")
            return events.UpdateAccepted(f"u{number}", "update", args)
        if chance < 0.2 or not self.open:
            return events.EventRaised(self.random.choice(NAMES), codec.encode(self.random.randrange(9)))
        if chance < 0.3 and self.past:
            return self.random.choice(self.past)  # doubled, or late
        action = self.open.pop(self.random.choice(sorted(self.open)))
        return self.answer(action)

    def answer(self, action: actions.Action) -> events.Arrived:
        number = action.id
        result = codec.encode(self.random.randrange(100))
        fails = self.random.random() < 0.2
        failure = FailureDetails("builtins.ValueError", f"failed {number}")
        match action:
            case actions.ScheduleActivity():
                return events.TaskFailed(number, failure) if fails else events.TaskCompleted(number, result)
            case actions.CreateTimer():
                self.now_ms = max(self.now_ms, action.due_ms)
                return events.TimerFired(number)
            case actions.RequestLock():
                return events.LockGranted(number)
            case actions.StartOrchestration() if fails:
                return events.SubOrchestrationFailed(number, failure)
            case actions.StartOrchestration():
                return events.SubOrchestrationCompleted(number, result)
            case _:
                return events.EntityResponded(number, None if fails else result, failure if fails else None)


def look_around(live: Execution) -> None:
    """Ask, and be refused: neither may leave a trace in what follows."""
    live.query("look", encode_arguments((), {}, ""))
    with contextlib.suppress(ValueError):
        live.validate("update", encode_arguments((1,), {}, ""))


def begin() -> Execution:
    return Execution(app, Orchestration(program, "program"), "i")


#: LUNGFISH_EXAMPLES=10000 for a long run.
EXAMPLES = int(os.environ.get("LUNGFISH_EXAMPLES", "200"))


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(tree=PROGRAMS, seed=st.integers(0, 2**32))
def test_replaying_any_prefix_gives_the_same_actions(tree: Any, seed: int) -> None:
    world = World(seed)
    started = events.ExecutionStarted("x1", "program", encode_arguments((tree,), {}, ""), 1)
    live = begin()
    turns: list[Any] = []
    arrived: list[events.Arrived] = [started]
    while live.ended is None and len(turns) < 25:
        now_ms = world.now_ms
        turn = live.turn(now_ms, arrived)
        turns.append((now_ms, arrived, turn, live.custom_status))
        world.take(turn.actions)
        look_around(live)
        arrived = world.next_events()
    live.close()
    history: list[events.Event] = []
    for now_ms, arrived, turn, custom_status in turns:
        again = begin()
        again.replay(events.unpack(events.pack(history)))
        assert again.ended is None, again.ended
        repeated = again.turn(now_ms, arrived)
        assert events.pack(repeated.events) == events.pack(turn.events)
        assert repeated.actions == turn.actions
        assert repeated.ended == turn.ended
        assert again.custom_status == custom_status
        again.close()
        history += turn.events
