"""Who is alive: what a host may conclude from heartbeats, and when it looks at them next. Pure.

Rules:

* A host is silent when its heartbeat is older than the lease, on the store's clock. That alone is no death:
  while the store stood still nobody was heard, and nobody died.
* So a host tells the dead from the living (it *judges*) only when it has itself been heard for a whole lease
  without a gap of a lease; and, after a gap of half a lease, when the others have had the time of two
  heartbeats to be heard again. A jump of the store's clock is a gap like any other.
* A host that may not judge leaves the lead to one that may: leading is judging.
* Nobody looks more often than once per heartbeat while everybody is heard. The next look comes at the very
  millisecond at which a host that is not heard again becomes silent; and then soon and ever later, for as
  long as partitions have no live owner.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

from lungfish.runtime.settings import HostSettings
from lungfish.runtime.store.store import HostBeat

#: The first look after one that found partitions without a live owner; the next ones take twice as long (ms).
HURRY_MS: Final = 20
#: No two looks of a host follow one another faster (ms): clocks need not agree on a millisecond.
LOOK_MS_MIN: Final = 5


@dataclass(frozen=True, slots=True)
class Witness:
    """What a host has seen itself: since when it has been heard, on its own clock (s) and the store's (ms).

    Attributes:
        steady_since_s: since when without a gap of a lease.
        back_since_s: since when without a gap of half a lease.
    """

    steady_since_s: float
    back_since_s: float
    heard_s: float
    heard_ms: int

    def is_steady(self, at_s: float, settings: HostSettings) -> bool:
        """True if at that time (s) it has been heard for a whole lease without a gap of one."""
        lease_s = settings.lease_ms / 1_000
        return self.heard_s - self.steady_since_s >= lease_s and at_s - self.heard_s <= lease_s

    def judges_in_s(self, settings: HostSettings) -> float:
        """Return how long it must still be heard before it may judge (s); 0 if it may by what it saw last."""
        steady_s = self.steady_since_s + settings.lease_ms / 1_000
        # Two: who was refused just before the store came back tries again after one, and then has to connect.
        others_back_s = self.back_since_s + 2 * settings.heartbeat_ms / 1_000
        return max(0.0, steady_s - self.heard_s, others_back_s - self.heard_s)


def hear(witness: Witness | None, at_s: float, now_ms: int, settings: HostSettings) -> Witness:
    """Return what a host has seen once its heartbeat was answered.

    Args:
        witness: before; None at the first answer.
        at_s: when the answer came (s, the host's own clock).
        now_ms: when the store gave it (ms, the store's clock).
    """
    if witness is None:
        return Witness(at_s, at_s, at_s, now_ms)
    # The larger of both: a process that stood still sees its own clock late, a store that jumped its own.
    gap_ms = max((at_s - witness.heard_s) * 1_000, now_ms - witness.heard_ms)
    heard = replace(witness, heard_s=at_s, heard_ms=now_ms)
    if gap_ms > settings.lease_ms:
        return replace(heard, steady_since_s=at_s, back_since_s=at_s)
    if gap_ms > settings.lease_ms / 2:
        return replace(heard, back_since_s=at_s)
    return heard


def find_silent(hosts: Sequence[HostBeat], settings: HostSettings) -> frozenset[str]:
    """Return the hosts that have not been heard for longer than the lease."""
    return frozenset(beat.host for beat in hosts if beat.age_ms > settings.lease_ms)


@dataclass(frozen=True, slots=True)
class Hurry:
    """Partitions that have no live owner, and how soon to look at them again (ms)."""

    orphans: frozenset[int] = frozenset()
    pause_ms: int = 0

    def after(self, orphans: Collection[int], settings: HostSettings) -> Hurry:
        """Return the hurry after another look.

        Orphans that stay (a pool without hosts, a hub that nobody may judge) are soon looked at no more often
        than everything else; new ones are pressing again.
        """
        found = frozenset(orphans)
        if not found:
            return Hurry()
        if found - self.orphans:
            return Hurry(found, HURRY_MS)
        return Hurry(found, min(2 * self.pause_ms, settings.heartbeat_ms))


def next_look_s(
    host: str, hosts: Sequence[HostBeat], witness: Witness, hurry: Hurry, settings: HostSettings
) -> float:
    """Return how long a host waits before it beats and looks again (s): a heartbeat at most.

    Args:
        host: who looks.
        hosts: the heartbeats as the last look found them, its own among them.
    """
    waits_ms = [float(settings.heartbeat_ms)]
    if hurry.orphans:
        waits_ms.append(hurry.pause_ms)
    ages_ms = [beat.age_ms for beat in hosts if beat.host != host]
    # One that is not heard till then is silent, by the first look that can tell.
    waits_ms += [settings.lease_ms + 1 - age_ms for age_ms in ages_ms if age_ms <= settings.lease_ms]
    judges_in_ms = witness.judges_in_s(settings) * 1_000
    if judges_in_ms and any(age_ms > settings.lease_ms for age_ms in ages_ms):
        waits_ms.append(judges_in_ms)
    return max(min(waits_ms), LOOK_MS_MIN) / 1_000
