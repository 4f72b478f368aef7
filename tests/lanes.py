"""The whole suite, in two processes at once: what ``make test`` runs. See docs/adr/0051.

Tests with real processes, real clocks and Ray run one after the other in the lane ``real``, as if alone.
Beside it, giving way to it, the lane ``virtual`` has those that need nothing but a processor: it uses the
time in which the others wait. A folder that nobody has assigned is in the real lane.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.servers import die_with_parent

ROOT = Path(__file__).resolve().parents[1]
#: Where ``pytest --last-failed`` looks.
CACHE = Path(".pytest_cache")
#: Folders and files whose tests start no server and no host in a process of its own, in their order.
VIRTUAL = ("simulation", "properties", "peers", "golden", "examples/test_crashes_in_sagas.py", "unit")
#: The first of the others run beside the simulation, which does not mind to stand still for a while, the next
#: beside the unit tests, and the last, which want both processors, beside nothing.
REAL_FIRST = ("faults", "contract", "integration", "http", "examples")
REAL_LAST = ("packaging", "cluster")
#: Only who names them runs them (docs/adr/0040).
APART = ("browser",)
#: If both lanes want a processor, the virtual one gets a tenth of it: little, and yet nothing stands still.
NICE = 10
#: Output that has not come so long after a process ended never will: a child of it keeps the pipe open (s).
DRAIN_S = 10.0
#: How pytest ends when it has run every test: all have passed, or some have not.
ALL_RAN = (0, 1)


@dataclass(slots=True)
class Lane:
    """Some folders of tests, and the process that runs them.

    Attributes:
        without: what of the folders is not in this lane.
        cache: where pytest keeps what it notes: two at once would write over each other.
        code: how pytest ended; None: not by itself.
        last: its last line.
    """

    name: str
    folders: Sequence[str]
    without: Sequence[str] = ()
    cache: Path = CACHE
    nice: int = 0
    code: int | None = None
    last: str = ""

    @property
    def failed(self) -> Path:
        """Where pytest notes which tests have failed."""
        return ROOT / self.cache / "v" / "cache" / "lastfailed"

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Start its process."""
        paths = [f"tests/{path}" for path in self.folders]
        paths += [f"--ignore=tests/{path}" for path in self.without]
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", "-o", f"cache_dir={self.cache}", *options, *paths],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            preexec_fn=self._begin,  # noqa: PLW1509 - it makes two system calls, before there are threads
        )

    def _begin(self) -> None:
        die_with_parent()
        os.nice(self.nice)

    def follow(self, process: subprocess.Popen[str]) -> None:
        """Print what it says: whole lines, which say whose they are."""
        assert process.stdout is not None
        with process.stdout as output:
            for line in output:
                self.last = line.strip() or self.last
                say(f"{self.name:>7} | {line.rstrip()}")


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def lanes() -> tuple[Lane, Lane]:
    """Return the lanes; every folder with tests is in one of them, but for those that run apart."""
    found = {path.relative_to(ROOT / "tests").parts[0] for path in ROOT.glob("tests/*/**/test_*.py")}
    others = found.difference(VIRTUAL, APART, REAL_FIRST, REAL_LAST)
    real = (*REAL_FIRST, *sorted(others), *REAL_LAST)
    return Lane("real", real, VIRTUAL), Lane("virtual", VIRTUAL, cache=CACHE / "virtual", nice=NICE)


def remember(lanes: Sequence[Lane]) -> None:
    """Have ``pytest --last-failed`` know what has failed in any lane.

    Of a lane that has not come to its end nobody knows what it would have found: then nothing is noted, and
    ``.ci/run``, which asks for the last failures, runs everything.
    """
    failed: dict[str, bool] = {}
    for lane in lanes:
        if lane.failed.exists():
            failed |= json.loads(lane.failed.read_text("utf-8"))
            lane.failed.unlink()
    if failed and all(lane.code in ALL_RAN for lane in lanes):
        lanes[0].failed.parent.mkdir(parents=True, exist_ok=True)
        lanes[0].failed.write_text(json.dumps(failed, indent=2), "utf-8")


def run(lanes: Sequence[Lane], *options: str) -> int:
    """Run all lanes; return 0 if all tests of all of them pass."""
    for lane in lanes:
        lane.failed.unlink(missing_ok=True)
    processes = [lane.start(*options) for lane in lanes]
    try:
        threads = [
            threading.Thread(target=lane.follow, args=(process,), daemon=True)
            for lane, process in zip(lanes, processes, strict=True)
        ]
        for thread in threads:
            thread.start()
        with contextlib.suppress(KeyboardInterrupt):  # they have got it, too, and end in good order
            wait_for(lanes, processes)
        wait_for(lanes, processes)
        for thread in threads:
            thread.join(DRAIN_S)
    finally:
        for process in processes:
            process.kill()
        remember(lanes)
    for lane in lanes:
        say(f"{lane.name}: {lane.last} (exit code {lane.code})")
    return 0 if all(lane.code == 0 for lane in lanes) else 1


def wait_for(lanes: Sequence[Lane], processes: Sequence[subprocess.Popen[str]]) -> None:
    """Wait until all have ended."""
    for lane, process in zip(lanes, processes, strict=True):
        lane.code = process.wait()


if __name__ == "__main__":
    sys.exit(run(lanes(), f"--color={'yes' if sys.stdout.isatty() else 'auto'}"))
