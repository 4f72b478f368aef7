"""Reading a partition's entities: a commit comes first, and the store is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from lungfish.runtime.errors import StoreUnavailable
from lungfish.runtime.partitions.walking import Walk
from lungfish.runtime.store.index import Found, Scan
from lungfish.runtime.store.query import EntityQuery

QUERY = EntityQuery("Box", "eu/")


class FakeStore:
    """Answers after some failures."""

    def __init__(self, failures: int = 0) -> None:
        self.asked: list[Scan] = []
        self._failures = failures

    async def scan_index(self, scans: Sequence[Scan], *, count: int) -> list[Found]:
        self.asked += scans
        if self._failures:
            self._failures -= 1
            raise StoreUnavailable("not now")
        return [Found(("eu/2",), "eu/2")][:count]


class FakePartition:
    """As much of ``Effects`` as a walk needs."""

    def __init__(self, committed: int, commit_number: int, *, dirty: bool) -> None:
        self.committed, self.commit_number, self.dirty = committed, commit_number, dirty


def page(store: FakeStore, partition: Any) -> asyncio.Task[Found]:
    walk: Any = Walk(store, 8)  # type: ignore[arg-type]
    return asyncio.create_task(walk.page(partition, 3, QUERY, "eu/1", 1))


async def test_nothing_is_awaited_where_all_is_committed() -> None:
    store = FakeStore()
    assert await page(store, FakePartition(4, 5, dirty=False)) == Found(("eu/2",), "eu/2")
    assert store.asked == [QUERY.scan(3, "eu/1")]


@pytest.mark.parametrize("partition", [FakePartition(3, 5, dirty=False), FakePartition(4, 5, dirty=True)])
async def test_what_is_under_way_is_awaited(partition: FakePartition) -> None:
    store = FakeStore()
    task = page(store, partition)
    for _ in range(3):
        await asyncio.sleep(0.003)
        assert not store.asked
    partition.committed += 1
    await task
    assert len(store.asked) == 1


async def test_a_store_that_is_away_is_asked_again() -> None:
    store = FakeStore(failures=3)
    assert (await page(store, FakePartition(4, 5, dirty=False))).members == ("eu/2",)
    assert len(store.asked) == 4
