"""What belongs to one running operation: who asked, what it sends, whether it deletes.

A scope is the inside of a context: ``context`` is what users see of it, ``turn`` and
``processor`` begin it, read it and end it. One scope serves all operations of a turn, one after
the other; an operation that may overlap others has its own.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from lungfish.runtime.declared.middleware import Outgoing, Sort, run_through
from lungfish.runtime.errors import Overloaded, UsageError
from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages import headers
from lungfish.runtime.messages.messages import Call, Message, Signal

from .journal import Journal

if TYPE_CHECKING:
    from lungfish.runtime.declared.app import App
    from lungfish.runtime.declared.definitions import Operation
    from lungfish.runtime.partitions.kinds import Effects, Item

    from .turn import Turns

#: How many signals and starts one operation may send.
MESSAGES_MAX: Final = 10_000
#: How much of a signal's way is kept: signals may go round for ever, their headers may not grow.
CHAIN_MAX: Final = 16


class Scope:
    """The inside of an ``EntityContext``.

    Attributes:
        outgoing: buffered messages; rollback cuts them off, the end of the turn sends them.
        room: the length that ``outgoing`` must not pass.
        refused: how many of the job's operations were refused.
        deleted: the operation asked to delete the entity.
        open: an operation is running.
        turns: where the state, and so its reminders, are.
        task: runs the operation's own code, if that is async; others of its tasks are its ``branches``.
        section: entities of the critical section that it belongs to; empty: it belongs to none.
    """

    __slots__ = (
        "actor",
        "app",
        "branches",
        "deleted",
        "effects",
        "item",
        "journal",
        "open",
        "operation",
        "outgoing",
        "refused",
        "room",
        "section",
        "task",
        "turns",
    )

    def __init__(self, actor: ActorId, app: App) -> None:
        self.actor = actor
        self.app = app
        self.outgoing: list[Message] = []
        self.room = MESSAGES_MAX
        self.refused = 0
        self.deleted = False
        self.open = False
        self.section: tuple[ActorId, ...] = ()
        self.task: asyncio.Task[Any] | None = None
        self.branches: dict[asyncio.Task[Any] | None, int] | None = None
        self.effects: Effects
        self.item: Item
        self.operation: Operation
        self.journal: Journal
        self.turns: Turns

    def begin(self, item: Item, operation: Operation, journal: Journal) -> None:
        """Serve an operation; what an earlier one left was taken or dropped."""
        self.item = item
        self.operation = operation
        self.journal = journal
        self.outgoing = []
        self.room = MESSAGES_MAX
        self.refused = 0
        self.deleted = False
        self.open = True

    def end(self) -> None:
        """Serve nobody any more: a context that user code kept is of no use."""
        self.open = False

    def check_open(self) -> None:
        """Raise ``UsageError`` if the operation has ended."""
        if not self.open:
            raise UsageError(f"the operation of {self.actor} that this context belonged to has ended")

    def send(self, message: Message) -> None:
        """Buffer a message until the operation has ended well."""
        self.check_open()
        if len(self.outgoing) >= self.room:
            raise Overloaded(
                f"{self.operation.signature.what} sent more than {MESSAGES_MAX:,} messages: "
                "spread them over several operations"
            )
        self.outgoing.append(message)

    def branch(self) -> int:
        """Return 0 for the operation's own code, and the number of a branch that runs beside it."""
        task = asyncio.current_task()
        if task is self.task:
            return 0
        if self.branches is None:
            self.branches = {}
        return self.branches.setdefault(task, len(self.branches) + 1)

    def headers(self, kind: Sort, name: str, key: str, operation: str = "") -> headers.Wire:
        """Return what a message that is sent now takes along; raises as ``headers.outgoing``.

        The app's middleware that never waits has gone through it: what it raises is raised here.
        """
        wire, chain = headers.outgoing(self.app.carried), self.app.around_sends_at_once
        if not chain:
            return wire
        outgoing = Outgoing(kind, name, key, operation, dict(headers.as_mapping(wire)), str(self.actor))
        made: headers.Wire = run_through(chain, outgoing, lambda: headers.as_wire(outgoing.headers))
        return made

    @property
    def waiting(self) -> tuple[str, ...]:
        """Entities that wait for this operation, outermost first, and this one."""
        message = self.item.message
        # Whoever signalled does not wait, so only the chain of a call counts.
        chain = message.chain if isinstance(message, Call) else ()
        return (*chain, str(self.actor))

    @property
    def deadline_ms(self) -> int:
        """After this time nobody waits for this operation any more (Unix ms); 0: there is none."""
        message = self.item.message
        deadline_ms = message.deadline_ms if isinstance(message, Call) else 0
        return self.item.accepted_ms - deadline_ms if deadline_ms < 0 else deadline_ms

    @property
    def travelled(self) -> tuple[str, ...]:
        """The way of the messages that led here, for diagnosis; its last part, if it is long."""
        message = self.item.message
        chain = message.chain if isinstance(message, Call | Signal) else ()
        return (*chain[1 - CHAIN_MAX :], str(self.actor))

    @property
    def caller(self) -> str | None:
        """Who asked for this operation, as far as the message tells."""
        message = self.item.message
        if isinstance(message, Call):
            return str(message.reply_to)
        if isinstance(message, Signal) and message.chain:
            return message.chain[-1].removeprefix("orchestration ")
        return None
