"""Bugs and complaints of DBOS and of libraries on Redis that this runtime must not share.

Each name tells the bug; docs/known-bugs-of-peers.md says whose it was and where the others are tested.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest

import lungfish
from lungfish import OrchestrationContext
from lungfish.runtime.store.queues import DEFAULT_PRIORITY
from lungfish.testing import environment
from tests.packaging.tree import FOLDERS, python_files

app = lungfish.App("dbos")

begun: list[str] = []


@app.activity
def step(name: str) -> str:
    begun.append(name)
    return name


@pytest.fixture
async def client() -> AsyncIterator[lungfish.Client]:
    begun.clear()
    async with environment(app) as env:
        yield env.client


PICKLERS = re.compile(r"^\s*(import|from) (pickle|cloudpickle|dill|shelve|marshal)\b", re.MULTILINE)


def test_nothing_is_pickled() -> None:
    assert [path.name for path in python_files(*FOLDERS) if PICKLERS.search(path.read_text("utf-8"))] == []


def test_no_priority_is_not_the_highest_one() -> None:
    assert 0 < DEFAULT_PRIORITY < 9


class Opaque:
    """What cannot be stored."""


async def test_what_cannot_be_stored_is_an_error_at_the_call_and_not_in_the_worker(
    client: lungfish.Client,
) -> None:
    with pytest.raises(lungfish.SerializationError):
        await client.start(begins_with, Opaque())
    with pytest.raises(lungfish.OrchestrationFailed, match="cannot be stored") as raised:
        await client.run(passes_opaque)
    assert raised.value.details is not None
    assert raised.value.details.is_caused_by(lungfish.SerializationError)
    assert begun == []


@app.orchestration
async def begins_with(ctx: OrchestrationContext, what: object) -> None:
    await ctx.call_activity(step, str(what))


@app.orchestration
async def passes_opaque(ctx: OrchestrationContext) -> None:
    await ctx.call_activity("step", Opaque())
