"""Fixtures that all tests share."""

import os
import signal

from hypothesis import settings

from tests.local import run_app
from tests.servers import hub_name, valkey, valkey_cluster

__all__ = ["hub_name", "run_app", "valkey", "valkey_cluster"]

# Tests talk to this machine only; and Ray Data's poller goes on logging in tests that come later.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

# A shell without job control makes what it starts in the background deaf to Ctrl-C, and so all its programs.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine makes an example slow; it does not make it wrong.
settings.register_profile("lungfish", deadline=None)
settings.load_profile("lungfish")
