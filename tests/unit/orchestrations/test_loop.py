"""The deterministic loop: what it refuses, what it survives, and how it is dropped."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import logging
import socket
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

import pytest
import uvloop

from lungfish.orchestrations import OrchestrationContext, events
from lungfish.orchestrations.loop import DeterministicLoop, running_loop
from lungfish.orchestrations.replay import Execution
from lungfish.runtime import codec
from lungfish.runtime.declared.app import App
from lungfish.runtime.declared.definitions import Orchestration
from lungfish.runtime.declared.signatures import encode_arguments
from lungfish.runtime.errors import UsageError

app = App("loop")


@app.activity
def a(n: int = 0) -> int: ...  # type: ignore[empty-body]


def begin(code: Callable[..., Any], *args: Any) -> Execution:
    one = Execution(app, Orchestration(code, "o"), "i")
    one.turn(1_000, [events.ExecutionStarted("x1", "o", encode_arguments(args, {}, "o"), 1_000)])
    return one


def failure_of(code: Callable[..., Any]) -> str:
    one = begin(code)
    assert one.ended is not None
    assert one.ended.status == "Failed"
    return str(one.ended.failure)


def result_of(code: Callable[..., Any]) -> Any:
    one = begin(code)
    assert one.ended is not None
    assert one.ended.result is not None, str(one.ended.failure)
    return codec.decode(one.ended.result)


async def to_thread(ctx: OrchestrationContext) -> None:
    await asyncio.to_thread(print)


async def connects(ctx: OrchestrationContext) -> None:
    await asyncio.open_connection("localhost", 1)


async def subprocess(ctx: OrchestrationContext) -> None:
    await asyncio.create_subprocess_exec("true")


async def executor(ctx: OrchestrationContext) -> None:
    await asyncio.get_running_loop().run_in_executor(None, print)


async def receives(ctx: OrchestrationContext) -> None:
    with socket.socket() as sock:
        await asyncio.get_running_loop().sock_recv(sock, 1)


async def threadsafe(ctx: OrchestrationContext) -> None:
    asyncio.get_running_loop().call_soon_threadsafe(print)


async def signals(ctx: OrchestrationContext) -> None:
    asyncio.get_running_loop().add_signal_handler(1, print)


async def stops(ctx: OrchestrationContext) -> None:
    asyncio.get_running_loop().stop()


@pytest.mark.parametrize(
    "code", [to_thread, connects, subprocess, executor, receives, threadsafe, signals, stops]
)
def test_io_and_threads_are_refused(code: Any) -> None:
    text = failure_of(code)
    assert "NotDurable" in text
    assert "activity" in text


def test_no_method_of_the_loop_is_left_abstract() -> None:
    for name in dir(asyncio.AbstractEventLoop):
        if not name.startswith("_"):
            assert name in vars(DeterministicLoop), name


async def test_a_foreign_future_is_told() -> None:
    foreign = asyncio.get_running_loop().create_future()

    async def code(ctx: OrchestrationContext) -> None:
        await foreign

    assert "does not belong to it" in failure_of(code)


def test_a_foreign_awaitable_is_told() -> None:
    class Foreign:
        def __await__(self) -> Generator[Any, Any, None]:
            yield "what another framework yields"

    async def code(ctx: OrchestrationContext) -> None:
        await Foreign()

    assert "does not belong to it" in failure_of(code)


def test_a_wrapped_thread_future_does_not_hang() -> None:
    outside: concurrent.futures.Future[int] = concurrent.futures.Future()

    async def code(ctx: OrchestrationContext) -> None:
        await asyncio.wrap_future(outside)

    text = failure_of(code)
    assert "will ever bring" in text
    assert __file__ in text


def test_an_event_that_nobody_sets_does_not_hang() -> None:
    async def code(ctx: OrchestrationContext) -> None:
        async def inner() -> None:
            await asyncio.Event().wait()

        await inner()

    text = failure_of(code)
    assert "will ever bring" in text
    assert __file__ in text


RAISED = [
    ValueError("v"),
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
    asyncio.CancelledError(),
    StopIteration(),
]


@pytest.mark.parametrize("error", RAISED, ids=repr)
@pytest.mark.parametrize("where", ["main", "task", "generator"])
def test_whatever_is_raised_fails_the_instance_only(
    error: BaseException, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def raises() -> None:
        raise error

    async def main(ctx: OrchestrationContext) -> None:
        await (raises() if where == "main" else asyncio.create_task(raises()))

    def generator(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
        yield asyncio.sleep(0)
        raise error

    text = failure_of(generator if where == "generator" else main)
    assert type(error).__name__ in text or isinstance(error, StopIteration)
    assert "exception in" not in caplog.text


def test_a_result_that_cannot_be_stored_fails_the_instance() -> None:
    async def code(ctx: OrchestrationContext) -> Any:
        return object()

    assert "SerializationError" in failure_of(code)


def test_arguments_that_do_not_fit_fail_the_instance() -> None:
    async def code(ctx: OrchestrationContext, n: int) -> None: ...

    one = begin(code, "many")
    assert one.ended is not None
    assert "InvalidArguments" in str(one.ended.failure)


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_the_hosts_loop_is_left_as_it_was(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def code(ctx: OrchestrationContext) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
        await ctx.call_activity(a)

    async def host() -> None:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        hooks = sys.get_asyncgen_hooks()
        one = begin(code)
        assert asyncio.current_task() is task
        assert asyncio.get_running_loop() is loop
        assert sys.get_asyncgen_hooks() == hooks
        loop.call_soon(one.turn, 2_000, [events.TaskCompleted(1, codec.encode(1))])
        await asyncio.sleep(0)
        assert one.ended is not None
        assert one.ended.status == "Completed"

    loop = make_loop()
    try:
        loop.run_until_complete(host())
    finally:
        loop.close()


def test_the_hosts_context_variables_are_not_seen() -> None:
    variable = contextvars.ContextVar("variable", default="default")
    variable.set("the host's")

    async def code(ctx: OrchestrationContext) -> list[str]:
        before = variable.get()
        variable.set("its own")
        return [before, variable.get()]

    assert result_of(code) == ["default", "its own"]
    assert variable.get() == "the host's"


def test_a_failing_callback_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def code(ctx: OrchestrationContext) -> int:
        def fails() -> None:
            raise ValueError("in a callback")

        asyncio.get_running_loop().call_soon(fails)
        await asyncio.sleep(0)
        return 1

    assert result_of(code) == 1
    assert "in a callback" in caplog.text


# --- drop ---


def test_a_dropped_orchestration_does_nothing_on_its_way_out(caplog: pytest.LogCaptureFixture) -> None:
    gc.collect()  # what earlier tests have left speaks now, and not below
    caplog.clear()
    reached = []

    async def never_started(ctx: OrchestrationContext) -> None:
        reached.append("never")

    async def waits(ctx: OrchestrationContext, how: str) -> None:
        try:
            await ctx.call_activity(a)
        finally:
            reached.append(how)
            match how:
                case "acts":
                    await ctx.call_activity(a)
                case "waits":
                    await asyncio.sleep(0)
                    await asyncio.sleep(5)
                    await asyncio.Event().wait()
                case "spawns":
                    await asyncio.create_task(never_started(ctx))
                case "raises":
                    raise ValueError
                case "signals":
                    ctx.patched("p")
                case "event":
                    await ctx.wait_for_external_event("e")
                case "exits":
                    raise SystemExit

    async def code(ctx: OrchestrationContext) -> None:
        async with asyncio.TaskGroup() as group, asyncio.timeout(5):
            for how in ("acts", "waits", "spawns", "raises", "signals", "event", "exits"):
                group.create_task(waits(ctx, how))
            await ctx.create_timer(100)

    one = begin(code)
    before = list(one.take_actions())
    one.close()
    one.close()
    assert one.take_actions() == []
    assert before == []
    assert sorted(reached) == sorted(["acts", "waits", "spawns", "raises", "signals", "event", "exits"])
    del one
    gc.collect()
    assert caplog.messages == []


def test_tasks_that_never_started_are_dropped_without_a_warning() -> None:
    async def child() -> None: ...

    async def code(ctx: OrchestrationContext) -> None:
        _ = asyncio.create_task(child())  # noqa: RUF006 - it is the loop that keeps tasks

    one = begin(code)
    assert one.ended is not None
    del one
    gc.collect()


def test_a_generator_orchestration_is_dropped_quietly() -> None:
    reached = []

    def code(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
        try:
            yield ctx.call_activity(a)
        finally:
            reached.append("finally")
            yield ctx.call_activity(a)

    one = begin(code)
    one.close()
    del one
    gc.collect()
    assert reached == ["finally"]


def test_an_async_generator_is_dropped_quietly() -> None:
    async def numbers(ctx: OrchestrationContext) -> AsyncGenerator[int, None]:
        try:
            while True:
                yield await ctx.call_activity(a)
        finally:
            await ctx.call_activity(a)

    async def code(ctx: OrchestrationContext) -> None:
        async for _ in numbers(ctx):
            await ctx.sleep(1)

    one = begin(code)
    one.turn(2_000, [events.TaskCompleted(1, codec.encode(1))])
    one.close()
    del one
    gc.collect()


def test_a_coroutine_that_cannot_be_closed_is_kept_and_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Any] = []
    monkeypatch.setattr("lungfish.orchestrations.loop._UNCLOSABLE", kept)
    stop = False

    async def code(ctx: OrchestrationContext) -> None:
        while not stop:
            try:
                await asyncio.sleep(5)
            except BaseException:
                continue

    one = begin(code)
    one.close()
    assert "cannot be closed" in caplog.text
    stop = True
    for coroutine in kept:
        coroutine.close()


def test_a_drop_inside_another_orchestration_disturbs_nothing() -> None:
    async def inner(ctx: OrchestrationContext) -> None:
        try:
            await ctx.call_activity(a)
        finally:
            assert asyncio.get_running_loop() is not outer_loop

    outer_loop: Any = None

    async def outer(ctx: OrchestrationContext) -> int:
        nonlocal outer_loop
        outer_loop = asyncio.get_running_loop()
        begin(inner).close()
        assert asyncio.get_running_loop() is outer_loop
        await asyncio.sleep(0)
        return 1

    assert result_of(outer) == 1


def test_a_late_thread_cannot_reach_the_loop() -> None:
    errors = []

    async def code(ctx: OrchestrationContext) -> None:
        loop = asyncio.get_running_loop()

        def late() -> None:
            try:
                loop.call_soon_threadsafe(print)
            except UsageError as error:
                errors.append(error)

        thread = threading.Thread(target=late)
        thread.start()
        thread.join()

    begin(code)
    assert len(errors) == 1


async def test_the_host_does_not_finish_abandoned_async_generators() -> None:
    finished = []

    async def numbers() -> AsyncGenerator[int, None]:
        try:
            yield 1
            yield 2
        finally:
            finished.append(asyncio.get_running_loop())

    async def code(ctx: OrchestrationContext) -> None:
        async for _ in numbers():
            break
        await ctx.sleep(1)

    one = begin(code)
    await asyncio.sleep(0)
    assert [type(loop) for loop in finished] == [DeterministicLoop]
    one.close()


@pytest.mark.parametrize("delay", [0.0001, 0.0015, 1.0004, 3600, 12.3456789])
def test_timers_are_never_early(delay: float) -> None:
    async def code(ctx: OrchestrationContext, delay: float) -> None:
        await asyncio.sleep(delay)

    now_ms = 1_763_790_123_457
    one = Execution(app, Orchestration(code, "o"), "i")
    turn = one.turn(now_ms, [events.ExecutionStarted("x1", "o", encode_arguments((delay,), {}, "o"), 1)])
    (created,) = [event for event in turn.events if isinstance(event, events.TimerCreated)]
    assert 0 <= created.due_ms - (now_ms + delay * 1000) < 1
    one.close()


def test_running_loop_outside() -> None:
    with pytest.raises(UsageError):
        running_loop("it")


def test_hashes_do_not_depend_on_addresses_but_on_the_instance() -> None:
    hashes = []

    async def code(ctx: OrchestrationContext) -> None:
        hashes.append([hash(task) for task in (ctx.call_activity(a), asyncio.create_task(asyncio.sleep(0)))])
        await asyncio.sleep(0)

    for instance in ("i", "i", "j"):
        one = Execution(app, Orchestration(code, "o"), instance)
        one.turn(1, [events.ExecutionStarted("x1", "o", encode_arguments((), {}, "o"), 1)])
    assert hashes[0] == hashes[1]
    assert not set(hashes[0]) & set(hashes[2])


def test_many_tasks_are_not_kept_after_they_ended() -> None:
    async def code(ctx: OrchestrationContext) -> int:
        for _ in range(1_000):
            await asyncio.create_task(asyncio.sleep(0))
        loop = asyncio.get_running_loop()
        assert isinstance(loop, DeterministicLoop)
        return len(loop._tasks)

    assert result_of(code) < 200


def test_debug_logging_of_never_awaited_results(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def fails() -> None:
        raise ValueError("nobody looks")

    async def code(ctx: OrchestrationContext) -> int:
        task = asyncio.create_task(fails())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del task
        return 1

    assert result_of(code) == 1
