"""What is shipped: a wheel and an sdist, built from a copy of the tree, without network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

from tests.packaging.tree import FOLDERS, ROOT

pytestmark = pytest.mark.slow

NOT_SHIPPED = ("tests", "benchmarks", "examples", "docs", ".ci")


def expected_files() -> set[str]:
    """Return what must be importable, by its path under site-packages."""
    found = {"lungfish/py.typed", "_lungfish_pytestplugin.py"}
    for folder, prefix in {"lungfish": "", **dict.fromkeys(FOLDERS, "lungfish/")}.items():
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".lua"} or path.parent.name == "ui":
                found.add(f"{prefix}{path.relative_to(ROOT).as_posix()}")
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist, and the wheel out of the sdist; return the folder with both."""
    folder = tmp_path_factory.mktemp("build")
    copy = folder / "source"
    copy.mkdir()
    top = ("pyproject.toml", "README.md", "LICENSE", "_lungfish_pytestplugin.py", "lungfish")
    for name in (*top, *FOLDERS, *NOT_SHIPPED):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, copy / name)
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", copy],
        check=True,
        capture_output=True,
        cwd=folder,
    )
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    (path,) = built.glob("*.whl")
    assert path.name.endswith("-py3-none-any.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = {name for name in wheel.namelist() if not name.endswith("/")}
    package = {name for name in names if ".dist-info/" not in name}
    assert package == expected_files()
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_wheel_declares_the_command_and_the_extras(wheel: zipfile.ZipFile) -> None:
    texts = {
        name.rpartition("/")[2]: wheel.read(name).decode()
        for name in wheel.namelist()
        if "dist-info/" in name
    }
    scripts = ConfigParser()
    scripts.read_string(texts["entry_points.txt"])
    assert dict(scripts["console_scripts"]) == {"lungfish": "lungfish.runtime.cli.main:main"}
    assert dict(scripts["pytest11"]) == {"_lungfish_pytestplugin": "_lungfish_pytestplugin"}
    metadata = texts["METADATA"].splitlines()
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Python: >=3.11" in metadata
    assert {f"Provides-Extra: {extra}" for extra in ("archive", "cron", "demo", "dev", "http")} <= set(
        metadata
    )


def test_the_sdist_lost_no_linked_folder(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        members = {member.name.partition("/")[2]: member for member in archive.getmembers()}
    assert expected_files() <= set(members)
    assert not any(member.issym() or member.islnk() for member in members.values())
    assert {name.split("/")[0] for name in members} & set(NOT_SHIPPED) == set()
    assert {"LICENSE", "README.md", "pyproject.toml"} <= set(members)


def test_the_wheel_works_where_the_repository_is_not(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    site = tmp_path / "site"
    wheel.extractall(site)
    modules = sorted(
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in expected_files()
        if name.endswith(".py") and not name.endswith("__main__.py")
    )
    code = f"""
import importlib, sys
sys.path.insert(0, {str(site)!r})
for name in {modules!r}:
    module = importlib.import_module(name)
    assert module.__file__.startswith({str(site)!r}), module.__file__
assert not set(sys.modules) & {set(FOLDERS)!r}
"""
    command = [sys.executable, "-I", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.cluster
def test_the_wheel_runs_the_demo_from_another_folder_which_finds_a_wrong_figure(
    wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    # One figure of the file is made wrong: exactly that is found, so everything else has run and is right.
    site = tmp_path / "site"
    wheel.extractall(site)
    code = f"""
import lungfish, runpy, sys
from lungfish.demo import run
assert lungfish.__file__.startswith({str(site)!r}), lungfish.__file__

def wrong(flights, tally=run.tally):
    found = tally(flights)
    found["Carrier", "UA"].delay += 1
    return found

run.tally = wrong
runpy.run_module("lungfish.runtime.cli.main", run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, "demo", "--flights", "500", "--no-kill"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},  # before what is installed; Ray's workers inherit it
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"WRONG +Carrier/UA: the file says Figures\(.*, the entity Figures\(", done.stdout)
    assert done.stdout.count("WRONG") == 1
    agree = re.search(r"([\d,]+) of ([\d,]+) entities agree with the file", done.stdout)
    assert agree is not None
    right, all_of_them = (int(number.replace(",", "")) for number in agree.groups())
    assert right == all_of_them - 1 > 100
