"""Placement: balanced, sticky, minimal, deterministic."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungfish.runtime.errors import SerializationError
from lungfish.runtime.placement import decode_placement, encode_placement, place

hosts = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8, unique=True)
counts = st.integers(min_value=1, max_value=64)


@given(hosts, hosts, counts)
def test_every_partition_has_a_host_and_no_host_has_too_many(
    before: list[str], now: list[str], partitions: int
) -> None:
    placed = place(place({}, before, partitions), now, partitions)
    assert sorted(placed) == list(range(partitions))
    owned = Counter(placed.values())
    assert set(owned) <= set(now)
    assert max(owned.values()) - min(owned[host] for host in now) <= 1


@given(hosts, hosts, counts)
def test_no_more_moves_than_the_balance_needs(before: list[str], now: list[str], partitions: int) -> None:
    previous = place({}, before, partitions)
    placed = place(previous, now, partitions)
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
    placed = place({}, now, partitions)
    assert place(placed, list(reversed(now)), partitions) == placed


def test_no_hosts_place_nothing() -> None:
    assert place({0: "a"}, [], 4) == {}


def test_the_stored_form() -> None:
    placed = place({}, ["a", "b"], 5)
    assert decode_placement(encode_placement(placed)) == placed
    assert decode_placement(b"") == {}
    with pytest.raises(SerializationError, match="placement"):
        decode_placement(b"\xc1")
