"""What scripts ask of a server: nothing that Redis 6.2 does not have, unless they can do without."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from lungfish.runtime.on_redis import commit, scripts

FOLDER: Final = Path(scripts.__file__).with_name("lua")
SCRIPTS: Final = sorted(FOLDER.glob("*.lua"))

#: Commands that Redis 6.2 has, as its documentation dates them. One that is missing here: look there first.
_NAMES: Final = """
    DEL EXISTS GET HDEL HEXISTS HGET HGETALL HLEN HMGET HSET HSETNX LRANGE PEXPIRE RPUSH SET TIME UNLINK
    XACK XADD XCLAIM XDEL XGROUP XLEN XPENDING XRANGE XREADGROUP XREVRANGE XTRIM PUBLISH
    ZADD ZCARD ZLEXCOUNT ZMSCORE ZRANGEBYLEX ZREM ZREVRANGEBYLEX ZSCORE
"""
OLD: Final = frozenset(_NAMES.split())
#: Newer ones, by script: tried with ``pcall``, and done without where the server does not know them.
TRIED: Final = {"scan_index": {"ZINTERCARD"}}
#: Words for which a script has a variable in the place of a command, and what it may stand for.
VARIABLE: Final = {("scan_index", "range"), ("commit", "row[1]")}
#: All that a script of Redis 6.2 has besides; REDIS_VERSION, for one, came with 7.0.
LIBRARY: Final = frozenset({"call", "pcall", "error_reply", "status_reply", "sha1hex", "log"})


def code_of(script: Path) -> str:
    """Return a script without its comments."""
    return re.sub(r"--.*", "", script.read_text("utf-8"))


def called(code: str) -> set[tuple[str, str]]:
    """Return how commands are called, and their names, or the variable that has one."""
    return set(re.findall(r"redis\.(p?call)\(\s*('?[^,)]+)", code))


def test_there_are_scripts() -> None:
    names = {name for script in SCRIPTS for _, name in called(code_of(script))}
    assert {"'HSET'", "'XADD'", "'ZINTERCARD'"} <= names


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_uses_what_redis_6_2_has(script: Path) -> None:
    code = code_of(script)
    assert set(re.findall(r"redis\.(\w+)", code)) <= LIBRARY
    for how, word in called(code):
        if not word.startswith("'"):
            assert (script.stem, word) in VARIABLE
            continue
        name = word.strip("'")
        assert name in OLD or (how == "pcall" and name in TRIED.get(script.stem, ())), name


def test_what_stands_in_a_variable_is_as_old() -> None:
    ranges = re.findall(r"'(Z\w+)'", next(s for s in SCRIPTS if s.stem == "scan_index").read_text("utf-8"))
    rows = re.findall(r"""(?:_cut\(|rows\.append\(\()"([A-Z]+)""", Path(commit.__file__).read_text("utf-8"))
    assert {"ZRANGEBYLEX", "ZREVRANGEBYLEX"} <= set(ranges)
    assert {"HSET", "XTRIM", "ZADD", "ZREM"} <= set(rows)
    assert {*ranges, *rows} <= OLD | {"ZINTERCARD"}
