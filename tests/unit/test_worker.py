"""The activity worker, over the store in memory.

Where time matters the loop's clock is virtual: it jumps to the next timer, and the store follows it.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

import lungfish
from lungfish.runtime import codec
from lungfish.runtime.declared.activity_info import ActivityInfo, running_as
from lungfish.runtime.declared.signatures import encode_arguments
from lungfish.runtime.errors import StoreUnavailable
from lungfish.runtime.ids import ORCHESTRATION, ActorId, partition_of
from lungfish.runtime.messages import wire
from lungfish.runtime.messages.messages import ActivityResult, ActivityTask
from lungfish.runtime.settings import WorkerSettings
from lungfish.runtime.store.store import START, Append, Commit, HubMeta, partition_target, queue_target
from lungfish.runtime.testing.memory_store import MemoryServer, MemoryStore
from lungfish.runtime.worker.worker import BACKOFF_S, Worker
from tests.spans import Told
from tests.virtual import virtual_server, virtually

HUB = "test"
PARTITIONS = 4


class FlakyStore(MemoryStore):
    """Breaks connections: methods named in ``broken`` raise, before or after they took effect."""

    broken: dict[str, str]

    def __init__(self, server: MemoryServer, hub: str) -> None:
        super().__init__(server, hub)
        self.broken = {}
        self.finished: list[tuple[str, str]] = []

    async def _flaky(self, name: str, work: Coroutine[Any, Any, Any]) -> Any:
        how = self.broken.get(name)
        if how == "before":
            work.close()
            await asyncio.sleep(0)
            raise StoreUnavailable("injected")
        result = await work
        if how == "after":
            raise StoreUnavailable("injected")
        return result

    async def append(self, appends: Any) -> Any:
        return await self._flaky("append", super().append(appends))

    async def finish_entries(self, entries: Any) -> None:
        await self._flaky("finish_entries", super().finish_entries(entries))
        self.finished += entries

    async def worker_beat(self, worker: str, record: bytes) -> None:
        await self._flaky("worker_beat", super().worker_beat(worker, record))

    async def claim_entries(self, *args: Any, **kwargs: Any) -> Any:
        return await self._flaky("claim_entries", super().claim_entries(*args, **kwargs))

    async def has_activities(self, keys: Any) -> Any:
        return await self._flaky("has_activities", super().has_activities(keys))

    def queue_reader(self, worker: str) -> Any:
        reader = super().queue_reader(worker)
        take = reader.take

        async def flaky_take(*args: Any, **kwargs: Any) -> Any:
            return await self._flaky("take", take(*args, **kwargs))

        reader.take = flaky_take  # type: ignore[method-assign]
        return reader


class Bench:
    """A hub in memory with an app, its queue and its inboxes."""

    def __init__(self) -> None:
        self.app = lungfish.App(HUB)
        self.server = virtual_server()
        self.store = MemoryStore(self.server, HUB)
        self.workers: list[Worker] = []
        self._sequence = 0

    async def open(self) -> Bench:
        await self.store.open(HubMeta(partitions=PARTITIONS))
        return self

    async def __aenter__(self) -> Bench:
        return await self.open()

    async def __aexit__(self, *exc: object) -> None:
        for worker in self.workers:
            await worker.kill()

    def flaky(self) -> FlakyStore:
        return FlakyStore(self.server, HUB)

    async def worker(self, name: str = "w1", store: MemoryStore | None = None, **options: Any) -> Worker:
        # Most tests put tasks into queues that no row in the store knows of.
        options.setdefault("settings", WorkerSettings(watch_ms=10**9))
        worker = Worker(store or MemoryStore(self.server, HUB), self.app, worker_id=name, **options)
        await worker.start()
        self.workers.append(worker)
        return worker

    async def put(self, *tasks: ActivityTask, queue: str = "default") -> None:
        await self.put_bytes(*(wire.pack([task]) for task in tasks), queue=queue)

    async def put_bytes(self, *payloads: bytes, queue: str = "default") -> None:
        self._sequence += 1
        append = Append(queue_target(queue), f"test-{queue}-{self._sequence}", 1, payloads)
        await self.store.append([append])

    async def keep_row(self, task: ActivityTask) -> None:
        """Make the store say that ``task`` has no result yet."""
        partition = partition_of(task.owner, PARTITIONS)
        token = f"token-{partition}"
        image = await self.store.claim(partition, "host", token)
        commit = Commit(partition, token, image.commit_number + 1, activities={task.row: b"row"})
        await self.store.commit([commit])

    async def results(self) -> list[ActivityResult]:
        """Return everything in all inboxes."""
        positions = {partition_target(p): START for p in range(PARTITIONS)}
        entries = await self.store.reader().read(positions, block_ms=0, count=10_000)
        found: list[ActivityResult] = []
        for batch in entries.values():
            for entry in batch:
                found += [m for m in wire.unpack(entry.payload) if isinstance(m, ActivityResult)]
        return found

    async def wait_results(self, count: int) -> list[ActivityResult]:
        """Return the results when there are ``count``; then there must be no more than that."""
        async with asyncio.timeout(60):
            while len(found := await self.results()) < count:
                await asyncio.sleep(0.005)
        assert len(found) == count
        return found

    async def one(self) -> ActivityResult:
        (result,) = await self.wait_results(1)
        return result

    def left(self, queue: str = "default") -> int:
        """Return how many entries are still in a queue, taken or not."""
        stream = self.server.hub(HUB).streams.get(queue_target(queue))
        return len(stream.ids) if stream is not None else 0

    async def wait_empty(self, queue: str = "default") -> None:
        async with asyncio.timeout(60):
            while self.left(queue):
                await asyncio.sleep(0.005)


def make_task(name: str, *args: Any, key: str = "i1", **options: Any) -> ActivityTask:
    """Return attempt 1 of an activity of instance ``key``."""
    fields: dict[str, Any] = {
        "owner": ActorId(ORCHESTRATION, "", key),
        "execution": "x1",
        "task": 7,
        "attempt": 1,
        "name": name,
        "args": encode_arguments(args, {}, name),
        "idempotency_key": f"{key}/7",
        "row": f"{key}/x1/7",
    }
    return ActivityTask(**{**fields, **options})


def value_of(result: ActivityResult) -> Any:
    assert result.failure is None, result.failure
    assert result.result is not None
    return codec.decode(result.result)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


# --- outcomes ------------------------------------------------------------------------------


async def test_runs_sync_function_in_a_thread_and_reports(threads: ThreadPoolExecutor) -> None:
    async with Bench() as bench:

        @bench.app.activity
        def where(n: int) -> tuple[int, bool]:
            return n, threading.current_thread() is threading.main_thread()

        task = make_task("where", 5)
        await bench.put(task)
        worker = await bench.worker(executor=threads)
        result = await bench.one()
        assert value_of(result) == [5, False]
        assert (result.target, result.execution, result.task, result.attempt) == (task.owner, "x1", 7, 1)
        assert not result.timed_out
        await bench.wait_empty()
        assert worker.counts.succeeded == 1


async def test_runs_async_functions_concurrently_on_the_loop() -> None:
    async with Bench() as bench:
        together = asyncio.Barrier(10)

        @bench.app.activity
        async def meet() -> str:
            await together.wait()
            return threading.current_thread().name

        await bench.put(*(make_task("meet", key=f"i{n}") for n in range(10)))
        await bench.worker(concurrency=10)
        names = {value_of(result) for result in await bench.wait_results(10)}
        assert names == {threading.main_thread().name}


def test_without_an_executor_sync_functions_run_on_the_loop() -> None:
    async def test() -> None:
        async with Bench() as bench:

            @bench.app.activity
            def where() -> int:
                return threading.get_ident()

            await bench.put(*(make_task("where", key=f"i{n}") for n in range(100)))
            await bench.worker(concurrency=3)
            found = {value_of(result) for result in await bench.wait_results(100)}
            assert found == {threading.get_ident()}

    virtually(test)


async def test_arguments_are_validated_and_given_by_name(threads: ThreadPoolExecutor) -> None:
    async with Bench() as bench:

        @bench.app.activity
        def join(left: set[int], *, right: str = "x") -> str:
            return f"{sorted(left)}{right}"

        args = encode_arguments([{2, 1}], {"right": "y"}, "join")
        await bench.put(make_task("join", args=args))
        await bench.worker(executor=threads)
        assert value_of(await bench.one()) == "[1, 2]y"


class Refused(Exception):
    non_retriable = True


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    "error", [ValueError("bad"), Refused("bad"), SystemExit("bad"), KeyboardInterrupt("bad")]
)
async def test_what_a_function_raises_is_a_failure(
    threads: ThreadPoolExecutor, is_async: bool, error: BaseException
) -> None:
    async with Bench() as bench:

        def fail() -> None:
            raise error

        async def fail_async() -> None:
            raise error

        bench.app.activity(name="fail")(fail_async if is_async else fail)
        await bench.put(make_task("fail"))
        worker = await bench.worker(executor=threads)
        failure = (await bench.one()).failure
        assert failure is not None
        assert failure.error_type.rpartition(".")[2] == type(error).__name__
        assert failure.message == "bad"
        assert failure.non_retriable is isinstance(error, Refused)
        assert "in fail" in failure.traceback
        assert "attempts.py" not in failure.traceback
        await bench.put(make_task("fail"))  # it still works
        await bench.wait_results(2)
        assert worker.counts.failed == 2


async def test_cancelled_error_of_the_users_making_is_a_failure() -> None:
    async with Bench() as bench:

        @bench.app.activity
        async def fail() -> None:
            inner = asyncio.ensure_future(asyncio.sleep(10))
            inner.cancel()
            await inner

        await bench.put(make_task("fail"))
        await bench.worker()
        failure = (await bench.one()).failure
        assert failure is not None
        assert failure.is_caused_by("CancelledError")


@pytest.mark.parametrize(
    ("task", "error_type"),
    [
        (make_task("nobody"), "NotRegistered"),
        (make_task("takes_int", "many"), "InvalidArguments"),
        (make_task("takes_int"), "InvalidArguments"),
        (make_task("takes_int", args=b"\xc1"), "SerializationError"),
        (make_task("gives_object"), "SerializationError"),
        (make_task("gives_much"), "PayloadTooLarge"),
    ],
)
async def test_what_no_retry_can_help_is_not_retriable(
    threads: ThreadPoolExecutor, task: ActivityTask, error_type: str
) -> None:
    async with Bench() as bench:

        @bench.app.activity
        def takes_int(n: int) -> int:
            return n

        @bench.app.activity
        def gives_object() -> object:
            return object()

        @bench.app.activity
        async def gives_much() -> bytes:
            return bytes(bench.app.payloads.bytes_max)

        await bench.put(task)
        await bench.worker(executor=threads)
        failure = (await bench.one()).failure
        assert failure is not None
        assert failure.error_type.rpartition(".")[2] == error_type
        assert failure.non_retriable
        await bench.wait_empty()


async def test_activity_info_is_the_attempts_own(threads: ThreadPoolExecutor) -> None:
    leak: contextvars.ContextVar[int] = contextvars.ContextVar("leak", default=0)
    async with Bench() as bench:

        def tell() -> tuple[str, str, str, int, int]:
            leaked = leak.get()
            leak.set(leaked + 1)  # must not be seen by the next one in this thread
            info = lungfish.activity_info()
            return info.idempotency_key, info.instance_id, info.name, info.attempt, leaked

        async def tell_async() -> tuple[str, str, str, int, int]:
            return tell()

        bench.app.activity(tell)
        bench.app.activity(tell_async)
        await bench.put(
            *(make_task("tell", key=f"i{n}", attempt=n) for n in range(1, 9)),
            *(make_task("tell_async", key=f"j{n}", attempt=n) for n in range(1, 9)),
        )
        await bench.worker(executor=threads)
        for result in await bench.wait_results(16):
            key, instance, name, attempt, leaked = value_of(result)
            assert (key, instance) == (f"{result.target.key}/7", result.target.key)
            assert (name, attempt) == ("tell" if instance[0] == "i" else "tell_async", result.attempt)
            assert leaked == 0


def test_activity_info_elsewhere_is_an_error_that_tells_what_to_do() -> None:
    with pytest.raises(lungfish.UsageError, match="running_as"):
        lungfish.activity_info()
    with running_as(ActivityInfo("key", "instance", "name")):
        assert lungfish.activity_info().idempotency_key == "key"


# --- time-outs -------------------------------------------------------------------------------


def test_async_function_is_cancelled_at_its_time_out() -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        cancelled_after_s: list[float] = []
        async with Bench() as bench:

            @bench.app.activity
            async def wait(seconds: float) -> str:
                began_s = loop.time()
                try:
                    await asyncio.sleep(seconds)
                except asyncio.CancelledError:
                    cancelled_after_s.append(loop.time() - began_s)
                    raise
                return "done"

            await bench.put(
                make_task("wait", 0.5, key="quick", timeout_ms=1_500),
                make_task("wait", 9.0, key="slow", timeout_ms=1_500),
                make_task("wait", 9.0, key="unlimited"),
            )
            worker = await bench.worker()
            results = {result.target.key: result for result in await bench.wait_results(3)}
            assert value_of(results["quick"]) == value_of(results["unlimited"]) == "done"
            late = results["slow"]
            assert late.timed_out
            assert late.failure is not None
            assert late.failure.is_caused_by(TimeoutError)
            assert "attempt 1 of activity wait did not end within 1.5 s" in late.failure.message
            assert not late.failure.non_retriable
            assert cancelled_after_s == pytest.approx([1.5])
            assert worker.counts.timed_out == 1

    virtually(test)


def test_timeout_error_of_the_functions_own_is_not_a_time_out() -> None:
    async def test() -> None:
        async with Bench() as bench:

            @bench.app.activity
            async def own() -> None:
                async with asyncio.timeout(0.1):
                    await asyncio.sleep(1)

            await bench.put(make_task("own", timeout_ms=5_000))
            await bench.worker()
            result = await bench.one()
            assert not result.timed_out
            assert result.failure is not None

    virtually(test)


def test_function_that_ignores_its_cancellation_is_reported_once_and_keeps_its_slot() -> None:
    async def test() -> None:
        async with Bench() as bench:

            @bench.app.activity
            async def stubborn() -> str:
                for _ in range(10):
                    try:
                        await asyncio.sleep(1)
                    except asyncio.CancelledError:
                        continue
                return "late"

            await bench.put(make_task("stubborn", timeout_ms=1_500), make_task("stubborn", key="i2"))
            worker = await bench.worker(concurrency=1)
            assert (await bench.one()).timed_out
            await asyncio.sleep(1)
            assert worker.running == 1
            results = await bench.wait_results(2)
            assert [result.timed_out for result in results].count(True) == 1

    virtually(test)


async def test_thread_over_its_time_is_reported_and_its_late_result_dropped(
    threads: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    async with Bench() as bench:
        go_on = threading.Event()

        @bench.app.activity
        def hang() -> str:
            go_on.wait(10)
            return "late"

        await bench.put(make_task("hang", timeout_ms=20))
        worker = await bench.worker(executor=threads, concurrency=1)
        assert (await bench.one()).timed_out
        await bench.wait_empty()
        assert worker.running == 1
        assert "keeps a slot" in caplog.text
        go_on.set()
        async with asyncio.timeout(60):
            while worker.running:
                await asyncio.sleep(0.005)
        assert (await bench.one()).timed_out


# --- resources -------------------------------------------------------------------------------


class FakeLauncher:
    def __init__(self) -> None:
        self.seen: list[tuple[str, list[Any], str]] = []
        self.cancelled = 0

    async def run(self, activity: Any, args: list[Any], kwargs: dict[str, Any], info: ActivityInfo) -> Any:
        self.seen.append((activity.name, args, info.idempotency_key))
        try:
            return activity.function(*args, **kwargs) if args else await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


def test_activities_with_resources_go_through_the_launcher() -> None:
    async def test() -> None:
        async with Bench() as bench:

            @bench.app.activity(num_gpus=1)
            def train(n: int = 0) -> int:
                return n * 2

            launcher = FakeLauncher()
            await bench.put(make_task("train", 21))
            await bench.worker(launcher=launcher)
            assert value_of(await bench.one()) == 42
            assert launcher.seen == [("train", [21], "i1/7")]
            await bench.put(make_task("train", key="i2", timeout_ms=1_000))
            await bench.wait_results(2)
            await asyncio.sleep(0.01)
            assert launcher.cancelled == 1

    virtually(test)


USER: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")


def test_middleware_around_what_a_launcher_runs_is_in_the_context_of_the_attempt() -> None:
    async def test() -> None:
        async with Bench() as bench:
            told = Told(bench.app)
            bench.app.propagate(USER)
            seen: list[Any] = []

            @bench.app.activity_middleware
            def around(attempt: ActivityInfo) -> Iterator[None]:
                here = lungfish.activity_info()
                with told.provider.get_tracer("test").start_as_current_span("theirs"):
                    yield
                seen.append((USER.get(), here.idempotency_key == attempt.idempotency_key))

            @bench.app.activity(num_gpus=1)
            def train(n: int = 0) -> int:
                return n * 2

            above = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
            await bench.put(replace(make_task("train", 21), headers=("traceparent", above, "user", "ada")))
            await bench.worker(launcher=FakeLauncher())
            assert value_of(await bench.one()) == 42
            assert seen == [("ada", True)]
            assert told.edges() == [("?", "activity train"), ("activity train", "theirs")]

    virtually(test)


# --- concurrency -----------------------------------------------------------------------------


def test_takes_no_more_than_it_can_run() -> None:
    async def test() -> None:
        async with Bench() as bench:
            now = most = 0

            @bench.app.activity
            async def count() -> None:
                nonlocal now, most
                now += 1
                most = max(most, now)
                await asyncio.sleep(1)
                now -= 1

            await bench.put(*(make_task("count", key=f"i{n}") for n in range(20)))
            one = await bench.worker("w1", concurrency=3)
            two = await bench.worker("w2", concurrency=3)
            await bench.wait_results(20)
            assert most == 6
            assert one.counts.taken + two.counts.taken == 20
            assert min(one.counts.taken, two.counts.taken) >= 6

    virtually(test)


async def test_takes_from_its_queues_only(threads: ThreadPoolExecutor) -> None:
    async with Bench() as bench:

        @bench.app.activity(queue="mail")
        def send() -> str:
            return "sent"

        await bench.put(make_task("send", key="mine"), queue="mail")
        await bench.put(make_task("send", key="other"), queue="default")
        await bench.worker(queues=["mail"], executor=threads)
        assert (await bench.one()).target.key == "mine"
        await asyncio.sleep(0.05)
        assert bench.left("default") == 1


# --- at least once ---------------------------------------------------------------------------


async def test_malformed_entries_are_counted_and_removed(caplog: pytest.LogCaptureFixture) -> None:
    async with Bench() as bench:

        @bench.app.activity
        async def good() -> int:
            return 1

        result = ActivityResult(ActorId(ORCHESTRATION, "", "i"), "x", 1, 1)
        await bench.put_bytes(
            b"\xc1", b"", wire.pack([]), wire.pack([result]), wire.pack([make_task("good")])
        )
        worker = await bench.worker()
        assert value_of(await bench.one()) == 1
        await bench.wait_empty()
        assert worker.counts.malformed == 4
        assert caplog.text.count("is dropped") == 4


def test_an_entry_is_finished_only_after_its_report_is_durable() -> None:
    async def test() -> None:
        async with Bench() as bench:

            @bench.app.activity
            async def one() -> int:
                return 1

            store = bench.flaky()
            store.broken["append"] = "before"
            await bench.put(make_task("one"))
            worker = await bench.worker(store=store)
            await asyncio.sleep(120)  # far longer than the sender tries
            assert worker.counts.succeeded == 1
            assert bench.left() == 1
            assert await bench.results() == []
            store.broken.clear()
            assert value_of(await bench.one()) == 1
            await bench.wait_empty()

    virtually(test)


def test_a_store_that_breaks_everywhere_loses_nothing() -> None:
    async def test() -> None:
        async with Bench() as bench:
            runs: list[str] = []

            @bench.app.activity
            async def note(name: str) -> str:
                runs.append(name)
                await asyncio.sleep(0.2)
                return name

            store = bench.flaky()
            await bench.worker(store=store, concurrency=8)
            methods = ["append", "finish_entries", "worker_beat", "claim_entries", "has_activities", "take"]
            for round_ in range(12):
                for how in ("before", "after"):
                    store.broken = {methods[round_ % 6]: how, methods[(round_ * 5 + 2) % 6]: how}
                    name = f"{round_}-{how}"
                    task = make_task("note", name, key=name)
                    await bench.keep_row(task)
                    await bench.put(task)
                    await asyncio.sleep(0.7)
                    store.broken = {}
                    await asyncio.sleep(0.05)
            await asyncio.sleep(2 * BACKOFF_S[1])
            await bench.wait_empty()
            told = {value_of(result) for result in await bench.results()}
            assert told == set(runs)
            assert len(told) == 24
            assert len(runs) == 24, "one worker that never stopped runs each once"

    virtually(test)


def test_entries_of_a_take_whose_answer_was_lost_are_found() -> None:
    async def test() -> None:
        async with Bench() as bench:

            @bench.app.activity
            async def echo(n: int) -> int:
                return n

            store = bench.flaky()
            store.broken["take"] = "after"
            tasks = [make_task("echo", n, key=f"i{n}") for n in range(10)]
            for task in tasks:
                await bench.keep_row(task)
            await bench.put(*tasks)
            worker = await bench.worker(store=store, concurrency=3)
            await asyncio.sleep(0.5)
            store.broken.clear()
            found = sorted(value_of(result) for result in await bench.wait_results(10))
            assert found == list(range(10))
            await bench.wait_empty()
            assert worker.counts.claimed == 0

    virtually(test)


def test_what_a_worker_is_given_without_its_knowing_is_found_in_time() -> None:
    """A connection that is broken at our end only: the read waits on, and is given an entry much later."""

    async def test() -> None:
        async with Bench() as bench:

            @bench.app.activity
            async def echo(name: str) -> str:
                await asyncio.sleep(120 if name == "held" else 0)
                return name

            worker = await bench.worker("w1", concurrency=2)
            names = ["held", "first", "second"]
            for sequence, name in enumerate(names, 1):
                task = make_task("echo", name, key=name)
                await bench.keep_row(task)
                append = Append(queue_target("default"), "test", sequence, (wire.pack([task]),))
                bench.server.append(HUB, append)
                if name != "held":
                    assert bench.server.take(HUB, "w1", ["default"], 1)  # before the read that waits wakes up
                await asyncio.sleep(35)
            assert [value_of(result) for result in await bench.results()] == ["first", "second"]
            await asyncio.sleep(60)
            assert {value_of(result) for result in await bench.wait_results(3)} == set(names)
            await bench.wait_empty()
            assert (worker.counts.taken, worker.counts.succeeded, worker.counts.repeated) == (3, 3, 0)

    virtually(test)


@pytest.mark.parametrize("graceful", [False, True])
def test_what_a_dead_worker_held_is_run_by_another(graceful: bool) -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        async with Bench() as bench:
            attempts: list[float] = []

            @bench.app.activity
            async def slow() -> str:
                attempts.append(loop.time())
                await asyncio.sleep(3 if len(attempts) > 1 else 3_600)
                return "done"

            task = make_task("slow")
            await bench.keep_row(task)
            await bench.put(task)
            first = await bench.worker("w1")
            await asyncio.sleep(5)
            second = await bench.worker("w2")
            await asyncio.sleep(5)
            assert len(attempts) == 1, "who beats is not dead"
            died_s = loop.time()
            await (first.stop(drain_s=0) if graceful else first.kill())
            assert value_of(await bench.one()) == "done"
            assert second.counts.claimed == 1
            assert attempts[1] - died_s <= (1.1 if graceful else 4.6)
            await bench.wait_empty()

    virtually(test)


def test_a_repeated_entry_with_a_result_is_finished_and_not_run_again() -> None:
    async def test() -> None:
        async with Bench() as bench:
            runs: list[str] = []

            @bench.app.activity
            async def slow(name: str) -> None:
                runs.append(name)
                await asyncio.sleep(60)

            done, missing = make_task("slow", "done", key="done"), make_task("slow", "missing", key="missing")
            await bench.keep_row(missing)
            await bench.put(done, missing)
            first = await bench.worker("w1")
            await asyncio.sleep(1)
            await first.kill()
            second = await bench.worker("w2")
            await asyncio.sleep(10)
            assert runs == ["done", "missing", "missing"]
            assert second.counts.repeated == 1
            assert bench.left() == 1

    virtually(test)


def test_repeated_entries_are_run_when_the_store_cannot_be_asked() -> None:
    async def test() -> None:
        async with Bench() as bench:
            runs = 0

            @bench.app.activity
            async def slow() -> None:
                nonlocal runs
                runs += 1
                await asyncio.sleep(60)

            await bench.put(make_task("slow"))
            first = await bench.worker("w1")
            await asyncio.sleep(1)
            await first.kill()
            store = bench.flaky()
            store.broken["has_activities"] = "before"
            await bench.worker("w2", store=store)
            await asyncio.sleep(10)
            assert runs == 2

    virtually(test)


# --- stopping --------------------------------------------------------------------------------


def test_stop_finishes_what_runs_and_takes_nothing_more() -> None:
    async def test() -> None:
        async with Bench() as bench:

            @bench.app.activity
            async def slow() -> str:
                await asyncio.sleep(2)
                return "done"

            await bench.put(*(make_task("slow", key=f"i{n}") for n in range(4)))
            worker = await bench.worker(concurrency=2)
            await asyncio.sleep(0.5)
            await worker.stop(drain_s=5)
            assert len(await bench.results()) == 2
            assert bench.left() == 2
            assert await bench.store.workers() == []

    virtually(test)


def test_stop_leaves_what_does_not_end_in_time() -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        async with Bench() as bench:

            @bench.app.activity
            async def slow() -> None:
                await asyncio.sleep(3_600)

            await bench.put(make_task("slow"))
            worker = await bench.worker()
            await asyncio.sleep(0.5)
            began_s = loop.time()
            await worker.stop(drain_s=5)
            assert loop.time() - began_s == pytest.approx(5, abs=0.1)
            assert await bench.results() == []
            assert bench.left() == 1

    virtually(test)


async def test_stop_while_idle_is_quick_and_leaves_no_task(threads: ThreadPoolExecutor) -> None:
    async with Bench() as bench:
        worker = await bench.worker(executor=threads)
        await asyncio.sleep(0.05)
        async with asyncio.timeout(60):
            await worker.stop(600)
        assert len(asyncio.all_tasks()) == 1


async def test_a_shut_down_executor_loses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with Bench() as bench:

        @bench.app.activity
        def one() -> int:
            return 1

        executor = ThreadPoolExecutor(1)
        executor.shutdown()
        await bench.put(make_task("one"))
        await bench.worker(executor=executor)
        await asyncio.sleep(0.05)
        assert "could not be started" in caplog.text
        assert bench.left() == 1
        assert await bench.results() == []


async def test_the_heartbeat_tells_what_the_worker_does() -> None:
    async with Bench() as bench:
        await bench.worker(queues=["a", "b"], concurrency=5)
        async with asyncio.timeout(60):
            while not (beats := await bench.store.workers()):
                await asyncio.sleep(0.005)
        record = codec.decode(beats[0].record)
        assert record["queues"] == ["a", "b"]
        assert record["concurrency"] == 5
        assert record["taken"] == 0
