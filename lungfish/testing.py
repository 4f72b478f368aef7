"""Tools for tests of your own entities, orchestrations and activities: docs/testing.md.

::

    async def test_nobody_answers() -> None:
        async with lungfish.testing.environment(app) as env:
            instance = await env.client.start(approve, "a desk")
            assert await instance.result() == "a desk: escalated"   # three days later, in milliseconds
"""

from lungfish.orchestrations.exporting import export_history
from lungfish.orchestrations.replayer import Replayer
from lungfish.runtime.declared.activity_info import ActivityInfo, running_as
from lungfish.runtime.testing.crashes import CrashReport, OutcomeChanged, crash_everywhere
from lungfish.runtime.testing.environment import Environment, environment

__all__ = [
    "ActivityInfo",
    "CrashReport",
    "Environment",
    "OutcomeChanged",
    "Replayer",
    "crash_everywhere",
    "environment",
    "export_history",
    "running_as",
]
