"""Schedules in a whole runtime with a virtual clock: every policy, every verb, every crash."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Coroutine
from typing import Any

import pytest

import lungfish
from lungfish.runtime.testing.environment import Environment
from lungfish.testing import crash_everywhere, environment
from tests.unit.hub import PARTITIONS, hub_of
from tests.virtual import virtually

app = lungfish.App("schedules")
MINUTE, HOUR, DAY = dt.timedelta(minutes=1), dt.timedelta(hours=1), dt.timedelta(days=1)
BEGIN = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@app.entity
class Book(lungfish.Entity):
    lines: list[str] = []

    def write(self, line: str) -> None:
        self.lines.append(line)

    def stamp(self, line: str) -> None:
        self.lines.append(f"{self.context.now():%H:%M} {line}")


@app.orchestration
async def report(ctx: lungfish.OrchestrationContext, title: str = "report") -> str:
    ctx.entity(Book, "book").signal(Book.write, f"{ctx.now():%m-%d %H:%M} {title}")
    return title


@app.orchestration
async def long_report(ctx: lungfish.OrchestrationContext, minutes: float) -> None:
    await ctx.sleep(minutes * MINUTE)


@app.orchestration
async def failing(ctx: lungfish.OrchestrationContext) -> None:
    raise ValueError("no ink")


async def lines(env: Environment) -> list[str]:
    state = await env.client.entity(Book, "book").state()
    return [] if state is None else state.lines


def held() -> Environment:
    return environment(app, auto_skip=False)


async def test_a_month_of_a_daily_schedule() -> None:
    async with environment(app) as env:
        cron = lungfish.cron("0 9 * * *", tz="Europe/Berlin")
        schedule = await env.client.schedules.create("daily", cron, report, ["sales"])
        await env.advance(31 * DAY)
        assert await lines(env) == [f"01-{day:02} 08:00 sales" for day in range(1, 32)]
        found = await schedule.describe()
        assert (found.started, found.skipped, found.missed, found.running) == (31, 0, 0, ())
        assert found.next_times[0] == dt.datetime(2026, 2, 1, 8, tzinfo=dt.UTC)
        assert found.recent[0].id == "daily-2026-01-31T08:00:00Z"
        assert {run.outcome for run in found.recent} == {"Completed"}
        assert await env.client.orchestration(found.recent[0].id).result() == "sales"


async def test_an_interval_counts_from_the_epoch_and_not_from_its_making() -> None:
    async with held() as env:
        await env.advance(7 * MINUTE)
        every = lungfish.every(HOUR, offset=5 * MINUTE)
        await env.client.schedules.create("hourly", every, "report", ["x"])
        await env.advance(3 * HOUR)
        assert await lines(env) == ["01-01 01:05 x", "01-01 02:05 x", "01-01 03:05 x"]


@pytest.mark.parametrize(
    ("overlap", "started", "skipped", "ended"),
    [
        ("skip", [10, 40], [20, 30, 50], ["Completed"]),
        ("buffer_one", [10, 20], [30, 50], ["Completed"]),
        ("allow", [10, 20, 30, 40, 50], [], ["Completed", "Completed"]),
        ("terminate_running", [10, 20, 30, 40, 50], [], ["Terminated"] * 4),
        ("cancel_running", [10, 20, 30, 40, 50], [], ["Canceled"] * 4),
    ],
)
async def test_overlap(overlap: Any, started: list[int], skipped: list[int], ended: list[str]) -> None:
    async with held() as env:
        every = lungfish.every(10 * MINUTE)
        schedule = await env.client.schedules.create("o", every, long_report, [25], overlap=overlap)
        await env.advance(55 * MINUTE)
        found = await schedule.describe()
        nominal = sorted(run.nominal.minute for run in (*found.running, *found.recent))
        assert nominal[: len(started)] == started
        assert found.skipped == len(skipped)
        assert [run.outcome for run in reversed(found.recent)][: len(ended)] == ended
        if overlap == "buffer_one":
            assert found.buffered == BEGIN + 40 * MINUTE
            assert [run.begun for run in found.running] == [BEGIN + 35 * MINUTE]


async def test_pause_and_resume() -> None:
    async with held() as env:
        schedule = await env.client.schedules.create(
            "p", lungfish.every(HOUR), report, paused=True, note="new"
        )
        await env.advance(3 * HOUR)
        found = await schedule.describe()
        assert (await lines(env), found.paused, found.note, found.next_times) == ([], True, "new", ())
        await schedule.resume("go")
        await env.advance(HOUR)
        await schedule.pause("enough")
        await env.advance(5 * HOUR)
        assert await lines(env) == ["01-01 04:00 report"]
        found = await schedule.describe()
        assert (found.started, found.missed, found.skipped, found.note) == (1, 0, 0, "enough")


async def test_trigger_runs_at_once_also_while_paused() -> None:
    async with held() as env:
        schedule = await env.client.schedules.create("t", lungfish.every(DAY), long_report, [5], paused=True)
        run = await schedule.trigger()
        assert run == "t-2026-01-01T00:00:00Z-trigger-1"
        assert await schedule.trigger() is None
        again = await schedule.trigger(overlap="allow")
        assert again is not None
        assert {found.id for found in (await schedule.describe()).running} == {run, again}
        await env.advance(10 * MINUTE)
        assert (await schedule.describe()).running == ()


async def test_backfill_runs_each_time_once() -> None:
    async with held() as env:
        schedule = await env.client.schedules.create("b", lungfish.every(HOUR), report)
        await env.advance(HOUR)
        await schedule.backfill(BEGIN - 10 * HOUR, BEGIN + HOUR)
        await env.advance(MINUTE)
        found = await schedule.describe()
        # Twelve times, of which one had its run already.
        assert len(await lines(env)) == 12
        assert (found.backfilling, found.running) == (False, ())
        await schedule.backfill(BEGIN - 10 * HOUR, BEGIN)
        await env.advance(MINUTE)
        assert len(await lines(env)) == 12


async def test_a_large_backfill_takes_several_turns() -> None:
    async with held() as env:
        target = (Book, "book", Book.write)
        schedule = await env.client.schedules.create("b", lungfish.every(MINUTE), target, ["x"], paused=True)
        await schedule.backfill(BEGIN - 10 * HOUR, BEGIN - MINUTE)
        assert (await schedule.describe()).backfilling
        await env.advance(1)
        assert len(await lines(env)) == 600


async def test_it_signals_an_entity() -> None:
    async with held() as env:
        await env.client.schedules.create("s", lungfish.every(HOUR), ("Book", "book", "stamp"), ["tick"])
        await env.advance(3 * HOUR)
        assert await lines(env) == ["01:00 tick", "02:00 tick", "03:00 tick"]
        (found,) = [schedule async for schedule in env.client.schedules.list()]
        assert (found.target, found.recent[0].outcome) == ("Book/book.stamp", "Sent")


async def test_bounds() -> None:
    async with held() as env:
        create = env.client.schedules.create
        every = lungfish.every(HOUR)
        await create("n", every, report, ["n"], runs=2)
        await create("w", every, report, ["w"], start_at=BEGIN + 3 * HOUR, end_at=BEGIN + 4 * HOUR)
        await env.advance(10 * HOUR)
        assert sorted(await lines(env)) == [
            "01-01 01:00 n",
            "01-01 02:00 n",
            "01-01 03:00 w",
            "01-01 04:00 w",
        ]
        for name in "nw":
            assert (await env.client.schedules.get(name).describe()).next_times == ()


async def test_what_passed_while_nobody_was_at_home_is_made_up_for_within_bounds() -> None:
    async with held() as env:
        every, target = lungfish.every(HOUR), (Book, "book", Book.stamp)
        await env.client.schedules.create("c", every, target, ["c"], catch_up=150 * MINUTE)
        await down_for(env, 10 * HOUR + MINUTE)
        assert await lines(env) == ["10:01 c"] * 3
        found = await env.client.schedules.get("c").describe()
        assert (found.started, found.missed) == (3, 7)


async def down_for(env: Environment, duration: dt.timedelta) -> None:
    for host in list(env._hosts.values()):
        await host.stop(drain=False)
    dead, env._hosts = env._hosts, {}
    for name in dead:
        env._server.bury(name)
    env._server.move_to(env._server.now_ms() + duration // dt.timedelta(milliseconds=1))
    await env._add_host()
    await next(iter(env._hosts.values())).wait_settled()
    await env.advance(0)


async def test_update_changes_what_is_named() -> None:
    async with held() as env:
        schedule = await env.client.schedules.create("u", lungfish.every(HOUR), report, ["a"], runs=9)
        await env.advance(HOUR)
        await schedule.update(spec=lungfish.every(2 * HOUR))
        await env.advance(HOUR)
        await schedule.update(target=report, args=["b"], overlap="allow")
        await env.advance(2 * HOUR)
        assert await lines(env) == ["01-01 01:00 a", "01-01 02:00 a", "01-01 04:00 b"]
        found = await schedule.describe()
        assert (found.overlap, found.remaining) == ("allow", 6)


async def test_delete_ends_it_and_leaves_nothing_behind() -> None:
    async with held() as env:
        schedule = await env.client.schedules.create("d", lungfish.every(HOUR), long_report, [30])
        await env.advance(HOUR)
        await schedule.delete()
        assert await env.client.entity("lungfish.schedule", "d").state() is None
        await env.advance(3 * HOUR)  # its run ends, and tells nobody
        assert await env.client.entity("lungfish.schedule", "d").state() is None
        assert [found async for found in env.client.schedules.list()] == []
        again: list[Coroutine[Any, Any, Any]] = [
            schedule.describe(), schedule.delete(), schedule.pause(), schedule.resume(), schedule.trigger(),
            schedule.update(overlap="allow"), schedule.backfill(BEGIN, BEGIN),
        ]  # fmt: skip
        for call in again:
            with pytest.raises(lungfish.ScheduleNotFound):
                await call


async def test_how_runs_ended_is_told() -> None:
    async with held() as env:
        await env.client.schedules.create("f", lungfish.every(HOUR), failing)
        await env.client.schedules.create("g", lungfish.every(HOUR), "unheard of")
        await env.advance(HOUR)
        (run,) = (await env.client.schedules.get("f").describe()).recent
        assert (run.outcome, run.detail) == ("Failed", "no ink")
        (run,) = (await env.client.schedules.get("g").describe()).recent
        assert run.outcome == "NotRegistered"
        await env.advance(HOUR)
        assert (await env.client.schedules.get("g").describe()).started == 2


async def test_mistakes_are_found_where_they_are_made() -> None:
    async with held() as env:
        create: Any = env.client.schedules.create
        every = lungfish.every(HOUR)
        naive = dt.datetime(2026, 1, 1)  # noqa: DTZ001
        wrong: list[tuple[Any, dict[str, Any]]] = [
            (("x", "0 9 * * *", report), {}),
            (("x", every, report, [1, 2, 3]), {}),
            (("x", every, report), {"overlap": "maybe"}),
            (("x", every, report), {"catch_up": 5}),
            (("x", every, report), {"runs": 0}),
            (("x", every, report), {"start_at": naive}),
            (("x", every, report), {"start_at": BEGIN, "end_at": BEGIN - DAY}),
            (("", every, report), {}),
            (("x" * 500, every, report), {}),
            (("x", every, (Book, "book", "erase")), {}),
        ]
        for arguments, options in wrong:
            with pytest.raises(lungfish.UsageError):
                await create(*arguments, **options)
        assert [found async for found in env.client.schedules.list()] == []
        await create("x", every, report)
        with pytest.raises(lungfish.ScheduleExists):
            await create("x", every, report)
        assert (await create("x", every, report, if_exists="return")).id == "x"
        with pytest.raises(lungfish.UsageError, match="no colour"):
            await env.client.schedules.get("x").update(colour="red")


async def test_jitter_is_by_chance_but_always_the_same() -> None:
    delays = []
    for _ in range(2):
        async with held() as env:
            schedule = await env.client.schedules.create(
                "j", lungfish.every(HOUR), report, jitter=10 * MINUTE
            )
            await env.advance(20 * HOUR - MINUTE)
            runs = reversed((await schedule.describe()).recent)
            delays.append([(run.begun - run.nominal) / MINUTE for run in runs])
    assert delays[0] == delays[1]
    assert len(set(delays[0])) == 19
    assert 0 <= min(delays[0]) <= max(delays[0]) <= 10


def declaring(*args: Any, **options: Any) -> lungfish.App:
    made = app.with_hub("declared")
    made.schedule("nightly", *args, **options)
    return made


async def test_declared_schedules_are_there_when_a_host_has_started() -> None:
    async with environment(declaring(lungfish.every(HOUR), report, ["d"]), auto_skip=False) as env:
        await env.advance(2 * HOUR)
        assert await lines(env) == ["01-01 01:00 d", "01-01 02:00 d"]
        await env.client.schedules.get("nightly").pause("holidays")
        await env._add_host()  # of the same release: nothing changes
        await env.advance(HOUR)
        found = await env.client.schedules.get("nightly").describe()
        assert (found.paused, found.note, found.started) == (True, "holidays", 2)
        later = declaring(lungfish.every(2 * HOUR), report, ["e"])
        env.app = later
        await env._add_host()
        await env.advance(HOUR)
        found = await env.client.schedules.get("nightly").describe()
        assert (found.spec, found.paused) == (lungfish.every(2 * HOUR), True)


def test_declaring_checks_what_it_is_given() -> None:
    with pytest.raises(lungfish.UsageError, match="spec"):
        declaring("0 9 * * *", report)
    made = declaring(lungfish.every(HOUR), report)
    with pytest.raises(lungfish.UsageError, match="nightly"):
        made.schedule("nightly", lungfish.every(HOUR), report)


def test_names_of_the_runtime_are_not_for_users() -> None:
    with pytest.raises(lungfish.UsageError, match="taken by the runtime"):
        lungfish.App("x").entity(name="lungfish.mine")(Book)


async def scenario(client: lungfish.Client) -> tuple[list[str], list[Any]]:
    schedule = await client.schedules.create(
        "c", lungfish.every(10 * MINUTE), beat, [17], overlap="buffer_one", runs=4
    )
    await (await client.start(long_report, 95, id="waiting")).result()
    state = await client.entity(Book, "book").state()
    found = await schedule.describe()
    runs = [(run.id, run.outcome) for run in found.recent]
    return (state.lines if state else []), [*runs, found.started, found.skipped, found.running]


@app.orchestration
async def beat(ctx: lungfish.OrchestrationContext, minutes: float) -> None:
    ctx.entity(Book, "book").signal(Book.write, ctx.instance_id[-9:-4])
    await ctx.sleep(minutes * MINUTE)


def test_a_crash_anywhere_neither_loses_nor_doubles_a_run() -> None:
    report = crash_everywhere(app, scenario)
    written, found = report.outcome
    assert written == ["00:10", "00:20", "00:30", "00:50"]
    assert found[-3:] == [4, 1, ()]
    assert [outcome for _, outcome in found[:-3]] == ["Completed"] * 4


@pytest.mark.parametrize("overlap", ["skip", "buffer_one", "cancel_running", "terminate_running"])
def test_a_run_that_the_store_lost_is_not_waited_for(overlap: Any) -> None:
    async def run() -> None:
        async with hub_of(app) as hub, asyncio.timeout(120):
            await hub.start_all("a")
            async with hub.client() as client:
                every = lungfish.every(dt.timedelta(seconds=5))
                schedule = await client.schedules.create("l", every, long_report, [1_000], overlap=overlap)
                while not (await schedule.describe()).running:
                    await asyncio.sleep(0.1)
                (lost,) = (await schedule.describe()).running
                await asyncio.sleep(0.5)
                await hub.kill("a")
                rows = [hub.row(number).instances.pop(lost.id, None) for number in range(PARTITIONS)]
                assert any(rows)
                await hub.start_all("b")
                while (await schedule.describe()).started < 2:
                    await asyncio.sleep(0.5)
                found = await schedule.describe()
                assert (found.recent[0].id, found.recent[0].outcome) == (lost.id, "NotFound")

    virtually(run)
