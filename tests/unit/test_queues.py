"""Activity queues: limits as values, handles on them, and workers that keep to them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lungfish
from lungfish.runtime.blocking.client import BlockingClient
from lungfish.runtime.client.client import Client
from lungfish.runtime.errors import InvalidId, UsageError
from lungfish.runtime.ids import check_id
from lungfish.runtime.store.queues import (
    BURST_S,
    PATIENCE,
    Meter,
    QueueInfo,
    QueueLimits,
    QueueState,
    lane_of,
    lanes_of,
    limits_from,
    split_lane,
)
from lungfish.runtime.store.store import HubMeta
from lungfish.runtime.testing.memory_server import MemoryServer
from lungfish.runtime.testing.memory_store import MemoryStore
from tests.unit.test_worker import Bench, make_task
from tests.virtual import virtually

# --- lanes, limits, meters -----------------------------------------------------------------


@given(st.text(min_size=1), st.integers(0, 9))
def test_a_lane_is_a_queue_and_a_priority(queue: str, priority: int) -> None:
    if not queue.isprintable():
        return
    lane = lane_of(queue, priority)
    assert split_lane(lane) == (queue, priority)
    assert lanes_of(queue)[priority] == lane
    if priority != 5:
        with pytest.raises(InvalidId):
            check_id("queue", lane)


limits = st.builds(
    QueueLimits,
    st.none() | st.integers(1, 10**6),
    st.none() | st.integers(1, 10**6),
    st.none() | st.floats(1e-6, 1e6) | st.integers(1, 10**6),
)


@given(limits)
def test_limits_come_back_from_their_fields(given: QueueLimits) -> None:
    fields = {name: text for name, text in given.to_fields("d").items() if text is not None}
    assert limits_from(fields) == (given, False)
    assert limits_from({**fields, "s:rate": "", "paused": "1"})[0].rate is None


@pytest.mark.parametrize("name", ["concurrency", "worker_concurrency", "rate"])
@pytest.mark.parametrize("value", [0, -1, True, "3", math.nan, math.inf])
def test_a_limit_that_makes_no_sense_is_refused(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"{name} must be"):
        QueueLimits(**{name: value})


@given(st.floats(0.01, 1_000), st.lists(st.tuples(st.floats(0, 5), st.integers(0, 50)), min_size=1))
def test_a_rate_is_never_exceeded(rate: float, asks: list[tuple[float, int]]) -> None:
    meter, now_s = Meter(), 0.0
    begun: list[tuple[float, int]] = []
    for wait_s, wanted in asks:
        now_s += wait_s
        count = min(wanted, meter.fill(rate, now_s))
        meter.take(count)
        begun.append((now_s, count))
    for at, (since_s, _) in enumerate(begun):
        total = 0
        for until_s, count in begun[at:]:
            total += count
            assert total <= rate * (until_s - since_s + BURST_S) + 1 + 1e-3


@given(st.lists(st.integers(1, 20), min_size=1, max_size=50))
def test_one_in_ten_is_for_the_last_however_many_are_taken_at_once(batches: list[int]) -> None:
    meter = Meter()
    order: list[bool] = []
    for batch in batches:
        left = batch
        while left:
            is_last, count = meter.next_turn(left)
            meter.take(count)
            order += [is_last] * count
            left -= count
    assert order == [at % PATIENCE == PATIENCE - 1 for at in range(len(order))]


def test_info_adds_up() -> None:
    state = QueueState({"d:rate": "2.5", "paused": "1"}, {0: 3, 5: 4, 9: 0}, {"b": 1, "a": 2})
    info = QueueInfo.of("gpu", state)
    assert info == QueueInfo("gpu", QueueLimits(rate=2.5), True, 7, 3, {0: 3, 5: 4}, {"a": 2, "b": 1})


# --- declared, and options -----------------------------------------------------------------


def test_an_app_declares_queues() -> None:
    app = lungfish.App("shop")
    app.queue("gpu", concurrency=2)
    app.queue("mail", rate=10, worker_concurrency=1)
    assert app.queues() == ["default", "gpu", "mail"]
    assert app.with_hub("other").queue_limits == app.queue_limits
    with pytest.raises(UsageError, match="declares queue 'gpu' already"):
        app.queue("gpu")
    with pytest.raises(UsageError, match="concurrency must be"):
        app.queue("disk", concurrency=0)
    with pytest.raises(InvalidId):
        app.queue("")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"priority": 10}, "priority must be 0"),
        ({"priority": -1}, "priority must be 0"),
        ({"priority": True}, "priority must be 0"),
        ({"queue": "a\x1f3"}, "queue has control"),
        ({"timeout": 0}, "timeout must be more than nothing"),
        ({"heartbeat_timeout": -1}, "heartbeat_timeout must be more"),
        ({"schedule_to_start": 0}, "schedule_to_start must be more"),
        ({"schedule_to_close": 0}, "schedule_to_close must be more"),
        ({"heartbeat_timeout": "soon"}, "heartbeat_timeout is a timedelta or a number of seconds"),
    ],
)
def test_options_that_make_no_sense_are_refused_where_they_are_given(
    options: dict[str, Any], why: str
) -> None:
    app = lungfish.App("shop")

    @app.activity
    def ship() -> None: ...

    for declare in (lambda: ship.options(**options), lambda: app.activity(**options)):
        with pytest.raises(UsageError, match=why):
            declare()


def test_options_change_what_is_given() -> None:
    app = lungfish.App("shop")

    @app.activity(priority=1, heartbeat_timeout=5, schedule_to_start=60)
    def ship() -> None: ...

    changed = ship.options(priority=0, schedule_to_start=1).settings
    assert (changed.priority, str(changed.heartbeat_timeout), str(changed.schedule_to_start)) == (
        0,
        "0:00:05",
        "0:00:01",
    )


# --- handles -------------------------------------------------------------------------------


async def test_a_handle_sets_pauses_and_resets() -> None:
    server = MemoryServer()
    await MemoryStore(server, "shop").open()
    async with Client(lambda: MemoryStore(server, "shop")) as client:
        gpu = client.queue("gpu")
        assert (await gpu.info()) == QueueInfo("gpu", QueueLimits(), False, 0, 0, {}, {})
        await client._open.store.adjust_queue("gpu", QueueLimits(concurrency=4, rate=9.0).to_fields("d"))
        assert (await gpu.set(concurrency=2)).limits == QueueLimits(concurrency=2, rate=9.0)
        assert (await gpu.set(rate=None)).limits == QueueLimits(concurrency=2)
        assert (await gpu.set()).limits == QueueLimits(concurrency=2)
        with pytest.raises(UsageError, match="to stop, pause"):
            await gpu.set(concurrency=0, rate=1)
        assert (await gpu.info()).limits == QueueLimits(concurrency=2), "nothing of it was set"
        assert (await gpu.pause()).paused
        assert not (await gpu.resume()).paused
        assert (await gpu.reset()).limits == QueueLimits(concurrency=4, rate=9.0)
        with pytest.raises(InvalidId):
            client.queue("a\x1f3")


def test_a_blocking_handle_does_the_same() -> None:
    server = MemoryServer()
    server.hub("shop").meta = HubMeta()
    with BlockingClient(Client(lambda: MemoryStore(server, "shop"))) as client:
        gpu = client.queue("gpu")
        assert gpu.name == "gpu"
        assert gpu.set(concurrency=2, worker_concurrency=1, rate=3).limits == QueueLimits(2, 1, 3.0)
        assert gpu.pause().paused
        assert not gpu.resume().paused
        assert gpu.reset() == gpu.info() == QueueInfo("gpu", QueueLimits(), False, 0, 0, {}, {})


# --- workers -------------------------------------------------------------------------------


def busy(bench: Bench) -> Callable[[], int]:
    """Register an activity that takes a second; return what tells how many ever ran at once."""
    running, most = 0, 0

    @bench.app.activity(queue="gpu")
    async def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1.0)
        running -= 1

    return lambda: most


def test_workers_keep_to_what_is_declared_and_follow_what_is_set() -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        async with Bench() as bench:
            most = busy(bench)
            bench.app.queue("gpu", concurrency=3)
            await bench.put(*(make_task("work", key=f"i{n}") for n in range(30)), queue="gpu")
            began_s = loop.time()
            for name in ("w1", "w2"):
                await bench.worker(name)
            await asyncio.sleep(3.5)
            assert most() == 3
            await bench.store.adjust_queue("gpu", {"s:concurrency": "12"})
            await bench.wait_results(30)
            assert most() == 12
            assert loop.time() - began_s < 9

    virtually(test)


def test_a_paused_queue_begins_nothing_new() -> None:
    async def test() -> None:
        async with Bench() as bench:
            busy(bench)
            await bench.worker()
            await bench.put(make_task("work"), queue="gpu")
            await asyncio.sleep(0.5)
            await bench.store.adjust_queue("gpu", {"paused": "1"})
            await bench.put(make_task("work", key="i2"), queue="gpu")
            await asyncio.sleep(30)
            assert len(await bench.results()) == 1
            await bench.store.adjust_queue("gpu", {"paused": None})
            await bench.wait_results(2)

    virtually(test)


def test_a_worker_that_dies_gives_its_slots_back() -> None:
    async def test() -> None:
        async with Bench() as bench:
            most = busy(bench)
            bench.app.queue("gpu", concurrency=2)
            await bench.put(*(make_task("work", key=f"i{n}", row="") for n in range(6)), queue="gpu")
            dies = await bench.worker("w1")
            await asyncio.sleep(0.5)
            assert dies.running == 2
            await dies.kill()
            await bench.worker("w2")
            await bench.wait_results(6)
            assert most() <= 4, "two that died and were never seen to end, and two of the other worker"

    virtually(test)


def test_a_rate_holds_over_workers() -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        async with Bench() as bench:
            began: list[float] = []

            @bench.app.activity(queue="mail")
            async def send() -> None:
                began.append(loop.time())

            bench.app.queue("mail", rate=10)
            await bench.put(*(make_task("send", key=f"i{n}") for n in range(50)), queue="mail")
            for name in ("w1", "w2", "w3"):
                await bench.worker(name)
            await bench.wait_results(50)
            assert 4.5 <= began[-1] - began[0] <= 6.5
            for at, since_s in enumerate(began):
                assert sum(since_s <= s < since_s + 1 for s in began[at:]) <= 12

    virtually(test)


def test_declarations_that_are_gone_from_the_code_are_forgotten() -> None:
    async def test() -> None:
        async with Bench() as bench:
            busy(bench)
            await bench.store.adjust_queue("gpu", QueueLimits(concurrency=3).to_fields("d"))
            await bench.worker()
            assert bench.server.hub("test").limits == {}

    virtually(test)


# --- what others got wrong ------------------------------------------------------------------


def test_a_queue_of_one_goes_on_after_its_worker_died() -> None:
    """What a dead worker held takes the only slot until it has run again, and not for ever."""

    async def test() -> None:
        async with Bench() as bench:
            most = busy(bench)
            bench.app.queue("gpu", concurrency=1)
            await bench.put(*(make_task("work", key=f"i{n}", row="") for n in range(3)), queue="gpu")
            dies = await bench.worker("w1")
            await asyncio.sleep(0.5)
            await dies.kill()
            survivor = await bench.worker("w2")
            await bench.wait_results(3)
            assert survivor.counts.claimed == 1
            assert most() <= 2, "the one that died was never seen to end"
            await bench.wait_empty("gpu")

    virtually(test)


def test_a_worker_that_drains_does_not_take_over_what_others_gave_back() -> None:
    async def test() -> None:
        async with Bench() as bench:
            began: list[str] = []

            @bench.app.activity
            async def work(seconds: float) -> None:
                began.append("")
                await asyncio.sleep(seconds)

            await bench.put(make_task("work", 20.0, key="i1", row=""))
            drains = await bench.worker("w1")
            await asyncio.sleep(0.5)
            stopping = asyncio.create_task(drains.stop(drain_s=10))
            await bench.put(make_task("work", 3_600.0, key="i2", row=""))
            dies = await bench.worker("w2")
            await asyncio.sleep(0.5)
            await dies.kill()
            await stopping
            assert drains.counts.claimed == 0
            assert len(began) == 2

    virtually(test)


def test_one_entry_that_cannot_be_read_does_not_strand_the_others() -> None:
    async def test() -> None:
        async with Bench() as bench:
            busy(bench)
            bench.app.queue("gpu", concurrency=1)
            await bench.put_bytes(b"not a task", queue="gpu")
            await bench.put(make_task("work", key="i1"), make_task("never registered", key="i2"), queue="gpu")
            await bench.put(make_task("work", key="i3"), queue="gpu")
            worker = await bench.worker()
            results = await bench.wait_results(3)
            assert sorted(result.failure is None for result in results) == [False, True, True]
            assert worker.counts.malformed == 1
            await bench.wait_empty("gpu")

    virtually(test)
