"""Messages that were set aside, for clients: listed with the reason, sent again, or deleted.

Rules:

* Nothing is set aside that could be applied: only what cannot be read, what nobody can apply (an
  operation that is gone), and what kills its host or breaks its actor again and again.
* To send one again is exactly once for a day, whoever dies in between: it is appended under a producer
  name that is made from its id, so a repeat is recognised; only then is it deleted here.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from lungfish.runtime.errors import InvalidArguments, Overloaded, StoreUnavailable, UsageError
from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages import wire
from lungfish.runtime.messages.letters import described, unpack_letter
from lungfish.runtime.store.store import START, Append, Appended, Entry, partition_target

if TYPE_CHECKING:
    from .connection import Connection

PAGE_SIZE: Final = 100
#: The id of a message: its partition, and its entry there.
_ID: Final = re.compile(r"[0-9]{1,9}:[0-9]{1,20}-[0-9]{1,20}")
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was set aside.

    Attributes:
        id: names it in this hub.
        target: whom it was for (``Counter/hits``, an instance id); empty where it cannot be read.
        what: what it is (``Signal add``, ``Start``).
        reason: why it was set aside; empty if a release kept it that noted none.
        at: when (aware, UTC); None: not known.
        size: of the message (bytes).
    """

    id: str
    target: str
    what: str
    reason: str
    at: dt.datetime | None
    size: int
    _payload: bytes = field(repr=False)
    _connection: Connection = field(repr=False, compare=False)
    _actor: ActorId | None = field(default=None, repr=False)

    async def replay(self) -> None:
        """Send it again, and delete it here; it is applied exactly once, also if this is repeated.

        Raises:
            UsageError: it cannot be read, so nobody could apply it.
            UnknownPool: it is for a pool that the hub does not have.
            Overloaded: the inbox is full; nothing was done.
            StoreUnavailable: the outcome is unknown; repeat it.
        """
        if self._actor is None:
            raise UsageError(f"message {self.id} cannot be read and so not be sent again; delete it")
        partition, entry = self._place()
        # Not where it was found: what a host could send nowhere lies with its sender.
        owner = await self._connection.place(self._actor)
        # Packed anew: under the number of its first sender its owner might take it for a repeat.
        payload = wire.pack(wire.unpack(self._payload))
        append = Append(partition_target(owner), f"r:{self.id}", 1, (payload,))
        (outcome,) = await self._connection.store.append([append])
        match outcome:
            case Appended.OK:
                await self._connection.store.remove_dead(partition, [entry])
            case Appended.FULL:
                raise Overloaded(f"the inbox of partition {owner} is full; try again later")
            case _:
                raise StoreUnavailable(f"partition {owner} could not be reached; try again")

    async def delete(self) -> None:
        """Delete it for good; one that is gone is no error."""
        partition, entry = self._place()
        await self._connection.store.remove_dead(partition, [entry])

    def _place(self) -> tuple[int, str]:
        partition, _, entry = self.id.partition(":")
        return int(partition), entry


class DeadLetters:
    """The messages of a hub that were set aside: iterate over it with ``async for``."""

    def __init__(
        self,
        connection: Connection,
        target: str | None,
        partitions: Sequence[int] | None = None,
        after: str = START,
    ) -> None:
        self._connection = connection
        self._target = target
        self._chosen = partitions
        #: Where to begin in the first of them.
        self._after = after

    @property
    def _partitions(self) -> Sequence[int]:
        return range(self._connection.layout.total) if self._chosen is None else self._chosen

    def behind(self, id: str) -> DeadLetters:
        """Return those that come after one of them, whether that is still there or not.

        Raises:
            InvalidArguments: no message can have that id.
        """
        if not _ID.fullmatch(id):
            raise InvalidArguments(f"no message has the id {id!r}")
        number, _, entry = id.partition(":")
        rest = [partition for partition in self._partitions if partition >= int(number)]
        after = entry if rest and rest[0] == int(number) else START
        return DeadLetters(self._connection, self._target, rest, after)

    async def find(self, id: str) -> DeadLetter | None:
        """Return one of them; None: it is not there, or not any more."""
        await self._connection.refresh()
        if not _ID.fullmatch(id) or int(id.partition(":")[0]) not in self._partitions:
            return None
        place = [int(id.partition(":")[0])]
        async for letter in DeadLetters(self._connection, self._target, place):
            if letter.id == id:
                return letter
        return None

    async def __aiter__(self) -> AsyncIterator[DeadLetter]:
        begin = self._after
        if self._chosen is None:
            await self._connection.refresh()
        for partition in self._partitions:
            after, begin = begin, START
            while page := await self._connection.store.dead(partition, after, PAGE_SIZE):
                after = page[-1].id
                for entry in page:
                    letter = self._read(partition, entry)
                    if self._target is None or self._is_for(letter):
                        yield letter

    async def replay(self) -> int:
        """Send all of them again that can be read; return how many. See ``DeadLetter.replay``."""
        letters = [letter async for letter in self if letter.target]
        for letter in letters:
            await letter.replay()
        return len(letters)

    async def delete(self) -> int:
        """Delete all of them; return how many."""
        letters = [letter async for letter in self]
        for letter in letters:
            await letter.delete()
        return len(letters)

    def _is_for(self, letter: DeadLetter) -> bool:
        return letter.target == self._target or letter.target.partition("/")[0] == self._target

    def _read(self, partition: int, entry: Entry) -> DeadLetter:
        letter = unpack_letter(entry.payload)
        messages = letter.messages()
        actor = messages[0].target if messages else None
        return DeadLetter(
            id=f"{partition}:{entry.id}",
            target=str(actor) if actor is not None else "",
            what=", ".join(map(described, messages)),
            reason=letter.reason,
            at=_EPOCH + dt.timedelta(milliseconds=letter.at_ms) if letter.at_ms else None,
            size=len(letter.payload),
            _payload=letter.payload,
            _connection=self._connection,
            _actor=actor,
        )
