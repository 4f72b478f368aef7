"""The loop in a thread behind a blocking client."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from lungfish.runtime.blocking.client import BlockingClient
from lungfish.runtime.blocking.loop_thread import LoopThread
from lungfish.runtime.client.client import Client
from lungfish.runtime.errors import StoreUnavailable, UsageError
from lungfish.runtime.store.store import HubMeta
from lungfish.runtime.testing.memory_store import MemoryServer, MemoryStore


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    loop = LoopThread()
    yield loop
    if not loop._closed:
        loop.close()
    assert not loop._thread.is_alive()
    assert loop._loop.is_closed()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


async def thread_name(fail: bool = False) -> str:
    if fail:
        raise KeyError("no")
    return threading.current_thread().name


def test_work_is_done_in_the_other_thread(loop: LoopThread) -> None:
    assert loop.run(thread_name()) == "lungfish client"
    with pytest.raises(KeyError, match="no"):
        loop.run(thread_name(fail=True))


def test_several_threads_wait_at_once(loop: LoopThread, pool: ThreadPoolExecutor) -> None:
    async def meet() -> None:
        async with asyncio.timeout(10):
            await barrier.wait()

    async def make() -> asyncio.Barrier:
        return asyncio.Barrier(8)

    barrier = loop.run(make())
    for future in [pool.submit(loop.run, meet()) for _ in range(8)]:
        future.result()


def test_it_cannot_be_used_from_its_own_thread(loop: LoopThread) -> None:
    async def inside() -> None:
        loop.run(thread_name())

    with pytest.raises(RuntimeError, match="cannot be used from its own event loop"):
        loop.run(inside())


def waiting(loop: LoopThread, pool: ThreadPoolExecutor) -> tuple[Future[object], threading.Event]:
    """Return a call that waits for ever, and what is set when it has been cancelled."""
    begun, cancelled = threading.Event(), threading.Event()

    async def wait() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    future: Future[object] = pool.submit(loop.run, wait())
    assert begun.wait(10)
    return future, cancelled


def test_closing_ends_the_calls_of_other_threads(loop: LoopThread, pool: ThreadPoolExecutor) -> None:
    future, cancelled = waiting(loop, pool)
    loop.close()
    with pytest.raises(StoreUnavailable, match="this connection was closed"):
        future.result(10)
    assert cancelled.is_set()
    with pytest.raises(StoreUnavailable, match="this connection was closed"):
        loop.run(thread_name())


def test_closing_while_threads_call_leaves_nobody_waiting(pool: ThreadPoolExecutor) -> None:
    async def sleep() -> None:
        await asyncio.sleep(3_600)

    def call(loop: LoopThread) -> str:
        try:
            loop.run(sleep())
        except StoreUnavailable:
            return "closed"
        return "done"

    for _ in range(20):
        loop = LoopThread()
        futures = [pool.submit(call, loop) for _ in range(7)]
        loop.close()
        assert [future.result(10) for future in futures] == ["closed"] * 7


def test_an_interrupted_call_does_not_go_on_there(loop: LoopThread, monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled = threading.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    def interrupted(self: Future[object], timeout: float | None = None) -> object:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Future, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            loop.run(wait())
    assert cancelled.wait(10)


def test_a_client_is_used_within_its_block() -> None:
    server = MemoryServer()
    server.hub("h").meta = HubMeta()
    client = BlockingClient(Client(lambda: MemoryStore(server, "h")))
    with pytest.raises(UsageError, match="use it inside of 'with "):
        client.entity("Counter", "a")
    with client:
        ref = client.entity("Counter", "a")
        assert ref.state() is None
        assert (ref.name, ref.key, repr(ref)) == ("Counter", "a", "<entity Counter/a>")
    client.close()
    with pytest.raises(StoreUnavailable, match="this connection was closed"):
        ref.state()
    with pytest.raises(UsageError, match="use it inside of 'with "):
        client.entity("Counter", "a")


def test_a_client_that_cannot_connect_leaves_no_thread() -> None:
    def refuse() -> MemoryStore:
        raise StoreUnavailable("nobody there")

    before = threading.active_count()
    with pytest.raises(StoreUnavailable, match="nobody there"):
        BlockingClient(Client(refuse)).__enter__()
    assert threading.active_count() == before
