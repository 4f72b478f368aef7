"""Who watches an entity, and what each of them may be told now. Pure: the processor sends.

Rules:

* A watcher is told what is committed, and nothing else: what is published leaves with the commit that
  carries it.
* The version of a state is the number of a commit of its partition after which the entity is in that
  state. So it grows, also over a takeover, and costs nothing where nobody watches: it is worked out when
  somebody does.
* Order is kept, the latest wins: a later state of the same commit replaces the earlier one, and a watcher
  that has not confirmed ``WINDOW`` states is told no more until it does; then it is told the present one.
* Watchers live with the activation, like everything that is not state. A watcher says every few seconds
  what it has seen: that is how a new owner learns of it, and how one that missed something is told again.
* A watcher that is gone costs ``WINDOW`` states at most; it is forgotten when it has been silent for its
  lease.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from lungfish.runtime.client.watching import LEASE_MS, WINDOW
from lungfish.runtime.errors import Overloaded
from lungfish.runtime.ids import ActorId

#: Watchers of one entity.
WATCHERS_MAX: Final = 10_000


@dataclass(slots=True, eq=False)
class Watcher:
    """One client's watch.

    Attributes:
        until_ms: it is alive until then, as far as is known.
        told: versions that it was told and has not confirmed.
        last: the last version that it was told, or said that it knows.
    """

    target: ActorId
    request: str
    until_ms: int = 0
    told: deque[int] = field(default_factory=deque)
    last: int = 0

    def heard(self, seen: int, now_ms: int, *, lost: bool) -> None:
        """Take what the watcher says: up to where it has seen, and whether the rest may be lost."""
        self.until_ms = now_ms + LEASE_MS
        while self.told and (lost or self.told[0] <= seen):
            self.told.popleft()
        if lost:
            self.last = seen

    def may_be_told(self, version: int) -> bool:
        """Tell whether it lacks ``version`` and there is room; noted as told if so."""
        if self.told and self.told[-1] == version:
            return True  # the same commit: what is published now takes the earlier one's place
        if len(self.told) >= WINDOW:
            return False
        self.told.append(version)
        self.last = version
        return True


class Watchers:
    """The watchers of one entity; false while there are none."""

    def __init__(self) -> None:
        self._all: dict[tuple[ActorId, str], Watcher] = {}
        self._version = 0

    def __bool__(self) -> bool:
        return bool(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def heard(self, target: ActorId, request: str, seen: int, now_ms: int, *, lost: bool) -> Watcher:
        """Register or renew a watcher.

        Raises:
            Overloaded: there are too many.
        """
        watcher = self._all.get((target, request))
        if watcher is None:
            self._forget_silent(now_ms)
            if len(self._all) >= WATCHERS_MAX:
                raise Overloaded(f"{WATCHERS_MAX:,} clients watch this entity already")
            watcher = self._all[target, request] = Watcher(target, request)
        watcher.heard(seen, now_ms, lost=lost)
        return watcher

    def leave(self, target: ActorId, request: str) -> None:
        """Forget a watcher; one that is not known is no error."""
        self._all.pop((target, request), None)
        self._forget_version()

    def present(self, commit: int) -> int:
        """Return the version of the present state, where ``commit`` is the commit in the making."""
        # Nothing was noted while nobody watched: after the commit in the making the state is what it is now.
        self._version = self._version or commit
        return self._version

    def changed(self, commit: int, now_ms: int) -> list[Watcher]:
        """Note that the commit in the making changes the state; return whom to tell."""
        self._version = commit
        told = [watcher for watcher in self._all.values() if watcher.may_be_told(commit)]
        if len(told) < len(self._all):
            self._forget_silent(now_ms)
        return told

    def _forget_silent(self, now_ms: int) -> None:
        for key in [key for key, watcher in self._all.items() if watcher.until_ms < now_ms]:
            del self._all[key]
        self._forget_version()

    def _forget_version(self) -> None:
        if not self._all:
            self._version = 0
