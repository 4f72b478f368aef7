"""Fixtures that all tests share."""

import os

from hypothesis import settings

from tests.local import run_app
from tests.servers import hub_name, valkey, valkey_cluster

__all__ = ["hub_name", "run_app", "valkey", "valkey_cluster"]

# Tests talk to this machine only; and Ray Data's poller goes on logging in tests that come later.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

# A busy machine makes an example slow; it does not make it wrong.
settings.register_profile("lungfish", deadline=None)
settings.load_profile("lungfish")
