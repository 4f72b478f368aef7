"""Fixtures that all tests share."""

from tests.local import run_app
from tests.servers import hub_name, valkey, valkey_cluster

__all__ = ["hub_name", "run_app", "valkey", "valkey_cluster"]
