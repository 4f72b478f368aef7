"""Activity queues in memory: what ``take_limited.lua`` and its kin do in Redis, in plain Python."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from lungfish.runtime.messages import wire
from lungfish.runtime.store.queues import Meter, QueueState, lanes_of, limits_from, split_lane
from lungfish.runtime.store.store import QueueEntry

if TYPE_CHECKING:
    from .memory_server import Hub, Stream


def take(
    hub: Hub, worker: str, queue: str, count: int, read: Callable[[str, int], list[QueueEntry]]
) -> list[QueueEntry]:
    """Hand new entries of a queue to a worker, by priority and within its limits.

    Args:
        read: takes up to so many entries of a lane.
    """
    lanes = _lanes(hub, queue)
    if lanes == [queue] and queue not in hub.limits:
        return read(queue, count)
    meter = hub.meters.setdefault(queue, Meter())
    left = min(count, _allowed(hub, worker, queue, meter))
    taken: list[QueueEntry] = []
    while left > 0:
        is_last, some = meter.next_turn(left)
        found: list[QueueEntry] = []
        for lane in reversed(lanes) if is_last else lanes:
            found += read(lane, some - len(found))
        if not found:
            break
        left -= len(found)
        meter.take(len(found))
        taken += found
    return taken


def _lanes(hub: Hub, queue: str) -> list[str]:
    return [lane for lane in lanes_of(queue) if lane == queue or f"q:{lane}" in hub.streams]


def _allowed(hub: Hub, worker: str, queue: str, meter: Meter) -> int:
    """Return how many entries the limits leave to a worker."""
    limits, is_paused = limits_from(hub.limits.get(queue, {}))
    if is_paused:
        return 0
    taken = _taken(hub, queue)
    left = [1 << 30]
    if limits.concurrency is not None:
        left.append(limits.concurrency - sum(taken.values()))
    if limits.worker_concurrency is not None:
        left.append(limits.worker_concurrency - taken.get(worker, 0))
    if limits.rate is None:
        meter.tokens = None
    else:
        # Not the server's clock: in tests that stands still while an activity waits.
        left.append(meter.fill(limits.rate, asyncio.get_running_loop().time()))
    return min(left)


def _taken(hub: Hub, queue: str) -> dict[str, int]:
    taken: dict[str, int] = {}
    for lane in lanes_of(queue):
        if lane in hub.groups:
            for holder, _ in hub.groups[lane].taken.values():
                taken[holder] = taken.get(holder, 0) + 1
    return taken


def is_limited(hub: Hub, queues: Sequence[str]) -> bool:
    """Tell whether waiting for an entry of these queues is not enough: a limit may let it go later."""
    return any(queue in hub.limits for queue in queues)


def state_of(hub: Hub, queue: str) -> QueueState:
    """Return what a queue holds."""
    waiting: dict[int, int] = {}
    for lane in lanes_of(queue):
        stream, group = hub.streams.get(f"q:{lane}"), hub.groups.get(lane)
        held = len(group.taken) if group is not None else 0
        waiting[split_lane(lane)[1]] = len(stream.ids) - held if stream is not None else 0
    return QueueState(dict(hub.limits.get(queue, {})), waiting, _taken(hub, queue))


def adjust(hub: Hub, queue: str, fields: Mapping[str, str | None]) -> None:
    """Write stored limits."""
    stored = hub.limits.setdefault(queue, {})
    for name, text in fields.items():
        if text is None:
            stored.pop(name, None)
        else:
            stored[name] = text
    if not stored:
        del hub.limits[queue]


def rows_in(hub: Hub, queue: str) -> set[str]:
    """Return the row ids of all activities in a queue."""
    streams = [hub.streams[f"q:{lane}"] for lane in lanes_of(queue) if f"q:{lane}" in hub.streams]
    return {row for stream in streams for row in _rows(stream)}


def _rows(stream: Stream) -> list[str]:
    rows = []
    for payload in stream.payloads:
        try:
            rows.append(wire.unpack_task(payload).row)
        except wire.MalformedBytes:
            continue
    return rows
