"""Fixtures that all tests share."""

from tests.servers import hub_name, valkey, valkey_cluster

__all__ = ["hub_name", "valkey", "valkey_cluster"]
