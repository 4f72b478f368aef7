"""A turn that keeps the event loop is told with its stack, and is not killed."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Any

import pytest

import lungfish
from lungfish import OrchestrationContext
from lungfish.runtime.host import keepalive
from lungfish.runtime.on_ray.processes import Deployment, HostProcess
from lungfish.runtime.settings import HostSettings
from lungfish.runtime.telemetry import figures
from tests.servers import Server

app = lungfish.App("stalls")
#: Set when the one that blocks has been told.
told = threading.Event()


def works_hard() -> None:
    """Keep the thread until somebody has noticed, and for a minute at most."""
    told.wait(60)


@app.entity
class Mill(lungfish.Entity):
    ground: int = 0

    async def grind(self) -> int:
        works_hard()
        self.ground += 1
        return self.ground


@app.orchestration
async def grinds(ctx: OrchestrationContext) -> str:
    works_hard()
    return "ground"


class Teller(logging.Handler):
    """Keeps what is logged about stalls, and lets the one that blocks go on."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        told.set()


@pytest.mark.parametrize("kind", ["orchestration", "entity"])
async def test_a_blocking_turn_is_told_with_its_stack_and_goes_on(
    kind: str, valkey: Server, hub_name: str
) -> None:
    told.clear()
    teller, logger = Teller(), logging.getLogger(keepalive.__name__)
    logger.addHandler(teller)
    settings = HostSettings(heartbeat_ms=50, lease_ms=60_000)
    process = HostProcess(Deployment(hub_name, valkey.url, settings=settings), app, slot="host")
    began_s = time.monotonic()
    await process.start()
    try:
        async with lungfish.connect(app, url=valkey.url, hub=hub_name) as client:
            if kind == "entity":
                assert await client.entity(Mill, "m").call(Mill.grind) == 1
            else:
                assert await client.run(grinds, id="g") == "ground"
    finally:
        logger.removeHandler(teller)
        await process.stop()
    assert time.monotonic() - began_s < 50, "it was noticed, and not only waited for"
    record = next(each for each in teller.records if "in works_hard" in each.stack)
    assert f"{__file__}:" in record.where
    assert "(works_hard)" in record.where
    # An operation that waits runs in a task; where tasks begin at once, within its entity's turn.
    mill = "Mill/m" if hasattr(asyncio, "eager_task_factory") else ""
    assert record.actor == ("g" if kind == "orchestration" else mill)
    stalls = next(sample for sample in process.host.samples() if sample.metric is figures.HOST_STALLS)
    assert stalls.value == process.host.stalls >= 1
