"""Function chaining: in order, undone when a step fails, and whatever dies."""

from __future__ import annotations

import pytest

import lungfish
from examples import chaining
from lungfish.testing import crash_everywhere, environment


async def names_of(instance: lungfish.OrchestrationHandle[str]) -> list[str]:
    return [event.name for event in await instance.history() if type(event).__name__ == "TaskScheduled"]


@pytest.mark.parametrize(
    ("source", "steps", "result"),
    [
        ("1,2,3", ["extract", "transform", "load", "announce"], "table-of-3 is ready"),
        ("1,two,3", ["extract", "transform", "discard"], "'1,two,3' was discarded: invalid literal"),
    ],
)
async def test_steps(source: str, steps: list[str], result: str) -> None:
    async with environment(chaining.app) as env:
        instance = await env.client.start(chaining.chain, source)
        assert (await instance.result(timeout=60)).startswith(result)
        assert await names_of(instance) == steps


def test_a_crash_changes_nothing() -> None:
    async def scenario(client: lungfish.Client) -> list[str]:
        return await chaining.main(client)

    report = crash_everywhere(chaining.app, scenario)
    assert report.runs > 40
