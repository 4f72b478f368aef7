"""Bugs and complaints of Orleans, Dapr, Durable Objects and Ray that this runtime must not share.

Each name tells the bug; docs/known-bugs-of-peers.md says whose it was and where the others are tested.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator

import pytest

import lungfish
from lungfish.testing import Environment, environment

app = lungfish.App("virtual-actors")


SECOND, HOUR = dt.timedelta(seconds=1), dt.timedelta(hours=1)
attempts: list[int] = []


@app.entity
class Device(lungfish.Entity):
    """Something with alarms, and operations that take their time."""

    trace: list[str] = []

    def watch(self, how: str) -> None:
        self.context.set_reminder(how, SECOND, HOUR, operation=how)

    def alarm(self) -> None:
        self.trace.append("alarm")

    def fails_at_first(self) -> None:
        attempts.append(len(self.trace))
        self.trace.append("tried")
        if len(attempts) < 3:
            raise OSError("not now")

    async def asks(self, path: list[str]) -> int:
        if not path:
            return len(self.trace)
        return await self.context.entity(Device, path[0]).call(Device.asks, path[1:])


@pytest.fixture
async def env() -> AsyncIterator[Environment]:
    attempts.clear()
    async with environment(app) as env:
        yield env


async def traced(env: Environment, key: str) -> list[str]:
    state = await env.client.entity(Device, key).state()
    return [] if state is None else state.trace


async def test_an_alarm_whose_handler_fails_is_neither_deleted_nor_applied_in_part(env: Environment) -> None:
    await env.client.entity(Device, "d").call(Device.watch, "fails_at_first")
    await env.advance(10 * HOUR)
    assert attempts[:3] == [0, 0, 0]
    assert len(await traced(env, "d")) >= 8


async def test_an_alarm_does_not_silently_stop_over_weeks(env: Environment) -> None:
    await env.client.entity(Device, "d").call(Device.watch, "alarm")
    await env.advance(24 * 14 * HOUR)
    assert len(await traced(env, "d")) in (24 * 14, 24 * 14 + 1)


async def test_a_call_in_a_circle_fails_at_once_and_not_by_a_time_out(env: Environment) -> None:
    began = env.now()
    with pytest.raises(lungfish.CallCycle, match="Device/a → Device/b → Device/c → Device/a"):
        await env.client.entity(Device, "a").call(Device.asks, ["b", "c", "a"])
    assert env.now() - began < SECOND


async def test_hundreds_of_actors_live_in_one_process_and_are_shared_by_all_who_name_them(
    env: Environment,
) -> None:
    other = env.connect()
    async with other:
        await asyncio.gather(
            *(
                client.entity(Device, f"d{n}").call(Device.alarm)
                for n in range(200)
                for client in (env.client, other)
            )
        )
        traces = await asyncio.gather(*(traced(env, f"d{n}") for n in range(200)))
    assert all(trace == ["alarm", "alarm"] for trace in traces)
