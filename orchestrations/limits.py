"""Bounds of one orchestration; each has an error that says what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: The latest time that a timer is set to (Unix ms): the end of the year 9999, as of ``datetime``.
LATEST_MS: Final = 253_402_300_799_999


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one orchestration may do.

    Attributes:
        history_warn: events in a history from which on a warning is logged, once, and shown in the status.
        history_max: events in a history at which the instance fails.
        history_bytes_warn, history_bytes_max: the same for its size (bytes).
        actions_max: actions that one turn may decide.
        steps_max: callbacks of the event loop after one event; more is taken for a busy loop.
        continues_max: times an instance may continue as new in one round, without waiting.
        watchers_max: requests that wait for the outcome of one instance.
        updates_remembered: outcomes of updates that survive a continue-as-new, the newest.
        slow_turn_s: user code that keeps the host's loop longer than this is reported.
    """

    history_warn: int = 10_000
    history_max: int = 200_000
    history_bytes_warn: int = 100 * 1024 * 1024
    history_bytes_max: int = 128 * 1024 * 1024
    actions_max: int = 10_000
    steps_max: int = 1_000_000
    continues_max: int = 10_000
    watchers_max: int = 1_000
    updates_remembered: int = 1_000
    slow_turn_s: float = 1.0
