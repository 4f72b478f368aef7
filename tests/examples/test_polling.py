"""Polling: an id at once; Running with its times while it runs; Completed with the output at the end."""

from __future__ import annotations

import asyncio

import pytest

import lungfish
from examples import polling
from lungfish.testing import crash_everywhere, environment
from tests.integration.polling import until
from tests.local import RunApp

FRAMES = len("metropolis") * (1 + 2 + 3)


@pytest.mark.parametrize("always_replay", [False, True])
async def test_a_poll_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch, always_replay: bool) -> None:
    doors = [asyncio.Event() for _ in range(3)]

    async def convert_scene(film: str, scene: int) -> int:
        await doors[scene - 1].wait()
        return len(film) * scene

    monkeypatch.setattr(polling.convert_scene, "function", convert_scene)
    async with environment(polling.app, always_replay=always_replay, auto_skip=False) as env:
        began = env.now()
        job = await polling.submit(env.client, "metropolis", 3)
        for number, door in enumerate(doors, 1):

            async def is_there(number: int = number) -> bool:
                told = await polling.look(env.client, job)
                return told is not None and told.custom_status == f"scene {number} of 3"

            await until(is_there, f"scene {number}")
            running = await polling.look(env.client, job)
            assert running is not None
            assert (running.runtime_status, running.output, running.is_over) == ("Running", None, False)
            assert running.created_time == running.last_updated_time == began
            door.set()
        await env.advance(0)  # until nothing runs any more
        completed = await polling.look(env.client, job)
    assert completed is not None
    assert (completed.runtime_status, completed.output, completed.is_over) == ("Completed", FRAMES, True)
    assert completed.created_time == began


async def test_nobody_has_an_id_that_was_not_given() -> None:
    async with environment(polling.app) as env:
        assert await polling.look(env.client, "nosuchjob") is None


async def test_a_failed_job_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async def convert_scene(film: str, _scene: int) -> int:
        raise ValueError(f"the reel of {film} is torn")

    monkeypatch.setattr(polling.convert_scene, "function", convert_scene)
    async with environment(polling.app) as env:
        job = await polling.submit(env.client, "metropolis", 3)
        with pytest.raises(lungfish.OrchestrationFailed, match="is torn"):
            await env.client.orchestration(job).result(timeout=60)
        told = await polling.look(env.client, job)
        assert told is not None
        assert (told.runtime_status, told.output, told.is_over) == ("Failed", None, True)


def test_a_crash_loses_no_job() -> None:
    async def scenario(client: lungfish.Client) -> tuple[int, object]:
        job = await polling.submit(client, "metropolis", 3)
        result = await client.orchestration(job, returns=int).result(timeout=60)
        told = await polling.look(client, job)
        assert told is not None
        return result, (told.runtime_status, told.custom_status, told.output)

    report = crash_everywhere(polling.app, scenario)
    assert report.outcome == (FRAMES, ("Completed", "scene 3 of 3", FRAMES))


async def test_on_the_real_store(run_app: RunApp) -> None:
    async with run_app(polling.app) as runtime:
        told = await polling.main(runtime.client)
    assert {progress.runtime_status for progress in told[:-1]} <= {"Pending", "Running"}
    assert len({progress.created_time for progress in told}) == 1
    updated = [progress.last_updated_time for progress in told]
    assert updated == sorted(updated)
    assert (told[-1].runtime_status, told[-1].output) == ("Completed", len("nosferatu") * 15)
    assert told[-1].last_updated_time > told[-1].created_time
