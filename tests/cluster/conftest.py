"""Ray clusters for tests: several nodes on this machine, token authentication on (Ray's default)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from tests.servers import Server


@pytest.fixture(scope="package")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes; this process drives the first, the others may be removed."""
    root = str(Path(__file__).resolve().parents[2])
    # Workers import the app of the tests by name.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def durable_store(tmp_path: Path) -> Iterator[Server]:
    """A server of its own, synced at every write."""
    server = Server(tmp_path / "store")
    yield server
    server.stop()
