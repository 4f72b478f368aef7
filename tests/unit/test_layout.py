"""The partitions of a hub and of its pools."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lungfish
from lungfish.runtime.ids import CLIENT, ENTITY, ORCHESTRATION, ActorId, partition_of
from lungfish.runtime.store.layout import HubMeta, Layout, PoolRange, pool_in, serves

META = HubMeta(4).with_pools({"gpu": 3, "zone-a": 2})
LAYOUT = Layout(META)

names = st.text(st.characters(exclude_characters="@\x00", exclude_categories=["Cs"]), min_size=1, max_size=20)
keys = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


def test_pools_lie_behind_one_another() -> None:
    assert META.pools == (PoolRange("gpu", 4, 3), PoolRange("zone-a", 7, 2))
    assert META.total == LAYOUT.total == 9
    assert LAYOUT.by_pool() == {"": range(4), "gpu": range(4, 7), "zone-a": range(7, 9)}
    assert [LAYOUT.pool_of(number) for number in range(9)] == [""] * 4 + ["gpu"] * 3 + ["zone-a"] * 2


def test_a_pool_that_is_there_stays_and_new_ones_come_last() -> None:
    more = META.with_pools({"new": 5, "gpu": 99})
    assert more.pools[:2] == META.pools
    assert more.pools[2] == PoolRange("new", 9, 5)


@given(names, keys)
def test_an_actor_of_no_pool_is_where_it_was_before_there_were_pools(name: str, key: str) -> None:
    for actor in (ActorId(ENTITY, name, key), ActorId(ORCHESTRATION, "", key), ActorId(CLIENT, "", key)):
        assert LAYOUT.of(actor) == partition_of(actor, 4)
        assert LAYOUT.of(actor) in LAYOUT.numbers(actor.name)


@given(names, keys, st.sampled_from(["gpu", "zone-a"]))
def test_a_pinned_entity_is_in_a_partition_of_its_pool(name: str, key: str, pool: str) -> None:
    number = LAYOUT.of(ActorId(ENTITY, f"{name}@{pool}", key))
    assert number in LAYOUT.numbers(f"{name}@{pool}")
    assert LAYOUT.pool_of(number) == pool


def test_where_pinned_entities_are_never_changes() -> None:
    # Whoever changes these numbers moves entities away from their states.
    assert [LAYOUT.of(ActorId(ENTITY, "Model@gpu", f"k{n}")) for n in range(8)] == [5, 5, 6, 5, 6, 5, 4, 6]


def test_a_group_is_one_partition_of_each_pool() -> None:
    pinned = {LAYOUT.of(ActorId(ENTITY, f"{name}@gpu", f"cust-7|{name}")) for name in "ABCDEFGH"}
    assert len(pinned) == 1
    assert (
        LAYOUT.of(ActorId(ENTITY, "A", "cust-7|x")) == LAYOUT.of(ActorId(ORCHESTRATION, "", "cust-7|y")) < 4
    )


@pytest.mark.parametrize("name", ["Model@fpga", "Model@", "@", "Model@gpu@gpu", "Model@GPU"])
def test_a_pool_that_is_not_known_is_an_error_and_no_guess(name: str) -> None:
    with pytest.raises(lungfish.UnknownPool, match="there are: gpu, zone-a"):
        LAYOUT.of(ActorId(ENTITY, name, "k"))
    with pytest.raises(lungfish.UnknownPool):
        LAYOUT.numbers(name)


def test_keys_may_look_like_anything() -> None:
    assert LAYOUT.of(ActorId(ENTITY, "Account", "ann@gpu")) < 4
    assert LAYOUT.of(ActorId(ORCHESTRATION, "", "ann@example.org")) < 4


def test_what_is_learnt_later() -> None:
    layout = Layout(HubMeta(4))
    with pytest.raises(lungfish.UnknownPool, match="there are: none"):
        layout.of(ActorId(ENTITY, "Model@gpu", "k"))
    layout.learn(META)
    assert layout.of(ActorId(ENTITY, "Model@gpu", "k")) == LAYOUT.of(ActorId(ENTITY, "Model@gpu", "k"))


def test_the_pool_in_a_name() -> None:
    assert [pool_in(name) for name in ("Model", "Model@gpu", "lungfish.part@gpu")] == ["", "gpu", "gpu"]


def test_what_a_host_serves() -> None:
    assert serves([""], "")
    assert not serves([""], "gpu")
    assert not serves(["gpu"], "")
    assert serves(["*"], "")
    assert serves(["*"], "gpu")
