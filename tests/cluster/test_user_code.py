"""Code of ``__main__``, of a notebook cell and of a module reaches the hosts; any Ray task finds the hub."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Server

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

SCRIPT = """
from __future__ import annotations

import sys
import pydantic
import ray
import lungfish

app = lungfish.App(sys.argv[2])

class Point(pydantic.BaseModel):
    x: int
    y: int = 0

@app.entity
class Path(lungfish.Entity):
    points: list[Point] = []

    def add(self, point: Point) -> int:
        self.points.append(point)
        return len(self.points)

@app.activity
def norm(point: Point) -> int:
    return point.x + point.y

@app.activity(num_cpus=0.1)
def heavy_norm(point: Point) -> int:
    return 100 * norm(point)

@app.orchestration
async def measure(ctx: lungfish.OrchestrationContext, point: Point) -> list[int]:
    count = await ctx.entity(Path, "p").call(Path.add, point)
    return [count, await ctx.call_activity(norm, point), await ctx.call_activity(heavy_norm, point)]

@ray.remote(num_cpus=0)
def signal_from_a_task(number: int) -> None:
    with lungfish.connect_sync(app) as client:  # no address: it finds the runtime of this cluster
        client.entity(Path, "p").signal(Path.add, Point(x=number))

@ray.remote(num_cpus=0)
class Actor:
    async def signal(self, number: int) -> int:
        async with lungfish.connect(app) as client:
            return await client.entity(Path, "p").call(Path.add, Point(x=number))

def main() -> None:
    ray.init(address=sys.argv[1], log_to_driver=False)
    runtime = lungfish.start(app, url=sys.argv[3])
    try:
        ray.get([signal_from_a_task.remote(n) for n in range(3)])
        assert ray.get(Actor.remote().signal.remote(7)) == 4
        with lungfish.connect_sync(app) as client:
            print(client.start(measure, Point(x=3, y=4)).result(timeout=60))
            state = client.entity(Path, "p").state()
            print(sorted(point.x for point in state.points))
    finally:
        runtime.shutdown()

main()
"""


async def _run(command: list[str], source: str | None) -> str:
    done = await asyncio.to_thread(
        subprocess.run, command, input=source, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    return done.stdout


async def test_code_of_main(ray_cluster: Any, durable_store: Server, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    out = await _run([sys.executable, str(script), ray_cluster.address, "of-main", durable_store.url], None)
    assert "[5, 7, 700]" in out
    assert "[0, 1, 2, 3, 7]" in out


async def test_code_without_a_file_as_in_a_notebook(ray_cluster: Any, durable_store: Server) -> None:
    """Source that exists nowhere but in memory, as that of a notebook's cells."""
    out = await _run([sys.executable, "-", ray_cluster.address, "of-cell", durable_store.url], SCRIPT)
    assert "[5, 7, 700]" in out
    assert "[0, 1, 2, 3, 7]" in out
