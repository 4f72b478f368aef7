"""The demo, from an empty folder to the comparison of every figure.

It starts all that it needs, a store and a Ray cluster on this machine, and stops what it started.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console

import lungfish
from lungfish.runtime.cluster import Runtime
from lungfish.runtime.embedded import EmbeddedServer, running_daemon, start_child
from lungfish.runtime.open_store import open_store

from .app import app, rank_carriers
from .flights import FLIGHTS_MAX, Figures, Subject, find_file, read_flights, tally
from .screen import Screen
from .sending import Senders
from .watching import Takeover, Watcher, differences

#: The demo's own folder: the store of the project in the working directory is left alone.
FOLDER: Final = Path(".lungfish") / "demo"
SENDERS: Final = 4
HOSTS: Final = 2
#: Without any progress for this long, something is lost for good (s).
_STALLED_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Options:
    """What can be asked of the demo.

    Attributes:
        flights: the first so many rows of the table.
        kill: kill a host half-way.
        keep: leave everything up at the end, until Ctrl-C.
        seed: which host is killed.
        folder: where the store's data is.
    """

    flights: int = FLIGHTS_MAX
    kill: bool = True
    keep: bool = False
    seed: int = 2013
    folder: Path = FOLDER


@dataclass(slots=True)
class Sent:
    """How the sending went: seconds from its begin, and what the kill came to."""

    acknowledged_s: float = 0.0
    applied_s: float = 0.0
    takeover: Takeover | None = None


@dataclass(slots=True)
class Demo:
    """One run."""

    options: Options
    screen: Screen
    server: EmbeddedServer
    runtime: Runtime
    hub: str
    expected: dict[Subject, Figures]
    total: int = field(init=False)

    def __post_init__(self) -> None:
        self.total = sum(figures.flights for figures in self.expected.values())

    async def run(self) -> bool:
        """Send, kill, wait, compare, report; tell whether every figure was exact."""
        store = open_store(self.server.url, self.hub)
        async with self.runtime.client() as client, contextlib.aclosing(store):
            await store.open()
            watcher = Watcher(client, store, self.expected)
            self._say_rates(await self._send(watcher))
            exact = self._compare(await watcher.states())
            await self._report(client)
        return exact

    async def _send(self, watcher: Watcher) -> Sent:
        sent, began_s = Sent(), time.monotonic()
        senders = Senders(self.hub, self.server.url, SENDERS)
        self.screen.begin_bars(self.total)
        senders.begin(self.options.flights)
        sending = asyncio.ensure_future(senders.finished())
        killing: asyncio.Future[Takeover] | None = None
        applied, moved_s = 0, began_s
        while not sending.done() or applied < self.total:
            acknowledged = sending.result() if sending.done() else await senders.acknowledged()
            if sending.done() and not sent.acknowledged_s:
                sent.acknowledged_s = time.monotonic() - began_s
            if self.options.kill and killing is None and acknowledged >= self.total // 2:
                killing = asyncio.ensure_future(self._kill(watcher))
            found = await watcher.applied()
            if found != applied:
                applied, moved_s = found, time.monotonic()
            elif time.monotonic() - moved_s > _STALLED_S:
                break
            self.screen.show(acknowledged, applied)
            await asyncio.sleep(0.1 if sending.done() else 0.4)
        sent.applied_s = time.monotonic() - began_s
        self.screen.end_bars()
        sent.takeover = await killing if killing is not None else None
        return sent
