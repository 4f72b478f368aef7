"""A partition in memory: mailboxes and activations, over the commit in the making (``drafts``).

No I/O and no clock of its own: the host feeds it entries, due times and stored state, runs it, and takes
commits from it.

Rules:

* Messages are accepted in the order of the inbox and given to actors in that order.
* Memory runs ahead of the store by the commit under way and the draft, never by more, and
  nothing of that is visible outside. If a commit is refused, the host drops this
  object whole and loads the partition again: there is no partial undo.
* A timer that is late (nobody owned the partition, or its host was kept busy) does not overtake what came
  before its time: the inbox is looked at first, and both are taken in the order of their times. What is
  handed over past the inbox waits until that is done.
* A message to an actor of the same partition is accepted at once, before the commit. Like any accepted
  message it is in the commit either as finished or as a mailbox row.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Final

from lungfish.runtime.errors import InternalError, UnknownPool
from lungfish.runtime.ids import CLIENT, ActorId
from lungfish.runtime.messages import wire
from lungfish.runtime.messages.letters import UNREADABLE, refusal_of
from lungfish.runtime.messages.messages import Message, Signal
from lungfish.runtime.messages.payloads import Fetch
from lungfish.runtime.session.direct import DirectLanes, Handed
from lungfish.runtime.store.layout import POOL_MARK, Layout
from lungfish.runtime.store.store import Entry, PartitionImage, client_target, partition_target
from lungfish.runtime.telemetry.hot import SAMPLED, Hottest

from .caution import PATIENCE_MS, SUSPECTED, Caution, Step, Trials, cautious
from .drafts import Drafting
from .kinds import ActorKind, Item, Stored
from .mailbox_rows import pack_item, row_name, unpack_item
from .slots import ActivationBroke, Reloads, Slot

logger = logging.getLogger(__name__)

#: So many unfinished messages make a partition refuse what is handed over: inboxes tell clients when to stop.
BACKLOG_MAX: Final = 1_000
#: A timer that fires later than this (ms) must not overtake what came before its time.
LATE_MS: Final = 250


def _time_of(entry: Entry) -> int:
    """Return when an entry came (Unix ms, of the store's clock)."""
    return int(entry.id.partition("-")[0])


class Partition(Drafting):
    """One owned partition. See the rules of this module."""

    def __init__(
        self,
        image: PartitionImage,
        *,
        layout: Layout,
        kinds: Mapping[str, ActorKind],
        clock: Callable[[], int],
        wake: Callable[[], None],
        quarantine: Iterable[ActorId] = (),
        hottest: Hottest | None = None,
        trials: Trials | None = None,
        fetch: Fetch | None = None,
    ) -> None:
        super().__init__(image, layout=layout, clock=clock, wake=wake, fetch=fetch)
        self.target = partition_target(image.partition)
        self.epoch = image.epoch
        self.dropped = False
        #: The store was found to lack what is in this memory: writes were lost.
        self.store_is_behind = False
        self.read_position = image.position
        self._layout = layout
        self._kinds = kinds
        self._quarantine = frozenset(quarantine)
        self._hottest = hottest
        self._turns = 0
        self._ids = 0
        self._ids_prefix = f"{self.number:x}.{self.epoch:x}{self.token[-6:]}."
        self._slots: dict[ActorId, Slot] = {}
        #: Accepted for actors that are not in memory, in order: what the host must load.
        self._unloaded: dict[ActorId, list[Item]] = {}
        #: Actors to run, in order; a dict for its order and its uniqueness.
        self._ready: dict[ActorId, None] = {}
        self._buffer: deque[Entry] = deque()
        #: The last entry that was taken from it.
        self._accepted = image.position
        #: What clients hand over past the inbox.
        self.direct = DirectLanes(image.doubled)
        #: All that came to the inbox before this time (Unix ms) was accepted.
        self._seen_ms = 0
        #: Timers wait until all that came before this time (Unix ms) is accepted; 0: they do not.
        self._looking_ms = 0
        self._reloads = Reloads()
        self._tasks: set[asyncio.Task[None]] = set()
        #: Set while owners of this partition die again and again.
        self._caution = cautious(image.deaths, clock(), trials or Trials())
        self._restore_mailbox(image.mailbox)

    # --- what the host feeds in --------------------------------------------------------

    def buffer(self, entries: Iterable[Entry]) -> None:
        """Take entries that were read; they are accepted by the next ``receive``."""
        for entry in entries:
            self._buffer.append(entry)
            self.read_position = entry.id

    @property
    def buffered(self) -> int:
        """How many entries were read and not yet accepted."""
        return len(self._buffer)

    def receive(self, messages_max: int) -> None:
        """Accept buffered entries, until about ``messages_max`` messages are taken.

        A batch of signals counts as many: a round should be short in time, too.
        """
        taken = 0
        self._pinned_ms = self._read_clock()
        while self._buffer and taken < messages_max:
            entry = self._buffer.popleft()
            taken += self._receive_entry(entry)
        if self.direct.ready:
            self._receive_handed()
        self._pinned_ms = 0

    def hand(self, batch: Handed) -> None:
        """Take a batch past the inbox, when it is its turn; see ``direct``."""
        if self._caution is None and self.backlog < BACKLOG_MAX:
            self.direct.hand(batch)
        else:
            self.direct.refuse(batch)

    def _receive_handed(self) -> None:
        if self._looking_ms:
            return  # timers come first that wait for what the inbox has
        for batch in self.direct.sift(self._accepted, self.now_ms):
            first_row = self._rows + 1
            self._receive_rows(batch.rows)
            self.taking(batch, range(first_row, self._rows + 1))

    def _receive_entry(self, entry: Entry) -> int:
        if self._looking_ms:
            self._keep_order(_time_of(entry))
        # The position moves with the messages, in one commit: an entry is consumed exactly once.
        self._draft.position = self._accepted = entry.id
        self.direct.ready = bool(self.direct.waiting)
        try:
            rows, producer, sequence = wire.unpack_batch(entry.payload)
        except wire.MalformedBytes:
            self._set_aside(entry.payload, UNREADABLE)
            return 1
        if producer and not self.direct.read(producer, sequence):
            self._draft.undoubled[producer] = sequence
            return 1
        return self._receive_rows(rows)

    def _receive_rows(self, rows: list[Any]) -> int:
        taken = 0
        for row in rows:
            try:
                message = wire.message_from_row(row)
            except wire.MalformedBytes:
                self._set_aside(wire.pack_rows([row]), UNREADABLE)
            else:
                self.accept(message)
                taken += message.count if isinstance(message, Signal) else 1
        return taken

    def must_look(self, now_ms: int) -> bool:
        """True if timers that are due have to wait for a read that begins now; see ``looked``.

        Those that an earlier read was for are fired: others may have become late meanwhile.
        """
        self.fire_timers(min(self._seen_ms - 1, now_ms))
        if not self._due or now_ms - self._due[0][0] <= LATE_MS:
            return False
        self._looking_ms = now_ms
        return True

    def looked(self) -> None:
        """Note that a read which began after ``must_look`` found no more than is buffered."""
        self._seen_ms = max(self._seen_ms, self._looking_ms)
        self._looking_ms = _time_of(self._buffer[-1]) if self._buffer else 0

    def _keep_order(self, came_ms: int) -> None:
        """Before an entry is accepted: fire what was due before it came."""
        self.fire_timers(min(came_ms - 1, self.now_ms))
        if came_ms >= self._looking_ms:
            self._seen_ms = max(self._seen_ms, self._looking_ms)
            self._looking_ms = 0

    def idle_lanes(self) -> list[str]:
        """Return the clients' lanes that were idle since the last call; see ``DirectLanes.age``."""
        # Where nothing is uncommitted there may be no commit for days: the last one is all to wait for.
        return self.direct.age(self.committed, self.commit_number if self.stale else self._number)

    def fire_timers(self, until_ms: int | None = None) -> None:
        """Accept the messages of all timers that are due, or were due until a time."""
        now = self.now_ms if until_ms is None else until_ms
        while self._due and self._due[0][0] <= now:
            due_ms, timer_id = heapq.heappop(self._due)
            timer = self._timers.get(timer_id)
            if timer is None or timer[0] != due_ms:
                continue  # cancelled, or set again to another time
            del self._timers[timer_id]
            self._draft.timers[timer_id] = None
            try:
                messages = wire.unpack(timer[1])
            except wire.MalformedBytes:
                self._set_aside(timer[1], UNREADABLE)
                continue
            for message in messages:
                self.accept(message)

    def is_due(self, now_ms: int) -> bool:
        """True if ``fire_timers`` has something to do."""
        return bool(self._due) and self._due[0][0] <= now_ms and not self._looking_ms

    @property
    def next_due_ms(self) -> int | None:
        """When the next timer may be due (Unix ms); None: there is none."""
        due_ms = self._due[0][0] if self._due and not self._looking_ms else None
        if self._caution is not None and self._caution.given_ms:
            patient_ms = self._caution.given_ms + PATIENCE_MS
            return patient_ms if due_ms is None else min(due_ms, patient_ms)
        return due_ms

    def accept(self, message: Message) -> None:
        """Take a message for an actor of this partition."""
        self._rows += 1
        item = Item(message, self._rows, b"", self.now_ms)
        self._fresh[item.row] = item
        self._give(item)

    def _give(self, item: Item) -> None:
        if self._caution is None:
            self._hand_over(item)
        else:
            self._caution.add(item)

    def _hand_over(self, item: Item) -> None:
        actor = item.message.target
        slot = self._slots.get(actor)
        if slot is not None:
            slot.activation.accept(item)
            self._ready[actor] = None
        elif actor.kind not in self._kinds or actor in self._quarantine:
            return  # kept as a mailbox row: a host that knows the kind, or a fixed release, runs it
        elif POOL_MARK in actor.name and self._lives_elsewhere(actor):
            # Whoever sent it is of a release that knows no pools, and takes the mark for a part of the name.
            self.send(item.message)
            self.done(item)
        else:
            self._unloaded.setdefault(actor, []).append(item)

    def _lives_elsewhere(self, actor: ActorId) -> bool:
        try:
            return self._layout.of(actor) != self.number
        except UnknownPool:  # what runs here refuses it
            return False

    # --- what the host asks ------------------------------------------------------------

    def wanted(self) -> list[ActorId]:
        """Return the actors that must be activated before their messages can be run."""
        return list(self._unloaded)

    def activate(self, actor: ActorId, stored: Stored) -> None:
        """Put an actor into memory and give it the messages that wait for it."""
        items = self._unloaded.pop(actor, [])
        activation = self._kinds[actor.kind].activate(actor, stored)
        self._slots[actor] = Slot(activation, self.now_ms)
        for item in items:
            activation.accept(item)
        self._ready[actor] = None

    @property
    def busy(self) -> bool:
        """True while something can be run now, or must be loaded first."""
        if self._ready or self._unloaded or self._buffer or self._has_direct():
            return True
        return self._caution is not None and self._caution.has_step(
            self.now_ms, self.committed, is_running=self._is_running(self._caution.current)
        )

    def _has_direct(self) -> bool:
        return self.direct.ready and not self._looking_ms

    @property
    def running(self) -> int:
        """How many spawned tasks (async operations) are running."""
        return len(self._tasks)

    def run(self, runs_max: int, bytes_max: int = 1 << 30) -> int:
        """Run actors that have something to do; return how many were run.

        Stops after ``runs_max`` of them, or when the draft has grown to about ``bytes_max``.
        """
        runs = 0
        if self._caution is not None:
            self._step_cautiously(self._caution)
        while self._ready and runs < runs_max and self.draft_bytes < bytes_max:
            actor = next(iter(self._ready))
            del self._ready[actor]
            slot = self._slots.get(actor)
            if slot is None:
                continue
            runs += 1
            self._run_slot(actor, slot)
        return runs

    def _run_slot(self, actor: ActorId, slot: Slot) -> None:
        slot.used_ms = self._pinned_ms = self._read_clock()
        try:
            slot.activation.run(self)
        except Exception as error:
            raise ActivationBroke(actor) from error
        finally:
            self._pinned_ms = 0
        slot.commit = self._number + 1
        self._turns += 1
        if not self._turns % SAMPLED and self._hottest is not None:
            self._hottest.add(actor)
        if slot.activation.ready:
            self._ready[actor] = None

    def _step_cautiously(self, caution: Caution) -> None:
        """Give the next message if the one before has ended; see ``caution``."""
        while True:
            is_running = self._is_running(caution.current)
            step = caution.next_step(self.now_ms, self.committed, is_running=is_running)
            item = caution.current
            if step is Step.WAIT:
                return
            if step is Step.END or item is None:
                self._caution = None
                for waiting in caution.end():
                    self._hand_over(waiting)
                return
            if step is Step.GIVE:
                caution.given_ms = max(1, self.now_ms)
                self._hand_over(item)
                continue
            if step is Step.COMMIT:
                caution.attempt(item, gate=self._number + 1)
            else:
                caution.clear(item, gate=self._number + 1)
            self._urgent = True
            if step is Step.SET_ASIDE:
                self._set_suspect_aside(item)
            elif item.row in self._kept:
                self._draft.mailbox[row_name(item.row)] = pack_item(item)

    def _is_running(self, item: Item | None) -> bool:
        if item is None or not (item.row in self._fresh or item.row in self._kept):
            return False
        actor = item.message.target
        slot = self._slots.get(actor)
        return actor in self._ready or actor in self._unloaded or (slot is not None and slot.tasks > 0)

    def _set_suspect_aside(self, item: Item) -> None:
        logger.error("%s: a message is set aside: %s", item.message.target, SUSPECTED)
        self.set_aside(item, SUSPECTED)
        if (answer := refusal_of(item.message, InternalError(SUSPECTED))) is not None:
            self.send(answer)

    def acknowledged(self, number: int) -> None:
        """Note that commit ``number`` is in the store."""
        self.committed = number
        if self.payloads:
            self.payloads.acknowledged(number)
        waiting = None if self._caution is None else self._caution.acknowledged(number)
        unfinished = self._kept, self._fresh
        begun = self._reloads.begin(number, self._slots, self._unloaded, unfinished, waiting or ())
        if begun or waiting is not None:
            self._wake()

    def drop(self) -> None:
        """Forget everything: another host owns the partition, or it must be loaded again."""
        self.dropped = True
        if self._caution is not None:
            self._caution.end()
        for task in self._tasks:
            task.cancel()
        for slot in self._slots.values():
            slot.activation.drop()
        self._slots.clear()
        self._ready.clear()
        self._unloaded.clear()
        self._buffer.clear()
        self.direct.waiting.clear()
        self._new_draft()
        self._fresh.clear()

    @property
    def activations(self) -> int:
        """How many actors are in memory."""
        return len(self._slots)

    @property
    def backlog(self) -> int:
        """How many accepted messages are unfinished."""
        return len(self._fresh) + len(self._kept)

    def passivate(self, unused_since_ms: int, most: int) -> int:
        """Drop up to ``most`` passive activations not used since then; return how many."""
        idle = [
            actor
            for actor, slot in self._slots.items()
            if slot.used_ms <= unused_since_ms and self._may_go(actor, slot)
        ]
        idle.sort(key=lambda actor: self._slots[actor].used_ms)
        for actor in idle[:most]:
            self._slots.pop(actor).activation.passivate()
        return min(len(idle), most)

    def _may_go(self, actor: ActorId, slot: Slot) -> bool:
        # Loading it again must see all that it did, so its last commit must be acknowledged.
        return (
            slot.commit <= self.committed
            and not slot.tasks
            and slot.activation.passive
            and actor not in self._ready
        )

    # --- Effects: what activations do ----------------------------------------------------

    def unique(self) -> str:
        # The epoch tells owners apart, unless the store loses a claim; then the token still does.
        self._ids += 1
        return f"{self._ids_prefix}{self._ids:x}"

    def send(self, message: Message) -> None:
        self._urgent = True
        target = message.target
        if target.kind == CLIENT:
            self._queue(client_target(target.key), message)
            return
        try:
            number = self._layout.of(target)
        except UnknownPool as error:
            self._set_aside(wire.pack([message]), str(error))
            if (answer := refusal_of(message, error)) is not None:
                self.send(answer)
            return
        if number == self.number:
            if not self.dropped:
                self.accept(message)
                self._wake()
            return
        self._queue(partition_target(number), message)

    def reload(self, actor: ActorId) -> None:
        self._reloads.ask(actor, self._number + 1)
        self._urgent = True

    def spawn(self, actor: ActorId, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"lungfish {actor}")
        self._tasks.add(task)
        slot = self._slots.get(actor)
        if slot is not None:
            slot.tasks += 1
        task.add_done_callback(lambda task: self._ended(actor, slot, task))

    def _ended(self, actor: ActorId, slot: Slot | None, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if slot is not None:
            slot.tasks -= 1
        if self.dropped:
            if not task.cancelled():
                task.exception()  # seen: whatever it was, the next owner runs the operation again
            return
        self._ready[actor] = None
        self._wake()

    # --- inside --------------------------------------------------------------------------

    def _restore_mailbox(self, rows: Mapping[str, bytes]) -> None:
        self._rows = 0
        for row in sorted(rows):
            number = int(row, 16)
            self._rows = max(self._rows, number)
            item = unpack_item(number, rows[row])
            if item is None:
                self._draft.mailbox[row] = None
                self._set_aside(rows[row], UNREADABLE)
                continue
            self._kept[number] = item
            self._give(item)
