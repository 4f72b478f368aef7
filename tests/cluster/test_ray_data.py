"""A data set of Ray Data becomes signals: exactly once over killed tasks, other borders and a second job."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import ray

import lungfish
from tests.servers import Server

from .app import Counter, app

pytest.importorskip("pyarrow")
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    # Ray Data warns of its own settings.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

ROWS, KEYS = 25_000, 20


def write(url: str, blocks: int, fatal: str) -> tuple[int, int] | None:
    """Write all rows; the task that finds the file ``fatal`` takes it away and dies in the middle."""
    from lungfish.data import SignalSink

    def arguments(row: dict[str, Any]) -> Sequence[Any]:
        if row["id"] == ROWS // 2 + 17 and os.path.exists(fatal):
            os.unlink(fatal)
            os._exit(1)
        return (int(row["id"]),)

    ray.data.DataContext.get_current().execution_options.preserve_order = True
    sink = SignalSink(
        app,
        "rows",
        Counter,
        Counter.add,
        key=lambda row: f"c{row['id'] % KEYS}",
        args=arguments,
        position="id",
        url=url,
    )
    ray.data.range(ROWS, override_num_blocks=blocks).write_datasink(sink)
    return sink.result


async def test_every_row_counts_once_whatever_is_run_again(
    ray_cluster: Any, durable_store: Server, tmp_path: Path
) -> None:
    runtime = await asyncio.to_thread(lungfish.start, app, url=durable_store.url, workers_per_node=0)
    fatal = tmp_path / "fatal"
    fatal.touch()
    expected = {f"c{key}": sum(range(key, ROWS, KEYS)) for key in range(KEYS)}
    try:
        first = await asyncio.to_thread(write, durable_store.url, 4, str(fatal))
        assert not fatal.exists(), "no task died"
        assert first is not None
        assert sum(first) == ROWS
        # The whole job again, in blocks of other borders: all of it is there.
        assert await asyncio.to_thread(write, durable_store.url, 3, str(fatal)) == (0, ROWS)
        async with runtime.client() as client:
            counts = {key: await client.entity(Counter, key).call(Counter.get) for key in expected}
        assert counts == expected
    finally:
        await asyncio.to_thread(runtime.shutdown)
