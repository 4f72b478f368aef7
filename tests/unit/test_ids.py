"""Identity: what may be a name, and that a hash is the same for ever."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungfish.runtime.errors import InvalidId
from lungfish.runtime.ids import (
    CLIENT,
    ENTITY,
    HASH_NAME,
    ID_BYTES_MAX,
    ORCHESTRATION,
    ActorId,
    check_id,
    grouped,
    partition_of,
    stable_hash,
)


def test_the_hash_is_that_of_the_first_release() -> None:
    """Stored hubs depend on these numbers: if this fails, take back the change, not the test."""
    assert HASH_NAME == "crc32-v1"
    assert stable_hash(ENTITY, "Counter", "hits") == 1_432_381_506
    assert stable_hash(ORCHESTRATION, "", "order-17") == 2_539_850_351
    assert stable_hash(ENTITY, "Zähler", "größer") == 2_918_802_064
    assert partition_of(ActorId(ENTITY, "Counter", "hits"), 32) == 2


@given(st.text(), st.text(), st.integers(1, 1_000))
def test_every_actor_has_a_partition(name: str, key: str, partitions: int) -> None:
    try:
        (name + key).encode()
    except UnicodeEncodeError:  # check_id refuses those
        return
    assert 0 <= partition_of(ActorId(ENTITY, name, key), partitions) < partitions


def test_keys_spread_over_the_partitions() -> None:
    counts = [0] * 32
    for number in range(3_200):
        counts[partition_of(ActorId(ENTITY, "Counter", f"key-{number}"), 32)] += 1
    assert min(counts) > 50
    assert max(counts) < 150


def test_what_is_in_a_group_is_in_its_partition() -> None:
    """As stored hubs depend on the hash, they depend on what a group is."""
    assert stable_hash("g", "", "cust-7") == 3_552_369_302
    for number in range(100):
        group = f"cust-{number}"
        expected = stable_hash("g", "", group) % 32
        for actor in (
            ActorId(ENTITY, "Cart", f"{group}|"),
            ActorId(ENTITY, "Order", f"{group}|order|1"),
            ActorId(ORCHESTRATION, "", f"{group}|checkout-{number}"),
        ):
            assert partition_of(actor, 32) == expected


def test_groups_spread_over_the_partitions() -> None:
    counts = [0] * 32
    for number in range(3_200):
        counts[partition_of(ActorId(ENTITY, "Counter", f"group-{number}|x"), 32)] += 1
    assert min(counts) > 50
    assert max(counts) < 150


@pytest.mark.parametrize("key", ["|", "|x", "plain", "{group}x"])
def test_what_has_no_group_is_hashed_as_ever(key: str) -> None:
    assert partition_of(ActorId(ENTITY, "E", key), 1_000) == stable_hash(ENTITY, "E", key) % 1_000


def test_a_key_in_a_group() -> None:
    assert grouped("cust-7", "order|1") == "cust-7|order|1"
    assert grouped("cust-7") == "cust-7|"
    for group in ("", "a|b", "x" * ID_BYTES_MAX, 3):
        with pytest.raises(InvalidId):
            grouped(group)  # type: ignore[arg-type]


def test_name_and_key_do_not_run_into_each_other() -> None:
    assert stable_hash(ENTITY, "ab", "c") != stable_hash(ENTITY, "a", "bc")


@pytest.mark.parametrize("good", ["a", "x" * ID_BYTES_MAX, "größer", "日本", "a b", "a/b:{c}", "🦎"])
def test_a_good_id_is_returned_as_it_is(good: str) -> None:
    assert check_id("key", good) is good


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("", "key must not be empty"),
        ("x" * (ID_BYTES_MAX + 1), f"longer than {ID_BYTES_MAX} bytes"),
        ("é" * (ID_BYTES_MAX // 2 + 1), f"longer than {ID_BYTES_MAX} bytes"),
        ("a\nb", "control or unprintable"),
        ("a\x00b", "control or unprintable"),
        ("\ud800", "control or unprintable"),
        (17, "must be a str, not int: 17"),
        (None, "must be a str, not NoneType"),
        (b"bytes", "must be a str, not bytes"),
    ],
)
def test_a_bad_id_is_refused_and_the_error_says_why(bad: str, why: str) -> None:
    with pytest.raises(InvalidId, match=why):
        check_id("key", bad)


@pytest.mark.parametrize(
    ("actor", "text"),
    [
        (ActorId(ENTITY, "Counter", "hits"), "Counter/hits"),
        (ActorId(ORCHESTRATION, "", "order-17"), "order-17"),
        (ActorId(CLIENT, "", "s1"), "client s1"),
    ],
)
def test_an_actor_is_shown_as_people_call_it(actor: ActorId, text: str) -> None:
    assert str(actor) == text
