"""What an activity queue is: lanes of one priority each, and limits on taking from them. Pure.

Rules:

* A queue is ten *lanes*, one per priority; the lane of the default priority has the queue's own name. For
  the store a lane is a stream with its own consumer group, so that each is first in, first out.
* The urgent go first, but one in ``PATIENCE`` is taken from the other end: the last lane waits long, not
  for ever.
* What is *declared* in code counts until something else is *set* at run time. Both are fields of one hash
  (``d:rate``, ``s:rate``), and the script that hands out entries reads them.
* A slot of a queue is an entry that was taken and is not finished. So slots need no counting of their own,
  and what a dead worker held is freed, or goes on, with its entries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from lungfish.runtime.errors import UsageError

#: Priorities are 0 (first) to 9 (last).
PRIORITIES: Final = 10
DEFAULT_PRIORITY: Final = 5
#: One entry in so many is taken from the last lane that has any.
PATIENCE: Final = 10
#: Between a queue's name and a priority in the name of a lane; no queue can be named so (``check_id``).
_SEPARATOR: Final = "\x1f"
#: What a queue that was idle may begin at once: this part of a second of its rate, or one.
BURST_S: Final = 0.1


def check_priority(priority: object) -> int:
    """Return ``priority``; raise ``UsageError`` if it is not 0 to 9."""
    if isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority < PRIORITIES:
        raise UsageError(f"priority must be 0 (first) to {PRIORITIES - 1} (last), not {priority!r}")
    return priority


def lane_of(queue: str, priority: int) -> str:
    """Return the name of a queue's lane."""
    return queue if priority == DEFAULT_PRIORITY else f"{queue}{_SEPARATOR}{priority}"


def lanes_of(queue: str) -> tuple[str, ...]:
    """Return all lanes of a queue, the most urgent first."""
    return tuple(lane_of(queue, priority) for priority in range(PRIORITIES))


def split_lane(lane: str) -> tuple[str, int]:
    """Return queue and priority of a lane."""
    queue, separator, priority = lane.partition(_SEPARATOR)
    return queue, int(priority) if separator else DEFAULT_PRIORITY


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Limits of a queue; None is unlimited.

    Attributes:
        concurrency: attempts that run at once, over all workers.
        worker_concurrency: attempts that run at once in each worker.
        rate: attempts that begin per second, over all workers. In any ``t`` seconds at most
            ``rate * (t + 0.1) + 1`` begin; what is run again after a worker's death does not count.
    """

    concurrency: int | None = None
    worker_concurrency: int | None = None
    rate: float | None = None

    def __post_init__(self) -> None:
        for name in ("concurrency", "worker_concurrency"):
            check_limit(name, getattr(self, name))
        check_limit("rate", self.rate)

    def to_fields(self, origin: str) -> dict[str, str | None]:
        """Return the stored fields; None deletes one. ``origin`` is ``d`` (declared) or ``s`` (set)."""
        return {f"{origin}:{f.name}": to_text(getattr(self, f.name)) for f in fields(self)}


def check_limit(name: str, value: Any) -> None:
    """Raise ``UsageError`` if ``value`` cannot be the limit ``name``."""
    if value is None:
        return
    kinds: tuple[type, ...] = (int, float) if name == "rate" else (int,)
    fits = isinstance(value, kinds) and not isinstance(value, bool)
    if not fits or not 0 < value < math.inf:
        what = "a number of attempts per second" if name == "rate" else "a whole number"
        raise UsageError(
            f"{name} must be {what} above 0, or None for no limit, not {value!r}; to stop, pause"
        )


def to_text(value: float | None) -> str | None:
    """Return the stored form of a limit."""
    return None if value is None else repr(value)


def limits_from(stored: Mapping[str, str]) -> tuple[QueueLimits, bool]:
    """Return the limits in force, and whether the queue is paused, from the stored fields."""

    def effective(name: str) -> str:
        return stored.get(f"s:{name}", stored.get(f"d:{name}", ""))

    concurrency, worker, rate = (effective(f.name) for f in fields(QueueLimits))
    limits = QueueLimits(
        int(concurrency) if concurrency else None,
        int(worker) if worker else None,
        float(rate) if rate else None,
    )
    return limits, bool(stored.get("paused"))


@dataclass(slots=True)
class Meter:
    """What a queue has handed out: the rate's bucket, and whose turn it is. As in ``take_limited.lua``.

    Attributes:
        tokens: attempts that may begin at ``at_s``; None: the bucket was never used.
        turn: entries handed out so far.
    """

    tokens: float | None = None
    at_s: float = 0.0
    turn: int = 0

    def fill(self, rate: float, now_s: float) -> int:
        """Let time pass; return how many attempts may begin now."""
        most = max(1.0, rate * BURST_S)
        saved = most if self.tokens is None else self.tokens + max(0.0, now_s - self.at_s) * rate
        self.tokens, self.at_s = min(most, saved), now_s
        return math.floor(self.tokens + 1e-6)

    def take(self, count: int) -> None:
        """Note that so many were handed out."""
        self.turn += count
        if self.tokens is not None:
            self.tokens -= count

    def next_turn(self, left: int) -> tuple[bool, int]:
        """Return whether the least urgent go next, and how many may go before that changes."""
        before_last = PATIENCE - 1 - self.turn % PATIENCE
        return (False, min(left, before_last)) if before_last else (True, 1)


@dataclass(frozen=True, slots=True)
class QueueState:
    """A queue as the store has it.

    Attributes:
        fields: the hash of limits.
        waiting: entries that nobody has taken, per priority.
        taken: entries that are taken and not finished, per worker.
    """

    fields: dict[str, str]
    waiting: dict[int, int]
    taken: dict[str, int]


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """What a queue does now.

    Attributes:
        name: of the queue.
        limits: those in force.
        paused: nothing is handed out.
        backlog: activities that wait.
        running: activities that workers have.
        by_priority: the backlog per priority, where there is any.
        by_worker: the running per worker.
    """

    name: str
    limits: QueueLimits
    paused: bool
    backlog: int
    running: int
    by_priority: Mapping[int, int]
    by_worker: Mapping[str, int]

    @classmethod
    def of(cls, name: str, state: QueueState) -> QueueInfo:
        """Read what the store has of a queue."""
        limits, paused = limits_from(state.fields)
        waiting = {priority: count for priority, count in sorted(state.waiting.items()) if count}
        return cls(
            name,
            limits,
            paused,
            sum(waiting.values()),
            sum(state.taken.values()),
            waiting,
            dict(sorted(state.taken.items())),
        )
