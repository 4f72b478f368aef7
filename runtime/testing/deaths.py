"""Stores whose users can be killed at any call, for ``testing.crashes``.

A *point* of a run is a call that a host or a worker makes to the store, by its number; the process can die
right before the call takes effect, or right after it and before it hears the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from lungfish.runtime.store.store import Append, Commit

from .memory_server import MemoryServer
from .memory_store import MemoryQueueReader, MemoryReader, MemoryStore

#: The calls of a store at which its user may die. Opening and closing change nothing.
STORE_CALLS: Final = (
    "append",
    "commit",
    "claim",
    "release",
    "owners",
    "heartbeat",
    "place",
    "remove_host",
    "now_ms",
    "snapshots",
    "instances",
    "has_activities",
    "sweep_producers",
    "marks",
    "forget_producer",
    "put_payloads",
    "payloads",
    "sweep_payloads",
    "finish_entries",
    "claim_entries",
    "keep_details",
    "details_of",
    "queued_rows",
    "worker_beat",
)


class Death(NamedTuple):
    """When a process dies: before or after the store call of that number."""

    call: int
    when: Literal["before", "after"]


@dataclass(slots=True)
class CallLog:
    """The store calls of one run, and who is to die at which of them.

    Attributes:
        recording: calls are numbered only while this is set.
        calls: what each call was, in words.
        died: the deaths that came about.
        kill: called with the name of the process that dies.
    """

    deaths: Sequence[Death] = ()
    recording: bool = False
    calls: list[str] = field(default_factory=list)
    died: list[Death] = field(default_factory=list)
    dead: set[str] = field(default_factory=set)
    kill: Callable[[str], None] = lambda _process: None

    async def pass_through(self, process: str, what: str, call: Callable[[], Any]) -> Any:
        """Make a call for a process, unless it is dead or dies of it: then never return."""
        await self._live(process)
        number = -1
        if self.recording:
            number = len(self.calls)
            self.calls.append(f"{process} {what}")
            await self._survive(process, Death(number, "before"))
        result = await call()
        await self._live(process)
        if number >= 0:
            await self._survive(process, Death(number, "after"))
        return result

    async def _survive(self, process: str, death: Death) -> None:
        if death in self.deaths:
            self.died.append(death)
            self.dead.add(process)
            self.kill(process)
            await self._live(process)

    async def _live(self, process: str) -> None:
        if process in self.dead:
            # Not an exception: a dead process does not handle any. What waits here is cancelled later.
            await asyncio.get_running_loop().create_future()


class MortalStore(MemoryStore):
    """A handle on a hub whose user can be killed at any call."""

    def __init__(self, server: MemoryServer, hub: str, process: str, log: CallLog) -> None:
        """Make a handle for a process."""
        super().__init__(server, hub)
        self.process = process
        self.log = log

    def reader(self) -> MemoryReader:
        """See ``Store.reader``."""
        return _MortalReader(self)

    def queue_reader(self, worker: str) -> MemoryQueueReader:
        """See ``Store.queue_reader``."""
        return _MortalQueueReader(self, worker)


class _MortalReader(MemoryReader):
    _store: MortalStore


class _MortalQueueReader(MemoryQueueReader):
    _store: MortalStore


def _mortal(base: type[Any], name: str) -> Callable[..., Any]:
    method = getattr(base, name)

    async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        store: MortalStore = self if isinstance(self, MortalStore) else self._store
        what = f"{name}({_describe(args)})"
        return await store.log.pass_through(store.process, what, lambda: method(self, *args, **kwargs))

    return call


for _name in STORE_CALLS:
    setattr(MortalStore, _name, _mortal(MemoryStore, _name))
_MortalReader.read = _mortal(MemoryReader, "read")  # type: ignore[method-assign]
_MortalQueueReader.take = _mortal(MemoryQueueReader, "take")  # type: ignore[method-assign]
_MortalQueueReader.retake = _mortal(MemoryQueueReader, "retake")  # type: ignore[method-assign]


def _describe(args: Sequence[Any]) -> str:
    """Say in a few words what a call was about."""
    items = args[0] if args and isinstance(args[0], list) else args[:1]
    return ", ".join(_describe_item(item) for item in items)[:200]


def _describe_item(item: Any) -> str:
    match item:
        case Append():
            return f"{item.target} #{item.sequence}"
        case Commit():
            parts = ("snapshots", "histories", "mailbox", "timers", "activities", "deliveries")
            counts = [f"{len(getattr(item, part))} {part}" for part in parts if getattr(item, part)]
            return f"partition {item.partition} #{item.number}: {', '.join(counts) or 'position'}"
        case dict():
            return " ".join(map(str, item))
        case bytes():
            return f"{len(item)} bytes"
        case _:
            return str(item)
