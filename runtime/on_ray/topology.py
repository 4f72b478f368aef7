"""Which hosts and workers a Ray cluster should run: a pure function of the goal and the nodes.

Rules:

* Every node runs hosts and workers of no pool; one that has what a pool needs runs hosts of that pool, too.
* A host of a pool serves that pool and nothing else.
* Old hosts of a pool stay while a new one of that pool begins on their node, but not for long: it may wait
  for just what they hold.
* Who waits for a resource holds up nobody, and is told of by its pool.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from lungfish.runtime.declared.pools import HostPool
from lungfish.runtime.store.layout import POOL_MARK

Role = Literal["host", "worker"]

#: How long a new host of a pool is waited for before the old ones on its node go (s).
POOL_HOST_S: Final = 20.0
#: After how long a new host of a pool that does not run yet is told of (s).
TOLD_S: Final = 4.0


@dataclass(frozen=True, slots=True)
class Goal:
    """What the controller strives for.

    Attributes:
        generation: raised by every deployment of new code; older actors are replaced.
        cpus_per_host, cpus_per_worker: what Ray reserves for each; hosts mostly wait, so 0 is fair.
        pools: of the app; none of their hosts run where ``hosts_per_node`` is 0.
    """

    hosts_per_node: int = 1
    workers_per_node: int = 1
    generation: int = 1
    cpus_per_host: float = 0
    cpus_per_worker: float = 0
    pools: Mapping[str, HostPool] = field(default_factory=dict)

    def scaled(self, hosts_per_node: int | None, workers_per_node: int | None) -> Goal:
        """Return the goal with other counts; None leaves a count as it is."""
        return replace(
            self,
            hosts_per_node=self.hosts_per_node if hosts_per_node is None else hosts_per_node,
            workers_per_node=self.workers_per_node if workers_per_node is None else workers_per_node,
        )

    def with_generation(self, generation: int) -> Goal:
        """Return the goal for another generation of code."""
        return replace(self, generation=generation)


@dataclass(frozen=True, slots=True)
class Node:
    """A node that may run something: its id, what it has in all, its labels."""

    id: str
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunningActor:
    """A host or worker actor; all that the controller knows of it is in its name.

    Attributes:
        pool: whose host it is; empty: of none.
    """

    hub: str
    role: Role
    node: str
    number: int
    generation: int
    pool: str = ""

    @property
    def name(self) -> str:
        """The actor's name in Ray; also the slot of its host id."""
        role = f"{self.role}{POOL_MARK}{self.pool}" if self.pool else self.role
        return f"{self.hub}:{role}:{self.node}:{self.number}:g{self.generation}"

    @classmethod
    def parse(cls, name: str) -> RunningActor | None:
        """Read an actor's name; None if it is not one of ours."""
        parts = name.split(":")
        if len(parts) != 5 or not parts[3].isdigit() or not parts[4].removeprefix("g").isdigit():
            return None
        hub, role, node, number, generation = parts
        role, _, pool = role.partition(POOL_MARK)
        if role == "host":
            return cls(hub, "host", node, int(number), int(generation[1:]), pool)
        if role == "worker":
            return cls(hub, "worker", node, int(number), int(generation[1:]))
        return None


def plan(
    hub: str, goal: Goal, nodes: Sequence[Node], running: Sequence[RunningActor]
) -> tuple[list[RunningActor], list[RunningActor]]:
    """Return what to create and what to remove, in that order.

    Args:
        nodes: those that may run something (alive, not drained).
        running: what Ray says there is, in any state.
    """
    counts: list[tuple[Role, int]] = [("host", goal.hosts_per_node), ("worker", goal.workers_per_node)]
    by_id = sorted(nodes, key=lambda node: node.id)
    wanted = [
        RunningActor(hub, role, node.id, number, goal.generation)
        for node in by_id
        for role, count in counts
        for number in range(count)
    ]
    wanted += [
        RunningActor(hub, "host", node.id, number, goal.generation, name)
        for name, pool in goal.pools.items()
        for node in by_id
        if goal.hosts_per_node and pool.takes(node.resources, node.labels)
        for number in range(pool.hosts_per_node)
    ]
    present = set(running)
    return [actor for actor in wanted if actor not in present], sorted(
        present.difference(wanted), key=lambda actor: actor.name
    )


def removable(extra: Sequence[RunningActor], beginning: Mapping[RunningActor, float]) -> list[RunningActor]:
    """Return those that may go now.

    Args:
        extra: what should not be there.
        beginning: hosts that were made and do not run yet, and for how long (s).
    """
    awaited = {
        (new.pool, new.node)
        for new, seconds in beginning.items()
        if new.pool and seconds < POOL_HOST_S and new not in extra
    }
    return [actor for actor in extra if (actor.pool, actor.node) not in awaited]


def late(beginning: Mapping[RunningActor, float]) -> set[RunningActor]:
    """Return the hosts of pools that should run by now: they wait for what others hold."""
    return {actor for actor, seconds in beginning.items() if actor.pool and seconds >= TOLD_S}


def pool_notes(goal: Goal, nodes: Sequence[Node], waiting: Collection[RunningActor]) -> dict[str, str]:
    """Return what the pools wait for, by name, in words; those that have all their hosts are left out.

    Args:
        nodes: those that may run something.
        waiting: hosts that should run by now.
    """
    notes: dict[str, str] = {}
    for name, pool in goal.pools.items():
        where = sorted({actor.node for actor in waiting if actor.pool == name})
        if not goal.hosts_per_node or not pool.hosts_per_node:
            continue
        if not any(pool.takes(node.resources, node.labels) for node in nodes):
            notes[name] = f"no node of the Ray cluster has {pool.needs()}"
        elif where:
            on = ", ".join(where)
            notes[name] = f"a host of it waits for {pool.needs()} on node {on}: others hold it, or it is slow"
    return notes
