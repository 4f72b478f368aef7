"""A store that answers appends as the test says."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

from lungfish.runtime.errors import StoreUnavailable
from lungfish.runtime.messages import wire
from lungfish.runtime.messages.messages import Signal
from lungfish.runtime.store.store import START, Append, Appended
from lungfish.runtime.testing.memory_store import MemoryServer, MemoryStore

#: One answer to one call: an outcome per append, an error, or a function of the appends.
Answer = Sequence[Appended] | Exception | Callable[[Sequence[Append]], Sequence[Appended]]

OK, FULL, GAP = Appended.OK, Appended.FULL, Appended.GAP
BROKEN = StoreUnavailable("broken")


class ScriptedStore:
    """Answers calls of ``append`` one by one; when the script is over, everything is accepted."""

    def __init__(self, *script: Answer) -> None:
        self.script = list(script)
        self.calls: list[list[Append]] = []
        self.times_s: list[float] = []
        #: A call is answered when this is set.
        self.open = asyncio.Event()
        self.open.set()

    async def append(self, appends: Sequence[Append]) -> list[Appended]:
        self.calls.append(list(appends))
        self.times_s.append(asyncio.get_running_loop().time())
        await self.open.wait()
        await asyncio.sleep(0)
        answer: Answer = self.script.pop(0) if self.script else [OK] * len(appends)
        if isinstance(answer, Exception):
            raise answer
        return list(answer(appends) if callable(answer) else answer)

    @property
    def sent(self) -> list[list[tuple[str, int, bool, list[bytes]]]]:
        """Per call and append: target, sequence number, resync, and the words of its signals."""
        return [[(a.target, a.sequence, a.resync, words(a)) for a in call] for call in self.calls]


def words(append: Append) -> list[bytes]:
    return [word for payload in append.payloads for word in words_in(payload)]


def words_in(payload: bytes) -> list[bytes]:
    return [message.batch for message in wire.unpack(payload) if isinstance(message, Signal)]


class FlakyStore(MemoryStore):
    """Breaks the connection before or after a call, and takes its time, as chance has it."""

    def __init__(self, server: MemoryServer, hub: str, chance: random.Random, broken: float = 0.4) -> None:
        super().__init__(server, hub)
        self.chance = chance
        self.broken = broken

    async def append(self, appends: Sequence[Append]) -> list[Appended]:
        await asyncio.sleep(self.chance.random() / 100)
        if self.chance.random() < self.broken:
            raise StoreUnavailable("before")
        outcomes = await super().append(appends)
        if self.chance.random() < self.broken:
            raise StoreUnavailable("after")
        return outcomes


def words_of(server: MemoryServer, hub: str, target: str) -> list[bytes]:
    """Return what a target holds."""
    entries: Any = server.read(hub, {target: START}, 1_000_000).get(target, [])
    return [word for entry in entries for word in words_in(entry.payload)]
