"""Numbers for what partitions send, that no two owners of a partition share: a *generation* per claim.

On one server everything forgets the same instant, and a partition just counts on. On a Cluster a failover may
take a partition back in time and not its targets: counting on, it would give new messages numbers that the
targets have seen under the owner before, and they would drop them as repeats.

Rules:

* Every claim begins a generation, whose numbers lie behind a base: the time of the claim, on the clock of the
  partition's server. So they are higher than any that an earlier owner used, also a forgotten one. Where that
  clock was set back, the claim counts as made right after the one before it that is known.
* Nobody is asked for that: a target may be away, or still get what an earlier owner has under way.
* What waits in the outbox keeps the number under which it may have arrived before.
* The first number of a generation does not follow on the last one. A target takes it only when all that is
  before it in the outbox has arrived there (see ``relay``).
"""

from __future__ import annotations

from typing import Final

#: A death counts as one of a row if it is within this time of the claim before; also the time of caution.
CALM_MS: Final = 60_000

#: Numbers per ms of ownership. A target gets one per commit, and a commit takes longer than a microsecond; so
#: large a number of ms fits into the integers that the store's scripts count in (2**53) for two centuries.
PER_MS: Final = 1 << 10


def base_at(claimed_ms: int) -> int:
    """Return what the numbers of an owner lie behind, who claimed at that time (Unix ms)."""
    return claimed_ms * PER_MS


def opens(sequence: int) -> bool:
    """Tell whether a number may be the first of a generation: it need not follow on another."""
    return sequence > PER_MS and sequence % PER_MS == 1
