"""Durable time for tests: it stands still, and jumps to the next timer when nothing else can happen.

Rules:

* There are two clocks. *Durable* time, the store's, is what orchestrations, timers, retries and reminders go
  by; here it moves only when it is moved. The event loop's time is left alone: a sleep of the
  test's own, a request's time-out and an activity's I/O take as long as they take.
* Durable time moves only while somebody wants it to (``advance``, or a client that waits for an
  outcome), and only while nothing runs: no message unread, no commit under way, no activity, no operation.
* It never jumps over a timer: it stops at each, until all that follows from it is done.
* Nobody dies of a jump: heartbeats are carried along.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections.abc import Callable
from typing import Final

from lungfish.runtime.host.clock import HubClock
from lungfish.runtime.store.store import (
    START,
    Append,
    Appended,
    Commit,
    CommitOutcome,
    PartitionImage,
    partition_target,
)

from .memory_server import MemoryServer, parse_id

logger = logging.getLogger(__name__)

#: Turns of the event loop without any call that changes the store before it counts as quiet. What is on its
#: way from one coroutine to the next needs about five; the rest is patience with code of the test's own.
QUIET_TURNS: Final = 50
#: How often is looked whether what runs has ended, should it end without a trace in the store (s).
POLL_S: Final = 0.05
#: After this long the log says that somebody waits for what no timer brings (s).
HINT_S: Final = 3.0


class HeldServer(MemoryServer):
    """A store in memory for one hub. Its clock stands still until it is moved; changes are noticed."""

    def __init__(self, hub: str, start_ms: int) -> None:
        """Start empty at a time (Unix ms)."""
        self._held_ms = start_ms
        self._name = hub
        #: Set by every call that changes something.
        self.stirred = asyncio.Event()
        super().__init__(lambda: self._held_ms)

    def move_to(self, now_ms: int) -> None:
        """Set the clock forward. Heartbeats and the leader's lease are not older for it."""
        passed_ms, self._held_ms = now_ms - self._held_ms, now_ms
        assert passed_ms >= 0, "durable time never goes back"
        hub = self.hub(self._name)
        for beats in (hub.hosts, hub.workers):
            for name, (beat_ms, record) in beats.items():
                beats[name] = (beat_ms + passed_ms, record)
        hub.leader_until_ms += passed_ms

    def bury(self, process: str) -> None:
        """Forget the heartbeat of a host or worker that is dead, so that others take over at once."""
        hub = self.hub(self._name)
        hub.hosts.pop(process, None)
        hub.workers.pop(process, None)
        if hub.leader == process:
            hub.leader = ""

    @property
    def next_due_ms(self) -> int | None:
        """When the next committed timer is due."""
        partitions = self.hub(self._name).partitions.values()
        return min((due for row in partitions for due, _ in row.timers.values()), default=None)

    def has_news(self, partition: int, position: str) -> bool:
        """Tell whether a partition's inbox has entries behind a position, or its outbox has any."""
        hub = self.hub(self._name)
        inbox = hub.streams.get(partition_target(partition))
        unread = inbox is not None and inbox.last > parse_id(position or START)
        return unread or bool(hub.partition(partition).outbox)

    @property
    def has_tasks(self) -> bool:
        """Tell whether an activity waits in a queue or runs."""
        streams = self.hub(self._name).streams
        return any(stream.ids for target, stream in streams.items() if target.startswith("q:"))

    # --- what changes something --------------------------------------------------------

    def append(self, hub: str, append: Append) -> Appended:
        """See ``MemoryServer.append``."""
        self.stirred.set()
        return super().append(hub, append)

    def commit(self, hub: str, commit: Commit) -> CommitOutcome:
        """See ``MemoryServer.commit``."""
        self.stirred.set()
        return super().commit(hub, commit)

    def claim(self, hub: str, partition: int, host: str, token: str) -> PartitionImage:
        """See ``MemoryServer.claim``."""
        self.stirred.set()
        return super().claim(hub, partition, host, token)

    def finish(self, hub: str, queue: str, entry_id: str) -> None:
        """See ``MemoryServer.finish``."""
        self.stirred.set()
        super().finish(hub, queue, entry_id)


class HeldClock(HubClock):
    """A host's clock that is the server's itself, and not carried forward by the event loop's."""

    def __init__(self, server: MemoryServer) -> None:
        """Read ``server``'s clock."""
        super().__init__()
        self.now_ms = server.now_ms  # type: ignore[method-assign]

    def sync(self, now_ms: int) -> None:
        """Nothing to do: it is never out of step."""


class TimeSkipper:
    """Moves durable time. See the rules of this module.

    Attributes:
        automatic: move also while ``awaited`` says that somebody waits for an outcome.
    """

    def __init__(
        self,
        server: HeldServer,
        *,
        idle: Callable[[], bool],
        awaited: Callable[[], bool],
        moved: Callable[[], None],
    ) -> None:
        """Make a skipper; ``run_forever`` makes it work.

        Args:
            idle: tells that no host and no worker has anything to do.
            awaited: tells that a client waits for an outcome.
            moved: called after the clock was moved: alarms must be set anew.
        """
        self._server = server
        self._idle = idle
        self._awaited = awaited
        self._moved = moved
        self._automatic = True
        self._serial = itertools.count()
        #: Until when (Unix ms), a number for the order, who waits for it.
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []

    @property
    def automatic(self) -> bool:
        """Whether durable time moves while somebody waits for an outcome."""
        return self._automatic

    @automatic.setter
    def automatic(self, on: bool) -> None:
        self._automatic = on
        self._server.stirred.set()

    async def advance_to(self, until_ms: int) -> None:
        """Return when durable time has come to ``until_ms`` and all that was due by then is done."""
        passed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (until_ms, next(self._serial), passed))
        self._server.stirred.set()
        await passed

    async def run_forever(self) -> None:
        """Move the clock whenever that is wanted and nothing else can happen."""
        while True:
            await self._quiet()
            if not self._idle():
                while not (await self._stirred_within(POLL_S) or self._idle()):
                    pass
            elif not self._step():
                await self._wait_idly()

    async def _quiet(self) -> None:
        """Return when nothing has changed for some turns of the loop."""
        stirred, turns = self._server.stirred, 0
        while turns < QUIET_TURNS:
            turns = 0 if stirred.is_set() else turns + 1
            stirred.clear()
            await asyncio.sleep(0)

    async def _stirred_within(self, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._server.stirred.wait()
        except TimeoutError:
            return False

    async def _wait_idly(self) -> None:
        if not (self._automatic and self._awaited()):
            # Whoever waits asks the store, and that stirs it; but for the second to wait for an instance.
            while not await self._stirred_within(POLL_S):
                if self._automatic and self._awaited():
                    return
        elif not await self._stirred_within(HINT_S):
            logger.warning(
                "a client waits for an outcome, but nothing runs and no timer is set: "
                "does an orchestration wait for an external event, or to be resumed?"
            )
            await self._server.stirred.wait()

    def _step(self) -> bool:
        """Move the clock to the next timer or to who sleeps till then; False if there is no reason to."""
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)  # who slept was cancelled
        until_ms = self._sleepers[0][0] if self._sleepers else None
        if until_ms is None and not (self._automatic and self._awaited()):
            return False
        due_ms, now_ms = self._server.next_due_ms, self._server.now_ms()
        if due_ms is not None and (until_ms is None or due_ms <= until_ms):
            self._server.move_to(max(now_ms, due_ms))
            self._moved()
            return True
        if until_ms is None:
            return False
        self._server.move_to(max(now_ms, until_ms))
        self._moved()
        heapq.heappop(self._sleepers)[2].set_result(None)
        return True
