"""What user code of a simulated run tells about itself, outside of anything durable.

Operations, orchestrations and activities may be run any number of times; what they note here
is not rolled back. That is the point: it shows what was *executed*, where the store shows what *counts*.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.simulation.loop import GATE

#: Unix time at which every simulation begins (ms).
BASE_MS = 1_700_000_000_000


@dataclass(slots=True)
class World:
    """The run that goes on.

    Attributes:
        now_ms: the store's clock.
        report: takes a violation.
        attempts: (idempotency key, attempt) of an activity → how often it was begun.
        mended: families of orchestrations whose failing activity is well again.
        told: (worker, idempotency key): the worker was told that the activity needs no result any more.
        awakenings: entity → how often its ``on_activate`` was begun.
        said: what the heartbeats of an activity said, by its idempotency key.
        lossy: the store may lose what it has acknowledged, and with it what somebody was told.
    """

    now_ms: Callable[[], int]
    report: Callable[[str], None]
    attempts: Counter[tuple[str, int]] = field(default_factory=Counter)
    told: set[tuple[str, str]] = field(default_factory=set)
    said: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    awakenings: Counter[str] = field(default_factory=Counter)
    mended: set[str] = field(default_factory=set)
    lossy: bool = False
    timers: int = 0
    late_ms: int = 0

    def fired(self, what: str, due_ms: int) -> None:
        """Note that something scheduled for ``due_ms`` has happened."""
        self.timers += 1
        now_ms = self.now_ms()
        self.late_ms = max(self.late_ms, now_ms - due_ms)
        if now_ms < due_ms:
            self.report(f"early: {what} fired {due_ms - now_ms} ms before it was due")

    def begun(self, key: str, attempt: int) -> None:
        """Note that an attempt of an activity is executed."""
        self.attempts[key, attempt] += 1
        gate = GATE.get()
        if gate is not None and (gate.name, key) in self.told:
            self.report(f"{gate.name} runs activity {key} after it was told that no result is missing")


class _Stage:
    """Where user code finds the world: it is called by the product, which knows nothing of it."""

    world: World | None = None


def enter(world: World | None) -> None:
    """Make ``world`` the one that user code tells."""
    _Stage.world = world


def world() -> World:
    """Return the world of the run that goes on."""
    found = _Stage.world
    assert found is not None, "no simulation is running"
    return found
