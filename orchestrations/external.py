"""External events of one execution: those that came early, and who waits for the next.

Rules:

* Per name, without regard to case, in order: the oldest waiter gets the oldest event, decoded as *its* type.
* A cancelled waiter consumes nothing. A waiter that cannot decode its event has consumed it.
* What nobody consumed goes to the next execution, over all names in the order of arrival.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from . import events
from .loop import DeterministicLoop
from .tasks import Task

T = TypeVar("T")


class ExternalEvents:
    """Events that wait for the code, and code that waits for events."""

    __slots__ = ("_arrivals", "_names", "_unconsumed", "_waiters")

    def __init__(self) -> None:
        self._waiters: dict[str, deque[Task[Any]]] = {}
        self._unconsumed: dict[str, deque[tuple[int, events.EventRaised]]] = {}
        self._arrivals = 0
        #: As they were written when they were last waited for.
        self._names: dict[str, str] = {}

    @property
    def awaited(self) -> bool:
        """Whether any waiter is left."""
        return any(self._waiters.values())

    def waited_for(self) -> list[tuple[str, int]]:
        """Return the names that are waited for, and since when (ms): each once, the longest first."""
        found = [(self._names[folded], tasks[0].since_ms) for folded, tasks in self._waiters.items() if tasks]
        return sorted(found, key=lambda each: (each[1], each[0]))

    def arrive(self, event: events.EventRaised) -> None:
        """Give an event to the oldest waiter, or keep it."""
        name = event.name.casefold()
        waiters = self._waiters.get(name)
        if waiters:
            waiters.popleft().complete(event.payload)
            return
        self._arrivals += 1
        self._unconsumed.setdefault(name, deque()).append((self._arrivals, event))

    def wait(self, loop: DeterministicLoop, name: str, decode: Callable[[bytes | None], T]) -> Task[T]:
        """Return a task for the next event of that name; done at once if one came early."""
        folded = name.casefold()
        waiters = self._waiters.setdefault(folded, deque())
        task: Task[T] = Task(loop, f"event {name!r}", decode=decode, on_cancel=waiters.remove)
        early = self._unconsumed.get(folded)
        if early:
            task.complete(early.popleft()[1].payload)
        else:
            waiters.append(task)
            self._names[folded] = name
        return task

    def unconsumed(self) -> Sequence[events.EventRaised]:
        """Return what nobody waited for, in the order of arrival."""
        return [event for _, event in sorted(item for queue in self._unconsumed.values() for item in queue)]

    def clear(self) -> None:
        """Forget the waiters."""
        self._waiters.clear()
