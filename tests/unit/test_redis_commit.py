"""Commits as script calls: what fits into Lua, and what is read back."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from lungfish.runtime.errors import InternalError, InvalidArguments, StoreUnavailable
from lungfish.runtime.on_redis.commit import ARGUMENTS_MAX, Limits, commit_command, read_outcome
from lungfish.runtime.on_redis.keys import Keys
from lungfish.runtime.on_redis.link import Address, ResponseError, check, error_code
from lungfish.runtime.store.store import Commit, Committed, Delivery, LeaseLost, OutboxEntry, StoreBehind


def items(command: tuple[Any, ...]) -> tuple[list[str], list[Any]]:
    count = command[2]
    keys = list(command[3 : 3 + count])
    return keys, msgpack.unpackb(command[3 + count], raw=True)


def test_no_row_is_longer_than_lua_can_unpack() -> None:
    many = 3 * ARGUMENTS_MAX + 1
    commit = Commit(
        1,
        "t",
        1,
        snapshots={("E", str(n)): b"" for n in range(many)},
        mailbox={str(n): None for n in range(many)},
        timers={str(n): (n, b"") for n in range(many)},
        histories={"o": [b""] * many},
        delivered=[f"1-{n}" for n in range(many)],
        deliveries=[Delivery(f"c:{n}", 1, (b"",)) for n in range(many)],
    )
    _, [item] = items(commit_command(Keys("h"), [commit], Limits(), in_place=True))
    rows = [item[3], *(row[2:] for row in item[5])]
    assert max(map(len, rows)) == ARGUMENTS_MAX
    assert all(len(row) % 2 == 0 for row in rows if row is item[3])


def test_every_key_is_declared_once() -> None:
    commits = [
        Commit(p, "t", 1, position="5-3", deliveries=[Delivery("p:9", 1, (b"",)), Delivery("c:x", 0, (b"",))])
        for p in range(3)
    ]
    keys, found = items(commit_command(Keys("h"), commits, Limits(), in_place=True))
    assert len(set(keys)) == len(keys)
    assert keys[found[2][0] - 1] == "{h:2}:owner"
    trim = found[1][5][0]
    assert (trim[0], keys[trim[1] - 1], *trim[2:]) == (b"XTRIM", "{h:1}:inbox", b"MINID", b"5-4")


def test_on_a_cluster_all_keys_are_of_one_slot() -> None:
    commit = Commit(1, "t", 1, deliveries=[Delivery("p:9", 1, (b"",)), Delivery("c:x", 0, (b"",))])
    keys, _ = items(commit_command(Keys("h"), [commit], Limits(), in_place=False))
    assert {key.partition("}")[0] for key in keys} == {"{h:1"}


def test_outcomes() -> None:
    commit = Commit(1, "t", 7, deliveries=[Delivery("p:1", 1, (b"a",)), Delivery("p:2", 4, (b"b",))])
    assert read_outcome(commit, 0) == Committed()
    assert read_outcome(commit, [0, b"7-1"]) == Committed((OutboxEntry("7-1", "p:2", 4, (b"b",)),))
    assert read_outcome(commit, [1, b"host"]) == LeaseLost("host")
    assert read_outcome(commit, [2, 3]) == StoreBehind(3, 6)


@pytest.mark.parametrize(
    ("url", "shown", "cluster"),
    [
        ("redis://", "localhost:6379", False),
        ("redis://u:p@h:1/2", "h:1", False),
        ("rediss://h", "h:6379 (TLS)", False),
        ("unix:///tmp/x.sock", "/tmp/x.sock", False),
        ("redis+cluster://h:7", "h:7", True),
        ("redis://h:7?cluster=true", "h:7", True),
    ],
)
def test_urls(url: str, shown: str, cluster: bool) -> None:
    address = Address.of(url)
    assert (str(address), address.wants_cluster) == (shown, cluster)
    assert "p" not in str(address).replace("tmp", "")[:1], "no password is shown"


@pytest.mark.parametrize("url", ["http://h", "redis+x://h", "h:6379", "redis://h:port"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(InvalidArguments):
        Address.of(url)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("NOREPLICAS Not enough good replicas to write.", StoreUnavailable),
        ("MISCONF Redis is configured to save RDB snapshots", StoreUnavailable),
        ("Error running script (call to f_1): @user_script:1: -OOM command not allowed", StoreUnavailable),
        ("Error running script (call to f_1): @user_script:1: -READONLY You can't write", StoreUnavailable),
        ("Error running script (call to f_1): @user_script:3: NOGROUP No such key", InternalError),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", InternalError),
        ("user_script:9: attempt to index a nil value", InternalError),
    ],
)
def test_refusals(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        check(ResponseError(text))


def test_code_of_what_a_script_met() -> None:
    inside = "Error running script (call to f_1): @user_script:3: NOGROUP No such key"
    assert error_code(ResponseError(inside)) == "NOGROUP"
    assert error_code(ResponseError("NOGROUP No such key")) == "NOGROUP"
    assert error_code(ResponseError("no such key")) == "ERR"
