"""Whether the code of an app has changed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lungfish.runtime.cli.loading import load_app
from lungfish.runtime.on_ray.fingerprint import fingerprint

APP = """
import lungfish
import {name}_rules
app = lungfish.App("shop")
@app.activity
def double(n: int) -> int:
    return 2 * n
"""


@pytest.fixture
def print_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """Write an app of two modules; return its fingerprint as a process that starts now would see it."""
    name = "fingerprinted"
    (tmp_path / f"{name}.py").write_text(APP.format(name=name))
    (tmp_path / f"{name}_rules.py").write_text("")
    (tmp_path / "unrelated.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    def forget() -> None:
        for module in (name, f"{name}_rules"):
            sys.modules.pop(module, None)

    def made() -> str:
        forget()
        return fingerprint(load_app(name))

    yield made
    forget()


@pytest.mark.parametrize("edited", ["fingerprinted.py", "fingerprinted_rules.py"])
def test_an_edit_shows(print_of: Callable[[], str], tmp_path: Path, edited: str) -> None:
    before = print_of()
    assert print_of() == before
    with (tmp_path / edited).open("a") as file:
        file.write("# changed\n")
    assert print_of() != before


def test_a_module_that_is_not_loaded_does_not_count(print_of: Callable[[], str], tmp_path: Path) -> None:
    before = print_of()
    (tmp_path / "unrelated.py").write_text("x = 1")
    assert print_of() == before
