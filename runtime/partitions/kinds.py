"""What the runtime asks of a kind of actor, and what it offers to one.

The runtime owns mailboxes, commits, timers, ownership and delivery. What a message *does* is
a kind's business: ``entities`` and ``orchestrations`` are the two kinds. They are
plugged in by name (``plugged_in``), so that imports point one way: kinds import the runtime, never
the other way round.

Rules for a kind:

* ``Activation.run`` is called in the host's loop and must not block. It does what can be done now and
  returns; what must be awaited is given to ``Effects.spawn``, and ``run`` is called
  again when that ends.
* All that an activation does to the world goes through ``Effects``. Nothing leaves before the commit that
  carries it; if the commit is refused, the activation is dropped and never hears of it.
* An item is finished with ``Effects.done``. Items that are not finished when the round is committed are
  kept by the runtime as mailbox rows and are given again, in the order of
  acceptance, to the next activation if this one is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from lungfish.runtime.declared.plugged_in import PROCESSORS, kind_class
from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages.messages import ActivityTask, Message, Response

if TYPE_CHECKING:
    from lungfish.runtime.declared.app import App

    from .ahead import PartitionPayloads
    from .walking import Walk


@dataclass(slots=True, eq=False)
class Item:
    """A message that an actor has accepted.

    Attributes:
        row: number in the order of acceptance; the id of its mailbox row if it gets one.
        record: what the kind keeps beside an unfinished message (``Effects.record``).
        accepted_ms: when the partition took it (store's clock).
        attempts: how often it is suspected of having killed its owner (see ``caution``).
    """

    message: Message
    row: int
    record: bytes = b""
    accepted_ms: int = 0
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Stored:
    """What the store has of an actor: an entity's snapshot, or an orchestration's row and history."""

    row: bytes | None
    history: tuple[bytes, ...] = ()


class Effects(Protocol):
    """What an activation may do. May be used at any time from the host's loop, not only in ``run``.

    Attributes:
        committed: number of the last commit that is known to be in the store.
        walk: the entities of this partition, page by page.
        payloads: large values, which are kept beside what refers to them.
        draft_bytes: about how many bytes the next commit carries.
    """

    committed: int
    walk: Walk = cast("Walk", None)  # given by the host
    payloads: PartitionPayloads
    draft_bytes: int

    @property
    def now_ms(self) -> int:
        """The store's clock, as the host knows it (Unix ms); never goes back."""
        ...

    def unique(self) -> str:
        """Return an id that no other call in this hub ever returned or will return."""
        ...

    def send(self, message: Message) -> None:
        """Send to an actor (of any partition) or, as a ``Response``, to a client."""
        ...

    def publish(self, response: Response) -> None:
        """Send to a client what takes the place of an earlier one to the same request in the same commit."""
        ...

    @property
    def commit_number(self) -> int:
        """Number of the commit that carries what is done now; grows, also from owner to owner."""
        ...

    @property
    def dirty(self) -> bool:
        """True if the next commit holds something, and so comes soon."""
        ...

    def snapshot(self, actor: ActorId, state: bytes | None) -> None:
        """Replace an entity's snapshot; None deletes it."""
        ...

    def instance(self, actor: ActorId, row: bytes | None) -> None:
        """Replace an orchestration's metadata row; None deletes it."""
        ...

    def history(self, actor: ActorId, batch: bytes) -> None:
        """Append a batch of events to an orchestration's history."""
        ...

    def forget_history(self, actor: ActorId) -> None:
        """Delete the history so far (also what this round appended before)."""
        ...

    def index(self, index: str, member: str, score: int | None) -> None:
        """Put a member into an index of the partition (see ``index``); None removes it."""
        ...

    def timer(self, timer_id: str, due_ms: int, message: Message) -> None:
        """Deliver ``message`` to its target, an actor of this partition, at ``due_ms`` or soon after."""
        ...

    def cancel_timer(self, timer_id: str) -> None:
        """Forget a timer; one that fired already, or never was, is no error."""
        ...

    def activity(self, row_id: str, row: bytes | None) -> None:
        """Keep a row about an activity that has no result yet; None deletes it."""
        ...

    def dispatch(self, queue: str, task: ActivityTask) -> None:
        """Put a task into an activity queue."""
        ...

    def done(self, item: Item) -> None:
        """The item is finished: its effects are in this commit, and it is never given again."""
        ...

    def set_aside(self, item: Item, reason: str = "") -> None:
        """Finish an item that cannot be applied, and keep it, with the reason, among the dead letters."""
        ...

    def record(self, item: Item, record: bytes) -> None:
        """Keep ``record`` with an unfinished item; the next activation finds it in ``item.record``."""
        ...

    def spawn(self, actor: ActorId, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` as a task of the host; when it ends, the actor's ``run`` is called."""
        ...

    def reload(self, actor: ActorId) -> None:
        """Replace the activation by a new one, with what the store has, once all that it did is committed.

        Its unfinished items are given to the new one, in order. Until then it should do nothing more.
        """
        ...

    def after_commit(self, call: Callable[[], None]) -> None:
        """Call something when the commit that carries what is done now is in the store.

        Not if it is refused, and not if this host dies first: for what may get lost, and must not be wrong.
        ``call`` must not raise or block.
        """
        ...

    def activity_rows(self, prefix: str) -> dict[str, bytes]:
        """Return the activity rows of this partition whose id starts with ``prefix``."""
        ...


class Activation(Protocol):
    """An actor's incarnation in memory."""

    def accept(self, item: Item) -> None:
        """Queue an item; ``run`` follows in the same round."""
        ...

    def run(self, effects: Effects) -> None:
        """Do all that can be done now. Must not raise: a failure of user code is an outcome."""
        ...

    @property
    def ready(self) -> bool:
        """True when ``run`` left something that it could do at once (it bounds what one run does)."""
        ...

    @property
    def passive(self) -> bool:
        """True when nothing is queued or running, so that it may be dropped and loaded again."""
        ...

    def passivate(self) -> None:
        """As ``drop``, on purpose, when ``passive`` and its last commit is acknowledged; may run code."""
        ...

    def drop(self) -> None:
        """Let go of everything in memory, quietly: no effects, no user code. Never called twice."""
        ...


class ActorKind(Protocol):
    """Makes the activations of one kind of actor."""

    @property
    def refused(self) -> int:
        """How much of what was asked of them middleware has refused."""
        ...

    def activate(self, actor: ActorId, stored: Stored) -> Activation:
        """Return the activation of an actor from what the store has of it.

        Must not raise for what users wrote (a state that no longer fits its model, an
        unregistered name): such an activation answers every message with the failure.
        """
        ...

    async def settle(self) -> None:
        """Wait, not long, for what activations that were let go still do."""
        ...


def load_kinds(app: App, wanted: Sequence[str] = tuple(PROCESSORS)) -> dict[str, ActorKind]:
    """Import and make the processors of the wanted kinds."""
    return {kind: kind_class(kind)(app) for kind in wanted}
