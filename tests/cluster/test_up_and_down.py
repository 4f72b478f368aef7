"""``lungfish up`` and ``down`` on a Ray cluster, with a module that only the working directory has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lungfish.runtime.on_redis.embedded import running_daemon

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

PROGRAM = str(Path(sys.executable).parent / "lungfish")

KIOSK = """
import lungfish

app = lungfish.App("kiosk")

@app.entity
class Till(lungfish.Entity):
    cents: int = 0
    def sell(self, cents: int) -> int:
        self.cents += cents
        return self.cents
"""

SELL = """
import lungfish
from kiosk import Till, app
with lungfish.connect_sync(app) as client:
    print(client.entity(Till, "front").call(Till.sell, 5))
"""


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


def sell(folder: Path) -> str:
    done = run(folder, sys.executable, "-c", SELL)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_app_comes_up_changes_and_goes_down(ray_cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "kiosk.py").write_text(KIOSK)
    at = ["--address", ray_cluster.address]
    up = run(tmp_path, PROGRAM, "up", "kiosk:app", *at)
    assert up.returncode == 0, up.stderr
    assert "kiosk is up: 1 entity, " in up.stdout
    assert f"lungfish down --hub kiosk --address {ray_cluster.address}" in up.stdout
    assert sell(tmp_path) == "5"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    status = run(elsewhere, PROGRAM, "status", "--hub", "kiosk", *at)
    assert " host 0 " in status.stdout, status.stderr

    # An app that is imported by name looks the same after an edit; it must be brought all the same.
    (tmp_path / "kiosk.py").write_text(KIOSK.replace("self.cents += cents", "self.cents += 2 * cents"))
    up = run(tmp_path, PROGRAM, "up", "kiosk:app", *at)
    assert up.returncode == 0, up.stderr
    assert sell(tmp_path) == "15"

    down = run(tmp_path, PROGRAM, "down", "--hub", "kiosk", *at)
    assert (down.returncode, down.stdout) == (0, "hub kiosk is down; its state stays in the store\n"), (
        down.stderr
    )
    assert running_daemon(tmp_path / ".lungfish") is None
    shown = run(tmp_path, PROGRAM, "entity", "show", "Till", "front")
    assert '"cents": 15' in shown.stdout, shown.stderr
    again = run(tmp_path, PROGRAM, "down", "kiosk:app", *at)
    assert again.returncode == 2
    assert "no runtime of hub 'kiosk' on this Ray cluster" in again.stderr


def test_without_a_cluster_it_says_how_to_start_one(tmp_path: Path) -> None:
    (tmp_path / "kiosk.py").write_text(KIOSK)
    # An address where nothing listens; 'auto' might find somebody's cluster.
    environment = {**os.environ, "RAY_ADDRESS": "127.0.0.1:1"}
    up = subprocess.run(
        [PROGRAM, "up", "kiosk:app"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert up.returncode == 2
    assert up.stderr.splitlines()[-1].startswith(
        "error: no Ray cluster at 127.0.0.1:1: start one with 'ray start"
    )
    assert not (tmp_path / ".lungfish").exists()
