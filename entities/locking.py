"""Critical sections, as an entity sees them: who holds it, and who must wait.

Rules:

* A request to hold an entity waits in the mailbox like an operation, and starts like an exclusive one: in
  order, when nothing runs. It is then kept unfinished for as long as it holds: its mailbox row is the lock,
  so it survives whatever an operation survives.
* While an entity is held, what the holder sends runs: calls and signals of its own, and calls that
  operations make that it waits for. All else waits in order. ``@shared`` operations change nothing
  and need not wait for the holder, only for what waits before them.
* A release waits behind what the holder sent before it.
* Ids make repeats harmless: a second request or release of one id does nothing, and a request that comes
  after its release does nothing, while the entity is in memory.
* What may hold for nobody is asked after, whether others wait or not: a request that was passed on a second
  time (its release may have come before, and be forgotten), a lock that comes back from the store, and
  those before an entity that knows of the release. The owner, if it does not want the lock, releases it.
* Who holds an entity while others wait is asked now and then whether it still does. One that waits for the
  others of its set then sends its request after itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, TypeAlias

import msgpack

from lungfish.runtime.declared.definitions import Operation
from lungfish.runtime.declared.signatures import Signature
from lungfish.runtime.ids import ActorId, chain_name
from lungfish.runtime.messages.messages import (
    Call,
    LockGranted,
    LockQuery,
    LockRelease,
    LockRequest,
    TimerFired,
)
from lungfish.runtime.partitions.kinds import Effects, Item

from .editing import Edit
from .jobs import Job

#: How often whoever holds an entity is asked whether it still does, while others wait.
CHECK_MS: Final = 10_000
#: The purpose of the timer for that.
CHECK: Final = "lock"
#: How many ids of released locks are remembered, while the entity is in memory.
RELEASED_MAX: Final = 32
_RECORD_VERSION: Final = 1

#: What the mailbox sees of a request or a release: exclusive, and not a part of a turn of operations.
_LOCKING: Final = Operation(
    "lock", lambda: None, Signature.of(lambda: None, "lock"), shared=False, is_async=True
)


@dataclass(slots=True, eq=False)
class Claim:
    """A request for the entity on its way through the mailbox; then what holds it.

    Attributes:
        since_ms: held since (store's clock); 0: not held yet.
    """

    item: Item
    message: LockRequest
    since_ms: int = 0
    operation: ClassVar[Operation] = _LOCKING
    is_tick: ClassVar[bool] = False


@dataclass(slots=True, eq=False)
class Release:
    """A release of what holds the entity, behind what the holder sent before."""

    item: Item
    message: LockRelease
    operation: ClassVar[Operation] = _LOCKING
    is_tick: ClassVar[bool] = False


#: What stands in a mailbox.
Entry: TypeAlias = Job | Claim | Release | Edit


@dataclass(slots=True, eq=False)
class Holding:
    """A lock that is held, and what waits for its end."""

    claim: Claim
    blocked: deque[Entry] = field(default_factory=deque)
    name: str = ""
    #: It holds since an earlier activation: who wanted it may have gone, and the store lost that.
    is_old: bool = False

    def __post_init__(self) -> None:
        self.name = chain_name(self.claim.message.owner)

    def admits(self, entry: Entry) -> bool:
        """Tell whether an entry may run while the lock is held."""
        if isinstance(entry, Claim | Edit):
            return False
        if isinstance(entry, Release) or self.is_holders(entry):
            return True
        return entry.operation.shared and not self.blocked

    def is_holders(self, job: Job) -> bool:
        """Tell whether a job is a part of the holder's critical section."""
        message = job.message
        if isinstance(message, Call):
            return message.reply_to == self.claim.message.owner or self.name in message.chain
        return message.chain[-1:] == (self.name,)


class Locks:
    """The requests for one entity: waiting, held, and lately released."""

    __slots__ = ("_checking", "_released", "claims", "holding")

    def __init__(self) -> None:
        #: Requests that wait, and the one that holds, by id.
        self.claims: dict[str, Claim] = {}
        self.holding: Holding | None = None
        self._released: deque[str] = deque(maxlen=RELEASED_MAX)
        self._checking = False

    # --- arrivals ---

    def request(self, effects: Effects, item: Item, message: LockRequest) -> Claim | None:
        """Take a request; None if it is one that was here before."""
        known = self.claims.get(message.lock)
        if known is not None or message.lock in self._released:
            effects.done(item)
            if known is None:
                ask_for_those_before(effects, message)
            elif known.since_ms:
                pass_on(effects, message, again=True)  # those further down may have missed it
            return None
        claim = self.claims[message.lock] = Claim(item, message, since_of(item))
        if message.again:
            effects.send(LockQuery(message.owner, message.lock, message.target))
        return claim

    def release(self, effects: Effects, item: Item, message: LockRelease) -> Claim | Release | None:
        """Take a release: the claim that must not wait any more, or what to put into the mailbox, or None."""
        claim = self.claims.get(message.lock)
        if claim is not None and claim.since_ms:
            return Release(item, message)
        self._released.append(message.lock)
        effects.done(item)
        if claim is None:
            release_rest(effects, message)
            return None
        del self.claims[message.lock]
        effects.done(claim.item)
        return claim

    # --- holding ---

    def hold(self, effects: Effects, claim: Claim) -> Holding:
        """Hold the entity for a claim whose turn has come, or came in an earlier activation."""
        is_old = bool(claim.since_ms)
        if is_old:
            self.watch(effects, claim.message.target)
        else:
            claim.since_ms = effects.now_ms
            effects.record(claim.item, msgpack.packb([_RECORD_VERSION, claim.since_ms]))
            pass_on(effects, claim.message)
        self.holding = Holding(claim, is_old=is_old)
        return self.holding

    def let_go(self, effects: Effects, release: Release) -> deque[Entry]:
        """End the lock that a release names; return what has waited for that."""
        effects.done(release.item)
        holding, lock = self.holding, release.message.lock
        if holding is None or holding.claim.message.lock != lock:
            return deque()  # released twice
        release_rest(effects, release.message)
        self._released.append(lock)
        self.holding = None
        del self.claims[lock]
        effects.done(holding.claim.item)
        return holding.blocked

    # --- asking the holder ---

    def watch(self, effects: Effects, actor: ActorId) -> None:
        """Have the holder asked, in a while. One timer an entity, whoever holds it."""
        if self._checking:
            return
        self._checking = True
        due_ms = effects.now_ms + CHECK_MS
        effects.timer(f"lock\x00{actor.name}\x00{actor.key}", due_ms, TimerFired(actor, "", 0, due_ms, CHECK))

    def check(self, effects: Effects, actor: ActorId) -> None:
        """Ask the holder whether it still is; if it waits for others, it sees that they know of it."""
        self._checking = False
        holding = self.holding
        if holding is None or not (holding.blocked or holding.is_old):
            return
        message, holding.is_old = holding.claim.message, False
        effects.send(LockQuery(message.owner, message.lock, actor))
        if holding.blocked:
            self.watch(effects, actor)

    # --- looking ---

    def waiting(self) -> Iterator[Claim]:
        """Return the requests that wait, in order."""
        return (claim for claim in self.claims.values() if not claim.since_ms)


def since_of(item: Item) -> int:
    """Return since when a stored request holds; 0: it does not."""
    if not item.record:
        return 0
    try:
        _, since_ms, *_ = msgpack.unpackb(item.record)
        return int(since_ms)
    except Exception:  # whatever is there: only requests that hold have a record
        return item.accepted_ms or 1


def ask_for_those_before(effects: Effects, message: LockRequest) -> None:
    """A request came after its release, and was not passed on again: the store lost writes where it was.

    Those before, which hold, may have lost the release.
    """
    if not message.again and message.target in message.entities:
        for entity in message.entities[: message.entities.index(message.target)]:
            effects.send(LockQuery(message.owner, message.lock, entity))


def pass_on(effects: Effects, message: LockRequest, *, again: bool = False) -> None:
    """Send a request that holds here to the next entity; from the last one, tell the owner."""
    entities = message.entities
    at = entities.index(message.target) + 1 if message.target in entities else len(entities)
    if at < len(entities):
        effects.send(replace(message, target=entities[at], again=again or message.again))
    else:
        effects.send(LockGranted(message.owner, message.lock, entities))


def release_rest(effects: Effects, message: LockRelease) -> None:
    """Send a release on, on the way that the request took or would have taken."""
    if message.rest:
        effects.send(LockRelease(message.rest[0], message.lock, message.rest[1:]))


def lock_state(locks: Locks, operations: int, running: list[str]) -> dict[str, Any]:
    """Return what ``inspect`` tells of an entity, in plain values."""
    holding = locks.holding
    return {
        "holder": holding.claim.message.owner.key if holding is not None else None,
        "since_ms": holding.claim.since_ms if holding is not None else 0,
        "waiting": [claim.message.owner.key for claim in locks.waiting()],
        "operations": operations,
        "running": running,
    }
