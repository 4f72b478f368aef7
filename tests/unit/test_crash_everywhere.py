"""``crash_everywhere`` finds what a crash can break, in users' code and in ours, and nothing else."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest

import lungfish
from lungfish.runtime.host.patrol import Patrol
from lungfish.runtime.store.store import Commit, CommitOutcome, QueueEntry
from lungfish.runtime.testing.deaths import MortalStore
from lungfish.runtime.testing.memory_store import MemoryQueueReader, MemoryStore
from lungfish.testing import CrashReport, OutcomeChanged, crash_everywhere

app = lungfish.App("crashes")
ledger: list[str] = []
paid: set[str] = set()


@app.entity
class Till(lungfish.Entity):
    total: int = 0

    def add(self, amount: int) -> int:
        self.total += amount
        return self.total


@app.activity
def pay_carelessly(amount: int) -> int:
    ledger.append(f"paid {amount}")
    return amount


@app.activity
def pay(amount: int) -> int:
    paid.add(lungfish.activity_info().idempotency_key)
    return amount


@app.activity
async def pay_slowly(amount: int) -> int:
    await asyncio.sleep(2)
    return pay.function(amount)


@app.orchestration
async def buy(ctx: lungfish.OrchestrationContext, how: str) -> int:
    first = await ctx.call_activity(how, 2)
    await ctx.sleep(3600)
    second, third = await asyncio.gather(ctx.call_activity(how, 3), ctx.call_activity(how, 4))
    till = ctx.entity(Till, "till")
    till.signal(Till.add, first)
    return await till.call(Till.add, second + third)


async def careful(client: lungfish.Client) -> tuple[int, int]:
    paid.clear()
    return await (await client.start(buy, "pay")).result(timeout=60), len(paid)


async def careless(client: lungfish.Client) -> tuple[int, int]:
    ledger.clear()
    return await (await client.start(buy, "pay_carelessly")).result(timeout=60), len(ledger)


def findings_of(scenario: object, **options: object) -> CrashReport:
    with pytest.raises(OutcomeChanged) as raised:
        crash_everywhere(app, scenario, **options)  # type: ignore[arg-type]
    return raised.value.report


# --- what is right stays right ---------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"always_replay": False}, {"hosts": 2, "workers": 2}])
def test_what_is_idempotent_survives(options: dict[str, int]) -> None:
    report = crash_everywhere(app, careful, **options)  # type: ignore[arg-type]
    assert report.outcome == (9, 3)
    # Before and after every call, but for those that nobody answered before the end.
    assert 2 * len(report.calls) - 4 <= report.runs <= 2 * len(report.calls)
    assert {"append", "commit", "take", "finish_entries"} <= {
        call.split()[1].partition("(")[0] for call in report.calls
    }


def test_activities_that_take_their_time_survive() -> None:
    async def scenario(client: lungfish.Client) -> tuple[int, int]:
        paid.clear()
        return await (await client.start(buy, "pay_slowly")).result(timeout=60), len(paid)

    assert crash_everywhere(app, scenario).outcome == (9, 3)


def test_entities_survive() -> None:
    async def scenario(client: lungfish.Client) -> int:
        till = client.entity(Till, "till")
        await till.signal_many(Till.add, [(1,), (2,)])
        return await till.call(Till.add, 4)

    assert crash_everywhere(app, scenario).outcome == 7


def test_pairs_of_crashes_survive() -> None:
    async def scenario(client: lungfish.Client) -> int:
        return await client.entity(Till, "till").call(Till.add, 1)

    report = crash_everywhere(app, scenario, pairs=True)
    assert report.outcome == 1
    assert report.runs > 4 * len(report.calls), "the recovery has calls, too, and they were met"


def test_it_is_deterministic() -> None:
    one, other = crash_everywhere(app, careful), crash_everywhere(app, careful)
    assert (one.calls, one.runs) == (other.calls, other.runs)


# --- what is wrong is found ------------------------------------------------------------------


def test_an_effect_that_is_not_idempotent_is_found() -> None:
    report = findings_of(careless)
    assert report.outcome == (9, 3)
    assert {finding.outcome.value[0] for finding in report.findings} == {9}, "the state is right all the same"
    assert {finding.outcome.value[1] for finding in report.findings} == {4, 5}
    # The attempt ran, and then the worker died before that was durable.
    finding = report.findings[0]
    (death,) = finding.deaths
    assert f"death {death.when} call {death.call} (worker" in str(report)
    assert findings_of(careless).findings == report.findings


def test_a_worker_that_forgets_before_it_reports_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def take(
        self: MemoryQueueReader, queues: Sequence[str], *, block_ms: int, count: int
    ) -> list[QueueEntry]:
        store = self._store
        assert isinstance(store, MortalStore)

        async def take_for_good() -> list[QueueEntry]:
            taken = await MemoryQueueReader.take(self, queues, block_ms=block_ms, count=count)
            for entry in taken:
                store.server.finish(store.hub, entry.queue, entry.id)
            return taken

        taken: list[QueueEntry] = await store.log.pass_through(store.process, "take for good", take_for_good)
        return taken

    async def look_away(self: Patrol) -> None:
        """Hosts would notice that nobody has the activity any more, and begin it again."""

    monkeypatch.setattr("lungfish.runtime.testing.deaths._MortalQueueReader.take", take)
    monkeypatch.setattr(Patrol, "look", look_away)
    report = findings_of(careful)
    assert all("DeadlineExceeded" in finding.outcome.error for finding in report.findings)
    assert all("worker" in finding.calls[finding.deaths[0].call] for finding in report.findings)


def test_a_commit_in_two_halves_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def halves(self: MortalStore, commits: Sequence[Commit]) -> list[CommitOutcome]:
        snapshots = [(commit.partition, commit.snapshots) for commit in commits]
        for commit in commits:
            commit.snapshots = {}

        async def first() -> list[CommitOutcome]:
            return await MemoryStore.commit(self, commits)

        async def second() -> None:
            for partition, changes in snapshots:
                stored = self.server.hub(self.hub).partition(partition).snapshots
                stored.update({key: value for key, value in changes.items() if value is not None})

        outcomes: list[CommitOutcome] = await self.log.pass_through(self.process, "first half", first)
        await self.log.pass_through(self.process, "second half", second)
        return outcomes

    monkeypatch.setattr(MortalStore, "commit", halves)

    async def scenario(client: lungfish.Client) -> int:
        till = client.entity(Till, "till")
        await till.call(Till.add, 1)
        return await till.call(Till.add, 2)

    report = findings_of(scenario)
    # Read in vain by whoever takes over: the amount of the first call is gone.
    assert report.outcome == 3
    assert {finding.outcome.value for finding in report.findings} == {2}
    assert {finding.calls[finding.deaths[0].call] for finding in report.findings} == {
        "host-2 first half",
        "host-2 second half",
    }


# --- what cannot be judged is refused --------------------------------------------------------


def test_a_scenario_that_depends_on_chance_is_refused() -> None:
    async def scenario(client: lungfish.Client) -> float:
        await client.entity(Till, "till").call(Till.add, 1)
        return random.random()

    with pytest.raises(lungfish.UsageError, match="not repeatable"):
        crash_everywhere(app, scenario)


def test_a_scenario_that_keeps_state_is_refused() -> None:
    seen: list[int] = []

    async def scenario(client: lungfish.Client) -> None:
        seen.append(1)
        for _ in seen:
            await client.entity(Till, "till").call(Till.add, 1)

    with pytest.raises(lungfish.UsageError, match="not repeatable"):
        crash_everywhere(app, scenario)


def test_a_scenario_that_fails_by_itself_says_so() -> None:
    async def scenario(client: lungfish.Client) -> None:
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        crash_everywhere(app, scenario)


async def test_it_is_not_for_running_loops() -> None:
    with pytest.raises(lungfish.UsageError, match="plain"):
        crash_everywhere(app, careful)
