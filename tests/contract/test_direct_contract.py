"""What is handed straight to a host, and the numbers that a commit takes; held against every ``Store``."""

# ruff: noqa: F811 - fixtures of another module

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lungfish.runtime.errors import StoreUnavailable
from lungfish.runtime.on_redis.store import RedisStore
from lungfish.runtime.store.store import (
    START,
    Append,
    Appended,
    Commit,
    Committed,
    HubMeta,
    LeaseLost,
    Store,
    StoreBehind,
)
from tests.contract.test_store_contract import (  # noqa: F401 - fixtures
    IN_PLACE,
    clock_moves,
    kind,
    new_store,
    open_store,
    read_all,
    store,
)
from tests.integration.polling import until
from tests.servers import Server, ask

LANE = "c:me:e"
INBOX = "p:3"


def appended(sequence: int, *, resync: bool = False) -> Append:
    return Append(INBOX, LANE, sequence, (f"m{sequence}".encode(),), resync=resync)


async def mark(store: Store) -> int:
    return (await store.marks(LANE, [3]))[0]


async def doubled(store: Store) -> dict[str, int]:
    found = await store.doubled(3)
    assert (await store.claim(3, "A", "t1")).doubled == found
    return found


async def test_a_commit_takes_the_number_that_an_append_would_have_taken(store: Store) -> None:
    await store.claim(3, "A", "t1")
    assert await store.append([appended(1)]) == [Appended.OK]
    assert await store.commit([Commit(3, "t1", 1, direct={LANE: (2, 4)})]) == [Committed()]
    assert await mark(store) == 4
    # Its client had no answer, and appends it: it is known, and comes into no inbox.
    assert await store.append([appended(2)]) == [Appended.OK]
    assert await store.append([appended(4)]) == [Appended.OK]
    assert await read_all(store, INBOX) == [b"m1"]
    assert await store.append([appended(5)]) == [Appended.OK], "the lane goes on in either way"
    assert await read_all(store, INBOX) == [b"m1", b"m5"]
    assert await doubled(store) == {}


async def test_a_commit_that_repeats_takes_nothing_twice(store: Store) -> None:
    await store.claim(3, "A", "t1")
    commit = Commit(3, "t1", 1, direct={LANE: (1, 1)})
    assert await store.commit([commit]) == [Committed()]
    assert await store.append([appended(2)]) == [Appended.OK]
    assert await store.commit([commit]) == [Committed()]
    assert (await mark(store), await doubled(store)) == (2, {})


async def test_what_was_appended_meanwhile_is_written_down_as_taken(store: Store) -> None:
    await store.claim(3, "A", "t1")
    await store.append([appended(1), appended(2)])
    assert await store.commit([Commit(3, "t1", 1, direct={LANE: (2, 2)})]) == [Committed()]
    assert (await mark(store), await doubled(store)) == (2, {LANE: 2})
    # The entry is read by whoever owns the partition then, and passed over together with the note.
    entries = (await store.reader().read({INBOX: START}, block_ms=0, count=9))[INBOX]
    commit = Commit(3, "t1", 2, position=entries[-1].id, undoubled={LANE: 2})
    assert await store.commit([commit]) == [Committed()]
    assert (await mark(store), await doubled(store)) == (2, {})


async def test_no_more_is_written_down_than_is_in_the_inbox(store: Store) -> None:
    await store.claim(3, "A", "t1")
    await store.append([appended(1), appended(2), appended(3)])
    await store.commit([Commit(3, "t1", 1, direct={LANE: (2, 5)})])
    assert (await mark(store), await doubled(store)) == (5, {LANE: 3})
    await store.commit([Commit(3, "t1", 2, undoubled={LANE: 2})])
    assert await doubled(store) == {LANE: 3}, "a later double is still to be read"
    await store.commit([Commit(3, "t1", 3, undoubled={LANE: 3, "c:other:e": 9})])
    assert await doubled(store) == {}


async def test_a_mark_that_was_lost_refuses_the_commit_as_a_whole(store: Store) -> None:
    """A failover took the batch before: what its client sends again must not be a repeat."""
    await store.claim(3, "A", "t1")
    await store.append([appended(1)])
    commit = Commit(3, "t1", 1, mailbox={"1": b"row"}, direct={LANE: (3, 3)})
    assert await store.commit([commit]) == [StoreBehind(0, 0)]
    image = await store.claim(3, "A", "t1")
    assert (image.mailbox, image.commit_number, await mark(store)) == ({}, 0, 1)


async def test_who_is_no_owner_takes_no_number(store: Store) -> None:
    await store.claim(3, "A", "t1")
    await store.claim(3, "B", "t2")
    assert await store.commit([Commit(3, "t1", 1, direct={LANE: (1, 1)})]) == [LeaseLost("B")]
    assert await mark(store) == 0


async def test_lanes_that_are_forgotten_leave_nothing(store: Store) -> None:
    await store.claim(3, "A", "t1")
    await store.append([appended(1)])
    await store.commit([Commit(3, "t1", 1, direct={LANE: (1, 1), "c:other:e": (1, 2)})])
    assert await doubled(store) == {LANE: 1}
    await clock_moves(store)
    assert await store.sweep_producers(3, 0) == 2
    assert (await mark(store), await doubled(store)) == (0, {})


# --- handing over ------------------------------------------------------------------------


@asynccontextmanager
async def listening(store: Store, host: str, taken: list[Any]) -> AsyncIterator[asyncio.Task[None]]:
    listener = store.listener(host)
    task = asyncio.ensure_future(listener.listen(lambda *handed: taken.append(handed)))
    try:
        yield task
    finally:
        await listener.close()
        await asyncio.gather(task, return_exceptions=True)


async def test_only_one_server_hands_over(store: Store, kind: str) -> None:
    assert store.hands_over == (kind in IN_PLACE)


@pytest.mark.parametrize("kind", IN_PLACE, indirect=True)
async def test_who_listens_gets_what_is_handed_to_it_and_where_inboxes_end(store: Store) -> None:
    await store.append([appended(1)])
    end = (await store.reader().read({INBOX: START}, block_ms=0, count=9))[INBOX][-1].id
    taken: list[Any] = []

    async def is_last(wanted: tuple[list[str], bytes]) -> bool:
        return bool(taken) and taken[-1] == wanted

    assert await store.hand("one", [3], b"early") is False
    async with listening(store, "one", taken) as task:
        await until(lambda: store.hand("one", [3], b"hello"), "it listens")
        assert await store.hand("other", [3], b"nobody") is False
        assert await store.hand("one", [5, 3, 4], b"\x00\n\xff") is True
        await until(lambda: is_last((["", end, ""], b"\x00\n\xff")), "it came")
        assert await store.hand("one", [4], b"") is True
        await until(lambda: is_last(([""], b"")), "it came")
    assert ([end], b"early") not in taken
    assert isinstance(task.exception(), StoreUnavailable)
    assert await store.hand("one", [3], b"late") is False


async def test_without_rights_to_channels_everything_goes_through_the_inboxes(
    hub_name: str, valkey: Server
) -> None:
    ask(valkey.port, "ACL SETUSER mute on >pw ~* +@all resetchannels")
    store = RedisStore(valkey.url.replace("redis://", "redis://mute:pw@"), hub_name)
    await store.open(HubMeta(8))
    listener = store.listener("one")
    listening = asyncio.ensure_future(listener.listen(lambda ends, payload: None))
    try:
        could_before = store.hands_over
        assert could_before
        assert await store.hand("one", [3], b"x") is False
        assert not store.hands_over
        assert await store.append([appended(1)]) == [Appended.OK]
        assert not listening.done(), "there is nothing to hear, which is no reason to end"
    finally:
        await listener.close()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await store.close()
        ask(valkey.port, "ACL DELUSER mute")
