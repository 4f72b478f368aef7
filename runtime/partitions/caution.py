"""How a partition whose owners die, again and again, is run until the message that kills them is known.

Rules:

* A store counts how often a partition was claimed from an owner that did not let go, each time within a
  minute of the claim before. Three such deaths in a row, and the next owner is cautious for a minute.
* A cautious owner gives its actors one message at a time. Before it does, the attempt is *durable*: a
  commit carries it in the message's mailbox row. What ends well takes its attempt back with the next
  commit; so does what is still unfinished after a while (it waits for others). Whoever dies leaves
  exactly one message that is suspected.
* A message that was suspected ``ATTEMPTS_MAX`` times is set aside, with the reason, and the rest goes on.
* A host dies with all its partitions, so a death suspects the message that each of them tries. What was
  suspected once is therefore tried *alone* among all cautious partitions of its host (``Trials``), and
  nothing else is tried before the store knows that it did no harm: the innocent are cleared one by one.
* When the minute is over all that waits is given, unless something among it is still suspected. A cautious
  partition is slow; under load it would never again have nothing that waits.
* Nothing of this costs anything where owners do not die.

Pure: the partition gives and commits.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from lungfish.runtime.store.generations import CALM_MS

from .kinds import Item

#: Deaths in a row, before the next owner is cautious.
DEATHS_MAX: Final = 3
#: How often a message may be the only one that was run when its owner died.
ATTEMPTS_MAX: Final = 5
#: How long one message may take before the next is given.
PATIENCE_MS: Final = 3_000
#: Why such a message is set aside.
SUSPECTED: Final = f"{ATTEMPTS_MAX} times its host died, or its actor broke, while nothing but this was run"


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


class Trials:
    """Which cautious partitions of a host try a message now, and whether one of them must be alone."""

    __slots__ = ("_alone", "_trying")

    def __init__(self) -> None:
        self._trying: set[Caution] = set()
        #: Tries a message that is suspected, or waits for the others to end so that it can.
        self._alone: Caution | None = None

    def may_begin(self, who: Caution, *, alone: bool) -> bool:
        """Tell whether ``begin`` would change anything."""
        if self._alone is who:
            return not self._trying - {who}
        return self._alone is None and (alone or who not in self._trying)

    def begin(self, who: Caution, *, alone: bool) -> bool:
        """Begin a trial if it may begin now; who must be alone is the next, whoever else asks."""
        if self._alone not in (None, who):
            return False
        if alone:
            self._alone = who
            if self._trying - {who}:
                return False
        self._trying.add(who)
        return True

    def is_alone(self, who: Caution) -> bool:
        """Tell whether the trial of ``who`` is one that nobody else may try beside."""
        return self._alone is who

    def end(self, who: Caution) -> None:
        """End the trial of ``who``, if there is one."""
        self._trying.discard(who)
        if self._alone is who:
            self._alone = None


@dataclass(slots=True, eq=False)
class Caution:
    """The state of a cautious partition. See the rules of this module.

    Attributes:
        waiting: accepted, not yet given.
        current: the one that is tried now; ``gate`` is the commit that carries its attempt.
        given_ms: when it was given; 0: it waits for its commit.
        clearing: the commit that clears a message which was tried alone; 0: there is none.
        suspects: how many of those that wait are suspected.
    """

    until_ms: int
    trials: Trials = field(default_factory=Trials)
    waiting: deque[Item] = field(default_factory=deque)
    current: Item | None = None
    gate: int = 0
    given_ms: int = 0
    clearing: int = 0
    suspects: int = 0

    def add(self, item: Item) -> None:
        """Take a message that was accepted."""
        self.waiting.append(item)
        self.suspects += bool(item.attempts)

    def next_step(self, now_ms: int, committed: int, *, is_running: bool) -> Step:
        """Decide what to do; the partition does it and asks again, unless it is to wait.

        Args:
            now_ms: the time.
            committed: the last commit that is acknowledged.
            is_running: what was given has not ended, as far as anybody can see.
        """
        if self.current is not None:
            return self._step_of_current(now_ms, committed, is_running=is_running)
        if self.clearing or self._is_over(now_ms):
            return Step.WAIT if self.clearing else Step.END
        if not self.waiting:
            return Step.WAIT
        attempts = self.waiting[0].attempts
        is_guilty = attempts >= ATTEMPTS_MAX
        if not is_guilty and not self.trials.begin(self, alone=bool(attempts)):
            return Step.WAIT
        self.current = self.waiting.popleft()
        self.suspects -= bool(attempts)
        return Step.SET_ASIDE if is_guilty else Step.COMMIT

    def has_step(self, now_ms: int, committed: int, *, is_running: bool) -> bool:
        """Tell whether ``next_step`` would be anything but to wait; changes nothing."""
        if self.current is not None:
            return self._step_of_current(now_ms, committed, is_running=is_running) is not Step.WAIT
        if self.clearing or not self.waiting:
            return False
        attempts = self.waiting[0].attempts
        is_free = attempts >= ATTEMPTS_MAX or self._is_over(now_ms)
        return is_free or self.trials.may_begin(self, alone=bool(attempts))

    def attempt(self, item: Item, gate: int) -> None:
        """Commit ``gate`` says that ``item`` is tried; it is given when that is acknowledged."""
        item.attempts, self.given_ms, self.gate = item.attempts + 1, 0, gate

    def clear(self, item: Item, gate: int) -> None:
        """Commit ``gate`` says that ``item`` is suspected no more."""
        item.attempts, self.current, self.given_ms = 0, None, 0
        if self.trials.is_alone(self):
            self.clearing = gate
        else:
            self.trials.end(self)

    def acknowledged(self, committed: int) -> Iterable[Item]:
        """Note that a commit is in the store; return what was not given yet."""
        if self.clearing and committed >= self.clearing:
            self.clearing = 0
            self.trials.end(self)
        if self.current is not None and not self.given_ms:
            return itertools.chain((self.current,), self.waiting)
        return self.waiting

    def end(self) -> deque[Item]:
        """End caution, and any trial; return what waits."""
        self.trials.end(self)
        return self.waiting

    def _is_over(self, now_ms: int) -> bool:
        return now_ms >= self.until_ms and not self.suspects

    def _step_of_current(self, now_ms: int, committed: int, *, is_running: bool) -> Step:
        if not self.given_ms:
            return Step.WAIT if committed < self.gate else Step.GIVE
        if is_running and now_ms < self.given_ms + PATIENCE_MS:
            return Step.WAIT
        return Step.CLEAR


def cautious(deaths: int, now_ms: int, trials: Trials) -> Caution | None:
    """Return how a partition is to be run after so many deaths in a row; None: as usual."""
    return Caution(now_ms + CALM_MS, trials) if deaths >= DEATHS_MAX else None
