"""Pools of hosts: what an app says of the hosts that its pinned entities need. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lungfish.runtime.errors import UsageError
from lungfish.runtime.ids import check_id
from lungfish.runtime.store.layout import POOL_PARTITIONS, POOL_PARTITIONS_MAX

from .activity_resources import OPTIONS


@dataclass(frozen=True, slots=True)
class HostPool:
    """Hosts of their own for entities that are pinned to them with ``@app.entity(pool=...)``.

    On Ray, every node that has these resources and labels runs hosts of the pool, beside its others. In
    ``lungfish dev`` and in tests, where all is one process, that serves every pool. As
    ``[SiloRoleBasedPlacement]`` and required placement filters in Orleans.

    Attributes:
        partitions: over how many partitions the pool's entities are spread: at most so many hosts share
            them. Fixed for ever when the hub first sees the pool.
        resources: what Ray reserves for each of its hosts: ``{"GPU": 1}``, ``{"CPU": 2, "fpga": 1}``. A node
            that has less in all is not in the pool; one where others hold it gets its host when it is free.
        labels: of Ray nodes, as ``{"zone": "a"}``; a node is in the pool if it has all of them.
        hosts_per_node: how many on each node of the pool.

    Raises:
        UsageError: counts or amounts that make no sense.
    """

    partitions: int = POOL_PARTITIONS
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    hosts_per_node: int = 1

    def __post_init__(self) -> None:
        if type(self.partitions) is not int or not 0 < self.partitions <= POOL_PARTITIONS_MAX:
            raise UsageError(f"partitions of a pool are 1 to {POOL_PARTITIONS_MAX}, not {self.partitions!r}")
        if type(self.hosts_per_node) is not int or self.hosts_per_node < 0:
            raise UsageError(f"hosts_per_node is 0 or more, not {self.hosts_per_node!r}")
        resources: Any = self.resources
        labels: Any = self.labels
        if not isinstance(resources, Mapping):
            raise UsageError(f"resources of a pool is a dict, as in {{'GPU': 1}}, not {resources!r}")
        for name, amount in resources.items():
            if not isinstance(name, str) or not name:
                raise UsageError(f"a resource of a pool has a name, a str, not {name!r}")
            if type(amount) not in (int, float) or not 0 < amount < 1e15:
                raise UsageError(f"resource {name!r} of a pool is an amount over 0, not {amount!r}")

        if not isinstance(labels, Mapping) or any(
            not isinstance(text, str) for pair in labels.items() for text in pair
        ):
            raise UsageError(f"labels of a pool is a dict of str, as in {{'zone': 'a'}}, not {labels!r}")

    def takes(self, resources: Mapping[str, float], labels: Mapping[str, str]) -> bool:
        """Return True if a node with these resources, in all, and labels is in the pool."""
        return all(
            resources.get(name, 0) >= amount * self.hosts_per_node for name, amount in self.resources.items()
        ) and all(labels.get(name) == value for name, value in self.labels.items())

    def needs(self) -> str:
        """Return in words what a node must have."""
        each = [f"{name}: {amount:g}" for name, amount in self.resources.items()]
        if each and self.hosts_per_node > 1:
            each[-1] += f" for each of {self.hosts_per_node} hosts"
        return ", ".join(each + [f"label {name}={value}" for name, value in self.labels.items()]) or "room"

    def ray_options(self) -> dict[str, Any]:
        """Return what each of its hosts reserves, as options of a Ray actor."""
        options: dict[str, Any] = {"num_cpus": 0}
        for name, amount in self.resources.items():
            if name in OPTIONS:
                options[OPTIONS[name]] = amount
            else:
                options.setdefault("resources", {})[name] = amount
        return options


def check_pools(given: Any) -> dict[str, HostPool]:
    """Return the pools that an app was given, by name; None is none. Raises ``UsageError``."""
    if given is not None and not isinstance(given, Mapping):
        raise UsageError(f"pools is a dict of HostPools, as in {{'gpu': HostPool(...)}}, not {given!r}")
    for name, pool in (given or {}).items():
        if not isinstance(pool, HostPool):
            raise UsageError(f"pool {name!r} is a HostPool(...), not {pool!r}")
    return {check_pool_name(name): pool for name, pool in (given or {}).items()}


def check_pool_name(name: str) -> str:
    """Return the name of a pool if it can be one: letters, digits, ``-``, ``_``.

    Raises:
        InvalidId, UsageError: it cannot.
    """
    check_id("pool", name)
    if any(not (c.isascii() and (c.isalnum() or c in "-_")) for c in name):
        raise UsageError(f"pool {name!r}: only ASCII letters, digits, '-' and '_' are allowed")
    return name
