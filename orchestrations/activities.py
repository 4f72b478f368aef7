"""An activity that has no recorded result yet: its row, and what follows from an attempt's outcome.

Rules:

* The row is there from the commit that schedules the activity to the one that records its result.
  Attempts change the row, not the history: retries cost no history.
* Only the result of the row's own attempt counts. Anything else is late or doubled.
* The idempotency key is the same for every attempt.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, fields
from typing import Final

import msgpack

from lungfish.runtime.declared.definitions import ActivityOptions
from lungfish.runtime.declared.retry import RetryPolicy
from lungfish.runtime.errors import ActivityTimedOut, FailureDetails, qualified_name
from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages.messages import ActivityTask
from lungfish.runtime.messages.wire import MalformedBytes
from lungfish.runtime.store.queues import DEFAULT_PRIORITY, lane_of

_ROW_VERSION: Final = 1
#: What a row keeps of how an attempt ended (characters).
ERROR_MAX: Final = 200
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
        priority: of the queue's lane.
        heartbeat_ms: longest silence of an attempt; 0 is unlimited.
        unbegun_ms: longest wait of an attempt in its queue; 0 is unlimited.
        details: what the last heartbeat of the latest attempt said that had one.
        begun: a worker has begun the present attempt; known only if ``unbegun_ms`` asks for it.
        headers: of whoever asked for it.
        dispatches: how often the present attempt was put into its queue.
        retry_ms: when the present attempt is dispatched, while it waits (Unix ms).
        error: how the attempt before ended, in short; empty: it is the first.
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
    priority: int = DEFAULT_PRIORITY
    heartbeat_ms: int = 0
    unbegun_ms: int = 0
    details: bytes | None = None
    begun: bool = False
    dispatches: int = 1
    retry_ms: int = 0
    error: str = ""
    headers: tuple[str, ...] = ()

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
            timeout_ms=_limit_ms(options.timeout),
            deadline_ms=0 if limit is None else now_ms + _ms(limit),
            first_ms=now_ms,
            key=options.id or default_key,
            priority=options.priority,
            heartbeat_ms=_limit_ms(options.heartbeat_timeout),
            unbegun_ms=_limit_ms(options.schedule_to_start),
        )

    def retry_after(self, failure: FailureDetails, now_ms: int) -> int | None:
        """Return when (Unix ms) to try again after a failed attempt; None if it has failed for good."""
        due_ms = self.policy.next_attempt_ms(self.attempt, failure, self.first_ms, now_ms, self.key)
        if due_ms is None or (self.deadline_ms and due_ms >= self.deadline_ms):
            return None
        return due_ms

    @property
    def lane(self) -> str:
        """Where the activity is dispatched to."""
        return lane_of(self.queue, self.priority)

    def next_attempt(self, details: bytes | None, due_ms: int, failure: FailureDetails) -> None:
        """Go on to the next attempt, which waits for its retry timer."""
        self.attempt += 1
        self.retry_ms, self.error = due_ms, str(failure)[:ERROR_MAX]
        self.waiting = True
        self.begun = False
        self.dispatches = 0
        if details is not None:
            self.details = details

    def task_of(self, owner: ActorId, execution: str, row_id: str, *, begin_by_ms: int = 0) -> ActivityTask:
        """Return the present attempt, as a worker gets it."""
        return ActivityTask(
            owner,
            execution,
            self.task,
            self.attempt,
            self.name,
            self.args,
            self.key,
            self.timeout_ms,
            row_id,
            self.heartbeat_ms,
            self.details,
            self.deadline_ms,
            begin_by_ms,
            self.headers,
        )

    def out_of_time(self) -> FailureDetails:
        """Describe that all attempts together took too long."""
        took_ms = self.deadline_ms - self.first_ms
        limit = f"{took_ms / 1000:g} s (schedule_to_close)"
        message = f"activity {self.name!r} did not end within {limit}; it was in attempt {self.attempt}"
        return FailureDetails(qualified_name(ActivityTimedOut), message, timeout="schedule_to_close")

    def never_begun(self) -> FailureDetails:
        """Describe that no worker has begun the present attempt in time."""
        message = (
            f"no worker has begun attempt {self.attempt} of activity {self.name!r} within "
            f"{self.unbegun_ms / 1000:g} s (schedule_to_start); see what holds up queue {self.queue!r}"
        )
        kind = qualified_name(ActivityTimedOut)
        return FailureDetails(kind, message, non_retriable=True, timeout="schedule_to_start")

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
                self.priority,
                self.heartbeat_ms,
                self.unbegun_ms,
                self.details,
                self.begun,
                self.dispatches,
                self.retry_ms,
                self.error,
                self.headers,
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
            policy = _ONE_ATTEMPT if policy is None else RetryPolicy.from_wire(policy)
            # Rows of earlier releases end earlier: the rest has defaults.
            row = cls(task, name, args, queue, policy, *rest[: len(fields(cls)) - 5])
            row.headers = tuple(row.headers)
            return row
        except Exception as error:  # msgpack raises many kinds for bytes that are not its own
            raise MalformedBytes(f"not an activity row: {error!r}") from error


def _limit_ms(limit: dt.timedelta | None) -> int:
    return 0 if limit is None else max(1, _ms(limit))


def _ms(duration: dt.timedelta) -> int:
    return duration // dt.timedelta(milliseconds=1)
