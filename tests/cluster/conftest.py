"""Ray clusters for tests: several nodes on this machine, token authentication on (Ray's default)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from tests.servers import Server, eventually


@pytest.fixture(scope="package")
def shared_cluster() -> Iterator[Cluster]:
    """Three nodes for all tests; this process drives the first."""
    root = str(Path(__file__).resolve().parents[2])
    # Workers import the app of the tests by name.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    add_workers(cluster)
    ray.init(address=cluster.address, log_to_driver=False)
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def add_workers(cluster: Cluster) -> None:
    """Add what lacks of two nodes beside the first."""
    while len(cluster.worker_nodes) < 2:
        cluster.add_node(num_cpus=1)


@pytest.fixture
def ray_cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    """Three nodes, of which all but the first may be removed; others may come. The next test has three again.

    Else every runtime of later tests would start hosts on the nodes that earlier ones have left behind.
    """
    before = set(shared_cluster.worker_nodes)
    yield shared_cluster
    gone = set(shared_cluster.worker_nodes) - before
    for node in gone:
        shared_cluster.remove_node(node)  # in good order: Ray takes its time to see that a node is dead
    add_workers(shared_cluster)
    ids = {node.node_id for node in gone}
    eventually(
        lambda: not any(node["Alive"] and node["NodeID"] in ids for node in ray.nodes()),
        "the nodes of this test to leave",
        timeout_s=60,
    )


@pytest.fixture
def durable_store(tmp_path: Path) -> Iterator[Server]:
    """A server of its own, synced at every write."""
    server = Server(tmp_path / "store")
    yield server
    server.stop()
