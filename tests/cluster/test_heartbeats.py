"""Attempts that are Ray tasks of their own: their heartbeats and their cancellation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Server

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

SCRIPT = """
import os
import sys
import time

import ray
import lungfish

app = lungfish.App(sys.argv[2])

@app.activity(
    num_cpus=0.1,
    heartbeat_timeout=6,
    retry=lungfish.RetryPolicy(max_attempts=3, retry_on=(OSError, TimeoutError)),
)
def convert(folder: str) -> str:
    info = lungfish.activity_info()
    found = info.heartbeat_details(int)
    for page in range(found or 0, 80):
        time.sleep(0.1)
        info.heartbeat(page + 1)
        if info.attempt == 1 and page == 69:
            raise OSError("the disk is full")  # after 7 s: silence was never that long
    if info.attempt == 2:
        time.sleep(3_600)  # hangs: it must be noticed, and end
    return f"from {found} in {info.attempt}"

@app.activity(num_cpus=0.1)
def wait(folder: str) -> None:
    with open(f"{folder}/pid", "w") as file:
        file.write(str(os.getpid()))
    time.sleep(3_600)

@app.orchestration
async def film(ctx: lungfish.OrchestrationContext, folder: str) -> str:
    return await ctx.call_activity(convert, folder)

@app.orchestration
async def stuck(ctx: lungfish.OrchestrationContext, folder: str) -> None:
    await ctx.call_activity(wait, folder)

def until(condition) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("timed out")

def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

def main() -> None:
    ray.init(address=sys.argv[1], log_to_driver=False)
    runtime = lungfish.start(app, url=sys.argv[3])
    folder = sys.argv[4]
    try:
        with lungfish.connect_sync(app) as client:
            print(client.start(film, folder).result(timeout=90))
            handle = client.start(stuck, folder)
            until(lambda: os.path.exists(f"{folder}/pid") and open(f"{folder}/pid").read())
            pid = int(open(f"{folder}/pid").read())
            assert alive(pid)
            handle.terminate("enough")
            until(lambda: not alive(pid))
            print("ended")
    finally:
        runtime.shutdown()

main()
"""


def test_heartbeats_and_cancellation(ray_cluster: Any, durable_store: Server, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), ray_cluster.address, "beats", durable_store.url, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-4_000:]
    assert "from 80 in 3" in done.stdout, done.stdout
    assert "ended" in done.stdout
