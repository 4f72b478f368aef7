"""Orchestrations: ordinary code that survives every crash by event sourcing and deterministic replay.

``replay`` is the engine (pure), ``loop`` the event loop that user code runs on, ``context`` what it sees, and
``processor`` what plugs it all into a host.
"""

from .context import EntityRef, OrchestrationContext
from .sections import CriticalSection
from .tasks import Task, when_all, when_any

__all__ = ["CriticalSection", "EntityRef", "OrchestrationContext", "Task", "when_all", "when_any"]
