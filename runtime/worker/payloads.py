"""Large arguments and results of a worker's attempts: fetched before, stored behind.

Rules:

* A result is in the store, under its owner's partition, before it is reported. Dying in between leaves a
  payload that nobody refers to, which is swept, and an entry that another worker runs again.
* The store may be away for any time: both wait for it, and the entry stays this worker's.
* Arguments that are gone belong to an activity that nobody waits for, or were lost: the attempt fails.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, Final, TypeVar

from lungfish.runtime.errors import FailureDetails, SerializationError, StoreUnavailable
from lungfish.runtime.messages.messages import ActivityResult
from lungfish.runtime.messages.payloads import Payload
from lungfish.runtime.store.store import Store

from .attempts import Attempt

logger = logging.getLogger(__name__)

BACKOFF_S: Final = (0.05, 1.0)

T = TypeVar("T")


class WorkerPayloads:
    """Moves large values between the store and attempts."""

    def __init__(
        self,
        store: Store,
        worker_id: str,
        *,
        begin: Callable[[Attempt], None],
        report: Callable[[Attempt, ActivityResult], None],
    ) -> None:
        """Prepare.

        Args:
            begin: begins an attempt that has its arguments.
            report: reports an outcome that is small.
        """
        self._store = store
        self._worker_id = worker_id
        self._begin = begin
        self._report = report
        self._tasks: set[asyncio.Task[None]] = set()
        self._number = 0
        #: How many attempts wait for their arguments: each has a slot already.
        self.fetching = 0

    def fetch(self, attempt: Attempt) -> None:
        """Fetch the arguments of an attempt, then begin it."""
        self.fetching += 1
        self._spawn(self._fetch(attempt))

    def put(self, partition: int, attempt: Attempt, result: ActivityResult) -> None:
        """Store a large result, then report it."""
        assert result.result is not None
        self._number += 1
        payload = Payload(partition, f"w{self._worker_id}.{self._number}", result.result)
        self._spawn(self._put(payload, attempt, result))

    async def close(self) -> None:
        """Leave everything as it is: other workers run these attempts again."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch(self, attempt: Attempt) -> None:
        token = attempt.task.args
        try:
            found = await self._patiently(lambda: self._store.payloads([token]))
        finally:
            self.fetching -= 1
        if token in found:
            attempt.task = replace(attempt.task, args=found[token])
            self._begin(attempt)
            return
        task = attempt.task
        error = SerializationError(f"the arguments of activity {task.name} are gone from the store")
        failure = replace(FailureDetails.of(error), non_retriable=True)
        self._report(
            attempt, ActivityResult(task.owner, task.execution, task.task, task.attempt, failure=failure)
        )

    async def _put(self, payload: Payload, attempt: Attempt, result: ActivityResult) -> None:
        await self._patiently(lambda: self._store.put_payloads([payload]))
        self._report(attempt, replace(result, result=payload.token))

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        wait_s = BACKOFF_S[0]
        while True:
            try:
                return await call()
            except StoreUnavailable as error:
                logger.warning("worker %s: large values: %s; trying again", self._worker_id, error)
            except Exception:  # as in Worker._repeat: an attempt that nobody ends is worse
                logger.exception("worker %s: large values: unexpected failure; trying again", self._worker_id)
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, BACKOFF_S[1])

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"lungfish payload {self._worker_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
