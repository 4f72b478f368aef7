"""The table of known bugs names tests that exist."""

from __future__ import annotations

import re

import pytest

from tests.packaging.tree import ROOT

TABLE = (ROOT / "docs" / "known-bugs-of-peers.md").read_text("utf-8")
NAMED = re.compile(r"`((?:\w+/)+test_\w+\.py)(?:::(test_\w+))?`")
SECTIONS = re.split(r"^## ", TABLE, flags=re.MULTILINE)[1:]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.partition("\n")[0])
def test_every_test_that_is_named_exists(section: str) -> None:
    missing = []
    for file, test in NAMED.findall(section):
        path = ROOT / "tests" / file
        text = path.read_text("utf-8") if path.exists() else ""
        if not text or (test and not re.search(rf"^ *(async )?def {test}\(", text, re.MULTILINE)):
            missing.append(f"{file}::{test}")
    assert missing == []


def test_every_bug_has_a_test() -> None:
    *tables, shared = SECTIONS
    rows = [line for table in tables for line in table.splitlines() if line.startswith("| ")]
    bare = [row for row in rows if not NAMED.search(row) and row != "| bug | shown by |"]
    assert bare == []
    assert len(rows) > 100
    assert shared.startswith("What we share")


def test_every_test_of_peers_is_in_the_table() -> None:
    named = {test for file, test in NAMED.findall(TABLE) if file.startswith("peers/")}
    written = {
        found
        for path in (ROOT / "tests" / "peers").glob("test_*.py")
        if path.name != "test_table.py"
        for found in re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text("utf-8"), re.MULTILINE)
    }
    assert written - named == set()
