"""The agent's session: what is seen on the way, and that it survives the replay of every step."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from examples import agent_session
from examples.agent_session import Session
from lungfish.testing import environment
from tests.local import RunApp


async def test_on_a_real_store(run_app: RunApp) -> None:
    async with asyncio.timeout(60), run_app(agent_session.app) as runtime:
        seen = await agent_session.main(runtime.client)
        assert "Done: 3 results for a cheap flight" in seen
        assert "may I transfer 20 euros to Bob?" in seen
        assert seen[-1].startswith("Done: 20 euros to Bob: paid under ")
        state = await runtime.client.entity(Session, "ada").state()
        assert state is not None
        assert [message.role for message in state.history] == ["user", "tool", "agent"] * 2


@pytest.mark.parametrize("always_replay", [False, True])
async def test_without_an_answer_nothing_is_paid(always_replay: bool) -> None:
    async with environment(agent_session.app, always_replay=always_replay) as env:
        session = env.client.entity(Session, "ada")
        instance = await session.call(Session.ask, "pay 20 euros to Bob")
        result = await env.client.orchestration(instance).result(timeout=60)
        assert result == "Done: transfer was not approved"
        await env.advance(timedelta(days=100))
        assert await session.state() is None
