"""The rules of large values, held against every implementation of ``Store``."""

# ruff: noqa: F811 - fixtures of another module

from __future__ import annotations

import pytest

from lungfish.runtime.messages.payloads import CHUNK_BYTES, PENDING, Payload
from lungfish.runtime.store.store import Commit, Committed, Store
from tests.contract.test_store_contract import (  # noqa: F401 - fixtures
    kind,
    new_store,
    open_store,
    store,
)

P = 3
FUTURE = 1 << 50


async def pending(store: Store, before_ms: int = FUTURE) -> list[str]:
    (found,) = await store.ended_before([(P, PENDING, before_ms)], count=100)
    return sorted(found)


def adopting(number: int, *ids: str, forgotten: tuple[str, ...] = ()) -> Commit:
    return Commit(P, "t1", number, index={(PENDING, each): None for each in ids}, forgotten=list(forgotten))


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 20 * CHUNK_BYTES + 7])
async def test_what_is_written_is_read_in_any_size(store: Store, size: int) -> None:
    content = (
        bytes(at % 251 for at in range(size)) if size < 10_000 else (b"0123456789" * (size // 10 + 1))[:size]
    )
    payload = Payload(P, "a", content)
    await store.put_payloads([payload])
    assert await store.payloads([payload.token]) == {payload.token: content}
    assert await pending(store) == ["a"]


async def test_many_of_several_partitions(store: Store) -> None:
    await store.put_payloads([])
    made = [Payload(n % 4, f"i{n}", bytes([n]) * (CHUNK_BYTES + n)) for n in range(9)]
    await store.put_payloads(made)
    tokens = [each.token for each in made]
    assert await store.payloads(tokens) == {each.token: each.content for each in made}
    assert await store.payloads([]) == {}


async def test_what_is_not_there_or_not_whole_is_left_out(store: Store) -> None:
    there = Payload(P, "there", b"x")
    await store.put_payloads([there])
    longer = Payload(P, "there", b"x" * (CHUNK_BYTES + 1))  # as if its second piece had never come
    assert await store.payloads([Payload(P, "gone", b"").token, there.token]) == {there.token: b"x"}
    if type(store).__name__ == "RedisStore":
        assert await store.payloads([longer.token]) == {}


async def test_a_commit_adopts_and_forgets(store: Store) -> None:
    one, other = Payload(P, "one", b"1"), Payload(P, "other", b"2" * (CHUNK_BYTES + 1))
    await store.claim(P, "A", "t1")
    await store.put_payloads([one, other])
    await store.commit([adopting(1, "one")])
    assert await pending(store) == ["other"]
    assert await store.commit([adopting(2, "other", forgotten=("one", "unknown"))]) == [Committed()]
    assert await pending(store) == []
    assert await store.payloads([one.token, other.token]) == {other.token: other.content}


async def test_a_refused_commit_forgets_nothing(store: Store) -> None:
    payload = Payload(P, "one", b"1")
    await store.claim(P, "A", "t1")
    await store.put_payloads([payload])
    await store.claim(P, "B", "t2")
    await store.commit([adopting(1, "one", forgotten=("one",))])
    assert await pending(store) == ["one"]
    assert await store.payloads([payload.token]) != {}


async def test_a_late_repeat_does_not_make_it_pending_again(store: Store) -> None:
    payload = Payload(P, "one", b"1" * (CHUNK_BYTES + 1))
    await store.claim(P, "A", "t1")
    await store.put_payloads([payload])
    await store.put_payloads([payload])
    await store.commit([adopting(1, "one")])
    await store.put_payloads([payload])
    assert await pending(store) == []
    assert await store.sweep_payloads(P, ["one"], FUTURE) == 0
    assert await store.payloads([payload.token]) == {payload.token: payload.content}


async def test_a_repeat_behind_the_deletion_is_swept(store: Store) -> None:
    payload = Payload(P, "one", b"1" * (CHUNK_BYTES + 1))
    await store.claim(P, "A", "t1")
    await store.put_payloads([payload])
    await store.commit([adopting(1, "one", forgotten=("one",))])
    await store.put_payloads([payload])
    assert await pending(store) == ["one"]
    assert await store.sweep_payloads(P, ["one"], FUTURE) == 1
    assert await store.payloads([payload.token]) == {}
    assert await pending(store) == []


async def test_a_sweep_deletes_only_what_is_pending_and_old(store: Store) -> None:
    now_ms = await store.now_ms()
    payload = Payload(P, "one", b"1")
    await store.put_payloads([payload])
    assert await pending(store, now_ms) == []
    assert await store.sweep_payloads(P, ["one", "unknown"], now_ms) == 0
    assert await store.sweep_payloads(P, [], FUTURE) == 0
    assert await store.payloads([payload.token]) != {}
    assert await store.sweep_payloads(P, ["one", "unknown"], FUTURE) == 1
    assert await store.payloads([payload.token]) == {}
