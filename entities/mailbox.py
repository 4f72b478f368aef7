"""What an entity has accepted and not begun, in order; beside it, what waits for a critical section to end.

Rules:

* What may run stands in ``entries``, in the order of arrival.
* While an orchestration holds the entity, what is not the holder's stands in the lock's own queue, and goes
  behind ``entries`` when the lock is let go (``locking``).
* A call that was given up is forgotten wherever it stands, unless it has begun.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages.messages import CancelCall, LockRelease, LockRequest, Signal
from lungfish.runtime.partitions.kinds import Effects, Item

from .inspecting import is_call, told_of
from .jobs import Job
from .locking import Claim, Entry, Locks, Release
from .running import Running
from .turn import Turns

_NONE: Final[deque[Entry]] = deque(maxlen=0)


class Mailbox:
    """The queue of one activation, and the locks on it. See the rules of this module.

    Attributes:
        entries: what may run, in order; always the same object.
        locks: made when the first orchestration asks for the entity.
    """

    __slots__ = ("_actor", "entries", "locks")

    def __init__(self, actor: ActorId) -> None:
        self._actor = actor
        self.entries: deque[Entry] = deque()
        self.locks: Locks | None = None

    @property
    def is_held(self) -> bool:
        """True while an orchestration holds the entity."""
        return self.locks is not None and self.locks.holding is not None

    @property
    def _blocked(self) -> deque[Entry]:
        return self.locks.holding.blocked if self.locks and self.locks.holding else _NONE

    def admit(self, effects: Effects, entry: Entry) -> None:
        """Put an entry where it may run, or where it waits until the holder lets go."""
        locks = self.locks
        if locks is None or locks.holding is None or locks.holding.admits(entry):
            self.entries.append(entry)
            return
        locks.holding.blocked.append(entry)
        locks.watch(effects, self._actor)

    def replace(self, entries: Iterable[Entry]) -> None:
        """Make ``entries`` all that may run."""
        kept = list(entries)
        self.entries.clear()
        self.entries.extend(kept)

    def clear(self) -> None:
        """Let go of everything."""
        self.entries.clear()
        self.locks = None

    def cancel(self, effects: Effects, message: CancelCall) -> None:
        """Forget a call that was not started. One that was has had effects: it goes on."""
        for queue in (self.entries, self._blocked):
            for entry in queue:
                if is_call(entry, message):
                    queue.remove(entry)
                    effects.done(entry.item)
                    return

    def leading_sync_jobs(self, may_start: Callable[[Entry], bool], limit: int) -> list[Job]:
        """Return the jobs at the head that can be one turn, up to ``limit`` operations; they stay here."""
        found: list[Job] = []
        for job in self.entries:
            if job.operation.is_async or not may_start(job) or limit <= 0:
                break
            assert isinstance(job, Job), "locks are no part of a turn"
            if job.is_tick and found:
                break
            limit -= job.message.count if isinstance(job.message, Signal) else 1
            found.append(job)
            if job.is_tick:
                break
        return found

    def told(self, turns: Turns, running: Iterable[Running | None]) -> bytes:
        """Return what ``inspect`` is answered."""
        return told_of(turns, self.locks, self.entries, running)

    # --- critical sections -----------------------------------------------------------------

    def take_lock_message(self, effects: Effects, item: Item, message: LockRequest | LockRelease) -> None:
        """Take a request to hold the entity, or its end."""
        locks = self.locks = self.locks or Locks()
        if isinstance(message, LockRequest):
            claim = locks.request(effects, item, message)
            if claim is not None and claim.since_ms:
                self.hold(effects, claim)  # it holds since an earlier activation
            elif claim is not None:
                self.admit(effects, claim)
            return
        taken = locks.release(effects, item, message)
        if isinstance(taken, Release):
            self.entries.append(taken)
        elif taken is not None:
            (self._blocked if taken in self._blocked else self.entries).remove(taken)

    def hold(self, effects: Effects, claim: Claim) -> None:
        """Hold the entity for a claim whose turn has come: what is not the holder's waits from here on."""
        assert self.locks is not None
        self.locks.hold(effects, claim)
        behind = list(self.entries)
        self.entries.clear()
        for entry in behind:
            self.admit(effects, entry)

    def let_go(self, effects: Effects, release: Release) -> None:
        """End the lock that a release names: what has waited for that may run."""
        assert self.locks is not None
        self.entries.extend(self.locks.let_go(effects, release))

    def check(self, effects: Effects) -> None:
        """Ask the holder whether it still is one."""
        if self.locks is not None:
            self.locks.check(effects, self._actor)

    def section_of(self, job: Job) -> tuple[ActorId, ...]:
        """Return the entities of the critical section that a job belongs to; none, if it belongs to none."""
        holding = self.locks.holding if self.locks is not None else None
        return holding.claim.message.entities if holding is not None and holding.is_holders(job) else ()
