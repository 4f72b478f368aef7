"""Stateless workers: no state, no identity, so many at once in each process."""

from __future__ import annotations

import asyncio
import gc
import pickle
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from ray import cloudpickle

import lungfish
from lungfish.entities.stateless import Crew
from lungfish.runtime.client.client import Client
from lungfish.runtime.entry_points.local import LocalRuntime
from lungfish.runtime.testing.memory_server import MemoryServer
from lungfish.runtime.testing.memory_store import MemoryStore

app = lungfish.App("stateless", pools={"gpu": lungfish.HostPool(partitions=2)})

gate = threading.Barrier(3, timeout=60)


@app.stateless(max_local=3)
class Resizer:
    """Sync: in threads."""

    made = 0

    def __init__(self) -> None:
        type(self).made += 1
        self.thread = threading.get_ident()

    def meet(self, number: int) -> int:
        """Return when three of these run at once."""
        assert threading.get_ident() == self.thread
        gate.wait()
        return number * 2

    def fail(self) -> None:
        """Raise."""
        raise ValueError("no such picture")

    def first(self, found: list[int]) -> int:
        """Return the first; where there is none, what ``next`` raises is no exception that a future takes."""
        return next(iter(found))

    def thread_of(self) -> int:
        """Tell where it runs."""
        return threading.get_ident()


@app.stateless(max_local=2)
class Fetcher:
    """Async: on the loop."""

    running = 0
    most = 0

    async def fetch(self, what: str, times: int = 1) -> str:
        """Return soon; note how many did so at once."""
        cls = type(self)
        cls.running += 1
        cls.most = max(cls.most, cls.running)
        await asyncio.sleep(0.01)
        cls.running -= 1
        return what * times


@app.stateless(pool="gpu", max_local=1)
class Embedder:
    """In a pool."""

    def embed(self, text: str) -> list[int]:
        """Return numbers."""
        return [len(text)]


@app.entity
class Desk(lungfish.Entity):
    """Asks workers."""

    async def ask(self, what: str) -> str:
        """Call one."""
        return await self.context.stateless(Fetcher).call(Fetcher.fetch, what, 2)


@app.orchestration
async def ask_all(ctx: lungfish.OrchestrationContext, count: int) -> list[Any]:
    """Call many at once."""
    calls = [ctx.stateless(Fetcher).call(Fetcher.fetch, str(number)) for number in range(count)]
    return await asyncio.gather(*calls, ctx.stateless("Embedder@gpu").call("embed", "four"))


async def on_hub(test: Callable[[lungfish.Client, MemoryServer], Any]) -> None:
    server = MemoryServer(lambda: time.time_ns() // 1_000_000)
    async with LocalRuntime(app, lambda: MemoryStore(server, app.hub)) as runtime:
        await test(runtime.client, server)
    stored = [name for rows in server.hub(app.hub).partitions.values() for name, _ in rows.snapshots]
    assert set(stored) <= {"Desk"}


async def test_so_many_run_at_once_in_threads_each_with_a_worker_of_its_own() -> None:
    async def test(client: Client, _: MemoryServer) -> None:
        calls = [client.stateless(Resizer).call(Resizer.meet, number) for number in range(9)]
        assert await asyncio.gather(*calls) == [number * 2 for number in range(9)]
        assert Resizer.made == 3
        assert await client.stateless(Resizer).call(Resizer.thread_of) != threading.get_ident()

    await on_hub(test)


async def test_async_ones_are_bounded_too_and_are_called_from_everywhere() -> None:
    async def test(client: Client, _: MemoryServer) -> None:
        calls = [client.stateless(Fetcher).call(Fetcher.fetch, str(number)) for number in range(20)]
        assert await asyncio.gather(*calls) == [str(number) for number in range(20)]
        assert Fetcher.most == 2
        assert await client.entity(Desk, "d").call(Desk.ask, "ab") == "abab"
        handle = await client.start(ask_all, 5)
        assert await handle.result() == ["0", "1", "2", "3", "4", [4]]
        assert await client.stateless(Embedder).call(Embedder.embed, "abc") == [3]
        assert await client.stateless("Fetcher").call("fetch", "x", 3) == "xxx"

    await on_hub(test)


async def test_what_an_operation_raises_goes_to_its_caller() -> None:
    async def test(client: Client, _: MemoryServer) -> None:
        with pytest.raises(lungfish.EntityOperationFailed, match="no such picture"):
            await client.stateless(Resizer).call(Resizer.fail)
        with pytest.raises(lungfish.EntityOperationFailed, match="raised StopIteration"):
            await client.stateless(Resizer).call(Resizer.first, [])
        with pytest.raises(lungfish.InvalidArguments):
            await client.stateless(Resizer).call("meet", "x")
        with pytest.raises(lungfish.NotRegistered):
            await client.stateless(Resizer).call("nothing")
        assert await client.stateless(Resizer).call(Resizer.thread_of)

    await on_hub(test)


async def test_calls_are_spread_over_all_partitions() -> None:
    async def test(client: Client, _: MemoryServer) -> None:
        places = [client.stateless(Resizer).partition for _ in range(64)]
        assert sorted(places) == sorted([*range(32)] * 2)
        assert {client.stateless(Embedder).partition for _ in range(4)} == {32, 33}

    await on_hub(test)


def test_threads_end_with_the_app_whose_they_are() -> None:
    name = "lungfish Short"

    class Short:
        """Of an app that goes."""

        def run(self) -> int:
            """Run in a thread."""
            return 1

    async def run() -> None:
        crew = Crew(Short, "Short", 2)
        assert await asyncio.gather(*(crew.run_in_thread(Short.run, (), {}) for _ in range(4))) == [1] * 4

    asyncio.run(run())
    gc.collect()
    for thread in threading.enumerate():
        if thread.name.startswith(name):
            thread.join(60)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(name)]


def test_what_cannot_be_one() -> None:
    class Nothing:
        """No operation."""

    class Mixed:
        """Both."""

        def a(self) -> None:
            """Sync."""

        async def b(self) -> None:
            """Async."""

    class State(lungfish.Entity):
        """An entity."""

    fresh = lungfish.App("other")
    for wrong in (Nothing, Mixed, State, 3):
        with pytest.raises(lungfish.UsageError):
            fresh.stateless(wrong)  # type: ignore[type-var]
    with pytest.raises(lungfish.UsageError, match="max_local"):
        fresh.stateless(max_local=0)(Resizer)
    with pytest.raises(lungfish.UsageError, match="no pool"):
        fresh.stateless(pool="gpu")(Resizer)
    assert fresh.stateless(Resizer) is Resizer
    with pytest.raises(lungfish.UsageError, match="already"):
        fresh.stateless(Resizer)


def test_an_app_with_workers_travels() -> None:
    other = pickle.loads(cloudpickle.dumps(app))  # pyright: ignore[reportPrivateImportUsage]
    assert "Resizer" in other.entities
    assert other.stateless_classes[Resizer] == "Resizer"
