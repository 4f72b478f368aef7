"""Size and wording that every file keeps to."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.packaging.tree import ROOT, parsed, product_files, text_files

MODULE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70

#: Words that say nothing: a module or class is named after what it is.
EMPTY_WORDS = re.compile(r"(manager|helper|utils?|misc|common)", re.IGNORECASE)
#: Put together here so that this file does not contain what it forbids.
LEFTOVERS = re.compile("|".join([r"\bTO" "DO", r"\bFIX" "ME", r"\bX" r"XX\b"]))
MACHINE_PATHS = re.compile("|".join(f"/{top}/" for top in ("work", "root", "home")))
#: Files that quote others verbatim.
VERBATIM = {"LICENSE"}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_modules_are_short() -> None:
    lengths = {relative(path): len(path.read_text("utf-8").splitlines()) for path in product_files()}
    assert {name: lines for name, lines in lengths.items() if lines > MODULE_LINES_MAX} == {}


def function_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function, its docstring and decorators not counted."""
    assert node.end_lineno is not None
    docstring = 0
    first = node.body[0]
    if ast.get_docstring(node) is not None and first.end_lineno is not None:
        docstring = first.end_lineno - first.lineno + 1
    return node.end_lineno - node.lineno + 1 - docstring


def test_functions_are_short() -> None:
    long = {
        f"{relative(path)}:{node.lineno} {node.name}": lines
        for path in product_files()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := function_lines(node)) > FUNCTION_LINES_MAX
    }
    assert long == {}


def test_modules_have_a_docstring() -> None:
    bare = [
        relative(path)
        for path in product_files()
        if parsed(path).body and not ast.get_docstring(parsed(path))
    ]
    assert bare == []


def test_names_say_something() -> None:
    modules = [relative(path) for path in product_files() if EMPTY_WORDS.search(path.stem)]
    classes = [
        f"{relative(path)}:{node.lineno} {node.name}"
        for path in product_files()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ClassDef) and EMPTY_WORDS.search(node.name)
    ]
    assert modules + classes == []


@pytest.mark.parametrize(
    ("what", "pattern"), [("leftovers", LEFTOVERS), ("paths of one machine", MACHINE_PATHS)]
)
def test_no_file_has(what: str, pattern: re.Pattern[str]) -> None:
    found = [
        f"{relative(path)}:{number}: {line.strip()[:100]}"
        for path in text_files()
        if path.name not in VERBATIM
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == [], what


def test_lua_scripts_open_with_their_contract() -> None:
    scripts = sorted((ROOT / "runtime" / "on_redis" / "lua").glob("*.lua"))
    assert scripts
    for script in scripts:
        header = []
        for line in script.read_text("utf-8").splitlines():
            if not line.startswith("--"):
                break
            header.append(line)
        assert len(header) >= 3, f"{script.name} must open with its keys, arguments and result"
