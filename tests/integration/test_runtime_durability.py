"""What is left when runtimes end, code changes, connections break and memory is short."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
from collections import Counter as Counts
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import lungfish
from lungfish import OrchestrationContext, RuntimeStatus
from lungfish.runtime.entry_points.local import LocalRuntime
from lungfish.runtime.host import host as host_module
from lungfish.runtime.on_redis.open_store import open_store
from lungfish.runtime.settings import HostSettings
from tests.integration.lossy import lossy_wire
from tests.integration.polling import until
from tests.local import RunApp
from tests.servers import Server, ask

app = lungfish.App("durability")
MS = dt.timedelta(milliseconds=1)
#: Hosts that notice soon that another one is dead.
QUICK = HostSettings(heartbeat_ms=50, lease_ms=300)

#: How often an activity was begun, by name.
begun: Counts[str] = Counts()


@app.entity
class Counter(lungfish.Entity):
    value: int = 0

    def add(self, n: int = 1) -> int:
        self.value += n
        return self.value


@app.entity
class Log(lungfish.Entity):
    lines: list[int] = []

    def write(self, line: int) -> int:
        self.lines.append(line)
        return len(self.lines)


@app.activity(retry=lungfish.RetryPolicy(10, 5 * MS, 1.0))
def note(name: str) -> str:
    begun[name] += 1
    return name


@app.orchestration
async def stages(ctx: OrchestrationContext, id: str) -> list[str]:
    done = [await ctx.call_activity(note, f"{id} 1")]
    ctx.entity(Counter, id).signal(Counter.add, 1)
    ctx.set_custom_status("half")
    async with asyncio.timeout(3_600):
        done.append(await ctx.wait_for_external_event("go", str))
    done.append(await ctx.call_activity(note, f"{id} 2"))
    ctx.entity(Counter, id).signal(Counter.add, 10)
    return [*done, str(ctx.uuid4()), ctx.now().isoformat()]


@app.orchestration
async def naps(ctx: OrchestrationContext, seconds: float) -> str:
    ctx.set_custom_status("napping")
    await ctx.sleep(seconds)
    return "rested"


@app.orchestration
async def counts(ctx: OrchestrationContext, id: str, times: int) -> list[int]:
    found = []
    for number in range(times):
        await ctx.call_activity(note, f"{id} {number}")
        found.append(await ctx.entity(Counter, id).call(Counter.add, 1))
    return found


@pytest.fixture(autouse=True)
def forget() -> None:
    begun.clear()


async def custom_status_is(handle: lungfish.OrchestrationHandle[Any], wanted: object) -> None:
    async def reached() -> bool:
        return bool((await handle.status()).custom_status == wanted)

    await until(reached, f"{handle} to say {wanted!r}")


# --- restarts -------------------------------------------------------------------------------------


async def test_states_outlive_the_runtime(run_app: RunApp) -> None:
    async with run_app(app) as runtime:
        for number in range(50):
            await runtime.client.entity(Counter, f"c{number}").signal(Counter.add, number)
        assert await runtime.client.entity(Counter, "c1").call(Counter.add, 5) == 6
    async with run_app(app) as runtime:
        found = [await runtime.client.entity(Counter, f"c{number}").call(Counter.add) for number in range(50)]
        assert found == [number + (5 if number == 1 else 0) + 1 for number in range(50)]


async def test_signals_that_nobody_has_applied_yet_outlive_it_too(
    run_app: RunApp, valkey: Server, hub_name: str
) -> None:
    async with run_app(app):
        pass
    async with lungfish.connect(valkey.url, hub=hub_name) as client:
        await client.entity(Counter, "a").signal_many(Counter.add, [(1,)] * 100)
        assert await client.entity(Counter, "a").state() is None
    async with run_app(app) as runtime:
        assert await runtime.client.entity(Counter, "a").call(Counter.add) == 101


@pytest.mark.parametrize("drain", [True, False])
async def test_an_orchestration_goes_on_where_it_was(run_app: RunApp, drain: bool) -> None:
    """It is replayed on the new host: what it did is not done again."""
    ids = [f"o{number}" for number in range(10)]
    async with run_app(app, settings=QUICK) as runtime:
        for id in ids:
            await runtime.client.start(stages, id, id=id)
        for id in ids:
            await custom_status_is(runtime.client.orchestration(id), "half")
        if not drain:
            for host in runtime.hosts:
                await host.stop(drain=False)
            runtime.hosts.clear()
    assert begun == {f"{id} 1": 1 for id in ids}
    async with run_app(app, settings=QUICK) as runtime:
        for id in ids:
            await runtime.client.orchestration(id).raise_event("go", "gone")
        results = [await runtime.client.orchestration(id).result(timeout=60) for id in ids]
        assert [result[:3] for result in results] == [[f"{id} 1", "gone", f"{id} 2"] for id in ids]
        for id in ids:
            # The signal of before the restart counts once, too.
            assert await runtime.client.entity(Counter, id).call(Counter.add, 100) == 111
    assert begun == {f"{id} {stage}": 1 for id in ids for stage in (1, 2)}


async def test_a_timer_that_fell_due_while_nobody_ran_fires_at_once(run_app: RunApp) -> None:
    async with run_app(app) as runtime:
        handles = [await runtime.client.start(naps, 0.3, id=f"n{number}") for number in range(5)]
        for handle in handles:
            await custom_status_is(handle, "napping")
    await asyncio.sleep(0.3)  # until they are due
    async with run_app(app) as runtime:
        for number in range(5):
            assert await runtime.client.orchestration(f"n{number}").result(timeout=60) == "rested"


# --- code that changed ----------------------------------------------------------------------------


def version(build: Callable[[lungfish.App], None]) -> lungfish.App:
    made = lungfish.App("versions")
    build(made)
    return made


def first_version(made: lungfish.App) -> None:
    made.activity(name="note")(note.function)
    made.activity(name="other")(note.function)

    @made.orchestration
    async def changing(ctx: OrchestrationContext) -> str:
        await ctx.call_activity("note", "before")
        await ctx.wait_for_external_event("go")
        return "first version"


def with_another_activity(made: lungfish.App) -> None:
    made.activity(name="note")(note.function)
    made.activity(name="other")(note.function)

    @made.orchestration
    async def changing(ctx: OrchestrationContext) -> str:
        await ctx.call_activity("other", "before")
        await ctx.wait_for_external_event("go")
        return "second version"


def with_a_patch(made: lungfish.App) -> None:
    made.activity(name="note")(note.function)
    made.activity(name="other")(note.function)

    @made.orchestration
    async def changing(ctx: OrchestrationContext) -> str:
        patched = ctx.patched("other-activity")
        await ctx.call_activity("other" if patched else "note", "before")
        await ctx.wait_for_external_event("go")
        return "second version" if patched else "first version"


async def test_changed_code_fails_its_old_instances_with_a_lesson(run_app: RunApp) -> None:
    async with run_app(version(first_version)) as runtime:
        old = await runtime.client.start("changing", id="old")

        async def has_waited() -> bool:
            return begun["before"] == 1 and len(await old.history()) >= 4

        await until(has_waited, "the instance to wait")
    async with run_app(version(with_another_activity)) as runtime:
        old = runtime.client.orchestration("old")
        await old.raise_event("go")
        with pytest.raises(lungfish.OrchestrationFailed) as raised:
            await old.result(timeout=60)
        details = raised.value.details
        assert details is not None
        assert details.is_caused_by(lungfish.NonDeterminism)
        for part in ("expected: activity 'note' (#1)", "activity 'other' (#1)", __file__, "patched"):
            assert part in details.message
        assert (await old.status()).runtime_status is RuntimeStatus.FAILED
        new = await runtime.client.start("changing", id="new")
        await new.raise_event("go")
        assert await new.result(timeout=60) == "second version"


async def test_a_patch_marker_keeps_old_instances_on_their_path(run_app: RunApp) -> None:
    async with run_app(version(first_version)) as runtime:
        old = await runtime.client.start("changing", id="old")

        async def has_waited() -> bool:
            return begun["before"] == 1 and len(await old.history()) >= 4

        await until(has_waited, "the instance to wait")
    async with run_app(version(with_a_patch)) as runtime:
        new = await runtime.client.start("changing", id="new")
        for id in ("old", "new"):
            await runtime.client.orchestration(id).raise_event("go")
        assert await runtime.client.orchestration("old").result(timeout=60) == "first version"
        assert await new.result(timeout=60) == "second version"


# --- broken connections ---------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def connections_are_killed(valkey: Server, every_s: float) -> AsyncIterator[list[int]]:
    """Kill all client connections again and again; gives the counts of those that were killed."""
    killed: list[int] = []

    async def kill() -> None:
        while True:
            answer = await asyncio.to_thread(ask, valkey.port, "CLIENT KILL TYPE normal SKIPME yes")
            killed.append(int(answer.strip(b":\r\n")))
            await asyncio.sleep(every_s)

    task = asyncio.create_task(kill())
    try:
        yield killed
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


ROUNDS, WRITERS, INSTANCES, STEPS = 60, 6, 6, 8


async def load(client: lungfish.Client) -> None:
    """Signals, calls, activities and calls of entities, all at once; each result is what it must be."""

    async def write(writer: int) -> None:
        log = client.entity(Log, f"log {writer}")
        for number in range(ROUNDS):
            if number % 3:
                await log.signal(Log.write, number)
            else:
                assert await log.call(Log.write, number) == number + 1

    async def count(number: int) -> None:
        handle = await client.start(counts, f"o{number}", STEPS, id=f"o{number}")
        assert await handle.result(timeout=50) == list(range(1, STEPS + 1))

    await asyncio.gather(*(write(writer) for writer in range(WRITERS)), *(count(n) for n in range(INSTANCES)))


async def check(client: lungfish.Client) -> None:
    """Nothing of the load is missing, doubled, or out of order."""
    for writer in range(WRITERS):
        assert await client.entity(Log, f"log {writer}").call(Log.write, -1) == ROUNDS + 1
        state = await client.entity(Log, f"log {writer}").state()
        assert state is not None
        assert state.lines == [*range(ROUNDS), -1]
    for number in range(INSTANCES):
        assert await client.entity(Counter, f"o{number}").call(Counter.add) == STEPS + 1


async def test_killed_connections_lose_and_double_nothing(
    run_app: RunApp, valkey: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    async with run_app(app, hosts=2) as runtime, asyncio.timeout(60):
        async with connections_are_killed(valkey, every_s=0.05) as killed:
            await load(runtime.client)
        assert sum(killed) > 10
        await check(runtime.client)


async def test_lost_answers_lose_and_double_nothing(
    valkey: Server, hub_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What was asked was done: appends, commits, claims, takes from queues. It is asked again."""
    caplog.set_level(logging.CRITICAL)
    async with lossy_wire(valkey) as wire, asyncio.timeout(60):
        async with LocalRuntime(
            app, lambda: open_store(wire.url, hub_name), hosts=2, settings=HostSettings(lease_ms=60_000)
        ) as runtime:
            store = open_store(valkey.url, hub_name)
            await store.open()
            before = await store.owners()
            wire.lose_every = 60
            await load(runtime.client)
            assert wire.losses > 5
            wire.lose_every = 0
            await check(runtime.client)
            after = await store.owners()
            await store.close()
    same = [(row.host, row.epoch) for row in before] == [(row.host, row.epoch) for row in after]
    assert same, "a repeated commit is answered as the first time: no partition is loaded again"


async def test_a_host_that_dies_in_the_middle_of_load_loses_and_doubles_nothing(run_app: RunApp) -> None:
    async with run_app(app, hosts=3, settings=QUICK) as runtime, asyncio.timeout(60):
        client = runtime.client
        keys = [f"k{number}" for number in range(40)]

        async def add(key: str) -> list[int]:
            ref, results = client.entity(Counter, key), []
            for _ in range(10):
                await ref.signal(Counter.add)
                results.append(await ref.call(Counter.add))
            return results

        tasks = [asyncio.create_task(add(key)) for key in keys]
        work = [await client.start(counts, f"o{number}", 5) for number in range(10)]

        async def is_half_way() -> bool:
            state = await client.entity(Counter, keys[0]).state()
            return state is not None and state.value >= 4

        await until(is_half_way, "the load to be half-way")
        await runtime.hosts.pop().stop(drain=False)
        assert await asyncio.gather(*tasks) == [list(range(2, 21, 2))] * len(keys)
        assert [await handle.result(timeout=60) for handle in work] == [[1, 2, 3, 4, 5]] * 10


# --- memory ---------------------------------------------------------------------------------------


async def activations(runtime: LocalRuntime) -> int:
    return sum(partition.activations for host in runtime.hosts for partition in host.partitions)


async def test_idle_actors_leave_memory_and_come_back(
    run_app: RunApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_module, "PASSIVATION_S", 0.02)
    async with run_app(app, settings=HostSettings(idle_ms=50)) as runtime:
        client = runtime.client
        for number in range(20):
            await client.entity(Counter, f"c{number}").call(Counter.add, number)
        handle = await client.start(stages, "o", id="o")
        await custom_status_is(handle, "half")

        async def is_empty() -> bool:
            return await activations(runtime) == 0

        await until(is_empty, "everything to be passivated")
        assert [await client.entity(Counter, f"c{number}").call(Counter.add) for number in range(20)] == [
            number + 1 for number in range(20)
        ]
        await until(is_empty, "everything to be passivated again")
        await handle.raise_event("go", "gone")
        assert (await handle.result(timeout=60))[:3] == ["o 1", "gone", "o 2"]
        assert begun == {"o 1": 1, "o 2": 1}


async def test_memory_has_a_cap(run_app: RunApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "PASSIVATION_S", 0.02)
    async with run_app(app, settings=HostSettings(activations_max=10)) as runtime:
        refs = [runtime.client.entity(Counter, f"c{number}") for number in range(100)]
        for expected in (1, 2):
            assert await asyncio.gather(*(ref.call(Counter.add) for ref in refs)) == [expected] * 100

            async def fits() -> bool:
                return await activations(runtime) <= 10

            await until(fits, "memory to be within its cap")
            assert await activations(runtime) == 9, "no more go than must: a tenth below the cap"
