"""A host that is told to end, and a node that is about to: what runs is finished, and is not run again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import lungfish
from tests.servers import Server

from .app import Press, app

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

PROGRAM = str(Path(sys.executable).parent / "lungfish")
#: Shorter than what a planned move waits for (half of ``release_grace_ms``).
PRINT_S = 1.0


async def _begun(ledger: Path) -> int:
    async with asyncio.timeout(60):
        while not ledger.exists() or not ledger.read_text("utf-8").endswith("\n"):
            await asyncio.sleep(0.01)
    return int(ledger.read_text("utf-8"))


async def _gone(pid: int) -> None:
    async with asyncio.timeout(60):
        while Path(f"/proc/{pid}").exists():
            await asyncio.sleep(0.05)


async def test_a_host_that_gets_sigterm_finishes_what_runs(
    ray_cluster: Any, durable_store: Server, tmp_path: Path
) -> None:
    ledger = tmp_path / "runs"
    settings = lungfish.HostSettings(release_grace_ms=20_000, drain_s=30.0)
    runtime = await asyncio.to_thread(lungfish.start, app, url=durable_store.url, settings=settings)
    try:
        async with runtime.client() as client:
            press = client.entity(Press, "first").options(timeout=60)
            printing = asyncio.create_task(press.call(Press.print_one, str(ledger), PRINT_S))
            pid = await _begun(ledger)
            os.kill(pid, signal.SIGTERM)
            assert await printing == 1
            await _gone(pid)
            assert ledger.read_text("utf-8").split() == [str(pid)]
            assert await press.call(Press.print_one, str(ledger), 0.0) == 2
    finally:
        await asyncio.to_thread(runtime.shutdown)


def drain(address: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [PROGRAM, "drain", "--hub", app.hub, "--address", address, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_a_node_is_drained_by_a_command(ray_cluster: Any, durable_store: Server) -> None:
    runtime = lungfish.start(app, url=durable_store.url)
    try:
        node = next(iter(ray_cluster.worker_nodes)).node_id
        assert any(actor[1] == node for actor in runtime.actors())
        drained = drain(ray_cluster.address, "--node", node)
        assert drained.returncode == 0, drained.stderr
        assert f"hub {app.hub} has left node {node}" in drained.stdout
        assert not any(actor[1] == node for actor in runtime.actors())
        wrong = drain(ray_cluster.address, "--node", "nowhere")
        assert wrong.returncode == 2
        assert "no node 'nowhere'" in wrong.stderr
    finally:
        runtime.shutdown()
