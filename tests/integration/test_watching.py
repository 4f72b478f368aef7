"""Watching on a real store: async and blocking clients, takeover of a host that died."""

from __future__ import annotations

import asyncio
import threading

import lungfish
from lungfish.runtime.on_redis.open_store import open_store
from tests.local import RunApp
from tests.servers import Server

app = lungfish.App("watching")


@app.entity
class Counter(lungfish.Entity):
    value: int = 0

    def add(self, n: int = 1) -> int:
        self.value += n
        return self.value

    def forget(self) -> None:
        self.context.delete()


async def test_each_state_and_the_end(run_app: RunApp) -> None:
    async with run_app(app) as runtime:
        counter = runtime.client.entity(Counter, "hits")
        seen: list[int | None] = []
        async with asyncio.timeout(60), counter.watch() as watch:
            async for state in watch:
                seen.append(state.value if state is not None else None)
                if seen == [None, 1, None]:
                    break
                await counter.call(Counter.add if len(seen) == 1 else Counter.forget)


async def test_ten_thousand_changes_end_with_the_last(run_app: RunApp) -> None:
    async with run_app(app, hosts=2) as runtime:
        counter = runtime.client.entity(Counter, "hot")
        async with asyncio.timeout(30), counter.watch() as watch:
            assert await anext(watch) is None
            for _ in range(10):
                await counter.signal_many(Counter.add, [[1]] * 1_000)
            last = 0
            async for state in watch:
                assert state is not None
                assert state.value > last
                last = state.value
                if last == 10_000:
                    break


async def test_the_host_dies(run_app: RunApp) -> None:
    async with run_app(app, hosts=2) as runtime:
        counter = runtime.client.entity(Counter, "moved")
        async with asyncio.timeout(40), counter.watch() as watch:
            await counter.call(Counter.add)
            state = await anext(watch)
            assert state is not None
            owner = next(h for h in runtime.hosts if counter.partition in {p.number for p in h.partitions})
            runtime.hosts.remove(owner)
            await owner.stop(drain=False)
            await counter.call(Counter.add)
            async for state in watch:
                assert state is not None
                if state.value == 2:
                    break


async def test_a_blocking_client_watches_until_another_thread_closes_it(
    run_app: RunApp, valkey: Server, hub_name: str
) -> None:
    seen: list[int | None] = []

    async with run_app(app) as runtime:
        client = lungfish.BlockingClient(lungfish.Client(lambda: open_store(valkey.url, hub_name), app))

        def watch() -> None:
            with client, client.entity(Counter, "hits").watch() as watch:
                for state in watch:
                    seen.append(state.value if state is not None else None)
                    if len(seen) == 2:
                        threading.Thread(target=watch.close).start()

        watching = asyncio.to_thread(watch)
        task = asyncio.ensure_future(watching)
        async with asyncio.timeout(60):
            while not seen:
                await asyncio.sleep(0.01)
            await runtime.client.entity(Counter, "hits").call(Counter.add)
            await task
    assert seen == [None, 1]
