"""The rules of indexes, held against every implementation of ``Store``."""

# ruff: noqa: F811 - fixtures of another module

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from lungfish.runtime.client.finding import count_members
from lungfish.runtime.on_redis import index as redis_index
from lungfish.runtime.on_redis.commit import ARGUMENTS_MAX
from lungfish.runtime.store.index import Counted, Found, Scan
from lungfish.runtime.store.store import Commit, Store
from lungfish.runtime.testing import memory_index
from tests.contract.test_store_contract import (  # noqa: F401 - fixtures
    kind,
    new_store,
    open_store,
    store,
)

P = 3


async def put(store: Store, *changes: tuple[str, str, int | None], number: int = 1) -> None:
    if number == 1:
        await store.claim(P, "A", "t1")
    index = {(name, member): score for name, member, score in changes}
    await store.commit([Commit(P, "t1", number, index=index)])


def all_in(index: str, members: Sequence[str]) -> list[tuple[str, str, int | None]]:
    return [(index, member, 0) for member in members]


async def walk(store: Store, scan: Scan, count: int) -> tuple[list[str], int]:
    found: list[str] = []
    calls = 0
    while True:
        (page,) = await store.scan_index([scan], count=count)
        calls += 1
        assert len(page.members) <= count
        found += page.members
        if not page.stopped:
            return found, calls
        scan = replace(scan, after=page.stopped)


def names(count: int) -> list[str]:
    return [f"{n:012x}i{n}" for n in range(count)]


@pytest.mark.parametrize("newest", [False, True])
async def test_a_walk_comes_to_every_member_once_in_order(store: Store, newest: bool) -> None:
    members = names(700)
    await put(store, *all_in("all", members))
    found, calls = await walk(store, Scan(P, ("all",), newest=newest), 100)
    assert found == (members[::-1] if newest else members)
    assert calls in (7, 8)
    assert await store.scan_index([Scan(4, ("all",)), Scan(P, ("none",))], count=5) == [Found(()), Found(())]


async def test_order_is_that_of_utf8_not_of_a_locale(store: Store) -> None:
    keys = ["Z", "a", "B", "ä", "é", "z", "\u20ac", "\U0001f600", "_", "-", "a b"]
    await put(store, *all_in("entities:E", keys))
    found, _ = await walk(store, Scan(P, ("entities:E",)), 2)
    assert found == sorted(keys, key=str.encode)


@pytest.mark.parametrize("newest", [False, True])
async def test_bounds_and_position(store: Store, newest: bool) -> None:
    await put(store, *all_in("all", ["a", "b", "c", "d", "e"]))
    scan = Scan(P, ("all",), low="b", high="e", newest=newest)
    assert (await walk(store, scan, 10))[0] == (["d", "c", "b"] if newest else ["b", "c", "d"])
    gone = replace(scan, after="cc")  # a position stays one when its member has gone
    assert (await walk(store, gone, 10))[0] == (["c", "b"] if newest else ["d"])
    assert await store.count_index([replace(scan, newest=False)]) == [Counted(3)]


async def test_members_of_all_indexes(store: Store) -> None:
    members = names(600)
    await put(
        store,
        *all_in("status:Running", members[::2]),
        *all_in("name:hello", members[::3]),
        *all_in("tag:x\0y", members[::5]),
    )
    scan = Scan(P, ("status:Running", "name:hello", "tag:x\0y"))
    assert (await walk(store, scan, 7))[0] == members[::30]
    assert await store.count_index([scan, Scan(P, ("status:Running", "none"))]) == [Counted(20), Counted(0)]


@pytest.mark.parametrize("newest", [False, True])
async def test_members_of_any_index(store: Store, newest: bool) -> None:
    members = names(300)
    await put(
        store,
        *all_in("status:Running", members[::3]),
        *all_in("status:Failed", members[1:100:3]),
        *all_in("name:hello", members[:200]),
    )
    scan = Scan(P, (), any_of=("status:Running", "status:Failed"), newest=newest)
    expected = sorted({*members[::3], *members[1:100:3]}, reverse=newest)
    assert (await walk(store, scan, 11))[0] == expected
    both = replace(scan, indexes=("name:hello",))
    assert (await walk(store, both, 11))[0] == [name for name in expected if name in members[:200]]


async def test_prefix(store: Store) -> None:
    members = [f"{n:012x}{'ord-é' if n % 4 == 0 else 'x'}{n}" for n in range(100)]
    await put(store, *all_in("all", members))
    scan = Scan(P, ("all",), prefix="ord-é")
    assert (await walk(store, scan, 9))[0] == members[::4]
    assert await store.count_index([scan]) == [Counted(25)]


async def test_a_walk_is_bounded_in_steps(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory_index, "STEPS_MAX", 1_000)
    monkeypatch.setattr(redis_index, "STEPS_MAX", 1_000)
    members = names(3_300)
    await put(store, *all_in("all", members), *all_in("one", members[-1:]))
    scan = Scan(P, ("all",), prefix="i3299")
    (page,) = await store.scan_index([scan], count=5)
    assert page == Found((), members[999])
    found, calls = await walk(store, scan, 5)
    assert (found, calls) == (members[-1:], 4)
    assert (await store.count_index([scan]))[0].stopped == members[999]
    # The smallest index is the one that is walked.
    assert (await walk(store, Scan(P, ("all", "one")), 5))[0] == members[-1:]


async def test_entries_are_removed_and_added_in_one_commit(store: Store) -> None:
    await put(store, *all_in("status:Running", ["a", "b"]))
    await put(
        store, ("status:Running", "a", None), ("status:Completed", "a", 0), ("x", "none", None), number=2
    )
    scans = [Scan(P, ("status:Running",)), Scan(P, ("status:Completed",))]
    assert await store.scan_index(scans, count=9) == [Found(("b",)), Found(("a",))]


async def test_refused_commits_leave_indexes_alone(store: Store) -> None:
    await put(store, ("all", "a", 0))
    await store.commit([Commit(P, "stranger", 2, index={("all", "b"): 0, ("all", "a"): None})])
    await store.commit([Commit(P, "t1", 7, index={("all", "c"): 0})])
    assert await store.scan_index([Scan(P, ("all",))], count=9) == [Found(("a",))]


async def test_large_commit(store: Store) -> None:
    members = names(3 * ARGUMENTS_MAX)
    await put(store, *all_in("all", members))
    assert await count_members(store, [Scan(P, ("all",))]) == len(members)
    await put(store, *[("all", member, None) for member in members[1:]], number=2)
    assert await store.scan_index([Scan(P, ("all",))], count=9) == [Found((members[0],))]


async def test_what_ended_before_a_time_oldest_first(store: Store) -> None:
    await put(store, ("e", "late", 1_800_000_000_000), ("e", "old", 5), ("e", "older", 4), ("f", "x", 1))
    ends = [(P, "e", 1_700_000_000_000), (P, "e", 5), (4, "e", 9), (P, "f", 1)]
    assert await store.ended_before(ends, count=9) == [["older", "old"], ["older"], [], []]
    assert await store.ended_before(ends[:1], count=1) == [["older"]]
