"""Polling: start a long job, hand out its id, let whoever has the id ask how it stands.

This is the asynchronous request/reply pattern without HTTP: ``submit`` answers at once with an id, ``look``
can be asked from anywhere, by another process, after any number of crashes, and in the end has the output.
(``lungfish http`` serves the same over HTTP: docs/http.md.)

Run it: ``python examples/polling.py``. It starts a small Ray cluster and an embedded store.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime

import lungfish

app = lungfish.App("polling")


@app.activity
async def convert_scene(film: str, scene: int) -> int:
    """Do a part of the work; return how many frames it made."""
    await asyncio.sleep(0.1)
    return len(film) * scene


@app.orchestration
async def convert(ctx: lungfish.OrchestrationContext, film: str, scenes: int) -> int:
    """Convert a film scene by scene; say how far it is."""
    frames = 0
    for scene in range(1, scenes + 1):
        ctx.set_custom_status(f"scene {scene} of {scenes}")
        frames += await ctx.call_activity(convert_scene, film, scene)
    return frames


@dataclass
class Progress:
    """What a poll tells; names as in the status response of Durable Functions' HTTP API."""

    runtime_status: str
    created_time: datetime
    last_updated_time: datetime
    custom_status: str | None = None
    output: int | None = None

    @property
    def is_over(self) -> bool:
        """True if asking again tells nothing new."""
        return lungfish.RuntimeStatus(self.runtime_status).is_terminal


async def submit(client: lungfish.Client, film: str, scenes: int) -> str:
    """Return an id as soon as the job is durable; nobody waits for it."""
    return (await client.start(convert, film, scenes)).id


async def look(client: lungfish.Client, job: str) -> Progress | None:
    """Return how a job stands, as last committed; None if there is no such job."""
    try:
        status = await client.orchestration(job).status()
    except lungfish.InstanceNotFound:
        return None
    return Progress(
        status.runtime_status.value,
        status.created_at,
        status.updated_at,
        status.custom_status,
        status.output,
    )


async def main(client: lungfish.Client) -> list[Progress]:
    """Submit a job and poll it until it is over; return what the polls told, without repeats."""
    job = await submit(client, "nosferatu", 5)
    told: list[Progress] = []
    while not (told and told[-1].is_over):
        progress = await look(client, job)
        if progress is not None and progress not in told[-1:]:
            told.append(progress)
        await asyncio.sleep(0.02)
    return told


async def connected() -> None:
    async with lungfish.connect(app) as client:
        print(*await main(client), sep="\n")


if __name__ == "__main__":
    runtime = lungfish.start(app)
    try:
        asyncio.run(connected())
    finally:
        runtime.shutdown()
