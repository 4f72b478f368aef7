"""A host in memory: effects that record what they are asked for, and a store that keeps what is committed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Coroutine
from typing import Any

from lungfish.orchestrations.processor import OrchestrationActivation, OrchestrationKind
from lungfish.orchestrations.row import InstanceRow
from lungfish.runtime import codec
from lungfish.runtime.declared.app import App
from lungfish.runtime.declared.signatures import encode_arguments
from lungfish.runtime.ids import CLIENT, ORCHESTRATION, ActorId
from lungfish.runtime.messages.messages import (
    ActivityResult,
    ActivityTask,
    Message,
    RaiseEvent,
    Response,
    Start,
    TimerFired,
)
from lungfish.runtime.partitions.ahead import PartitionPayloads
from lungfish.runtime.partitions.kinds import Item, Stored
from lungfish.runtime.partitions.walking import Walk

CLIENT_ID = ActorId(CLIENT, "", "test")


def instance(key: str) -> ActorId:
    """Return the actor of an instance."""
    return ActorId(ORCHESTRATION, "", key)


class FakeEffects:
    """Effects that are "committed" at once, as a host with one partition would."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000
        self.payloads = PartitionPayloads(self)
        self.draft_bytes = 0
        self.sent: list[Message] = []
        self.rows: dict[ActorId, bytes] = {}
        self.histories: dict[ActorId, list[bytes]] = {}
        self.indexes: dict[str, dict[str, int]] = {}
        self.timers: dict[str, tuple[int, TimerFired]] = {}
        self.activities: dict[str, bytes] = {}
        self.dispatched: list[tuple[str, ActivityTask]] = []
        self.finished: list[Item] = []
        self.log: list[str] = []
        self.reloads: set[ActorId] = set()
        self._unique = itertools.count(1)

    def unique(self) -> str:
        return f"x{next(self._unique)}"

    def send(self, message: Message) -> None:
        self.log.append("send")
        self.sent.append(message)

    commit_number = 1
    committed = 1
    dirty = False
    walk: Walk

    def publish(self, response: Response) -> None:
        self.sent.append(response)

    def snapshot(self, actor: ActorId, state: bytes | None) -> None:
        raise AssertionError("orchestrations have no snapshots")

    def instance(self, actor: ActorId, row: bytes | None) -> None:
        self.log.append("instance")
        if row is None:
            self.rows.pop(actor, None)
        else:
            self.rows[actor] = row

    def history(self, actor: ActorId, batch: bytes) -> None:
        self.log.append("history")
        self.histories.setdefault(actor, []).append(batch)

    def forget_history(self, actor: ActorId) -> None:
        self.histories[actor] = []

    def index(self, index: str, member: str, score: int | None) -> None:
        if score is None:
            self.indexes.get(index, {}).pop(member, None)
        else:
            self.indexes.setdefault(index, {})[member] = score

    def timer(self, timer_id: str, due_ms: int, message: Message) -> None:
        assert isinstance(message, TimerFired)
        self.timers[timer_id] = (due_ms, message)

    def cancel_timer(self, timer_id: str) -> None:
        self.timers.pop(timer_id, None)

    def activity(self, row_id: str, row: bytes | None) -> None:
        if row is None:
            self.activities.pop(row_id, None)
        else:
            self.activities[row_id] = row

    def dispatch(self, queue: str, task: ActivityTask) -> None:
        self.dispatched.append((queue, task))

    def done(self, item: Item) -> None:
        assert item not in self.finished
        self.finished.append(item)

    def set_aside(self, item: Item, reason: str = "") -> None:
        raise AssertionError("orchestrations set nothing aside")

    def record(self, item: Item, record: bytes) -> None:
        raise AssertionError("orchestrations keep no records")

    def spawn(self, actor: ActorId, work: Coroutine[Any, Any, None]) -> None:
        raise AssertionError("orchestrations spawn nothing")

    def reload(self, actor: ActorId) -> None:
        self.reloads.add(actor)

    def after_commit(self, call: Callable[[], None]) -> None:
        call()

    def activity_rows(self, prefix: str) -> dict[str, bytes]:
        return {key: row for key, row in self.activities.items() if key.startswith(prefix)}


class FakeHost:
    """Runs orchestrations against ``FakeEffects``, one message per round unless told otherwise."""

    def __init__(self, app: App, *, always_replay: bool = False) -> None:
        self.kind = OrchestrationKind(app)
        self.kind.always_replay = always_replay
        self.effects = FakeEffects()
        self.active: dict[ActorId, OrchestrationActivation] = {}
        self.mailbox: dict[ActorId, list[Item]] = {}
        self._numbers = itertools.count()
        #: For tests: whether to crash where they can.
        self.crashes = False

    def deliver(self, *messages: Message) -> None:
        """Give messages to their instances, all of them in one round."""
        touched: dict[ActorId, OrchestrationActivation] = {}
        for message in messages:
            activation = touched[message.target] = self.activation(message.target)
            item = Item(message, next(self._numbers))
            self.mailbox.setdefault(message.target, []).append(item)
            activation.accept(item)
        for actor, activation in touched.items():
            activation.run(self.effects)
            if actor in self.effects.reloads:
                self.effects.reloads.remove(actor)
                self.active.pop(actor)
                unfinished = [item for item in self.mailbox[actor] if item not in self.effects.finished]
                self.mailbox[actor] = unfinished
                self.activation(actor).run(self.effects)
            self.mailbox[actor] = [item for item in self.mailbox[actor] if item not in self.effects.finished]

    def activation(self, actor: ActorId) -> OrchestrationActivation:
        found = self.active.get(actor)
        if found is None:
            stored = Stored(self.effects.rows.get(actor), tuple(self.effects.histories.get(actor, ())))
            found = self.active[actor] = self.kind.activate(actor, stored)
            for item in self.mailbox.get(actor, ()):
                found.accept(item)
        return found

    def crash(self) -> None:
        """Lose everything in memory."""
        self.active.clear()

    # --- what clients, workers and clocks do ---

    def start(self, name: str, *args: Any, id: str = "i", **fields: Any) -> None:
        self.deliver(
            Start(instance(id), name, encode_arguments(args, {}, name), "start", CLIENT_ID, **fields),
        )

    def raise_event(self, name: str, value: Any = None, id: str = "i") -> None:
        self.deliver(RaiseEvent(instance(id), name, codec.encode(value)))

    def finish(self, result: Any = None, at: int = 0, **fields: Any) -> ActivityTask:
        """Report a result for the ``at``-th dispatched task."""
        _, task = self.effects.dispatched.pop(at)
        if "failure" not in fields:
            fields["result"] = codec.encode(result)
        self.deliver(ActivityResult(task.owner, task.execution, task.task, task.attempt, **fields))
        return task

    def advance(self, seconds: float) -> None:
        """Let time pass; fire what comes due, in order."""
        effects = self.effects
        end_ms = effects.now_ms + int(seconds * 1000)
        while due := [(due_ms, key) for key, (due_ms, _) in effects.timers.items() if due_ms <= end_ms]:
            due_ms, key = min(due)
            effects.now_ms = max(effects.now_ms, due_ms)
            _, message = effects.timers.pop(key)
            self.deliver(message)
        effects.now_ms = end_ms

    def row(self, id: str = "i") -> InstanceRow:
        return InstanceRow.unpack(self.effects.rows[instance(id)])

    def output(self, id: str = "i") -> Any:
        row = self.row(id)
        assert row.status == "Completed", (row.status, str(row.failure))
        assert row.output is not None
        return codec.decode(row.output)

    def responses(self, request: str) -> list[Response]:
        return [m for m in self.effects.sent if isinstance(m, Response) and m.request == request]
