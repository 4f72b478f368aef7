"""One orchestration instance in memory: its row, its history, its code, and what waits for it.

Rules:

* This is state with its bookkeeping. What moves it is elsewhere: ``turns`` (the code goes on), ``control``
  (operators' verbs), ``endings`` (it becomes terminal); the ``processor`` says which message means what.
* ``effects`` is there during a run only. Whatever is done to the world goes through it.
* ``held`` items are unfinished on purpose: suspended, not begun, or without code on this host.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from lungfish.runtime.declared.definitions import Orchestration
from lungfish.runtime.errors import FailureDetails, LungfishError
from lungfish.runtime.ids import ActorId
from lungfish.runtime.partitions.kinds import Effects, Item, Stored

from . import events
from .attempts import Attempts
from .history import History
from .large import LargeValues
from .limits import Limits
from .listing import Listing
from .matching import Outstanding
from .outcomes import Restart
from .outgoing import Outgoing
from .replay import Execution
from .replies import Request, refuse
from .row import InstanceRow

if TYPE_CHECKING:
    from lungfish.runtime.declared.app import App


class Instance:
    """What is known of one instance while it is in memory.

    Attributes:
        row: its metadata; None: there is no such instance.
        execution: its code, live; None: not loaded, or ended.
        turn_open: the code has gone on in this run and its turn is not in the commit yet.
        inbox: items to process in this run.
        current: the item that is being processed.
        large: its values that are kept beside row and history.
        held: items that wait in the mailbox for a resume, a begin, or a host with the code.
        outgoing: what the code asked for in the open turn.
        continues: times it continued as new in this run.
        restart: the execution to begin next in this run.
        ended: the code of an instance that has ended, for queries; None: not there, or never asked for.
    """

    def __init__(
        self, app: App, actor: ActorId, stored: Stored, limits: Limits, *, always_replay: bool
    ) -> None:
        self.app: Final = app
        self.actor: Final = actor
        self.id: Final = actor.key
        self.limits: Final = limits
        self.always_replay: Final = always_replay
        self.row: InstanceRow | None = None
        self.listing: Final = Listing(actor)
        self.large: Final = LargeValues(actor, stored, app.payloads.offload_bytes)
        self.history = History(actor, stored.history, limits, self.large)
        self.execution: Execution | None = None
        self.turn_open = False
        self.inbox: deque[Item] = deque()
        self.current: Item | None = None
        self.held: list[Item] = []
        self.outgoing = Outgoing()
        self.continues = 0
        self.restart: Restart | None = None
        self.ended: Execution | None = None
        #: When a lock that it waits for was last asked for again.
        self.chased_ms = 0
        #: A new activation takes over once all is committed.
        self.reloading = False
        self.effects: Effects
        self._attempts: Attempts | None = None

    @property
    def known(self) -> InstanceRow:
        """The row of an instance that exists."""
        assert self.row is not None
        return self.row

    @property
    def attempts(self) -> Attempts:
        """The activities of the present execution; after a recovery, as the store has them."""
        if self._attempts is None:
            self._attempts = Attempts(self.actor, self.known.execution, recovered=True)
        return self._attempts

    def new_attempts(self) -> None:
        """Begin with no activities: a new execution."""
        self._attempts = Attempts(self.actor, self.known.execution, recovered=False)

    @property
    def outstanding(self) -> Outstanding:
        """What the present execution has begun and not ended."""
        return self.execution.outstanding if self.execution is not None else self.history.outstanding()

    def definition(self) -> Orchestration[Any, Any]:
        """Return the instance's code; raises ``NotRegistered``."""
        row = self.known
        return self.app.code_of(row.name, row.version, pinned=row.pinned)

    def forget_batches(self) -> None:
        """Forget the history in memory, now that the code is there, unless it is replayed at every turn."""
        if not self.always_replay or self.known.terminal:
            self.history.clear()

    def record(self, *turn: events.Event) -> None:
        """Append to the history."""
        # Needed again only by who replays: an execution that is not in memory, or one that always does.
        keep = self.always_replay or self.execution is None
        self.history.append(self.effects, self.known, turn, keep=keep)

    def write_row(self) -> None:
        """Put the row into the commit."""
        row = self.known
        row.updated_ms = self.effects.now_ms
        row.input = self.large.stored(self.effects, row.input) or b""
        row.output = self.large.stored(self.effects, row.output)
        self.effects.instance(self.actor, row.pack())
        self.listing.write(self.effects, row)

    def refuse(self, message: Request, error: LungfishError) -> None:
        """Answer a request with an error."""
        refuse(self.effects, message, FailureDetails.of(error))

    def forget(self) -> None:
        """Make room for another instance of this id; this one has ended."""
        assert self.known.terminal
        self.history = History(self.actor, (), self.limits, self.large)
        self.history.forget(self.effects)
        self.listing.remove(self.effects)
        self.row, self._attempts, self.ended = None, None, None

    def lacks_history(self) -> bool:
        """Ask to be loaded again if the history is not in memory; nothing more is done in this run then."""
        if not self.history.whole:
            self.reloading = True
            self.effects.reload(self.actor)
        return self.reloading

    def hold(self, item: Item) -> None:
        """Leave an item in the mailbox until ``release_held``."""
        self.large.hold(self.effects, item)
        self.held.append(item)

    def finish(self, item: Item) -> None:
        """An item is finished: its effects are in this commit."""
        self.large.finished(item)
        self.effects.done(item)

    def release_held(self) -> None:
        """Process what was held back before anything newer."""
        self.inbox.extendleft(reversed(self.held))
        self.held.clear()

    def drop_code(self) -> None:
        """Drop the code, if any, without effect."""
        if self.execution is not None:
            self.execution.close()
            self.execution = None
