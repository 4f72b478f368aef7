"""A host in memory for entities: what is committed is kept, the rest is lost in a crash."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from lungfish.entities.entity import Entity
from lungfish.entities.kind import EntityKind
from lungfish.entities.processor import EntityActivation
from lungfish.runtime import codec
from lungfish.runtime.declared.app import App
from lungfish.runtime.declared.signatures import encode_arguments
from lungfish.runtime.errors import FailureDetails
from lungfish.runtime.ids import CLIENT, ENTITY, ActorId
from lungfish.runtime.messages.messages import ActivityTask, Call, Message, Response, Signal
from lungfish.runtime.partitions.ahead import PartitionPayloads
from lungfish.runtime.partitions.kinds import Activation, Item, Stored
from lungfish.runtime.partitions.walking import Walk

CLIENT_ID = ActorId(CLIENT, "", "test")


class FakeEffects:
    """Effects of one actor, committed at once."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000
        self.payloads = PartitionPayloads(self)
        self.draft_bytes = 0
        self.sent: list[Message] = []
        self.snapshots: list[bytes | None] = []
        self.listed: dict[tuple[str, str], int | None] = {}
        self.timers: dict[str, tuple[int, Message]] = {}
        self.finished: list[Item] = []
        self.aside: list[Item] = []
        self.spawned: list[asyncio.Task[None]] = []
        self._unique = itertools.count(1)

    def unique(self) -> str:
        return f"u{next(self._unique)}"

    def send(self, message: Message) -> None:
        self.sent.append(message)

    commit_number = 1
    committed = 1
    dirty = False
    walk: Walk

    def publish(self, response: Response) -> None:
        self.sent.append(response)

    def snapshot(self, actor: ActorId, state: bytes | None) -> None:
        self.snapshots.append(state)

    def index(self, index: str, member: str, score: int | None) -> None:
        self.listed[index, member] = score

    def timer(self, timer_id: str, due_ms: int, message: Message) -> None:
        assert timer_id not in self.timers or timer_id.startswith("reminder")
        self.timers[timer_id] = (due_ms, message)

    def done(self, item: Item) -> None:
        assert item not in self.finished, "done twice"
        self.finished.append(item)

    def set_aside(self, item: Item, reason: str = "") -> None:
        self.aside.append(item)
        self.done(item)

    def record(self, item: Item, record: bytes) -> None:
        assert item not in self.finished, "recorded after done"
        item.record = record

    def spawn(self, actor: ActorId, work: Coroutine[Any, Any, None]) -> None:
        self.spawned.append(asyncio.get_running_loop().create_task(work))

    def instance(self, actor: ActorId, row: bytes | None) -> None:
        raise AssertionError("entities are no orchestrations")

    def history(self, actor: ActorId, batch: bytes) -> None:
        raise AssertionError("entities are no orchestrations")

    def forget_history(self, actor: ActorId) -> None:
        raise AssertionError("entities are no orchestrations")

    def cancel_timer(self, timer_id: str) -> None:
        self.timers.pop(timer_id, None)

    def activity(self, row_id: str, row: bytes | None) -> None:
        raise AssertionError("entities have no activities")

    def dispatch(self, queue: str, task: ActivityTask) -> None:
        raise AssertionError("entities have no activities")

    def reload(self, actor: ActorId) -> None:
        raise AssertionError("entities are never loaded again")

    def after_commit(self, call: Callable[[], None]) -> None:
        call()

    def activity_rows(self, prefix: str) -> dict[str, bytes]:
        raise AssertionError("entities have no activities")


class Host:
    """One entity on a host: messages in, answers out; every run is a commit unless a test says otherwise."""

    def __init__(
        self, *classes: type[Entity], name: str = "", key: str = "k", app: App | None = None
    ) -> None:
        self.app = app or App("test")
        for cls in classes:
            if cls not in [definition.cls for definition in self.app.entities.values()]:
                self.app.entity(cls)
        self.kind = EntityKind(self.app)
        self.actor = ActorId(ENTITY, name or classes[0].__name__, key)
        self.effects = FakeEffects()
        self.row: bytes | None = None
        self.items: list[Item] = []
        self.activation: Activation = self.kind.activate(self.actor, Stored(None))
        self._rows = itertools.count(1)
        self._requests = itertools.count(1)

    # --- asking ----------------------------------------------------------------------

    def accept(self, message: Message) -> Item:
        item = Item(message, next(self._rows), b"", self.effects.now_ms)
        self.items.append(item)
        self.activation.accept(item)
        return item

    def ask(
        self, operation: str, *args: Any, deadline_ms: int = 0, chain: tuple[str, ...] = (), **kwargs: Any
    ) -> str:
        """Accept a call and return its request id; it is not run yet."""
        request = f"r{next(self._requests)}"
        data = encode_arguments(args, kwargs, operation)
        self.accept(Call(self.actor, operation, data, request, CLIENT_ID, deadline_ms, chain))
        return request

    def call(self, operation: str, *args: Any, **kwargs: Any) -> Response:
        """Run a call of a sync operation and return the answer."""
        request = self.ask(operation, *args, **kwargs)
        self.run()
        return self.answer(request)

    def signal(self, operation: str, *batch: Sequence[Any], **options: Any) -> Item:
        """Accept a signal with one element per argument list."""
        data = codec.encode([list(args) for args in batch])
        return self.accept(Signal(self.actor, operation, data, len(batch), **options))

    def respond(self, request: str, value: Any = None, failure: FailureDetails | None = None) -> Item:
        """Accept the answer to a call that the entity made."""
        return self.accept(
            Response(self.actor, request, codec.encode(value) if failure is None else None, failure)
        )

    # --- running ---------------------------------------------------------------------

    def run(self) -> None:
        self.activation.run(self.effects)
        while self.activation.ready:
            self.activation.run(self.effects)

    async def settle(self) -> None:
        """Run until nothing moves any more without something from outside."""
        self.run()
        for _ in range(500):
            await asyncio.sleep(0)
            self.run()
            if self.activation.passive:
                break

    async def crash(self) -> None:
        """Lose the process; what was done so far was committed. Then activate again, as a new owner does."""
        for task in self.effects.spawned:
            task.cancel()
        self.activation.drop()
        await asyncio.gather(*self.effects.spawned, return_exceptions=True)
        await asyncio.sleep(0)
        self.effects.spawned.clear()
        self.reactivate()

    def reactivate(self) -> None:
        """Activate from what the store has: the last snapshot and the unfinished items."""
        self.row = self.snapshot
        self.activation = self.kind.activate(self.actor, Stored(self.row))
        left = [item for item in self.items if item not in self.effects.finished]
        self.items = [Item(item.message, item.row, item.record, item.accepted_ms) for item in left]
        for item in self.items:
            self.activation.accept(item)

    # --- looking ---------------------------------------------------------------------

    @property
    def snapshot(self) -> bytes | None:
        """What the store has."""
        return self.effects.snapshots[-1] if self.effects.snapshots else self.row

    @property
    def fields(self) -> dict[str, Any] | None:
        """The stored fields; None if the entity does not exist."""
        return None if self.snapshot is None else codec.decode(self.snapshot)[2]

    def answer(self, request: str) -> Response:
        """Return the one answer to a request."""
        (found,) = [m for m in self.effects.sent if isinstance(m, Response) and m.request == request]
        assert found.target == CLIENT_ID
        return found

    def answered(self, request: str) -> bool:
        return any(isinstance(m, Response) and m.request == request for m in self.effects.sent)

    @property
    def calls(self) -> list[Call]:
        """Calls that the entity made."""
        return [m for m in self.effects.sent if isinstance(m, Call)]

    @property
    def signals(self) -> list[Signal]:
        """Signals that the entity sent."""
        return [m for m in self.effects.sent if isinstance(m, Signal)]


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop that does not wait: when nothing can run, its clock jumps to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        select = self._selector.select  # type: ignore[attr-defined]

        def jump(timeout: float | None = None) -> Any:
            found = select(0)
            if not found and timeout is not None:
                self._now += timeout
            return found

        self._selector.select = jump  # type: ignore[attr-defined]

    def time(self) -> float:
        return self._now


def virtually(work: Coroutine[Any, Any, None]) -> None:
    """Run a test on a virtual clock."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(work)


def value(response: Response) -> Any:
    """Return the plain result of a call that went well."""
    assert response.failure is None, response.failure
    return None if response.result is None else codec.decode(response.result)


def error(response: Response) -> str:
    """Return the bare class name of a failure."""
    assert response.failure is not None
    return response.failure.error_type.rpartition(".")[2]


def activation(host: Host) -> EntityActivation:
    """Return the activation of an entity that is in order."""
    assert isinstance(host.activation, EntityActivation)
    return host.activation
