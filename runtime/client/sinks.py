"""A sink: rows of a source become signals, each exactly once, however often the sender is started again.

Rules:

* A row has a position, which grows along the source and is the same whenever the source is read again. The
  source is the memory: what was not accepted is read from it once more.
* A sink is a producer of its own (``store.append``), and its sequence number at a partition is a position:
  all rows for that partition below it were accepted. Rows and number are written together, so there is no
  instant at which a row is there and the number does not say so.
* An append names the number it goes on from (``after``). So two senders of one sink, one of them thought
  dead, cannot both add the same row: the second finds another number, reads it, and leaves out what is
  there.
* One batch is under way at a time, and nothing is taken from the source meanwhile: so it is read no faster
  than the store takes rows and hosts apply them (their inboxes fill), and no more than a batch is in memory.
* Numbers of partitions that get no rows are moved up now and then, so that ``position`` means something.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar

from lungfish.runtime import codec
from lungfish.runtime.declared.definitions import EntityDefinition
from lungfish.runtime.errors import InvalidArguments, Overloaded, StoreUnavailable, UnknownPool, UsageError
from lungfish.runtime.ids import ENTITY, ActorId, check_id
from lungfish.runtime.messages import wire
from lungfish.runtime.messages.messages import Signal
from lungfish.runtime.session.connection import Connection
from lungfish.runtime.session.sender import CROWDED
from lungfish.runtime.store.store import Append, Appended, partition_target

from .refs import operation_name

#: Rows of a batch, unless the caller says otherwise; most that it can say.
BATCH_ROWS: Final = 2_000
BATCH_ROWS_MAX: Final = 100_000
#: A batch is sent when its rows are about so large together (bytes).
BATCH_BYTES: Final = 1_000_000
#: Batches between two moves of the numbers of partitions that got no rows.
MARK_EVERY: Final = 100
#: Positions are numbers in Lua, which are exact below 2^53.
POSITION_MAX: Final = 2**53 - 2
#: Waits between tries (s): doubled from the first to the second.
BACKOFF_S: Final = (0.005, 0.5)

Row = TypeVar("Row")
Rows: TypeAlias = Iterable[Row] | AsyncIterable[Row]
#: Finds the definition of an entity class, or of a name that is known.
Find: TypeAlias = Callable[[Any], EntityDefinition | None]


@dataclass(frozen=True, slots=True)
class SinkResult:
    """What one ``write`` did.

    Attributes:
        accepted: rows that it sent, and that are durable.
        repeated: rows that were there already, from an earlier sender.
        position: all rows before it are accepted.
    """

    accepted: int
    repeated: int
    position: int


def producer_name(name: str, shard: str) -> str:
    """Return the name under which a sink's appends are numbered; never that of a client or partition."""
    return f"s:{name}\x00{shard}"


class Sink:
    """One sink, or one shard of it, by name; see ``Client.sink``. Making it talks to nobody."""

    def __init__(self, connection: Connection, find: Find, name: str, shard: str) -> None:
        self._connection = connection
        self._find = find
        self.name = check_id("sink name", name)
        self.shard = check_id("shard", shard) if shard else ""
        self._producer = producer_name(name, shard)

    async def position(self, entity: type[Any] | str | None = None) -> int:
        """Return where a source may be read from: all rows before this position are accepted.

        It lags behind while a sender runs, and is exact when ``write`` has returned.

        Args:
            entity: what all rows are for, the class or its registered name: then a pool that is added to the
                hub changes nothing. Else the position is 0 from then on until the next ``write`` ends.

        Raises:
            UnknownPool: the hub has no such pool as the entity's.
            StoreUnavailable: the store cannot be reached.
        """
        await self._connection.refresh()
        numbers = (
            self._partitions if entity is None else self._connection.layout.numbers(self._name_of(entity))
        )
        return min(await self._connection.store.marks(self._producer, numbers))

    async def forget(self) -> None:
        """Forget how far this sink is: the next sender begins anew, and sends again what it sent.

        Until then it is kept for ever: about 50 bytes per shard and partition.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """
        await self._connection.refresh()
        await self._connection.store.forget_producer(self._producer, self._partitions)

    async def write(
        self,
        entity: type[Any] | str,
        operation: Callable[..., Any] | str,
        rows: Rows[Row],
        *,
        key: Callable[[Row], str],
        args: Callable[[Row], Sequence[Any]] = lambda row: (row,),
        position: Callable[[Row], int] | None = None,
        first: int = 0,
        batch_rows: int = BATCH_ROWS,
        timeout: float | None = 60.0,
    ) -> SinkResult:
        """Signal an entity for each row; return when all are durable. Each is applied exactly once.

        Also if the process dies at any instant, and another one calls this again with the same rows, or
        while it still runs. Rows for one entity are applied in the order of the rows.

        The rows, their keys and their arguments must be the same at every start, in the same order; more
        may be added at the end. Several senders at once need shards of their own.

        Args:
            entity: the class, or its registered name.
            operation: the method, as ``Counter.add``, or its name.
            rows: the source; it is read no faster than hosts keep up. A plain iterable that waits holds
                up the event loop.
            key: the entity's key, of a row.
            args: positional arguments of the operation, of a row; default: the row itself.
            position: of a row: an integer that grows from row to row (a Kafka offset, a line number);
                default: counted from ``first``.
            first: position of the first row: what ``Sink.position`` said, for a source that can be read
                from there.
            batch_rows: rows that travel together, and are lost to a crash at most, to be sent again.
            timeout: how long the hub may accept nothing at all (s); None: for ever.

        Raises:
            NotRegistered, InvalidArguments, InvalidId, SerializationError, PayloadTooLarge: a row that
                cannot be sent, named by its position. All before its batch are durable.
            UsageError: positions that do not grow.
            Overloaded: nothing was accepted for ``timeout``: no host runs, or they do not keep up.
            StoreUnavailable: the store was away for ``timeout``, or has lost acknowledged rows in a failover.
            After both, write again: it goes on where it was.
        """
        if type(batch_rows) is not int or not 0 < batch_rows <= BATCH_ROWS_MAX:
            raise UsageError(f"batch_rows is 1 to {BATCH_ROWS_MAX:,}, not {batch_rows!r}")
        await self._connection.refresh()
        marks = await self._marks()
        writing = _Writing(self._connection, self._producer, range(len(marks)), timeout, batch_rows)
        writing.marks = marks
        writing.next = check_position(first, -1, "first")
        to_signal = self._signaller(entity, operation)
        async for row in _each(rows):
            at = writing.next if position is None else check_position(position(row), writing.next - 1, "row")
            try:
                await writing.add(at, to_signal.actor(key(row)), to_signal.arguments(args(row)))
            except UsageError as error:
                raise type(error)(f"row {at:,}: {error}") from error
        return await writing.end()

    @property
    def _partitions(self) -> range:
        return range(self._connection.layout.total)

    async def _marks(self) -> dict[int, int]:
        numbers = self._partitions
        return dict(zip(numbers, await self._connection.store.marks(self._producer, numbers), strict=True))

    def _signaller(self, entity: Any, operation: Any) -> _Signaller:
        name, known = operation_name(operation, self._find(entity))
        check = None if known is None else known.signature.check
        return _Signaller(self._name_of(entity), name, check)

    def _name_of(self, entity: Any) -> str:
        definition = self._find(entity)
        return definition.name if definition is not None else check_id("entity name", entity)


def check_position(at: Any, last: int, what: str) -> int:
    """Return a position that may follow ``last``; raises ``UsageError`` for any other."""
    if type(at) is not int or not last < at <= POSITION_MAX:
        raise UsageError(f"position of {what}: an integer over {last:,} is needed, not {at!r}")
    return at


async def _each(rows: Rows[Row]) -> AsyncIterator[Row]:
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            yield row
        return
    for count, row in enumerate(rows, 1):
        yield row
        if not count % BATCH_ROWS:
            await asyncio.sleep(0)  # also where all are repeats, and nothing is waited for


@dataclass(frozen=True, slots=True)
class _Signaller:
    name: str
    operation: str
    check: Callable[[list[Any], dict[str, Any]], None] | None

    def actor(self, key: Any) -> ActorId:
        return ActorId(ENTITY, self.name, check_id("entity key", key))

    def arguments(self, args: Any) -> tuple[str, list[Any]]:
        if not isinstance(args, Sequence) or isinstance(args, str | bytes):
            raise InvalidArguments(f"args returns a tuple or list of arguments, not {args!r:.80}")
        listed = list(args)
        if self.check is not None:
            self.check(listed, {})
        return self.operation, listed


@dataclass(slots=True)
class _Lane:
    """Rows for one partition that are not accepted yet.

    Attributes:
        at: their positions; rows: their entity and encoded arguments.
    """

    at: list[int] = field(default_factory=list)
    rows: list[tuple[ActorId, str, bytes]] = field(default_factory=list)


class _Writing:
    """One ``write``, from its first row to its last."""

    def __init__(
        self, connection: Connection, producer: str, partitions: range, timeout_s: float | None, most: int
    ) -> None:
        self._connection = connection
        self._producer = producer
        self._partitions = partitions
        self._timeout_s = timeout_s
        self._most = most
        self._lanes: dict[int, _Lane] = {}
        self._rows = 0
        self._bytes = 0
        self._batches = 0
        self._accepted = 0
        self._repeated = 0
        #: Per partition: all its rows before this position are accepted.
        self.marks: dict[int, int] = {}
        #: All rows before this position are accepted, or in a lane: so a lane's append may carry it.
        self.next = 0

    async def add(self, at: int, actor: ActorId, call: tuple[str, list[Any]]) -> None:
        """Take a row; returns when there is room for another one."""
        try:
            partition = self._connection.partition(actor)
        except UnknownPool:
            partition = await self._connection.place(actor)
        if at >= self.marks.setdefault(partition, 0):  # a pool may have been added since ``write`` began
            operation, arguments = call
            data = codec.encode(arguments, f"arguments of {actor}.{operation}")
            if self._rows >= self._most or (self._rows and self._bytes + len(data) > BATCH_BYTES):
                self._batches += 1
                await self._flush(everywhere=self._batches % MARK_EVERY == 0)
            if at >= self.marks[partition]:  # still: another sender may have been faster meanwhile
                lane = self._lanes.setdefault(partition, _Lane())
                lane.at.append(at)
                lane.rows.append((actor, operation, data))
                self._rows += 1
                self._bytes += len(data)
                self.next = at + 1
                return
        self._repeated += 1
        self.next = at + 1

    async def end(self) -> SinkResult:
        """Send what is left, and move all numbers up."""
        await self._flush(everywhere=True)
        return SinkResult(self._accepted, self._repeated, min(self.marks.values(), default=self.next))

    async def _flush(self, *, everywhere: bool) -> None:
        waiting = set(self._lanes)
        if everywhere:
            waiting |= {partition for partition, mark in self.marks.items() if mark < self.next}
        clock = asyncio.get_running_loop().time
        wait_s, since_s = BACKOFF_S[0], clock()
        while waiting:
            before = len(waiting)
            error = await self._try(waiting)
            if len(waiting) < before:
                wait_s, since_s = BACKOFF_S[0], clock()
            if error is None:
                continue
            if self._timeout_s is not None and clock() - since_s >= self._timeout_s:
                raise error
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, BACKOFF_S[1])
        self._lanes.clear()
        self._rows = self._bytes = 0

    async def _try(self, waiting: set[int]) -> Overloaded | StoreUnavailable | None:
        """Send what waits once, and take off what was accepted; return why something was not."""
        order = sorted(waiting)
        appends = [self._append(partition) for partition in order]
        try:
            outcomes = await self._connection.store.append(appends)
        except StoreUnavailable as error:
            return error
        refused: Overloaded | StoreUnavailable | None = None
        for partition, append, outcome in zip(order, appends, outcomes, strict=True):
            match outcome:
                case Appended.OK:
                    waiting.discard(partition)
                    self.marks[partition] = append.sequence
                    self._accepted += len(self._lanes[partition].at) if partition in self._lanes else 0
                case Appended.GAP:
                    await self._go_on_from_there(partition)
                case Appended.FULL:
                    refused = Overloaded(f"{append.target} is full: its host does not run, or keep up")
                case Appended.CROWDED:
                    refused = Overloaded(CROWDED.format(append.target))
                case Appended.UNKNOWN:
                    refused = StoreUnavailable(f"the server of {append.target} does not answer")
        return refused

    def _append(self, partition: int) -> Append:
        lane, after = self._lanes.get(partition), self.marks[partition]
        by_entity: dict[tuple[ActorId, str], list[bytes]] = {}
        for actor, operation, data in lane.rows if lane is not None else ():
            by_entity.setdefault((actor, operation), []).append(data)
        signals = [
            Signal(actor, operation, codec.join_rows(rows), len(rows))
            for (actor, operation), rows in by_entity.items()
        ]
        payloads = (wire.pack(signals),) if signals else ()
        target = partition_target(partition)
        return Append(target, self._producer, max(self.next, after), payloads, after=after, yields=True)

    async def _go_on_from_there(self, partition: int) -> None:
        """Another sender was faster: leave out what it has sent."""
        (mark,) = await self._connection.store.marks(self._producer, [partition])
        if mark < self.marks[partition]:
            raise StoreUnavailable(
                f"{partition_target(partition)} has lost rows that it had acknowledged, "
                f"from position {mark:,} on: write again"
            )
        self.marks[partition] = mark
        lane = self._lanes.get(partition)
        if lane is None:
            return
        kept = [pair for pair in zip(lane.at, lane.rows, strict=True) if pair[0] >= mark]
        self._repeated += len(lane.at) - len(kept)
        lane.at, lane.rows = [at for at, _ in kept], [row for _, row in kept]
