"""The thread that beats for a host while user code keeps its loop: a real thread, on the test's clock."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from lungfish.runtime.errors import StoreUnavailable
from lungfish.runtime.host import keepalive as module
from lungfish.runtime.host.keepalive import Keepalive
from lungfish.runtime.host.stalls import stall_of
from lungfish.runtime.messages.messages import Signal
from lungfish.runtime.partitions.kinds import Effects, Item
from lungfish.runtime.store.store import ClusterView, HubMeta
from lungfish.runtime.testing.memory_store import MemoryServer, MemoryStore
from tests.unit.fakes import FakeActivation, FakeKind, actor_in, make_partition, run_all

HUB, HOST, RECORD = "h", "host#1", b"record"
HEARTBEAT_MS, LEASE_MS = 5, 60_000
HEARTBEAT_S = HEARTBEAT_MS / 1_000


class Clock:
    """Stands until it is set; counts how often the thread has looked at it: once in every turn."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.looks = 0

    def monotonic(self) -> float:
        self.looks += 1
        return self.now_s


class Beats(MemoryStore):
    """Counts the beats; fails as many as it is told to."""

    def __init__(self, server: MemoryServer) -> None:
        super().__init__(server, HUB)
        self.beats = 0
        self.failures = 0
        self.closed = False

    async def heartbeat(self, host: str, record: bytes, *, lease_ms: int, lead: bool = True) -> ClusterView:
        self.beats += 1
        if self.failures > 0:
            self.failures -= 1
            raise StoreUnavailable("broken")
        assert (host, record, lease_ms, lead) == (HOST, RECORD, LEASE_MS, False)
        return await super().heartbeat(host, record, lease_ms=lease_ms, lead=lead)

    async def close(self) -> None:
        await super().close()
        self.closed = True


def until(condition: Callable[[], object], what: str) -> None:
    deadline_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.001)


#: An entry for each time that the loop was found to be kept.
counted: list[int] = []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def store() -> Beats:
    server = MemoryServer()
    server.hub(HUB).meta = HubMeta()
    return Beats(server)


@pytest.fixture
def keepalive(store: Beats, clock: Clock) -> Iterator[Keepalive]:
    keepalive = Keepalive(
        lambda: store,
        HOST,
        heartbeat_ms=HEARTBEAT_MS,
        lease_ms=LEASE_MS,
        blocked_s_max=60.0,
        stalled=lambda: counted.append(1),
    )
    counted.clear()
    keepalive.start()
    yield keepalive
    keepalive.stop()
    until(lambda: not keepalive._thread.is_alive(), "the thread to end")
    assert store.closed


def turns(clock: Clock, count: int = 5) -> None:
    """Wait until the thread has gone round so often."""
    looks = clock.looks
    until(lambda: clock.looks >= looks + count, "the thread to go round")


def test_it_beats_while_the_loop_is_late(keepalive: Keepalive, store: Beats, clock: Clock) -> None:
    keepalive.beaten(RECORD)
    turns(clock)
    assert store.beats == 0
    clock.now_s += 2.5 * HEARTBEAT_S
    until(lambda: store.beats >= 3, "three beats")
    assert store.server.hub(HUB).hosts.keys() == {HOST}
    assert store.server.hub(HUB).leader == "", "it must not lead: nobody there would look at the others"
    keepalive.beaten(RECORD)
    turns(clock, 2)
    beats = store.beats
    turns(clock)
    assert store.beats == beats


def test_a_host_that_never_beat_gets_no_help(keepalive: Keepalive, store: Beats, clock: Clock) -> None:
    clock.now_s += 10
    turns(clock)
    assert store.beats == 0


def test_a_loop_that_never_comes_back_is_dead_in_the_end(
    keepalive: Keepalive, store: Beats, clock: Clock
) -> None:
    keepalive.beaten(RECORD)
    clock.now_s += 59.9
    until(lambda: store.beats, "help")
    clock.now_s += 0.2
    turns(clock, 2)
    beats = store.beats
    turns(clock)
    assert store.beats == beats
    keepalive.beaten(RECORD)  # it did come back, and is blocked again
    clock.now_s += 1
    until(lambda: store.beats > beats, "help again")


def test_a_store_that_is_away_for_a_moment_does_not_end_it(
    keepalive: Keepalive, store: Beats, clock: Clock
) -> None:
    store.failures = 3
    keepalive.beaten(RECORD)
    clock.now_s += 1
    until(lambda: HOST in store.server.hub(HUB).hosts, "a beat after the failures")
    assert store.beats > 3


def test_the_one_who_keeps_the_loop_is_told_with_the_stack(
    keepalive: Keepalive, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def keeps_the_loop(_activation: FakeActivation, item: Item, effects: Effects) -> None:
        effects.done(item)
        keepalive.beaten(RECORD)
        clock.now_s += 3 * HEARTBEAT_S
        until(lambda: caplog.records, "a look at the stack")
        turns(clock)
        assert len(caplog.records) == 1, "the same stack is not told again and again"
        clock.now_s += 3.1 * HEARTBEAT_S
        until(lambda: len(caplog.records) == 2, "a second look after twice the time")
        assert counted == [1]
        keepalive.beaten(RECORD)
        turns(clock, 2)
        clock.now_s += 3 * HEARTBEAT_S
        until(lambda: len(counted) == 2, "another time that the loop is kept")

    partition = make_partition(FakeKind(keeps_the_loop))
    partition.accept(Signal(actor_in(0), "op", b""))
    with caplog.at_level(logging.WARNING, module.__name__):
        run_all(partition)
        record = caplog.records[0]
        told: Any = record
        assert told.host == HOST
        assert told.blocked_s == pytest.approx(3 * HEARTBEAT_S)
        assert "in keeps_the_loop" in told.stack
        assert told.where.startswith(f"{__file__}:")
        assert told.where in record.getMessage()
        assert "in keeps_the_loop" in record.getMessage()
        assert told.actor == str(actor_in(0))


@pytest.mark.parametrize(
    "new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
def test_a_loop_that_waits_is_kept_by_nobody(
    keepalive: Keepalive, store: Beats, clock: Clock, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """The store does not answer, so that no beat came for long."""

    async def waits() -> None:
        keepalive.beaten(RECORD)
        waiting.set()
        await stop.wait()

    async def ends() -> None:
        stop.set()

    def run() -> None:
        loop.run_until_complete(waits())
        loop.close()

    loop, waiting, stop = new_loop(), threading.Event(), asyncio.Event()
    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert waiting.wait(60)
        clock.now_s += 3 * HEARTBEAT_S
        until(lambda: store.beats >= 3, "beats in its place")
        assert counted == []
    finally:
        asyncio.run_coroutine_threadsafe(ends(), loop).result(60)
        thread.join(60)


def test_a_thread_that_has_ended_has_no_stack() -> None:
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    assert thread.ident is not None
    assert stall_of(thread.ident) is None


def test_it_stops(keepalive: Keepalive, store: Beats, clock: Clock) -> None:
    keepalive.beaten(RECORD)
    clock.now_s += 1
    until(lambda: store.beats, "a beat")
    keepalive.stop()
    until(lambda: not keepalive._thread.is_alive(), "the thread to end")
    assert store.closed
