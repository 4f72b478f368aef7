"""What a host lets go, and when: the cap, memory that is short; and which entities are busiest."""

from __future__ import annotations

import asyncio
import random
from collections import Counter as Tally
from pathlib import Path

import pytest

import lungfish
from lungfish.runtime.host import host as host_module
from lungfish.runtime.host.passivation import MemoryUse, Shedding, read_memory, spread
from lungfish.runtime.ids import ENTITY, ORCHESTRATION, ActorId
from lungfish.runtime.store.host_record import HostRecord
from lungfish.runtime.telemetry.hot import Hottest, read_hot
from tests.unit.hub import hub_of
from tests.virtual import virtually

app = lungfish.App("passivation")
GB = 1 << 30


@app.entity
class Counter(lungfish.Entity):
    value: int = 0

    def add(self) -> int:
        self.value += 1
        return self.value


def use(share: float, own: float = 0.5) -> MemoryUse:
    return MemoryUse(int(share * 100 * GB), 100 * GB, int(own * 100 * GB))


@pytest.mark.parametrize(
    ("activations", "memory", "expected"),
    [
        (100, None, 0),
        (101, None, 11),
        (100, use(0.79), 0),
        (100, use(0.80), 25),
        (1, use(0.95), 1),
        (0, use(0.99), 0),
        (100, use(0.99, own=0.01), 0),
        (200, use(0.99), 110),
        (100, MemoryUse(5, 0, 5), 0),
    ],
)
def test_how_many_go(activations: int, memory: MemoryUse | None, expected: int) -> None:
    assert Shedding(100).count(activations, memory) == expected


def test_shedding_goes_on_until_memory_is_well_below() -> None:
    shedding = Shedding(1_000)
    shares = (0.79, 0.81, 0.78, 0.76, 0.74, 0.78)
    assert [bool(shedding.count(100, use(share))) for share in shares] == [
        False,
        True,
        True,
        True,
        False,
        False,
    ]


def test_each_partition_lets_its_share_go() -> None:
    assert spread(10, [100, 0, 100]) == [5, 0, 5]
    assert spread(10, [1, 0, 1]) == [1, 0, 1]
    assert spread(10, []) == []
    assert spread(0, [3]) == [0]
    assert spread(5, [0, 0]) == [0, 0]
    # Many small ones: rounding each up would let all of them go.
    assert sum(spread(91, [3] * 32 + [4])) == 91


def machine(path: Path, total_kb: int, available_kb: int) -> Path:
    (path / "self").mkdir(parents=True)
    (path / "self/statm").write_text("100 50 1 1 1 1 1\n")
    (path / "meminfo").write_text(
        f"MemTotal: {total_kb} kB\nMemFree: 1 kB\nMemAvailable: {available_kb} kB\n"
    )
    return path


def test_the_tightest_limit_counts(tmp_path: Path) -> None:
    proc = machine(tmp_path / "proc", 1_000, 900)
    nothing = tmp_path / "none"
    found = read_memory(proc, nothing)
    assert found is not None
    assert (found.used, found.limit) == (100 * 1_024, 1_000 * 1_024)
    group = tmp_path / "group"
    group.mkdir()
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("400\n")
    assert read_memory(proc, group) == found
    (group / "memory.max").write_text("500\n")
    (group / "memory.stat").write_text("anon 5\ninactive_file 100\n")
    assert read_memory(proc, group) == MemoryUse(300, 500, found.own)
    old = tmp_path / "v1/memory"
    old.mkdir(parents=True)
    (old / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (old / "memory.usage_in_bytes").write_text("400\n")
    assert read_memory(proc, tmp_path / "v1") == found
    (old / "memory.limit_in_bytes").write_text("1000\n")
    tight = read_memory(proc, tmp_path / "v1")
    assert tight is not None
    assert (tight.used, tight.limit) == (400, 1_000)


def test_where_nothing_can_be_read_nothing_is_shed(tmp_path: Path) -> None:
    assert read_memory(tmp_path, tmp_path) is None
    here = read_memory()
    assert here is None or 0 < here.used <= here.limit


def test_the_cap_holds_and_the_longest_idle_go_first() -> None:
    async def run() -> None:
        async with hub_of(app) as hub:
            (host,) = await hub.start_all("a", activations_max=20)
            async with hub.client() as client:
                most = 0
                for number in range(200):
                    await client.entity(Counter, f"k{number}").call(Counter.add)
                    await client.entity(Counter, "often").call(Counter.add)
                    most = max(most, sum(part.activations for part in host.partitions))
                    await asyncio.sleep(host_module.SHED_PAUSE_S)
                assert most <= 30
                # Nothing is lost by it, and what is used is not let go.
                assert await client.entity(Counter, "k0").call(Counter.add) == 2
                assert await client.entity(Counter, "often").call(Counter.add) == 201

    virtually(run)


def test_short_memory_sheds_although_nothing_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = use(0.5)
    monkeypatch.setattr(host_module, "read_memory", lambda: memory)

    async def run() -> None:
        nonlocal memory
        async with hub_of(app) as hub:
            (host,) = await hub.start_all("a")
            async with hub.client() as client:
                for number in range(100):
                    await client.entity(Counter, f"k{number}").call(Counter.add)

                def active() -> int:
                    return sum(part.activations for part in host.partitions)

                assert active() == 100
                memory = use(0.9)
                await hub.until(lambda: active() <= 10, "activations to be let go")
                memory = use(0.5)
                assert await client.entity(Counter, "k0").call(Counter.add) == 2

    virtually(run)


# --- hot entities -----------------------------------------------------------------------------------


def actor(key: str) -> ActorId:
    return ActorId(ENTITY, "Counter", key)


def test_whoever_has_more_than_a_kth_of_all_samples_is_found_and_not_underestimated() -> None:
    random.seed(7)
    sketch, true = Hottest(counters=20), Tally[str]()
    for _ in range(20_000):
        key = random.choice(["a", "a", "a", "b", "b", *(f"cold{random.random()}" for _ in range(7))])
        true[key] += 1
        sketch.add(actor(key))
    told = {key: share for _, key, share in sketch.told(0)}
    for key in ("a", "b"):
        assert true[key] / 20_000 <= told[key] <= true[key] / 20_000 + 1 / 20
    assert [key for _, key, _ in sketch.told(0)][:2] == ["a", "b"]


def test_what_was_hot_is_forgotten_with_time() -> None:
    sketch = Hottest()
    for _ in range(100):
        sketch.add(actor("before"))
    for minute in range(1, 10):
        sketch.told(minute * 60_000)
        for _ in range(100):
            sketch.add(actor("now"))
    assert [key for _, key, _ in sketch.told(10**6)] == ["now"]


def test_only_entities_are_told_and_any_record_can_be_read() -> None:
    sketch = Hottest()
    sketch.add(ActorId(ORCHESTRATION, "", "o"))
    assert sketch.told(0) == []
    for record in (b"", b"\xc1", b"\x01", b"\x80", HostRecord().encode()):
        assert read_hot("a", record) == []


def test_a_client_is_told_the_busiest_entities() -> None:
    async def run() -> None:
        async with hub_of(app) as hub:
            await hub.start_all("a")
            async with hub.client() as client:
                assert await client.hot_entities() == []
                for number in range(400):
                    await client.entity(Counter, "hot").call(Counter.add)
                    if number % 10 == 0:
                        await client.entity(Counter, f"k{number}").call(Counter.add)
                await asyncio.sleep(1)  # until the next heartbeat
                found = await client.hot_entities()
                assert (found[0].entity, found[0].key, found[0].host) == ("Counter", "hot", "a")
                assert 0.5 < found[0].share <= 1

    virtually(run)
