"""Key names: one slot per partition, none shared by two hubs."""

from __future__ import annotations

import pytest
from redis.crc import key_slot

from lungfish.runtime.errors import InvalidId
from lungfish.runtime.on_redis.keys import Keys


def partition_names(keys: Keys, partition: int) -> list[str]:
    names = keys.partition(partition)
    plain = [getattr(names, slot) for slot in type(names).__slots__ if not slot.startswith("_")]
    return [*plain, names.entities("Counter"), names.history("order-1")]


def test_keys_of_a_partition_share_a_slot() -> None:
    keys = Keys("shop")
    for partition in (0, 7, 31):
        slots = {key_slot(name.encode()) for name in partition_names(keys, partition)}
        assert len(slots) == 1
    assert len({key_slot(keys.partition(p).owner.encode()) for p in range(32)}) > 30


def test_odd_names_stay_in_the_slot_of_their_partition() -> None:
    names = Keys("shop").partition(1)
    for key in (names.entities("{x}"), names.history("a}b{c"), names.history("}{")):
        assert key_slot(key.encode()) == key_slot(names.owner.encode())
    keys = Keys("shop")
    for queue in ("a}b", "{", "}", "}:producers"):
        stream, producers = keys.stream(f"q:{queue}"), keys.producers(f"q:{queue}")
        assert key_slot(stream.encode()) == key_slot(producers.encode())


def test_names_as_documented() -> None:
    keys = Keys("shop")
    assert keys.meta == "{shop}:meta"
    assert keys.stream("p:17") == keys.partition(17).inbox == "{shop:17}:inbox"
    assert keys.producers("p:17") == "{shop:17}:producers"
    assert keys.stream("q:default") == keys.queue("default") == "{shop:q:default}"
    assert keys.producers("q:default") == "{shop:q:default}:producers"
    assert keys.stream("c:abc") == "{shop:c:abc}"


def test_all_names_differ() -> None:
    keys = Keys("shop")
    names = [name for p in range(12) for name in partition_names(keys, p)]
    names += [keys.meta, keys.hosts, keys.leader, keys.placement, keys.workers]
    names += [keys.stream(t) for t in ("q:1", "c:1", "q:a", "c:a")] + [keys.producers("q:1")]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("hub", ["", "a{b", "a}b", "a:b", "a\nb", "x" * 513])
def test_hub_names_that_would_break_tags_are_refused(hub: str) -> None:
    with pytest.raises(InvalidId):
        Keys(hub)


def test_unknown_target_is_refused() -> None:
    with pytest.raises(InvalidId):
        Keys("shop").stream("x:1")
