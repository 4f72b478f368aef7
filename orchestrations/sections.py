"""Critical sections of an orchestration: entities that nobody else changes meanwhile.

Rules:

* An instance asks for one set of entities at a time, in the order that everybody uses, and while it
  asks or holds it waits for nobody who might wait for it: no second section, no sub-orchestration, no call
  of an entity outside the section. So locks alone can never wait in a circle (docs/adr/0021).
* A section that the code leaves, by whatever way, is released in the same commit. What the code did not
  release when the execution ends is released by its end (``endings``).
* A grant that nobody wants any more, and a question after such a lock, are answered with a release. A
  question after one that is wanted and not granted may mean that the request got lost (the store lost
  writes): it is sent on its way again, not often, as it goes through all who hold already.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from lungfish.runtime.errors import CriticalSectionError, UsageError
from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages.messages import LockGranted, LockQuery, LockRelease, LockRequest
from lungfish.runtime.partitions.kinds import Effects

from .outgoing import release_lock, sequence_of

if TYPE_CHECKING:
    from .decisions import Decisions
    from .instance import Instance

#: Most entities of one section: each request carries all of them.
ENTITIES_MAX: Final = 256
#: How often a request that is not granted may be sent again.
CHASE_MS: Final = 10_000


@dataclass(slots=True, eq=False)
class Section:
    """A critical section that the code of an execution wants or holds."""

    id: int
    entities: tuple[ActorId, ...]
    granted: bool = False

    def __str__(self) -> str:
        listed = ", ".join(map(str, self.entities[:3]))
        return f"{listed}, …" if len(self.entities) > 3 else listed


class CriticalSection:
    """What ``ctx.lock(...)`` returns: ``async with`` it, or ``with (yield ctx.lock(...))`` in a generator.

    Nothing is asked for before it is entered or awaited.
    """

    def __init__(self, execution: Decisions, entities: tuple[ActorId, ...]) -> None:
        self._execution = execution
        self._entities = entities
        self._section: Section | None = None

    @property
    def held(self) -> bool:
        """True from the moment all entities are held until ``release``."""
        return self._section is not None and self._section.granted

    async def acquire(self) -> CriticalSection:
        """Wait until all entities are held; the same as ``await``.

        Raises:
            CriticalSectionError: this instance is in a critical section, asks for one, or waits for an entity
                or a sub-orchestration.
        """
        if self._section is not None:
            raise CriticalSectionError(f"this lock of {self._section} has been entered already")
        self._section, granted = self._execution.request_lock(self._entities)
        try:
            await granted
        except BaseException:
            self.release()
            raise
        return self

    def release(self) -> None:
        """Let go of all entities, or do not wait for them any more; a second time does nothing."""
        section, self._section = self._section, None
        if section is not None:
            self._execution.release_lock(section)

    def __await__(self) -> Generator[Any, Any, CriticalSection]:
        return self.acquire().__await__()

    async def __aenter__(self) -> CriticalSection:
        return await self.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __enter__(self) -> CriticalSection:
        if not self.held:
            raise UsageError("a lock must be waited for: 'async with ctx.lock(...)', in a generator "
                             "'with (yield ctx.lock(...))'")  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<lock of {len(self._entities)} entities, {'held' if self.held else 'not held'}>"


def in_order(entities: Sequence[ActorId]) -> tuple[ActorId, ...]:
    """Return entities once each, in the order in which everybody takes them: by name, then by key.

    Raises:
        CriticalSectionError: none, or too many.
    """
    if not entities:
        raise CriticalSectionError("ctx.lock() needs at least one entity")
    found = tuple(sorted(set(entities)))
    if len(found) > ENTITIES_MAX:
        raise CriticalSectionError(f"a lock of {len(found)} entities; at most {ENTITIES_MAX} are possible")
    return found


def check_entry(section: Section | None, awaited: Sequence[str]) -> None:
    """Raise ``CriticalSectionError`` if an instance may not ask for a lock now."""
    if section is not None:
        state = "holds" if section.granted else "waits for"
        raise CriticalSectionError(
            f"this instance {state} a lock of {section} already: leave that section first, or lock all "
            "entities at once"
        )
    if awaited:
        raise CriticalSectionError(
            f"this instance waits for {awaited[0]}: await it before the lock. Whoever answers may need an "
            "entity that is locked"
        )


def outside(section: Section, what: str) -> CriticalSectionError:
    """Return the error for something that a critical section must not wait for."""
    return CriticalSectionError(
        f"{what} in a critical section over {section}: it may wait for somebody who waits for this section. "
        "Do it before or after, lock that entity, too, or signal instead"
    )


def wants_lock(instance: Instance, lock: str) -> bool:
    """Tell whether an instance asks for a lock or holds it."""
    row = instance.row
    if row is None or row.terminal:
        return False
    sequence = sequence_of(lock, row.execution)
    return sequence is not None and sequence in instance.outstanding.locks


def chase(instance: Instance, lock: str) -> None:
    """Send a request again that is asked after, is wanted, and has not been granted."""
    sequence = sequence_of(lock, instance.known.execution)
    assert sequence is not None
    entities, granted = instance.outstanding.locks[sequence]
    now_ms = instance.effects.now_ms
    if granted or now_ms - instance.chased_ms < CHASE_MS or _has_grant(instance, lock):
        return
    instance.chased_ms = now_ms
    instance.effects.send(LockRequest(entities[0], lock, instance.actor, entities, again=True))


def _has_grant(instance: Instance, lock: str) -> bool:
    # One that is suspended cannot take it yet, and would be granted it again and again.
    held = (item.message for item in instance.held)
    return any(isinstance(message, LockGranted) and message.lock == lock for message in held)


def disclaim(effects: Effects, message: LockGranted | LockQuery) -> None:
    """Release what is not wanted: the lock of an instance that ended, or never was in this store."""
    if isinstance(message, LockGranted):
        release_lock(effects, message.lock, message.entities, granted=True)
    else:
        effects.send(LockRelease(message.entity, message.lock))
