"""Heartbeats, silence and cancellation of attempts, in a worker over the store in memory.

Where time matters the clock is virtual."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import lungfish
from lungfish.runtime import codec
from lungfish.runtime.declared.activity_info import ActivityInfo, running_as
from lungfish.runtime.errors import ActivityCancelled, InvalidArguments, SerializationError
from lungfish.runtime.ids import partition_of
from lungfish.runtime.messages.messages import ActivityTask
from lungfish.runtime.settings import WorkerSettings
from lungfish.runtime.store.store import Commit
from tests.unit.test_worker import PARTITIONS, Bench, make_task, value_of
from tests.virtual import virtually

SETTINGS = WorkerSettings(heartbeat_ms=200, alive_ms=1_000, sweep_ms=300, watch_ms=500)


async def drop_row(bench: Bench, task: ActivityTask) -> None:
    """Do what a host does when nobody waits for an activity any more."""
    partition = partition_of(task.owner, PARTITIONS)
    image = await bench.store.claim(partition, "host", "again")
    await bench.store.commit(
        [Commit(partition, "again", image.commit_number + 1, activities={task.row: None})]
    )


def test_silence_fails_the_attempt_and_says_what_was_said_last() -> None:
    async def test() -> None:
        async with Bench() as bench:

            @bench.app.activity
            async def convert(beats: int) -> None:
                for page in range(beats):
                    await asyncio.sleep(0.9)
                    lungfish.activity_info().heartbeat({"page": page})
                await asyncio.sleep(3_600)

            began_s = asyncio.get_running_loop().time()
            await bench.put(make_task("convert", 3, heartbeat_ms=1_000))
            await bench.worker()
            result = await bench.one()
            took_s = asyncio.get_running_loop().time() - began_s
            assert 3 * 0.9 + 1.0 <= took_s <= 3 * 0.9 + 1.3
            assert result.timed_out
            assert result.failure is not None
            assert result.failure.timeout == "heartbeat_timeout"
            assert "no heartbeat for 1 s" in result.failure.message
            assert result.failure.is_caused_by(TimeoutError)
            assert result.details is not None
            assert codec.decode(result.details) == {"page": 2}

    virtually(test)


def test_an_attempt_that_beats_may_take_as_long_as_it_likes() -> None:
    async def test() -> None:
        async with Bench() as bench:

            @bench.app.activity
            async def convert() -> int:
                for _ in range(50):
                    await asyncio.sleep(0.9)
                    lungfish.activity_info().heartbeat()
                return 50

            await bench.put(make_task("convert", heartbeat_ms=1_000))
            await bench.worker()
            assert value_of(await bench.one()) == 50

    virtually(test)


def test_details_survive_the_worker() -> None:
    """The first worker dies; the second finds what its heartbeats said, and that goes with the entry."""

    async def test() -> None:
        async with Bench() as bench:
            seen: list[Any] = []

            @bench.app.activity
            async def convert() -> str:
                seen.append(lungfish.activity_info().heartbeat_details(list[int]))
                if len(seen) == 1:
                    lungfish.activity_info().heartbeat([1, 2])
                    await asyncio.sleep(1.0)
                    lungfish.activity_info().heartbeat([3, 4])
                    await asyncio.sleep(3_600)
                return "done"

            task = make_task("convert")
            await bench.put(task)
            await bench.keep_row(task)
            first = await bench.worker("w1", settings=SETTINGS)
            await asyncio.sleep(2.0)
            await first.kill()
            await bench.worker("w2", settings=SETTINGS)
            assert value_of(await bench.one()) == "done"
            assert seen == [None, [3, 4]]
            await bench.wait_empty()
            assert bench.server.hub("test").details == {}

    virtually(test)


def test_a_worker_that_stops_leaves_the_latest_details_to_the_next() -> None:
    async def test() -> None:
        async with Bench() as bench:
            seen: list[Any] = []

            @bench.app.activity
            async def convert() -> str:
                info = lungfish.activity_info()
                seen.append(info.heartbeat_details(int))
                if len(seen) > 1:
                    return "done"
                for n in range(10**6):
                    info.heartbeat(n)
                    await asyncio.sleep(0.001)
                return "too late"

            task = make_task("convert")
            await bench.put(task)
            await bench.keep_row(task)
            lazy = WorkerSettings(heartbeat_ms=5_000, alive_ms=20_000, watch_ms=10**9)
            first = await bench.worker("w1", settings=lazy)
            await asyncio.sleep(1.0)
            await first.stop(drain_s=1.0)
            await bench.worker("w2", settings=SETTINGS)
            assert value_of(await bench.one()) == "done"
            assert seen[0] is None
            assert seen[1] > 1_900, "nothing of it had been stored before the worker stopped"

    virtually(test)


def test_details_of_an_earlier_attempt_are_there_and_are_kept_by_a_failure() -> None:
    async def test() -> None:
        async with Bench() as bench:

            @bench.app.activity
            async def convert(say: int | None) -> None:
                info = lungfish.activity_info()
                if say is not None:
                    info.heartbeat(say)
                raise ValueError(f"had {info.heartbeat_details(int)}")

            await bench.put(
                make_task("convert", None, key="silent", details=codec.encode(41)),
                make_task("convert", 42, key="says", details=codec.encode(41)),
            )
            await bench.worker()
            results = {result.target.key: result for result in await bench.wait_results(2)}
            assert results["silent"].failure is not None
            assert results["silent"].failure.message == "had 41"
            assert results["silent"].details is None, "the row has them already"
            said = results["says"].details
            assert said is not None
            assert codec.decode(said) == 42

    virtually(test)


def test_a_heartbeat_is_cheap_for_the_store() -> None:
    async def test() -> None:
        async with Bench() as bench:
            store = bench.flaky()
            kept: list[int] = []
            keep = store.keep_details

            async def counted(details: Any) -> None:
                kept.append(len(details))
                await keep(details)

            store.keep_details = counted  # type: ignore[method-assign]

            @bench.app.activity
            async def busy() -> None:
                for n in range(2_000):
                    lungfish.activity_info().heartbeat(n)
                    await asyncio.sleep(0.001)

            await bench.put(*(make_task("busy", key=f"i{n}") for n in range(10)))
            await bench.worker(store=store, settings=WorkerSettings(heartbeat_ms=500, watch_ms=10**9))
            await bench.wait_results(10)
            assert 1 <= len(kept) <= 5, "20,000 heartbeats in two seconds"

    virtually(test)


def test_async_attempt_is_cancelled_when_nobody_waits() -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        async with Bench() as bench:
            ended: list[tuple[str, float]] = []

            @bench.app.activity
            async def work(name: str) -> str:
                try:
                    await asyncio.sleep(5.0)
                except asyncio.CancelledError:
                    ended.append((name, loop.time()))
                    raise
                return name

            wanted, unwanted = make_task("work", "a", key="i1"), make_task("work", "b", key="i2")
            for task in (wanted, unwanted):
                await bench.keep_row(task)
            await bench.put(wanted, unwanted)
            worker = await bench.worker(settings=SETTINGS)
            await asyncio.sleep(2.0)
            await drop_row(bench, unwanted)
            dropped_s = loop.time()
            assert value_of(await bench.one()) == "a", "and nothing is reported of the other"
            assert [name for name, _ in ended] == ["b"]
            assert ended[0][1] - dropped_s <= 1.0
            assert worker.counts.cancelled == 1
            await bench.wait_empty()

    virtually(test)


def test_short_attempts_are_never_looked_up() -> None:
    async def test() -> None:
        async with Bench() as bench:
            store = bench.flaky()
            store.broken["has_activities"] = "before"

            @bench.app.activity
            async def work() -> str:
                await asyncio.sleep(0.4)
                return "done"

            for n in range(5):
                await bench.put(make_task("work", key=f"i{n}"))
            worker = await bench.worker(store=store, settings=SETTINGS)
            await bench.wait_results(5)
            assert worker.counts.cancelled == 0

    virtually(test)


async def test_sync_attempt_sees_that_nobody_waits() -> None:
    with ThreadPoolExecutor(2) as threads:
        async with Bench() as bench:
            saw: list[str] = []
            began = threading.Event()

            @bench.app.activity
            def work(how: str) -> None:
                info = lungfish.activity_info()
                began.set()
                try:
                    while True:
                        time.sleep(0.005)
                        if how == "beats":
                            info.heartbeat()
                        elif how == "checks":
                            info.check_cancelled()
                        elif info.cancelled:
                            saw.append(how)
                            return
                except ActivityCancelled:
                    saw.append(how)
                    raise

            hurried = WorkerSettings(heartbeat_ms=20, alive_ms=10_000, watch_ms=20)
            worker = await bench.worker(executor=threads, settings=hurried)
            for how in ("beats", "checks", "looks"):
                began.clear()
                task = make_task("work", how, key=how)
                await bench.keep_row(task)
                await bench.put(task)
                await asyncio.to_thread(began.wait)
                await drop_row(bench, task)
                await bench.wait_empty()
                async with asyncio.timeout(60):
                    while worker.running:
                        await asyncio.sleep(0.005)
            assert saw == ["beats", "checks", "looks"]
            assert await bench.results() == []


async def test_sync_attempt_that_is_too_slow_can_see_it() -> None:
    with ThreadPoolExecutor(2) as threads:
        async with Bench() as bench:

            @bench.app.activity
            def work() -> None:
                while True:
                    time.sleep(0.005)
                    lungfish.activity_info().check_cancelled()

            worker = await bench.worker(executor=threads)
            await bench.put(make_task("work", timeout_ms=50))
            assert (await bench.one()).timed_out
            async with asyncio.timeout(60):
                while worker.running:
                    await asyncio.sleep(0.005)


def test_beginning_is_reported_where_it_is_asked_for() -> None:
    async def test() -> None:
        async with Bench() as bench:

            @bench.app.activity
            async def work() -> str:
                await asyncio.sleep(1.0)
                return "done"

            late = make_task("work", begin_by_ms=1, key="late")
            task = make_task("work", begin_by_ms=1, key="in time")
            await bench.keep_row(task)
            await bench.put(task, late)
            worker = await bench.worker()
            first, second = await bench.wait_results(2)
            assert (first.begun, first.result, first.failure) == (True, None, None)
            assert value_of(second) == "done"
            assert worker.counts.repeated == 1, "nobody waits for the other: it is not begun"

    virtually(test)


def test_info_says_where_it_is() -> None:
    async def test() -> None:
        async with Bench() as bench:
            infos: list[ActivityInfo] = []

            @bench.app.activity(queue="gpu")
            async def look() -> None:
                infos.append(lungfish.activity_info())

            now = dt.datetime.now(dt.UTC)
            overall_ms = int((now + dt.timedelta(seconds=50)).timestamp() * 1000)
            await bench.put(make_task("look", timeout_ms=100_000, deadline_ms=overall_ms), queue="gpu")
            await bench.put(make_task("look", timeout_ms=20_000, deadline_ms=overall_ms), queue="gpu")
            await bench.put(make_task("look"), queue="gpu")
            await bench.worker()
            await bench.wait_results(3)
            assert {info.queue for info in infos} == {"gpu"}
            left = [info.deadline and round((info.deadline - now).total_seconds(), -1) for info in infos]
            assert left == [50, 20, None]

    virtually(test)


# --- without a worker ----------------------------------------------------------------------


def test_in_a_users_unit_test() -> None:
    info = ActivityInfo("key", "i", "convert", 3)
    with running_as(info):
        assert info.heartbeat_details() is None
        lungfish.activity_info().heartbeat({"page": 3})
        lungfish.activity_info().heartbeat()
        assert info.heartbeat_details(dict[str, int]) == {"page": 3}
        with pytest.raises(InvalidArguments, match="heartbeat details of activity convert"):
            info.heartbeat_details(list[int])
        with pytest.raises(SerializationError, match="heartbeat details of activity convert"):
            info.heartbeat(object())
        info.check_cancelled()
        info.pulse.cancelled = "enough"
        assert info.cancelled
        with pytest.raises(ActivityCancelled, match="attempt 3 of activity convert: enough"):
            info.heartbeat()
