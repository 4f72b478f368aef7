"""How a partition whose owners die, again and again, is run until the message that kills them is known.

Rules:

* A store counts how often a partition was claimed from an owner that did not let go, each time within a
  minute of the claim before. Three such deaths in a row, and the next owner is cautious for a minute.
* A cautious owner gives its actors one message at a time. Before it does, the attempt is *durable*: a
  commit carries it in the message's mailbox row. What ends well takes its attempt back with the next
  commit; so does what is still unfinished after a while (it waits for others). Whoever dies leaves
  exactly one message that is suspected.
* A message that was suspected ``ATTEMPTS_MAX`` times is set aside, with the reason, and the rest goes on.
* Nothing of this costs anything where owners do not die.

Pure: the partition gives and commits.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from .kinds import Item

#: Deaths in a row, before the next owner is cautious.
DEATHS_MAX: Final = 3
#: A death counts as one of a row if it is within this time of the claim before; also the time of caution.
CALM_MS: Final = 60_000
#: How often a message may be the only one that was run when its owner died.
ATTEMPTS_MAX: Final = 5
#: How long one message may take before the next is given.
PATIENCE_MS: Final = 3_000


class Step(Enum):
    """What the partition is to do now."""

    #: Nothing: a commit, or the message that was given, must end first.
    WAIT = "wait"
    #: Set ``current`` aside: it was suspected too often.
    SET_ASIDE = "set aside"
    #: Commit the attempt at ``current``.
    COMMIT = "commit"
    #: Give ``current`` to its actor.
    GIVE = "give"
    #: Commit that ``current`` is suspected no more; then ask again.
    CLEAR = "clear"
    #: Be cautious no longer.
    END = "end"


@dataclass(slots=True, eq=False)
class Caution:
    """The state of a cautious partition. See the rules of this module.

    Attributes:
        waiting: accepted, not yet given.
        current: the one that is tried now; ``gate`` is the commit that carries its attempt.
        given_ms: when it was given; 0: it waits for its commit.
    """

    until_ms: int
    waiting: deque[Item] = field(default_factory=deque)
    current: Item | None = None
    gate: int = 0
    given_ms: int = 0

    def next_step(self, now_ms: int, committed: int, *, is_running: bool) -> Step:
        """Decide what to do; the partition does it and asks again, unless it is to wait.

        Args:
            now_ms: the time.
            committed: the last commit that is acknowledged.
            is_running: what was given has not ended, as far as anybody can see.
        """
        if self.current is not None:
            return self._step_of_current(now_ms, committed, is_running=is_running)
        if not self.waiting:
            return Step.END if now_ms >= self.until_ms else Step.WAIT
        self.current = self.waiting.popleft()
        return Step.SET_ASIDE if self.current.attempts >= ATTEMPTS_MAX else Step.COMMIT

    def has_step(self, now_ms: int, committed: int, *, is_running: bool) -> bool:
        """Tell whether ``next_step`` would be anything but to wait; changes nothing."""
        if self.current is None:
            return bool(self.waiting)
        return self._step_of_current(now_ms, committed, is_running=is_running) is not Step.WAIT

    def _step_of_current(self, now_ms: int, committed: int, *, is_running: bool) -> Step:
        if not self.given_ms:
            return Step.WAIT if committed < self.gate else Step.GIVE
        if is_running and now_ms < self.given_ms + PATIENCE_MS:
            return Step.WAIT
        return Step.CLEAR
