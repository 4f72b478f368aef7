"""What type checkers see: of the product (do they look at all?) and of the API (do users get types?)."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.packaging.tree import FOLDERS, ROOT

pytestmark = pytest.mark.slow

USER_CODE = Path(__file__).with_name("user_code.py")

#: Line number (1-based) → messages there.
Findings = dict[int, list[str]]


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([*command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def by_mypy(folder: Path, *files: Path) -> dict[str, Findings]:
    """Return what mypy reports with the configuration in ``folder``, by file name."""
    output = run(
        sys.executable, "-m", "mypy", "--no-error-summary", "--hide-error-context", *files, cwd=folder
    )
    found: dict[str, Findings] = defaultdict(lambda: defaultdict(list))
    for line in output.splitlines():
        match = re.match(r"(.+?):(\d+): (error|note): (.*)", line)
        if match and (match[3] == "error" or "Revealed" in match[4]):
            found[Path(match[1]).as_posix()][int(match[2])].append(f"{match[3]}: {match[4]}")
    return found


def by_pyright(folder: Path, *files: Path) -> dict[str, Findings]:
    """Return what pyright reports with the configuration in ``folder``, by file name."""
    command: list[str | Path] = [sys.executable, "-m", "basedpyright", "--outputjson"]
    with tempfile.TemporaryDirectory() as scratch:
        if files:  # naming them on the command line would not lift the `exclude`
            settings = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["tool"]["pyright"]
            settings |= {"include": [*map(str, files)], "exclude": [], "extraPaths": [str(folder)]}
            project = Path(scratch) / "pyrightconfig.json"
            project.write_text(json.dumps(settings))
            command += ["--project", project, "--pythonpath", sys.executable]
        output = run(*command, cwd=folder)
    found: dict[str, Findings] = defaultdict(lambda: defaultdict(list))
    for item in json.loads(output)["generalDiagnostics"]:
        name = Path(item["file"]).resolve().relative_to(folder.resolve()).as_posix()
        severity = "note" if item["severity"] == "information" else item["severity"]
        found[name][item["range"]["start"]["line"] + 1].append(f"{severity}: {item['message']}")
    return found


CHECKERS = pytest.mark.parametrize("check", [by_mypy, by_pyright], ids=["mypy", "pyright"])
Check = Callable[..., dict[str, Findings]]


@CHECKERS
def test_an_error_in_any_folder_is_reported(check: Check, tmp_path: Path) -> None:
    # Pyright does not walk linked folders by itself: with a wrong `include` it finds no errors anywhere.
    for name in ("pyproject.toml", "_lungfish_pytestplugin.py"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "lungfish", tmp_path / "lungfish", symlinks=True, ignore=lambda *_: {"demo"})
    (tmp_path / "lungfish" / "__init__.py").write_text("")
    for folder in (*FOLDERS, "lungfish/real", "benchmarks", "examples", "tests"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "seeded.py").write_text("seeded: int = 'no'\n")
    found = {name for name, findings in check(tmp_path).items() if 1 in findings}
    expected = {
        *(f"lungfish/{folder}" for folder in FOLDERS),
        "lungfish/real",
        "benchmarks",
        "examples",
        "tests",
    }
    if check is by_pyright:  # it names files by their real paths, in any case
        found = {name.replace("lungfish/", "") for name in found}
        expected = {name.replace("lungfish/", "") for name in expected}
    assert found == {f"{folder}/seeded.py" for folder in expected}


@CHECKERS
def test_users_get_types(check: Check) -> None:
    """Compare with the marks in ``user_code.py``: ``# E`` is an error, ``# R: type`` a revealed type."""
    found = check(ROOT, USER_CODE)
    findings = found.get(USER_CODE.relative_to(ROOT).as_posix(), {})
    wrong = []
    for number, line in enumerate(USER_CODE.read_text("utf-8").splitlines(), 1):
        here = findings.get(number, [])
        errors = [message for message in here if message.startswith("error")]
        if bool(errors) != line.endswith("# E"):
            wrong.append(f"{number}: {line.strip()}\n    {errors or 'not reported'}")
        if "# R: " in line:
            expected = line.partition("# R: ")[2].strip()
            if not any(revealed(message) == expected for message in here):
                wrong.append(f"{number}: {line.strip()}\n    {here}")
    assert not wrong, "\n" + "\n".join(wrong)


def revealed(message: str) -> str:
    """Return the type that a ``reveal_type`` message tells, without the names of modules."""
    quoted = re.findall(r'"([^"]*)"', message)
    return re.sub(r"\b[a-z_]+\.|\b[\w.]*\.(?=[A-Z])", "", quoted[-1]) if quoted else ""
