"""What a partition keeps beside each activation, and the error of one that broke."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lungfish.runtime.ids import ActorId

from .kinds import Activation, Item


class ActivationBroke(Exception):
    """An activation raised out of ``run``: a bug in a kind. Its partition must be loaded again."""

    def __init__(self, actor: ActorId) -> None:
        super().__init__(f"the activation of {actor} raised")
        self.actor = actor


@dataclass(slots=True, eq=False)
class Slot:
    """An activation and what passivation wants to know of it.

    Attributes:
        commit: number of the last commit that carries something of it. Only when that is
            acknowledged does a load from the store see what the activation did.
        tasks: how many spawned tasks of it are running.
    """

    activation: Activation
    used_ms: int
    commit: int = 0
    tasks: int = 0


class Reloads:
    """Actors that are to be loaded again, each once all that it did is in the store."""

    __slots__ = ("_wanted",)

    def __init__(self) -> None:
        self._wanted: dict[ActorId, int] = {}

    def ask(self, actor: ActorId, number: int) -> None:
        """Load ``actor`` again when commit ``number`` is acknowledged."""
        self._wanted[actor] = number

    def begin(
        self,
        committed: int,
        slots: dict[ActorId, Slot],
        unloaded: dict[ActorId, list[Item]],
        unfinished: Iterable[Mapping[int, Item]],
        waiting: Iterable[Item] = (),
    ) -> bool:
        """Drop those whose commit is acknowledged, and give their unfinished items to whoever is loaded next.

        Args:
            waiting: unfinished items that were not given to anybody yet, and will be.

        Returns:
            Whether there are any.
        """
        if not self._wanted:  # at every commit of every partition
            return False
        not_given = {item.row for item in waiting}
        settled = [actor for actor, number in self._wanted.items() if number <= committed]
        for actor in settled:
            del self._wanted[actor]
            slot = slots.pop(actor, None)
            if slot is not None:
                slot.activation.drop()
                unloaded[actor] = [i for i in _items_of(actor, unfinished) if i.row not in not_given]
        return bool(settled)


def _items_of(actor: ActorId, unfinished: Iterable[Mapping[int, Item]]) -> list[Item]:
    """Return the unfinished items of an actor, in the order of acceptance."""
    found = [item for items in unfinished for item in items.values() if item.message.target == actor]
    return sorted(found, key=lambda item: item.row)
