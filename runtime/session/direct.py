"""Batches that clients hand straight to the owner of a partition, past its inbox. No I/O.

A call is acknowledged by its answer, so it need not be durable before: the commit that it ends in writes its
number, its effect and its answer at once. What is appended to the inbox first is synced to the disk twice.

Rules:

* A lane's batches have one row of numbers, however they travel. The owner takes a direct one only as the
  next after one that *it* has taken of this lane since it claimed the partition. Of anything else it does
  not know whether it was taken before: that is refused, and its sender appends it.
* The commit that takes direct batches writes the mark that an append would have written. So if the sender had
  no answer in time and appends the same batch, the store knows it already.
* Was it appended first, then the batch is in the inbox, too. Then the commit writes down that everything of
  the lane up to this number was taken (``doubled``), and whoever owns the partition when that entry is read
  passes it over.
* A batch waits until all is taken that the inbox held when it was sent: so it overtakes nothing that was
  acknowledged before it was made, to whomever.
* Refusing changes nothing: what was taken before is known as before.
* What the owner knows of a lane goes when the lane was idle for long, its commits are in the store, and it
  was asked since then what of it is in the inbox, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

#: How long a batch waits for one before it that is still on its way through the inbox (ms).
PATIENCE_MS: Final = 100
#: How many batches wait at once; others are refused.
WAITING_MAX: Final = 256

_TAKEN: Final = "taken"
_REFUSED: Final = "refused"


@dataclass(frozen=True, slots=True)
class Handed:
    """A batch that was handed over.

    Attributes:
        end: the last entry of the inbox when it was sent; (0, 0): there was none.
        came_ms: when it came (Unix ms).
    """

    producer: str
    sequence: int
    rows: list[Any]
    end: tuple[int, int]
    came_ms: int


@dataclass(slots=True)
class DirectLanes:
    """What the owner of a partition knows of the lanes that may hand it their batches.

    Attributes:
        doubled: lane → up to this number all was taken, though it is in the inbox.
        refused: what was refused and not told yet: (lane, number).
    """

    doubled: dict[str, int]
    waiting: list[Handed] = field(default_factory=list)
    refused: list[tuple[str, int]] = field(default_factory=list)
    #: Something came since the last ``sift``: it may find a batch whose turn it is.
    ready: bool = False
    _last: dict[str, int] = field(default_factory=dict)
    #: Those that were not used since the last ``age``, and the commit that was in the making then.
    _idle: dict[str, int] = field(default_factory=dict)
    _aged: int = 0

    def hand(self, batch: Handed) -> None:
        """Take a batch that came; ``sift`` says what becomes of it."""
        if len(self.waiting) < WAITING_MAX:
            self.waiting.append(batch)
            self.ready = True
        else:
            self.refuse(batch)

    def refuse(self, batch: Handed) -> None:
        """Do not take a batch; its sender is told."""
        self.refused.append((batch.producer, batch.sequence))

    def sift(self, accepted: str, now_ms: int) -> list[Handed]:
        """Return the batches whose turn it is, in order: they are taken now.

        Args:
            accepted: the last entry that was taken from the inbox.
        """
        taken: list[Handed] = []
        batches, self.waiting, self.ready = self.waiting, [], False
        for batch in batches:
            last = self._known(batch.producer)
            if last is None:
                self.refuse(batch)
            elif batch.sequence == last + 1 and _has_come(accepted, batch.end):
                self._last[batch.producer] = batch.sequence
                taken.append(batch)
            elif batch.sequence > last and now_ms - batch.came_ms < PATIENCE_MS:
                self.waiting.append(batch)
            elif batch.sequence > last:
                self.refuse(batch)
            # Else it was taken, or given up: both are old news to who sent it.
        return taken

    def take_refused(self) -> list[tuple[str, int]]:
        """Return what is to be told, once."""
        refused, self.refused = self.refused, []
        return refused

    def read(self, producer: str, sequence: int) -> bool:
        """Tell whether a batch that was read from the inbox is to be taken; False: it was, already."""
        last = self._known(producer) or 0
        taken = max(last, self.doubled.get(producer, 0))
        if self.doubled and sequence >= taken:
            self.doubled.pop(producer, None)  # what is still to be read of the lane has higher numbers
        if sequence <= taken:
            return False
        self._last[producer] = sequence
        return True

    def _known(self, producer: str) -> int | None:
        last = self._last.get(producer)
        if last is None and (last := self._idle.pop(producer, None)) is not None:
            self._last[producer] = last
        return last

    def age(self, committed: int, making: int) -> list[str]:
        """Return lanes that were idle between the last call and this one; ``forget`` may forget them.

        Args:
            committed: number of the last commit that is in the store.
            making: number of the commit in the making.
        """
        if committed < self._aged:
            return []  # what those lanes were last used in is not in the store yet
        idle = list(self._idle)
        self._idle = {**self._idle, **self._last}
        self._last = {}
        self._aged = making
        return idle

    def forget(self, idle: Iterable[str], doubled: Mapping[str, int]) -> None:
        """Forget lanes that were not used since ``age`` returned them.

        Args:
            doubled: what the store has of such numbers: asked for after ``age``.
        """
        for lane in idle:
            if self._idle.pop(lane, None) is not None and lane in doubled:
                self.doubled[lane] = doubled[lane]


def _has_come(accepted: str, end: tuple[int, int]) -> bool:
    return read_end(accepted) >= end


def read_end(entry: str) -> tuple[int, int]:
    """Read the id of an inbox's last entry; empty: it has none. Raises ``ValueError`` for anything else."""
    if not entry:
        return 0, 0
    ms, _, number = entry.partition("-")
    return int(ms), int(number)


def taken_note(partition: int, sequence: int) -> str:
    """Return the request id under which a lane hears that a batch is durable, before any answer."""
    return f"{_TAKEN} {partition} {sequence}"


def refused_note(partition: int, sequence: int) -> str:
    """Return the request id under which a lane hears that a batch was not taken, and never will be."""
    return f"{_REFUSED} {partition} {sequence}"


def read_note(request: str) -> tuple[bool, int, int] | None:
    """Read a note: whether it was taken, partition and number; None: it is the id of a request."""
    word, _, rest = request.partition(" ")
    if word not in (_TAKEN, _REFUSED):
        return None
    number, _, sequence = rest.partition(" ")
    return word == _TAKEN, int(number), int(sequence)
