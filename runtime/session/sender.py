"""A producer: sends messages to targets, each exactly once, in order, in as few calls as can be.

Rules:

* One batch per target is under way; what is sent meanwhile makes up the next one. So batches grow
  with the load by themselves, and order needs no further care.
* A batch keeps its sequence number until its outcome is known. It is sent again, byte
  for byte, after a broken connection; the store drops it if it had arrived.
* A batch that is given up (``give_up_s``) may or may not have arrived, so its number is
  never used for another one: the next batch skips it (``resync``).
* A full target holds up its own messages only.
* What clients ask of entities yields while too many unfinished messages of the partition wait. All that they
  send to entities has a lane of its own, so that nothing else waits behind it. What ends the waiting there (a
  call that is given up, a state mended by hand) keeps its place, and goes once what was before it has been
  given up.
* A batch of calls of which the owner of the partition is known is *handed over*: straight to it, past the
  inbox (see ``direct``). It has a number like any other. An answer to one of its calls, or a receipt, says
  that it is durable; if it is refused, or there is neither in time, it is appended under its number.
* "Full" promises that nothing was accepted, so it is only said of a batch all of whose tries were answered:
  a try that was not may arrive yet.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from lungfish.runtime.errors import (
    InternalError,
    LungfishError,
    Overloaded,
    SerializationError,
    StoreUnavailable,
)
from lungfish.runtime.ids import ENTITY
from lungfish.runtime.messages import wire
from lungfish.runtime.messages.messages import Call, Inspect, Message, Signal
from lungfish.runtime.store.store import Append, Appended, Store, partition_target

from .owners import Owners

logger = logging.getLogger(__name__)

#: Largest number of messages, and about the largest size (bytes), of one batch.
BATCH_MESSAGES_MAX: Final = 2_000
BATCH_BYTES_MAX: Final = 1_000_000
#: How long what clients send to entities waits for room in the mailbox (s): that may take for ever.
CROWDED_S: Final = 5.0
#: Said of a partition whose mailbox is full.
CROWDED: Final = (
    "{}: too many messages to entities of this partition wait there unfinished, because those are locked, "
    "busy, or not registered with any host; nothing more is taken until some are finished "
    "('lungfish why' says what one waits for)"
)
#: How long an answer to what was handed over may take before it is appended (s).
ANSWER_S: Final = 0.25
#: For how long nothing is handed over after such a silence (s): doubled from the first to the second.
SILENCE_S: Final = (0.25, 60.0)
#: The largest batch that is handed over (bytes): others lose nothing by the way through the inbox.
HANDED_BYTES_MAX: Final = 64_000
#: Waits between tries (s): doubled from the first to the second.
BACKOFF_S: Final = (0.005, 0.5)


@dataclass(slots=True, eq=False)
class _Waiting:
    """Messages of one ``send`` call: they go together, or at least in order.

    Attributes:
        outcome: gets the error if they cannot be sent.
        is_acknowledged: ``outcome`` is done when they are durable; else it is somebody else's to end.
        yields: see ``Append.yields``.
        is_call: nobody needs it to be durable before it is answered, and ``outcome`` is the answer.
    """

    rows: list[list[Any]]
    size: int
    outcome: asyncio.Future[Any]
    is_acknowledged: bool
    yields: bool
    is_call: bool


@dataclass(slots=True, eq=False)
class _Lane:
    """One target: what waits for it, and the batch that is under way.

    Attributes:
        is_entities: it is the one for entities, of a sender that yields.
        is_unsure: a try of this batch was not answered, and may yet arrive.
        handed: who the batch that is under way was handed to; empty: it goes through the inbox.
        direct_s: nothing is handed over before this time.
        penalty_s: for how long nothing is when the owner is silent once more.
    """

    target: str
    producer: str
    is_entities: bool
    waiting: deque[_Waiting] = field(default_factory=deque)
    batch: list[_Waiting] = field(default_factory=list)
    append: Append | None = None
    is_unsure: bool = False
    sequence: int = 0
    resync: bool = False
    not_before_s: float = 0.0
    wait_s: float = BACKOFF_S[0]
    since_s: float = 0.0
    handed: str = ""
    direct_s: float = 0.0
    penalty_s: float = SILENCE_S[0]

    @property
    def partition(self) -> int:
        """Number of the partition; only of a lane for entities."""
        return int(self.target[2:])

    @property
    def rows(self) -> list[list[Any]]:
        """The messages of the batch that is under way."""
        return [row for waiting in self.batch for row in waiting.rows]

    @property
    def is_answered(self) -> bool:
        """An answer to some message of the batch has come, so all of it is durable."""
        for waiting in self.batch:
            outcome = waiting.outcome
            if outcome.done() and not outcome.cancelled() and outcome.exception() is None:
                return True
        return False


class Sender:
    """Sends messages under one producer name. Not shared between event loops."""

    def __init__(
        self,
        store: Store,
        producer: str,
        *,
        give_up_s: float = 30.0,
        yields: bool = False,
    ) -> None:
        """Make a sender.

        Args:
            store: where the targets are.
            producer: unique name; its sequence numbers start at 1 and are kept here only.
            give_up_s: how long one batch is tried before its senders get the error (s).
            yields: whether messages to entities yield to those that wait there.
        """
        self._store = store
        self._producer = producer
        self._give_up_s = give_up_s
        self._yields = yields
        #: Whom to hand calls to; None: everything goes through the inboxes.
        self.owners: Owners | None = None
        #: Lanes whose batch was handed over.
        self._handed: dict[_Lane, None] = {}
        self._lanes: dict[tuple[str, bool], _Lane] = {}
        self._active: dict[tuple[str, bool], _Lane] = {}
        self._pump: asyncio.Task[None] | None = None
        self._more = asyncio.Event()
        self._closed = False

    async def send(self, target: str, messages: Sequence[Message]) -> None:
        """Send messages to a target; they are durable, in order, when this returns.

        Raises:
            Overloaded: the target stayed full for ``give_up_s``; nothing of this was accepted.
            StoreUnavailable: the store could not be reached; the outcome is unknown.
        """
        await self.put(target, messages)

    def put(self, target: str, messages: Sequence[Message]) -> asyncio.Future[None]:
        """Like ``send``, but return at once with a future; order is that of the calls."""
        accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._put(target, messages, accepted, is_acknowledged=True)
        return accepted

    def post(self, target: str, messages: Sequence[Message], response: asyncio.Future[Any]) -> None:
        """Like ``put``, for a request: ``response`` gets the error if it cannot be sent, else is left alone.

        One future and one turn of the loop less than waiting for both.
        """
        self._put(target, messages, response, is_acknowledged=False)

    def _put(
        self, target: str, messages: Sequence[Message], outcome: asyncio.Future[Any], *, is_acknowledged: bool
    ) -> None:
        if self._closed:
            raise StoreUnavailable("this connection was closed")
        rows = [wire.to_row(message) for message in messages]
        is_entities = self._yields and bool(messages) and _is_for_entity(messages[0])
        yields = is_entities and isinstance(messages[0], Call | Signal)
        is_call = yields and not is_acknowledged and isinstance(messages[0], Call)
        waiting = _Waiting(rows, sum(map(wire.size_of, messages)), outcome, is_acknowledged, yields, is_call)
        key = target, is_entities
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = self._lane(*key)
        lane.waiting.append(waiting)
        self._active[key] = lane
        if self._pump is None:
            self._pump = asyncio.get_running_loop().create_task(self._run(), name="lungfish sender")
        self._more.set()

    def _lane(self, target: str, is_entities: bool) -> _Lane:
        # Two lanes to one target count for themselves, so each is a producer.
        producer = f"{self._producer}:e" if is_entities else self._producer
        return _Lane(target, producer, is_entities)

    @property
    def handing(self) -> int:
        """How many lanes have handed something over and do not know what became of it."""
        return len(self._handed)

    async def close(self) -> None:
        """Stop sending; what has no outcome yet fails with ``StoreUnavailable``."""
        self._closed = True
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
        for lane in self._active.values():
            self._fail(lane, [*lane.batch, *lane.waiting], StoreUnavailable("this connection was closed"))
            lane.waiting.clear()

    async def _run(self) -> None:
        while self._active:
            self._more.clear()
            now_s = asyncio.get_running_loop().time()
            lanes = [lane for lane in self._active.values() if lane.not_before_s <= now_s]
            if not lanes:
                await self._wait(min(lane.not_before_s for lane in self._active.values()) - now_s)
                continue
            if self.owners is not None:
                lanes = await self._hand_over(self.owners, lanes, now_s)
            lanes, appends = self._appends(lanes, now_s)
            if not lanes:
                continue
            try:
                outcomes = await self._store.append(appends)
            except StoreUnavailable as error:
                for lane in lanes:
                    self._later(lane, error)
                continue
            except Exception as error:
                # The store refuses it, or a bug of ours. Ending here would leave every later sender
                # waiting for ever.
                logger.exception("sending to %d targets", len(lanes))
                for lane in lanes:
                    self._later(lane, InternalError(f"the store does not take it: {error!r}"))
                continue
            for lane, outcome in zip(lanes, outcomes, strict=True):
                self._settle(lane, outcome)
        self._pump = None

    def _appends(self, lanes: list[_Lane], now_s: float) -> tuple[list[_Lane], list[Append]]:
        """Return what is to be sent, and the lanes of it: those that wait in vain are left out."""
        pairs = [(lane, lane.append or self._next(lane, now_s)) for lane in lanes]
        sent = [(lane, append) for lane, append in pairs if append is not None]
        return [lane for lane, _ in sent], [append for _, append in sent]

    # --- handing over ----------------------------------------------------------------------

    def answered(self) -> None:
        """Go on where an answer has come to what was handed over."""
        if self._handed:
            for lane in [lane for lane in self._handed if lane.is_answered]:
                self._arrived(lane)

    def note(self, *, taken: bool, partition: int, sequence: int) -> None:
        """Take what a host says of a batch that was handed over."""
        lane = self._lanes.get((partition_target(partition), True))
        if lane is None or lane not in self._handed or lane.sequence != sequence:
            return
        if taken:
            self._arrived(lane)
        else:
            self._append_instead(lane)
            self._more.set()

    async def _hand_over(self, owners: Owners, lanes: list[_Lane], now_s: float) -> list[_Lane]:
        """Hand over what can be; return the lanes whose batch is to be appended."""
        left: list[_Lane] = []
        chosen: dict[str, list[_Lane]] = {}
        for lane in lanes:
            if lane.handed:
                lane.is_unsure = True
                lane.direct_s = now_s + lane.penalty_s
                lane.penalty_s = min(2 * lane.penalty_s, SILENCE_S[1])
                self._append_instead(lane)
                left.append(lane)
            elif self._may_hand(lane, now_s) and (host := owners.of(lane.partition)):
                chosen.setdefault(host, []).append(lane)
            else:
                left.append(lane)
        # All batches are made before anything is waited for: what is sent meanwhile is for the next ones.
        packed = {host: self._pack_handed(host, of_host, now_s) for host, of_host in chosen.items()}
        silent = await asyncio.gather(
            *(self._hand(owners, host, chosen[host], payload) for host, payload in packed.items() if payload)
        )
        for host, payload in packed.items():
            if payload is None:  # appending finds out whose message cannot be packed
                left += chosen[host]
        return [*left, *itertools.chain.from_iterable(silent)]

    def _may_hand(self, lane: _Lane, now_s: float) -> bool:
        # The first batch of a lane, and one that leaves a gap, can only be judged by the inbox's mark.
        if not lane.is_entities or lane.append is not None or not lane.sequence or lane.resync:
            return False
        if lane.direct_s > now_s or not self._store.hands_over or len(lane.waiting) > BATCH_MESSAGES_MAX:
            return False
        waiting = lane.waiting
        return (
            all(each.is_call for each in waiting) and sum(each.size for each in waiting) <= HANDED_BYTES_MAX
        )

    def _pack_handed(self, host: str, lanes: list[_Lane], now_s: float) -> bytes | None:
        """Begin batches of all that waits in lanes, and pack them for a host; None: they cannot be packed."""
        for lane in lanes:
            lane.batch.extend(lane.waiting)
        try:
            batches = [(lane.partition, lane.sequence + 1, lane.rows) for lane in lanes]
            payload = wire.pack_handed(lanes[0].producer, batches)
        except (TypeError, ValueError, OverflowError):
            for lane in lanes:
                lane.batch.clear()
            return None
        for lane in lanes:
            lane.waiting.clear()
            lane.sequence += 1
            lane.since_s = now_s
            lane.handed = host
            lane.not_before_s = now_s + ANSWER_S
            self._handed[lane] = None
        return payload

    async def _hand(self, owners: Owners, host: str, lanes: list[_Lane], payload: bytes) -> list[_Lane]:
        """Hand batches to a host; return the lanes that must append theirs instead."""
        try:
            is_heard = await self._store.hand(host, [lane.partition for lane in lanes], payload)
        except Exception as error:  # whatever it is: without this loop nothing would ever be sent again
            if not isinstance(error, StoreUnavailable):
                logger.exception("handing over to %s", host)
        else:
            if is_heard:
                return []
            owners.deaf(host)
        silent = [lane for lane in lanes if lane in self._handed]
        for lane in silent:
            # Also where nobody listened: a server tells only of itself, and passes it on to its replicas.
            lane.is_unsure = True
            self._append_instead(lane)
        return silent

    def _append_instead(self, lane: _Lane) -> None:
        """Append a batch that was handed over, under its number: the store knows whether it was taken."""
        del self._handed[lane]
        lane.handed = ""
        lane.not_before_s = 0.0
        payload = wire.pack_rows(lane.rows, lane.producer, lane.sequence)
        lane.append = Append(lane.target, lane.producer, lane.sequence, (payload,), yields=True)
        if self.owners is not None:
            self.owners.forget(lane.partition)

    def _arrived(self, lane: _Lane) -> None:
        del self._handed[lane]
        lane.handed = ""
        lane.penalty_s = SILENCE_S[0]
        self._acknowledge(lane)
        if self.owners is not None:
            self.owners.answered()
        if lane.waiting:
            self._more.set()

    # --- outcomes --------------------------------------------------------------------------

    async def _wait(self, delay_s: float) -> None:
        # New messages for another target must not wait for a full one.
        try:
            async with asyncio.timeout(delay_s):
                await self._more.wait()
        except TimeoutError:
            return

    def _next(self, lane: _Lane, now_s: float) -> Append | None:
        """Make the lane's next batch of what waits; None if nothing of that can be sent."""
        count = size = 0
        yields = lane.waiting[0].yields
        while lane.waiting and (not lane.batch or (count < BATCH_MESSAGES_MAX and size < BATCH_BYTES_MAX)):
            if lane.waiting[0].yields and not yields:
                break  # these get through where those that follow may not
            waiting = lane.waiting.popleft()
            lane.batch.append(waiting)
            count += len(waiting.rows)
            size += waiting.size
        payload = self._pack(lane, lane.sequence + 1)
        if not lane.batch:
            self._finish_batch(lane, resync=lane.resync)
            return None
        lane.sequence += 1
        lane.since_s = now_s
        lane.append = Append(
            lane.target, lane.producer, lane.sequence, (payload,), resync=lane.resync, yields=yields
        )
        return lane.append

    def _pack(self, lane: _Lane, sequence: int) -> bytes:
        # Owners learn from the inbox how far a lane has come, and know what they were also handed.
        origin = (lane.producer, sequence) if lane.is_entities and self.owners is not None else ()
        try:
            return wire.pack_rows(lane.rows, *origin)
        except (TypeError, ValueError, OverflowError):
            # Some message has a name that is not UTF-8, or not a str: it fails, the others go.
            lane.batch = [waiting for waiting in lane.batch if self._fits(lane, waiting)]
            return wire.pack_rows(lane.rows, *origin)

    def _fits(self, lane: _Lane, waiting: _Waiting) -> bool:
        try:
            wire.pack_rows(waiting.rows)
        except (TypeError, ValueError, OverflowError) as error:
            self._fail(lane, [waiting], SerializationError(f"a message cannot be sent: {error}"))
            return False
        return True

    def _settle(self, lane: _Lane, outcome: Appended) -> None:
        match outcome:
            case Appended.OK:
                self._acknowledge(lane)
            case Appended.UNKNOWN:
                self._later(lane, StoreUnavailable(f"the server of {lane.target} does not answer"))
            case Appended.FULL:
                self._later(lane, Overloaded(f"{lane.target} is full; slow down and try again"))
            case Appended.CROWDED:
                self._later(lane, Overloaded(CROWDED.format(lane.target)), is_crowded=True)
            case Appended.GAP:
                # The store lost what it had acknowledged (a failover). Going on is all that can be done.
                logger.warning("%s lost acknowledged messages of %s", lane.target, lane.producer)
                assert lane.append is not None
                lane.append = replace(lane.append, resync=True)

    def _acknowledge(self, lane: _Lane) -> None:
        for waiting in lane.batch:
            if waiting.is_acknowledged and not waiting.outcome.done():
                waiting.outcome.set_result(None)
        self._finish_batch(lane, resync=False)

    def _later(
        self,
        lane: _Lane,
        error: Overloaded | StoreUnavailable | InternalError,
        *,
        is_crowded: bool = False,
    ) -> None:
        if not isinstance(error, Overloaded):
            lane.is_unsure = True
        elif lane.is_unsure:
            error = StoreUnavailable(f"{error}; the outcome is unknown: an earlier try may have arrived")
        now_s = asyncio.get_running_loop().time()
        if now_s - lane.since_s < (min(self._give_up_s, CROWDED_S) if is_crowded else self._give_up_s):
            lane.not_before_s = now_s + lane.wait_s
            lane.wait_s = min(lane.wait_s * 2, BACKOFF_S[1])
            return
        kept = [each for each in lane.batch if not each.yields] if is_crowded and not lane.is_unsure else []
        self._fail(lane, [each for each in lane.batch if each.yields or not kept], error)
        lane.waiting.extendleft(reversed(kept))
        self._finish_batch(lane, resync=True)

    def _fail(self, lane: _Lane, batch: list[_Waiting], error: LungfishError) -> None:
        for waiting in batch:
            if not waiting.outcome.done():
                waiting.outcome.set_exception(type(error)(f"{error} (sending to {lane.target})"))
                waiting.outcome.exception()  # seen: a caller that was cancelled never looks

    def _finish_batch(self, lane: _Lane, *, resync: bool) -> None:
        lane.batch.clear()
        lane.append = None
        lane.is_unsure = False
        lane.resync = resync
        lane.wait_s = BACKOFF_S[0]
        lane.not_before_s = 0.0
        if not lane.waiting:
            del self._active[lane.target, lane.is_entities]


def _is_for_entity(message: Message) -> bool:
    # Whoever asks what an entity waits for must not wait for that.
    return message.target.kind == ENTITY and not isinstance(message, Inspect)
