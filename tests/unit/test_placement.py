"""Placement: balanced, sticky, minimal, deterministic."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungfish.runtime.errors import SerializationError
from lungfish.runtime.host.placement import decode_placement, encode_placement, place, place_pools

hosts = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8, unique=True)
counts = st.integers(min_value=1, max_value=64)


@given(hosts, hosts, counts)
def test_every_partition_has_a_host_and_no_host_has_too_many(
    before: list[str], now: list[str], partitions: int
) -> None:
    placed = place(place({}, before, range(partitions)), now, range(partitions))
    assert sorted(placed) == list(range(partitions))
    owned = Counter(placed.values())
    assert set(owned) <= set(now)
    assert max(owned.values()) - min(owned[host] for host in now) <= 1


@given(hosts, hosts, counts)
def test_no_more_moves_than_the_balance_needs(before: list[str], now: list[str], partitions: int) -> None:
    previous = place({}, before, range(partitions))
    placed = place(previous, now, range(partitions))
    moved = sum(placed[partition] != host for partition, host in previous.items())
    homeless = sum(host not in now for host in previous.values())
    owned = Counter(host for host in previous.values() if host in now)
    least, odd = divmod(partitions, len(now))
    # The hosts that have most may keep one more than the others.
    kept = sorted((owned[host] for host in now), reverse=True)
    excess = sum(max(0, count - least - (1 if rank < odd else 0)) for rank, count in enumerate(kept))
    assert moved == homeless + excess


@given(hosts, counts)
def test_nothing_moves_while_the_hosts_stay(now: list[str], partitions: int) -> None:
    placed = place({}, now, range(partitions))
    assert place(placed, list(reversed(now)), range(partitions)) == placed


def test_no_hosts_place_nothing() -> None:
    assert place({0: "a"}, [], range(4)) == {}


POOLS = {"": range(8), "gpu": range(8, 14), "zone": range(14, 16)}
served = st.dictionaries(
    st.sampled_from("abcdefgh"), st.sets(st.sampled_from(["", "gpu", "zone", "*"]), min_size=1), max_size=8
)


@given(served, served, st.integers(0, 2))
def test_a_pools_partitions_go_to_hosts_of_that_pool_only(
    before: dict[str, set[str]], now: dict[str, set[str]], known: int
) -> None:
    previous = place_pools({}, before, POOLS, 2)
    placed = place_pools(previous, now, POOLS, known)
    for at, (pool, numbers) in enumerate(POOLS.items()):
        takers = {host for host, pools in now.items() if pool in pools or "*" in pools}
        owned = Counter(placed[number] for number in numbers if number in placed)
        has_begun = any(number in previous for number in numbers)
        if takers and (at <= known or has_begun):
            assert set(owned) <= takers
            assert sum(owned.values()) == len(numbers)
            assert max(owned[host] for host in takers) - min(owned[host] for host in takers) <= 1
        else:
            # Nobody may have them (yet); who had them finds them again.
            assert [placed.get(number) for number in numbers] == [previous.get(number) for number in numbers]


def test_what_happens_in_one_pool_moves_nothing_in_another() -> None:
    hosts = {"a": [""], "b": [""], "g": ["gpu"], "h": ["gpu"], "z": ["zone"]}
    previous = place_pools({}, hosts, POOLS, 2)
    del hosts["h"]
    placed = place_pools(previous, hosts, POOLS, 2)
    assert {number for number in placed if placed[number] != previous[number]} <= set(POOLS["gpu"])
    assert {placed[number] for number in POOLS["gpu"]} == {"g"}


def test_the_stored_form() -> None:
    placed = place({}, ["a", "b"], range(5))
    assert decode_placement(encode_placement(placed)) == placed
    assert decode_placement(b"") == {}
    with pytest.raises(SerializationError, match="placement"):
        decode_placement(b"\xc1")
