"""``make test`` runs everything, and is red if anything is."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests import lanes
from tests.lanes import CACHE, Lane, run
from tests.packaging.tree import ROOT

GREEN = "def test_green(): pass\n"
RED = "def test_red(): assert False\n"
#: A process that ends in the middle, after a failure, before it has run everything.
DIES = (
    "import os\ndef test_red(): assert False\ndef test_dies(): os._exit(3)\ndef test_after(): assert False\n"
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.setattr(lanes, "ROOT", tmp_path)


def two(folder: Path, left: str, right: str) -> tuple[Lane, Lane]:
    for name, text in (("left", left), ("right", right)):
        (folder / "tests" / name).mkdir(parents=True)
        (folder / "tests" / name / f"test_{name}.py").write_text(text)
    return Lane("left", ["left"]), Lane("right", ["right"], cache=CACHE / "right", nice=1)


def noted(folder: Path) -> set[str]:
    path = folder / CACHE / "v" / "cache" / "lastfailed"
    return set(json.loads(path.read_text())) if path.exists() else set()


def test_every_test_is_in_one_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "ROOT", ROOT)

    def is_under(path: Path, parts: Iterable[str]) -> bool:
        return any((ROOT / "tests" / part) in (path, *path.parents) for part in parts)

    for path in ROOT.glob("tests/**/test_*.py"):
        runs = [
            lane.name
            for lane in lanes.lanes()
            if is_under(path, lane.folders) and not is_under(path, lane.without)
        ]
        assert len(runs) == (0 if is_under(path, ["browser"]) else 1), (path, runs)


def test_all_green(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(two(tmp_path, GREEN, GREEN)) == 0
    assert noted(tmp_path) == set()
    said = capfd.readouterr().out
    assert "   left | " in said
    assert "  right | " in said


@pytest.mark.parametrize("texts", [(GREEN, RED), (RED, GREEN)])
def test_one_red_lane_is_enough(texts: tuple[str, str], tmp_path: Path) -> None:
    assert run(two(tmp_path, *texts)) == 1
    assert len(noted(tmp_path)) == 1


def test_what_failed_in_any_lane_is_known_to_last_failed(tmp_path: Path) -> None:
    assert run(two(tmp_path, GREEN + RED, RED)) == 1
    assert noted(tmp_path) == {"tests/left/test_left.py::test_red", "tests/right/test_right.py::test_red"}
    alone = Lane("again", ["left", "right"])
    (tmp_path / "tests" / "left" / "test_left.py").write_text(GREEN + "def test_red(): pass\n")
    (tmp_path / "tests" / "right" / "test_right.py").write_text("def test_red(): pass\n")
    with alone.start("--last-failed", "--last-failed-no-failures", "all") as process:
        said, _ = process.communicate(timeout=60)
    assert "2 passed" in said


def test_after_a_lane_that_died_everything_is_to_run_again(tmp_path: Path) -> None:
    assert run(two(tmp_path, RED, DIES)) == 1
    assert noted(tmp_path) == set()
