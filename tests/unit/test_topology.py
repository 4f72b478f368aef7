"""Which hosts and workers a Ray cluster should run."""

from __future__ import annotations

import pytest

from lungfish.runtime.topology import Goal, RunningActor, plan

ONE_EACH = Goal()


def _actor(role: str = "host", node: str = "n1", number: int = 0, generation: int = 1) -> RunningActor:
    found = RunningActor.parse(f"hub:{role}:{node}:{number}:g{generation}")
    assert found is not None
    return found


def test_each_node_gets_its_hosts_and_workers() -> None:
    missing, extra = plan("hub", ONE_EACH, ["n1", "n2"], [])
    assert [(a.role, a.node) for a in missing] == [
        ("host", "n1"),
        ("worker", "n1"),
        ("host", "n2"),
        ("worker", "n2"),
    ]
    assert extra == []


def test_what_is_there_is_left_alone() -> None:
    assert plan("hub", ONE_EACH, ["n1"], [_actor(), _actor("worker")]) == ([], [])


def test_what_is_on_a_lost_node_goes() -> None:
    gone = _actor(node="n2")
    assert plan("hub", ONE_EACH, ["n1"], [_actor(), _actor("worker"), gone]) == ([], [gone])


def test_a_new_generation_replaces_the_old() -> None:
    old = [_actor(), _actor("worker")]
    missing, extra = plan("hub", ONE_EACH.with_generation(2), ["n1"], old)
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
