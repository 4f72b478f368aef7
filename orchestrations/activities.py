"""An activity that has no recorded result yet: its row, and what follows from an attempt's outcome.

Rules:

* The row is there from the commit that schedules the activity to the one that records its result.
  Attempts change the row, not the history: retries cost no history.
* Only the result of the row's own attempt counts. Anything else is late or doubled.
* The idempotency key is the same for every attempt.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final

import msgpack

from lungfish.runtime.definitions import ActivityOptions
from lungfish.runtime.errors import ActivityTimedOut, FailureDetails, qualified_name
from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages import ActivityTask
from lungfish.runtime.retry import RetryPolicy
from lungfish.runtime.wire import MalformedBytes

_ROW_VERSION: Final = 1
_ONE_ATTEMPT: Final = RetryPolicy()


@dataclass(slots=True)
class ActivityRow:
    """A scheduled activity.

    Attributes:
        attempt: number of the present attempt; the first is 1.
        waiting: the attempt has not been dispatched yet: its retry timer runs.
        timeout_ms: longest run of one attempt; 0 is unlimited.
        deadline_ms: when all attempts must have ended (Unix ms); 0 is never.
        first_ms: when the first attempt was scheduled (Unix ms).
        key: idempotency key.
    """

    task: int
    name: str
    args: bytes
    queue: str
    policy: RetryPolicy
    timeout_ms: int
    deadline_ms: int
    first_ms: int
    key: str
    attempt: int = 1
    waiting: bool = False

    @classmethod
    def scheduled(
        cls, task: int, name: str, args: bytes, options: ActivityOptions, *, default_key: str, now_ms: int
    ) -> ActivityRow:
        """Return the row of a new activity."""
        limit = options.schedule_to_close
        return cls(
            task=task,
            name=name,
            args=args,
            queue=options.queue,
            policy=options.retry,
            timeout_ms=0 if options.timeout is None else max(1, _ms(options.timeout)),
            deadline_ms=0 if limit is None else now_ms + _ms(limit),
            first_ms=now_ms,
            key=options.id or default_key,
        )

    def retry_after(self, failure: FailureDetails, now_ms: int) -> int | None:
        """Return when (Unix ms) to try again after a failed attempt; None if it has failed for good."""
        due_ms = self.policy.next_attempt_ms(self.attempt, failure, self.first_ms, now_ms)
        if due_ms is None or (self.deadline_ms and due_ms >= self.deadline_ms):
            return None
        return due_ms

    def task_of(self, owner: ActorId, execution: str, row_id: str) -> ActivityTask:
        """Return the present attempt, as a worker gets it."""
        return ActivityTask(
            owner, execution, self.task, self.attempt, self.name, self.args, self.key, self.timeout_ms, row_id
        )

    def out_of_time(self) -> FailureDetails:
        """Describe that all attempts together took too long."""
        took_ms = self.deadline_ms - self.first_ms
        limit = f"{took_ms / 1000:g} s (schedule_to_close)"
        message = f"activity {self.name!r} did not end within {limit}; it was in attempt {self.attempt}"
        return FailureDetails(qualified_name(ActivityTimedOut), message)

    def pack(self) -> bytes:
        """Return the stored form."""
        # Most activities have the default policy; it need not be written a million times.
        policy = None if self.policy is _ONE_ATTEMPT or self.policy == _ONE_ATTEMPT else self.policy.to_wire()
        packed: bytes = msgpack.packb(
            [
                _ROW_VERSION,
                self.task,
                self.name,
                self.args,
                self.queue,
                policy,
                self.timeout_ms,
                self.deadline_ms,
                self.first_ms,
                self.key,
                self.attempt,
                self.waiting,
            ]
        )
        return packed

    @classmethod
    def unpack(cls, packed: bytes) -> ActivityRow:
        """Read what ``pack`` wrote; raises ``MalformedBytes`` for anything else."""
        try:
            version, task, name, args, queue, policy, *rest = msgpack.unpackb(packed, use_list=True)
            if version != _ROW_VERSION:
                raise ValueError(f"row of version {version!r}; this release reads {_ROW_VERSION}")
            timeout_ms, deadline_ms, first_ms, key, attempt, waiting, *_ = rest
            policy = _ONE_ATTEMPT if policy is None else RetryPolicy.from_wire(policy)
            return cls(
                task, name, args, queue, policy, timeout_ms, deadline_ms, first_ms, key, attempt, waiting
            )
        except Exception as error:  # msgpack raises many kinds for bytes that are not its own
            raise MalformedBytes(f"not an activity row: {error!r}") from error


def _ms(duration: dt.timedelta) -> int:
    return duration // dt.timedelta(milliseconds=1)
