"""Attempts while they run: their heartbeats are stored, and they hear that nobody waits for them any more.

Rules:

* What a heartbeat says is kept in the store beside the attempt's queue entry, at most twice a second and for
  all attempts in one call; it goes with the entry. So it outlives the worker, and costs the history nothing.
* Whether an attempt is waited for is a fact in the store: its row is there, or it is not. It is looked up for
  attempts that have run for a while. Nobody needs to know which worker runs what, and no message can be lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lungfish.runtime.settings import WorkerSettings
from lungfish.runtime.store.store import Store

from .attempts import Attempt, AttemptRunner

#: How many attempts are looked up in one call.
LOOKED_UP_MAX = 500


class PulseWatch:
    """Attends to the attempts of one worker."""

    def __init__(
        self,
        store: Store,
        runner: AttemptRunner,
        settings: WorkerSettings,
        partition: Callable[[Attempt], int],
        cancelled: Callable[[Attempt], None],
    ) -> None:
        """Attend to what ``runner`` runs.

        Args:
            partition: returns the partition of an attempt's owner.
            cancelled: told of every attempt that was cancelled: its entry is of no use any more.
        """
        self._store = store
        self._runner = runner
        self._watch_s = settings.watch_ms / 1_000
        self._partition = partition
        self._cancelled = cancelled
        self._looked_s = 0.0

    async def attend(self) -> None:
        """Do what is due now; raises ``StoreUnavailable``, and then goes on where it was."""
        running = self._runner.open
        if running:
            await self.keep_details()
            await self._cancel_unwanted(running)

    async def keep_details(self) -> None:
        """Store what heartbeats have said since the last time; raises ``StoreUnavailable``."""
        news = [(a, a.pulse.beats) for a in self._runner.open if a.pulse.beats != a.kept]
        said = {a.entry: a.pulse.details for a, _ in news if a.pulse.details is not None}
        if said:
            await self._store.keep_details(said)
        for attempt, beats in news:
            attempt.kept = beats

    async def _cancel_unwanted(self, running: list[Attempt]) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s < self._looked_s + self._watch_s:
            return
        self._looked_s = now_s
        old = [a for a in running if a.task.row and a.began_s <= now_s - self._watch_s]
        for start in range(0, len(old), LOOKED_UP_MAX):
            some = old[start : start + LOOKED_UP_MAX]
            wanted = await self._store.has_activities([(self._partition(a), a.task.row) for a in some])
            for attempt, is_wanted in zip(some, wanted, strict=True):
                if not is_wanted and not attempt.closed:
                    self._runner.cancel(attempt, "its orchestration does not wait for it any more")
                    self._cancelled(attempt)
