"""What entities promise about order and rollback, through a whole runtime, with several partitions."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import pytest

import lungfish
from lungfish import OrchestrationContext
from lungfish.testing import environment

app = lungfish.App("promises")


@app.orchestration
async def started(ctx: OrchestrationContext) -> str:
    return ctx.instance_id


@app.entity
class Diary(lungfish.Entity):
    lines: list[str] = []
    note: str | None = None
    count: int = 0

    def write(self, line: str) -> int:
        self.lines.append(line)
        return len(self.lines)

    async def write_slowly(self, line: str) -> int:
        await asyncio.sleep(0)
        return self.write(line)

    def everything_and_fail(self, fail: bool) -> None:
        """Cause all that an operation can cause."""
        other = self.context.entity(Diary, "other")
        other.signal(Diary.write, "signal")
        other.signal(Diary.write, "scheduled", at=dt.timedelta(seconds=5))
        self.context.start(started, id="started")
        self.context.set_reminder("later", dt.timedelta(seconds=5), operation=Diary.write, args=("reminded",))
        self.lines.append("own")
        if fail:
            raise ValueError("no")

    async def everything_slowly_and_fail(self, fail: bool) -> None:
        await asyncio.sleep(0)
        self.everything_and_fail(fail)

    def forget(self) -> None:
        self.context.delete()

    def set_note(self, note: str | None, count: int) -> None:
        self.note, self.count = note, count

    @lungfish.shared
    def read(self) -> list[str]:
        return self.lines


@app.orchestration
async def sender(ctx: OrchestrationContext) -> None:
    """Call and signal in turns, without waiting."""
    diary = ctx.entity(Diary, "d")
    calls = []
    for number in range(0, 20, 2):
        diary.signal(Diary.write, f"{ctx.instance_id} {number}")
        calls.append(diary.call(Diary.write_slowly, f"{ctx.instance_id} {number + 1}"))
    await asyncio.gather(*calls)


@pytest.mark.parametrize("operation", ["everything_and_fail", "everything_slowly_and_fail"])
async def test_an_operation_that_fails_takes_back_all_that_it_caused(operation: str) -> None:
    async with environment(app) as env:
        diary, other = env.client.entity(Diary, "d"), env.client.entity(Diary, "other")
        with pytest.raises(lungfish.EntityOperationFailed, match="ValueError: no"):
            await diary.call(operation, True)
        await env.advance(20)
        assert await diary.state() is None, "it was never written"
        assert await other.state() is None
        with pytest.raises(lungfish.InstanceNotFound):
            await env.client.orchestration("started").status()
        await diary.call(operation, False)
        await env.advance(20)
        assert await diary.call(Diary.read) == ["own", "reminded"]
        assert await other.call(Diary.read) == ["signal", "scheduled"]
        assert await env.client.orchestration("started").result(20) == "started"


async def test_one_bad_signal_of_a_batch_takes_back_its_own_only() -> None:
    async with environment(app) as env:
        diary = env.client.entity(Diary, "d")
        await diary.signal_many(Diary.everything_and_fail, [(True,), (False,), (True,)])
        assert await diary.call(Diary.read) == ["own"]
        await env.advance(20)
        assert await env.client.entity(Diary, "other").call(Diary.read) == ["signal", "scheduled"]


async def test_calls_and_signals_of_one_sender_keep_their_order() -> None:
    async with environment(app, hosts=2) as env:
        diary = env.client.entity(Diary, "d")
        calls: list[Any] = []
        for number in range(0, 20, 2):
            await diary.signal(Diary.write, f"client {number}")
            calls.append(asyncio.create_task(diary.call(Diary.write_slowly, f"client {number + 1}")))
            await asyncio.sleep(0)  # it is sent
        handles = [await env.client.start(sender, id=f"orc{n}") for n in range(3)]
        await asyncio.gather(*calls, *(handle.result(20) for handle in handles))
        lines = await diary.call(Diary.read)
        for who in ("client", "orc0", "orc1", "orc2"):
            mine = [int(line.split()[1]) for line in lines if line.startswith(f"{who} ")]
            assert mine == list(range(20)), who


async def test_falsy_is_stored_and_deleted_is_absent() -> None:
    async with environment(app) as env:
        diary = env.client.entity(Diary, "d")
        assert await diary.state() is None
        await diary.call(Diary.set_note, None, 0)
        state = await diary.state()
        assert state is not None, "an entity that was written to exists, whatever is in it"
        assert (state.note, state.count, state.lines) == (None, 0, [])
        await diary.call(Diary.write, "x")
        await diary.call(Diary.forget)
        assert await diary.state() is None
        assert await diary.call(Diary.write, "y") == 1, "the next operation finds the defaults"
