"""Does some order explain a concurrent history? After Wing and Gong (1993), with a memo as in Lowe's checker.

Rules:

* An operation takes effect at one moment between its beginning and its end. One whose outcome nobody knows
  may take effect at any moment after its beginning, or never.
* The search tries every operation that may come next, and never the same set of done operations with the same
  state twice. Exponential at worst; histories of clients that wait for their answers are narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final

#: The result of an operation that was not answered.
UNKNOWN: Final = object()
NEVER: Final = float("inf")

State = Hashable


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation as its caller saw it.

    Attributes:
        step: state → state and result.
        result: what the caller was told; ``UNKNOWN``: nothing.
        began, ended: on the callers' common clock; ``NEVER``: it was not answered.
    """

    name: str
    step: Callable[[Any], tuple[State, Any]]
    result: Any
    began: float
    ended: float = NEVER


def explains(operations: Sequence[Operation], initial: State) -> bool:
    """Tell whether the operations are linearizable from a state."""
    ordered = sorted(operations, key=lambda one: one.began)
    answered = sum(1 << at for at, one in enumerate(ordered) if one.result is not UNKNOWN)
    seen: set[tuple[int, State]] = set()
    stack: list[tuple[int, State]] = [(0, initial)]
    while stack:
        done, state = stack.pop()
        if done & answered == answered:
            return True
        for at in _next(ordered, done):
            state_after, result = ordered[at].step(state)
            if ordered[at].result is not UNKNOWN and ordered[at].result != result:
                continue
            place = (done | 1 << at, state_after)
            if place not in seen:
                seen.add(place)
                stack.append(place)
    return False


def _next(ordered: Sequence[Operation], done: int) -> list[int]:
    """Return what may take effect next: it began before everything that is left had ended."""
    left = [at for at in range(len(ordered)) if not done >> at & 1]
    first_end = min((ordered[at].ended for at in left), default=NEVER)
    return [at for at in left if ordered[at].began <= first_end]
