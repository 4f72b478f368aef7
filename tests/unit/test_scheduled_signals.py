"""Signals at a time, and reminders, in a whole runtime: with crashes everywhere, and with nobody at home."""

from __future__ import annotations

import datetime as dt

import pytest

import lungfish
from lungfish.testing import crash_everywhere, environment

app = lungfish.App("times")
SECOND = dt.timedelta(seconds=1)


@app.entity
class Log(lungfish.Entity):
    lines: list[str] = []

    def write(self, line: str) -> None:
        self.lines.append(f"{self.context.now():%H:%M:%S} {line}")

    def later(self, seconds: float, line: str) -> None:
        self.context.signal(("Log", "other"), Log.write, line, at=seconds * SECOND)

    def remind(self, name: str, due_s: float, period_s: float | None = None) -> None:
        self.context.set_reminder(name, due_s * SECOND, None if period_s is None else period_s * SECOND)

    def on_reminder(self, name: str) -> None:
        self.write(name)
        # What a reminder does is one commit: the state and what it sends to another partition.
        self.context.signal(("Log", "echo"), Log.write, name)
        if len(self.lines) == 3:
            self.context.cancel_reminder(name)

    @lungfish.shared
    def read(self) -> list[str]:
        return self.lines


@app.orchestration
async def signals(ctx: lungfish.OrchestrationContext) -> list[str]:
    log = ctx.entity(Log, "log")
    log.signal(Log.write, "after two", at=2 * SECOND)
    log.signal(Log.write, "at three", at=ctx.now() + 3 * SECOND)
    log.signal(Log.write, "now")
    await ctx.sleep(1)
    early = await log.call(Log.read)
    await ctx.sleep(5)
    return early + ["--"] + await log.call(Log.read)


async def pause(client: lungfish.Client, seconds: float) -> None:
    await (await client.start(rest, seconds)).result()


@app.orchestration
async def rest(ctx: lungfish.OrchestrationContext, seconds: float) -> None:
    await ctx.sleep(seconds)


async def test_from_an_orchestration_at_a_time_or_after_a_duration() -> None:
    async with environment(app) as env:
        handle = await env.client.start(signals)
        assert await handle.result() == [
            "00:00:00 now", "--", "00:00:00 now", "00:00:02 after two", "00:00:03 at three",
        ]  # fmt: skip


async def test_from_a_client_and_from_an_entity() -> None:
    async with environment(app) as env:
        log = env.client.entity(Log, "other")
        await log.signal(Log.write, "in two", at=2 * SECOND)
        await log.signal("write", "at one", at=env.now() + SECOND)
        await log.signal(Log.write, "has passed", at=env.now() - SECOND)
        await env.client.entity(Log, "log").call(Log.later, 4, "from an entity")
        await env.advance(10)
        assert await log.call(Log.read) == [
            "00:00:00 has passed", "00:00:01 at one", "00:00:02 in two", "00:00:04 from an entity",
        ]  # fmt: skip


async def test_a_time_without_a_zone_is_refused_where_it_is_given() -> None:
    naive = dt.datetime(2026, 1, 1)  # noqa: DTZ001
    async with environment(app) as env:
        log = env.client.entity(Log, "log")
        with pytest.raises(lungfish.UsageError, match="time zone"):
            await log.signal(Log.write, "x", at=naive)
        assert await log.state() is None


async def at_times(client: lungfish.Client) -> list[list[str]]:
    log, other = client.entity(Log, "log"), client.entity(Log, "other")
    await other.signal(Log.write, "client", at=3 * SECOND)
    await log.call(Log.later, 5, "entity")
    await (await client.start(signals, id="signals")).result()
    await pause(client, 10)
    return [[line.split()[1] for line in await ref.call(Log.read)] for ref in (log, other)]


def test_a_crash_anywhere_neither_loses_nor_doubles_a_scheduled_signal() -> None:
    report = crash_everywhere(app, at_times)
    assert report.outcome == [["now", "after", "at"], ["client", "entity"]]


async def reminded(client: lungfish.Client) -> tuple[list[list[str]], dict[str, int]]:
    log = client.entity(Log, "log")
    await log.call(Log.remind, "tick", 1, 2)
    await log.call(Log.remind, "once", 100)
    await pause(client, 20)
    lines = [await client.entity(Log, key).call(Log.read) for key in ("log", "echo")]
    left = await log.reminders()
    return [[line.split()[1] for line in found] for found in lines], {n: r.fired for n, r in left.items()}


def test_a_crash_anywhere_neither_loses_nor_doubles_a_reminder() -> None:
    report = crash_everywhere(app, reminded)
    assert report.outcome == ([["tick"] * 3, ["tick"] * 3], {"once": 0})


async def test_reminders_are_visible_from_outside() -> None:
    async with environment(app) as env:
        log = env.client.entity(Log, "log")
        assert await log.reminders() == {}
        await log.call(Log.remind, "tick", 60, 3_600)
        found = (await log.reminders())["tick"]
        assert (found.due, found.period) == (env.now() + 60 * SECOND, 3_600 * SECOND)
        assert (await env.client.entity("Log", "log").reminders())["tick"] == found


async def test_an_entity_keeps_its_reminders_while_nobody_is_at_home() -> None:
    """Peers lose a reminder that comes due while the cluster is down: here it is made up for."""
    async with environment(app) as env:
        log = env.client.entity(Log, "log")
        await log.call(Log.remind, "tick", 1, 60)
        for host in list(env._hosts.values()):
            await host.stop(drain=False)
        dead, env._hosts = env._hosts, {}
        for name in dead:
            env._server.bury(name)
        env._server.move_to(env._server.now_ms() + 600_500)
        await env._add_host()
        await next(iter(env._hosts.values())).wait_settled()
        await env.advance(0)
        assert await log.call(Log.read) == ["00:10:00 tick"]
        found = (await log.reminders())["tick"]
        assert (found.fired, found.missed, f"{found.due:%H:%M:%S}") == (1, 9, "00:10:01")
