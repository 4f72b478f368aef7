"""What a partition keeps beside each activation, and the error of one that broke."""

from __future__ import annotations

from dataclasses import dataclass

from .ids import ActorId
from .kinds import Activation


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
