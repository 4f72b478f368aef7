"""The commit in the making: where everything lands that the actors of a partition do.

Rules:

* All that happens between two commits is one *draft*. ``take_commit`` turns it into the next numbered
  commit and begins another. At most one commit is under way; what happens meanwhile
  collects in the next draft, so a slow store makes larger commits and not more of them.
* What was accepted and is not finished is in the commit as a mailbox row; what was finished
  before it ever got a row leaves no trace.
* A message for elsewhere goes into the commit as a delivery with the next sequence
  number of its target, so that the target can refuse repeats.
* Nothing here runs an actor or gives it a message: that is ``partition``, which adds it to this class. (A
  base class and not an object of its own: effects are the hot path, and would all be passed on.)
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from lungfish.runtime.ids import CLIENT, ActorId
from lungfish.runtime.messages import wire
from lungfish.runtime.messages.letters import pack_letter
from lungfish.runtime.messages.messages import ActivityTask, Message, Response
from lungfish.runtime.messages.payloads import Fetch
from lungfish.runtime.session.direct import Handed, taken_note
from lungfish.runtime.store.layout import Layout
from lungfish.runtime.store.store import Commit, PartitionImage, client_target, queue_target

from .ahead import PartitionPayloads
from .deliveries import delivery_of
from .kinds import Effects, Item
from .mailbox_rows import group_of, pack_item, row_name


class Drafting(Effects):
    """What activations do, and the commits it becomes. See the rules of this module."""

    def __init__(
        self,
        image: PartitionImage,
        *,
        layout: Layout,
        clock: Callable[[], int],
        wake: Callable[[], None],
        fetch: Fetch | None = None,
    ) -> None:
        self.number = image.partition
        self.token = image.token
        self.committed = image.commit_number
        self.malformed = 0
        self._clock = clock
        self._wake = wake
        self._last_ms = 0
        #: The time while an actor runs: one reading of the clock is enough for that; 0 at other times.
        self._pinned_ms = 0
        self._number = image.commit_number
        self._sequences = dict(image.sequences)
        self._base = image.base
        #: Unfinished items without a mailbox row yet, and those with one.
        self._fresh: dict[int, Item] = {}
        self._kept: dict[int, Item] = {}
        self.payloads = PartitionPayloads(self, (self._fresh, self._kept), fetch, layout)
        self._timers: dict[str, tuple[int, bytes]] = dict(image.timers)
        self._due: list[tuple[int, str]] = [(due, name) for name, (due, _) in image.timers.items()]
        heapq.heapify(self._due)
        #: Rows of activities without a result, by what precedes their last part: one group per execution.
        self._activities: dict[str, dict[str, bytes]] = {}
        for row_id, row in image.activities.items():
            self._activities.setdefault(group_of(row_id), {})[row_id] = row
        #: What is called after the commit in the making, and after the one under way.
        self._afterwards: list[Callable[[], None]] = []
        self._gated: list[Callable[[], None]] = []
        self._new_draft()

    @property
    def now_ms(self) -> int:
        return self._pinned_ms or self._read_clock()

    def _read_clock(self) -> int:
        now_ms = self._clock()
        if now_ms > self._last_ms:  # noqa: PLR1730 - see HubClock.now_ms
            self._last_ms = now_ms
        return self._last_ms

    # --- the draft ------------------------------------------------------------------------

    @property
    def dirty(self) -> bool:
        """True if the draft holds something that should be committed soon."""
        return self._urgent or bool(self._fresh)

    @property
    def committing(self) -> bool:
        """True while a commit of this partition is under way."""
        return self.committed < self._number

    @property
    def uncommitted(self) -> int:
        """About how many messages wait in the draft."""
        return len(self._fresh) + sum(map(len, self._outgoing.values())) + len(self._draft.snapshots)

    @property
    def stale(self) -> bool:
        """True if the draft holds anything at all, also what may wait (positions, outbox trims)."""
        draft = self._draft
        return self.dirty or draft.position is not None or bool(draft.delivered or draft.timers)

    def take_commit(self) -> Commit:
        """Return the draft as the next commit, and begin a new draft."""
        draft = self._draft
        self._number += 1
        draft.number = self._number
        if self._receipts:
            self._acknowledge_unanswered()
        for row, item in self._fresh.items():
            draft.mailbox[row_name(row)] = pack_item(item)
        self._kept.update(self._fresh)
        self._fresh.clear()
        if self.payloads:
            self.payloads.fill(draft)
        for target, rows in self._outgoing.items():
            draft.deliveries.append(delivery_of(target, rows, self._sequences, self._base))
        self._gated, self._afterwards = self._afterwards, []
        self._new_draft()
        return draft

    def taking(self, batch: Handed, rows: range) -> None:
        """Note that a batch which was handed over is taken with this draft; its messages have these rows."""
        lane = batch.producer
        first, _ = self._draft.direct.get(lane, (batch.sequence, 0))
        self._draft.direct[lane] = (first, batch.sequence)
        self._receipts.append((lane, batch.sequence, rows))
        self._urgent = True

    def _acknowledge_unanswered(self) -> None:
        """Tell those lanes that their batch is durable which have no answer to all of it in this commit."""
        for lane, sequence, rows in self._receipts:
            if any(row in self._fresh for row in rows):
                target = lane.rpartition(":")[0]  # a client's lane is named after its replies
                receipt = Response(ActorId(CLIENT, "", target[2:]), taken_note(self.number, sequence))
                self._queue(target, receipt)

    def take_gated(self) -> list[Callable[[], None]]:
        """Return what waits for the commit that was taken last: it is in the store now."""
        gated, self._gated = self._gated, []
        return gated

    def delivered(self, outbox_id: str) -> None:
        """Note that an outbox entry has reached its target; it is trimmed by a later commit."""
        self._draft.delivered.append(outbox_id)

    def _new_draft(self) -> None:
        self._draft = Commit(self.number, self.token, 0)
        self._outgoing: dict[str, list[list[Any]]] = {}
        #: Where in ``_outgoing`` a response is that a later one replaces, by client and request.
        self._published: dict[tuple[str, str], int] = {}
        #: Batches that were handed over: lane, number, rows of its messages.
        self._receipts: list[tuple[str, int, range]] = []
        self._urgent = False
        #: About how many bytes the next commit carries.
        self.draft_bytes = 0

    # --- effects --------------------------------------------------------------------------

    @property
    def commit_number(self) -> int:
        return self._number + 1

    def snapshot(self, actor: ActorId, state: bytes | None) -> None:
        self._draft.snapshots[(actor.name, actor.key)] = state
        self.draft_bytes += len(state or b"")
        self._urgent = True

    def instance(self, actor: ActorId, row: bytes | None) -> None:
        self._draft.instances[actor.key] = row
        self.draft_bytes += len(row or b"")
        self._urgent = True

    def history(self, actor: ActorId, batch: bytes) -> None:
        self._draft.histories.setdefault(actor.key, []).append(batch)
        self.draft_bytes += len(batch)
        self._urgent = True

    def forget_history(self, actor: ActorId) -> None:
        self._draft.histories.pop(actor.key, None)
        self._draft.forget_histories.add(actor.key)
        self._urgent = True

    def index(self, index: str, member: str, score: int | None) -> None:
        self._draft.index[index, member] = score
        self._urgent = True

    def timer(self, timer_id: str, due_ms: int, message: Message) -> None:
        payload = wire.pack([message])
        self._timers[timer_id] = self._draft.timers[timer_id] = (due_ms, payload)
        heapq.heappush(self._due, (due_ms, timer_id))
        self._urgent = True
        self._wake()

    def cancel_timer(self, timer_id: str) -> None:
        if self._timers.pop(timer_id, None) is not None:
            self._draft.timers[timer_id] = None
            self._urgent = True
            if len(self._due) > 64 + 2 * len(self._timers):
                # Cancelled timers would stay in the heap until they are due: for a day, with a day's
                # time-outs.
                self._due = [(due_ms, name) for name, (due_ms, _) in self._timers.items()]
                heapq.heapify(self._due)

    def after_commit(self, call: Callable[[], None]) -> None:
        self._afterwards.append(call)

    def activity(self, row_id: str, row: bytes | None) -> None:
        group = self._activities.setdefault(group_of(row_id), {})
        if row is None:
            group.pop(row_id, None)
            if not group:
                del self._activities[group_of(row_id)]
        else:
            group[row_id] = row
            self.draft_bytes += len(row)
        self._draft.activities[row_id] = row
        self._urgent = True

    def activity_rows(self, prefix: str) -> dict[str, bytes]:
        return dict(self._activities.get(prefix.rstrip("\x00"), ()))

    def outstanding(self) -> list[tuple[str, bytes]]:
        """Return the rows of all activities without a result: (id, row), the oldest first."""
        return [row for group in self._activities.values() for row in group.items()]

    @property
    def lanes(self) -> list[str]:
        """Return the lanes of queues that activities were ever dispatched to."""
        return [target[2:] for target in self._sequences if target[:2] == "q:"]

    def dispatch(self, queue: str, task: ActivityTask) -> None:
        self._urgent = True
        self._queue(queue_target(queue), task)

    def done(self, item: Item) -> None:
        if self._fresh.pop(item.row, None) is None and self._kept.pop(item.row, None) is not None:
            self._draft.mailbox[row_name(item.row)] = None
            self._urgent = True

    def set_aside(self, item: Item, reason: str = "") -> None:
        self._set_aside(wire.pack([item.message]), reason)
        self.done(item)

    def record(self, item: Item, record: bytes) -> None:
        item.record = record
        if item.row in self._kept:
            packed = pack_item(item)
            self._draft.mailbox[row_name(item.row)] = packed
            self.draft_bytes += len(packed)
            self._urgent = True

    def _queue(self, target: str, message: Message | ActivityTask) -> None:
        self._outgoing.setdefault(target, []).append(wire.to_row(message))
        self.draft_bytes += wire.size_of(message)
        self._wake()

    def publish(self, response: Response) -> None:
        self._urgent = True
        published = (response.target.key, response.request)
        target = client_target(response.target.key)
        at = self._published.get(published)
        if at is None:
            self._published[published] = len(self._outgoing.get(target, ()))
            self._queue(target, response)
        else:
            self._outgoing[target][at] = wire.to_row(response)

    def _set_aside(self, payload: bytes, reason: str) -> None:
        # Kept and counted: one broken producer must neither stop a partition nor vanish.
        self.malformed += 1
        self._draft.dead.append(pack_letter(reason, self.now_ms, payload))
        self._urgent = True
