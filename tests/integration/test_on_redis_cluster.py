"""The whole runtime on a Cluster of three primaries: no commit reaches another slot, so
everything goes by outbox.
"""

from __future__ import annotations

import asyncio

import lungfish
from lungfish.runtime.entry_points.local import LocalRuntime
from lungfish.runtime.on_redis.open_store import open_store
from tests.servers import Server

app = lungfish.App("on-cluster")


@app.entity
class Log(lungfish.Entity):
    seen: list[int] = []

    def note(self, number: int) -> int:
        self.seen.append(number)
        return len(self.seen)

    async def pass_on(self, key: str, number: int) -> int:
        other = self.context.entity(Log, key)
        other.signal(Log.note, number)
        return await self.context.entity(Log, f"{key}-counted").call(Log.note, number)


@app.activity
def double(number: int) -> int:
    return 2 * number


@app.orchestration
async def fan_out(ctx: lungfish.OrchestrationContext, width: int) -> int:
    doubled = await asyncio.gather(*(ctx.call_activity(double, n) for n in range(width)))
    counts = await asyncio.gather(*(ctx.entity(Log, f"f{n}").call(Log.note, n) for n in range(8)))
    return sum(doubled) + sum(counts)


async def test_everything_works_through_the_outbox(valkey_cluster: list[Server], hub_name: str) -> None:
    url = valkey_cluster[0].url
    async with LocalRuntime(app, lambda: open_store(url, hub_name), hosts=2) as runtime:
        client = runtime.client
        refs = [client.entity(Log, f"l{n}") for n in range(16)]
        for start in range(0, 100, 10):
            await asyncio.gather(
                *(ref.signal_many(Log.note, [(n,) for n in range(start, start + 10)]) for ref in refs)
            )
        assert await asyncio.gather(*(ref.call(Log.note, 100) for ref in refs)) == [101] * 16
        for ref in refs:
            state = await ref.state()
            assert state is not None
            assert state.seen == list(range(101))
        passed = [refs[0].call(Log.pass_on, f"p{n}", n) for n in range(16)]
        assert await asyncio.gather(*passed) == [1] * 16
        for n in range(16):
            assert await client.entity(Log, f"p{n}").call(Log.note, -1) == 2
        handle = await client.start(fan_out, 40)
        assert await handle.result(timeout=30) == sum(2 * n for n in range(40)) + 8
