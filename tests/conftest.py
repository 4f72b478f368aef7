"""Fixtures that all tests share."""

from hypothesis import settings

from tests.local import run_app
from tests.servers import hub_name, valkey, valkey_cluster

__all__ = ["hub_name", "run_app", "valkey", "valkey_cluster"]

# A busy machine makes an example slow; it does not make it wrong.
settings.register_profile("lungfish", deadline=None)
settings.load_profile("lungfish")
