"""Counting what is in several indexes on a server that has no ZINTERCARD, as Redis before 7.0."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from lungfish.runtime.on_redis.store import RedisStore
from lungfish.runtime.store.index import STEPS_MAX, Counted, Scan
from lungfish.runtime.store.store import HubMeta
from tests.contract.test_index_contract import P, all_in, names, put, walk
from tests.servers import Server, ask, running


@pytest.fixture(scope="module")
def old_server() -> Iterator[Server]:
    with running("--rename-command", "ZINTERCARD", "") as server:
        yield server


@pytest.mark.parametrize("newest", [False, True])
async def test_it_is_counted_all_the_same(
    old_server: Server, valkey: Server, hub_name: str, newest: bool
) -> None:
    assert ask(old_server.port, "ZINTERCARD 1 none").startswith(b"-ERR unknown command")
    members = names(2_500)
    scan = Scan(P, ("status:Running", "name:hello", "tag:x\0y"), newest=newest)
    for server in (valkey, old_server):
        store = RedisStore(server.url, hub_name)
        try:
            await store.open(HubMeta(8))
            await put(store, *all_in("status:Running", members))
            await put(store, *all_in("name:hello", members[::2]), number=2)
            await put(store, *all_in("tag:x\0y", members[::3]), number=3)
            counted = await store.count_index([scan, replace(scan, indexes=("status:Running", "none"))])
            assert counted == [Counted(417), Counted(0)], server.options
            found, _ = await walk(store, scan, 100)
            assert found == sorted(members[::6], reverse=newest)
        finally:
            await store.close()


async def test_a_count_that_takes_more_than_one_call_goes_on(old_server: Server, hub_name: str) -> None:
    """With the command a server counts at once what without it takes several bounded calls."""
    members = names(STEPS_MAX + 500)
    store = RedisStore(old_server.url, hub_name)
    try:
        await store.open(HubMeta(8))
        await put(store, *all_in("a", members))
        await put(store, *all_in("b", members), number=2)
        scan, total, calls = Scan(P, ("a", "b")), 0, 0
        while True:
            (part,) = await store.count_index([scan])
            total, calls = total + part.count, calls + 1
            if not part.stopped:
                break
            scan = replace(scan, after=part.stopped)
        assert (total, calls > 1) == (len(members), True)
    finally:
        await store.close()
