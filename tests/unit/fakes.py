"""A kind of actor that does what the test says, and a partition that runs it."""

from __future__ import annotations

from collections.abc import Callable

from lungfish.runtime.ids import ENTITY, ActorId, partition_of
from lungfish.runtime.partitions.kinds import Effects, Item, Stored
from lungfish.runtime.partitions.partition import Partition
from lungfish.runtime.store.layout import HubMeta, Layout
from lungfish.runtime.store.store import START, PartitionImage

Handler = Callable[["FakeActivation", Item, Effects], None]


def finish(_activation: FakeActivation, item: Item, effects: Effects) -> None:
    """Finish every item and do nothing else."""
    effects.done(item)


class FakeActivation:
    """Gives each item to the handler, once, in order."""

    ready = False

    def __init__(self, actor: ActorId, stored: Stored, handler: Handler) -> None:
        self.actor = actor
        self.stored = stored
        self.handler = handler
        self.queue: list[Item] = []
        self.seen: list[Item] = []
        self.dropped = False

    @property
    def passive(self) -> bool:
        return not self.queue

    def accept(self, item: Item) -> None:
        self.queue.append(item)

    def run(self, effects: Effects) -> None:
        queue, self.queue = self.queue, []
        for item in queue:
            self.seen.append(item)
            self.handler(self, item, effects)

    def passivate(self) -> None:
        self.drop()

    def drop(self) -> None:
        self.dropped = True


class FakeKind:
    """Remembers the activations it made."""

    refused = 0

    def __init__(self, handler: Handler = finish) -> None:
        self.handler = handler
        self.made: dict[ActorId, FakeActivation] = {}

    def activate(self, actor: ActorId, stored: Stored) -> FakeActivation:
        self.made[actor] = FakeActivation(actor, stored, self.handler)
        return self.made[actor]

    async def settle(self) -> None:
        pass


PARTITIONS = 4


def actor_in(partition: int, name: str = "a") -> ActorId:
    """Return an entity that partition ``partition`` owns."""
    found = (ActorId(ENTITY, "E", f"{name}{n}") for n in range(10_000))
    return next(actor for actor in found if partition_of(actor, PARTITIONS) == partition)


def image(number: int = 0, **changes: object) -> PartitionImage:
    """Return the image of an empty partition, with some changes."""
    fields: dict[str, object] = {
        "partition": number,
        "token": "token",
        "epoch": 7,
        "commit_number": 10,
        "position": START,
        "sequences": {},
        "mailbox": {},
        "timers": {},
        "activities": {},
        "outbox": [],
    }
    return PartitionImage(**{**fields, **changes})  # type: ignore[arg-type]


class Clock:
    """A clock that stands until it is set."""

    def __init__(self, now_ms: int = 1_000) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


def make_partition(kind: FakeKind, clock: Clock | None = None, **changes: object) -> Partition:
    """Return partition 0 with ``kind`` for entities."""
    return Partition(
        image(0, **changes),
        layout=Layout(HubMeta(PARTITIONS)),
        kinds={ENTITY: kind},
        clock=clock or Clock(),
        wake=lambda: None,
    )


def run_all(partition: Partition, rows: dict[ActorId, bytes] | None = None) -> None:
    """Load and run until nothing is left to do, as a round does."""
    partition.fire_timers()
    while partition.busy:
        partition.receive(1_000)
        for actor in partition.wanted():
            partition.activate(actor, Stored((rows or {}).get(actor)))
        partition.run(1_000)
