"""The demo, cut down, as the program that users run."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lungfish.runtime.on_redis.embedded import running_daemon

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

PROGRAM = str(Path(sys.executable).parent / "lungfish")
STORE = Path(".lungfish") / "demo"
TIMEOUT_S = 150


def children_of(folder: Path) -> list[int]:
    """Return the processes that have something of this folder's run on their command line or as directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink().is_relative_to(folder):
                found.append(int(process.name))
        except OSError:  # gone, or not ours
            continue
    return found


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run ``lungfish`` in a folder."""
    return subprocess.run(
        [PROGRAM, *options], cwd=folder, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )


def test_every_figure_is_exact_although_a_host_is_killed(tmp_path: Path) -> None:
    done = run(tmp_path, "demo", "--flights", "5000")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5,000 flights are 14,993 signals to 2,077 entities" in done.stdout
    assert re.search(r"kill -9 .* a host \(pid \d+\) with 16 partitions", done.stdout)
    owned = re.search(r"have an owner again after ([\d.]+) s", done.stdout)
    assert owned is not None
    assert float(owned[1]) < 30
    assert "2,077 of 2,077 entities agree with the file" in done.stdout
    assert re.search(r" 1  EV ExpressJet Airlines Inc\. +702 ", done.stdout)
    assert "Traceback" not in done.stderr
    # Nothing of it runs any more, and yet the commands that it names work.
    assert running_daemon(tmp_path / STORE) is None
    commands = re.findall(r"^ .*\blungfish (.*)$", done.stdout, re.MULTILINE)
    entity, report = (run(tmp_path, *shlex.split(command)) for command in commands)
    assert '"flights": 6' in entity.stdout, entity.stderr
    assert "rank_carriers  Completed" in report.stdout, report.stderr
    assert running_daemon(tmp_path / STORE) is None


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_takes_all_that_it_started_along(tmp_path: Path, how: signal.Signals) -> None:
    command = [PROGRAM, "demo", "--flights", "100000"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert any("acknowledged" in line for line in process.stdout)
            process.send_signal(how)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()  # the end of the block would wait for it
    assert process.returncode == 130
    assert said.endswith("stopped\n")
    assert "Traceback" not in said
    assert running_daemon(tmp_path / STORE) is None
    until_s = time.monotonic() + 20
    while [pid for pid in children_of(tmp_path) if pid != os.getpid()] and time.monotonic() < until_s:
        time.sleep(0.1)
    assert [pid for pid in children_of(tmp_path) if pid != os.getpid()] == []
