"""Which hosts and workers a Ray cluster should run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lungfish.runtime.declared.pools import HostPool
from lungfish.runtime.on_ray.topology import (
    POOL_HOST_S,
    TOLD_S,
    Goal,
    Node,
    RunningActor,
    late,
    plan,
    pool_notes,
    removable,
)

ONE_EACH = Goal()


def _actor(role: str = "host", node: str = "n1", number: int = 0, generation: int = 1) -> RunningActor:
    found = RunningActor.parse(f"hub:{role}:{node}:{number}:g{generation}")
    assert found is not None
    return found


def test_each_node_gets_its_hosts_and_workers() -> None:
    missing, extra = plan("hub", ONE_EACH, [Node("n1"), Node("n2")], [])
    assert [(a.role, a.node) for a in missing] == [
        ("host", "n1"),
        ("worker", "n1"),
        ("host", "n2"),
        ("worker", "n2"),
    ]
    assert extra == []


def test_what_is_there_is_left_alone() -> None:
    assert plan("hub", ONE_EACH, [Node("n1")], [_actor(), _actor("worker")]) == ([], [])


def test_what_is_on_a_lost_node_goes() -> None:
    gone = _actor(node="n2")
    assert plan("hub", ONE_EACH, [Node("n1")], [_actor(), _actor("worker"), gone]) == ([], [gone])


def test_a_new_generation_replaces_the_old() -> None:
    old = [_actor(), _actor("worker")]
    missing, extra = plan("hub", ONE_EACH.with_generation(2), [Node("n1")], old)
    assert {actor.generation for actor in missing} == {2}
    assert extra == old


def test_scaling_keeps_what_is_not_named() -> None:
    goal = ONE_EACH.scaled(3, None)
    assert (goal.hosts_per_node, goal.workers_per_node) == (3, 1)


def test_a_name_is_read_back() -> None:
    actor = _actor("worker", "n7", 3, 12)
    assert RunningActor.parse(actor.name) == actor


@pytest.mark.parametrize(
    "name", ["", "other", "hub:controller", "hub:host:n:x:g1", "hub:cook:n:1:g1", "a:host:n:1:1g"]
)
def test_other_names_are_not_ours(name: str) -> None:
    assert RunningActor.parse(name) is None


GPU = HostPool(resources={"GPU": 1}, hosts_per_node=2)
ZONE = HostPool(labels={"zone": "a"})
POOLED = Goal(workers_per_node=0, pools={"gpu": GPU, "zone": ZONE})


def test_nodes_that_have_what_a_pool_needs_run_hosts_of_it() -> None:
    nodes = [
        Node("n1", {"CPU": 4}, {"zone": "b"}),
        Node("n2", {"CPU": 4, "GPU": 2}, {"zone": "a"}),
        Node("n3", {"CPU": 4, "GPU": 1}),
    ]
    missing, extra = plan("hub", POOLED, nodes, [])
    assert [(actor.pool, actor.node, actor.number) for actor in missing] == [
        ("", "n1", 0),
        ("", "n2", 0),
        ("", "n3", 0),
        ("gpu", "n2", 0),
        ("gpu", "n2", 1),
        ("zone", "n2", 0),
    ]
    assert extra == []
    assert plan("hub", POOLED, nodes, missing) == ([], [])


def test_where_no_hosts_run_there_are_none_of_a_pool() -> None:
    node = Node("n2", {"GPU": 2})
    missing, _ = plan("hub", POOLED, [node], [])
    stopped = POOLED.scaled(0, 0)
    assert plan("hub", stopped, [node], missing) == ([], sorted(missing, key=lambda actor: actor.name))
    assert plan("hub", stopped.scaled(1, None), [node], missing) == ([], [])


def test_a_pool_that_the_app_does_not_have_any_more_goes() -> None:
    nodes = [Node("n2", {"GPU": 2})]
    running, _ = plan("hub", POOLED, nodes, [])
    _, extra = plan("hub", Goal(workers_per_node=0), nodes, running)
    assert {actor.pool for actor in extra} == {"gpu"}


def test_a_pools_host_is_read_back_from_its_name() -> None:
    actor = RunningActor("hub", "host", "n1", 1, 7, "zone-a")
    assert RunningActor.parse(actor.name) == actor


def test_what_a_pools_hosts_reserve() -> None:
    pool = HostPool(resources={"CPU": 2, "GPU": 0.5, "memory": 1e9, "fpga": 1, "x": 2})
    assert pool.ray_options() == {
        "num_cpus": 2,
        "num_gpus": 0.5,
        "memory": 1e9,
        "resources": {"fpga": 1, "x": 2},
    }
    assert ZONE.ray_options() == {"num_cpus": 0}


def test_old_hosts_of_a_pool_stay_for_a_while_where_a_new_one_begins() -> None:
    old, new = (RunningActor("hub", "host", "n2", 0, generation, "gpu") for generation in (1, 2))
    elsewhere, of_none = replace(old, node="n3"), replace(old, pool="")
    extra = [old, elsewhere, of_none]
    assert removable(extra, {}) == extra
    assert removable(extra, {new: 1.0}) == [elsewhere, of_none]
    assert removable(extra, {new: POOL_HOST_S}) == extra, "what it waits for may be what they hold"
    assert removable([*extra, new], {new: 1.0}) == [*extra, new], "it is not wanted itself"
    assert removable([of_none], {replace(new, pool=""): 1.0}) == [of_none]


def test_what_pools_wait_for_is_told_in_words() -> None:
    nodes = [Node("n1", {"CPU": 4}, {"zone": "a"}), Node("n2", {"GPU": 1})]
    host = RunningActor("hub", "host", "n1", 0, 1, "zone")
    begun_late = late({host: TOLD_S, replace(host, pool=""): 99.0, replace(host, node="n3"): TOLD_S - 1})
    assert begun_late == {host}
    assert pool_notes(POOLED, nodes, []) == {
        "gpu": "no node of the Ray cluster has GPU: 1 for each of 2 hosts"
    }
    assert pool_notes(POOLED, [*nodes, Node("n3", {"GPU": 2})], begun_late) == {
        "zone": "a host of it waits for label zone=a on node n1: others hold it, or it is slow"
    }
    assert pool_notes(POOLED.scaled(0, 0), nodes, [host]) == {}, "no hosts are wanted"
