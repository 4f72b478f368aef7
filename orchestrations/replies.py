"""What an instance answers to those who start, watch and control it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, TypeAlias

from lungfish.runtime import codec
from lungfish.runtime.errors import FailureDetails, InstanceEnded, NotRegistered
from lungfish.runtime.messages.messages import Control, Query, Response, Start, Update, Watch
from lungfish.runtime.partitions.kinds import Effects

from .handlers import Outcome
from .row import InstanceRow

if TYPE_CHECKING:
    from lungfish.runtime.declared.app import App

#: What somebody waits for an answer to.
Request: TypeAlias = Start | Control | Watch | Query | Update

log = logging.getLogger("lungfish.orchestrations")

_NOTHING: Final = codec.encode(None)


def accept(effects: Effects, message: Start | Control, result: bytes = _NOTHING) -> None:
    """Tell the requester, if there is one, that it is done."""
    if message.request and message.reply_to is not None:
        effects.send(Response(message.reply_to, message.request, result))


def refuse(effects: Effects, message: Request, failure: FailureDetails) -> None:
    """Tell the requester why not; for a sub-orchestration that is its outcome."""
    if isinstance(message, Start) and message.parent is not None:
        effects.send(Response(message.parent, message.parent_request, failure=failure))
    if message.request and message.reply_to is not None:
        effects.send(Response(message.reply_to, message.request, failure=failure))


def add_watcher(row: InstanceRow, message: Watch, most: int) -> bool:
    """Remember who waits for the outcome, once per session; return False if there are too many."""
    others = [(request, reply_to) for request, reply_to in row.watchers if reply_to != message.reply_to]
    if len(others) >= most:
        return False
    row.watchers = [*others, (message.request, message.reply_to)]
    return True


def add_update_waiter(row: InstanceRow, message: Update, most: int) -> bool:
    """Remember who waits for an update; return False if there are too many."""
    waiting = (message.id, message.request, message.reply_to)
    if waiting not in row.updates:
        if len(row.updates) >= most:
            return False
        row.updates = [*row.updates, waiting]
    return True


def answer_updates(effects: Effects, row: InstanceRow, outcomes: Mapping[str, Outcome]) -> None:
    """Tell the outcomes of updates to everyone who waits for one; they are told once."""
    left = []
    for update, request, reply_to in row.updates:
        outcome = outcomes.get(update)
        if outcome is None:
            left.append((update, request, reply_to))
        else:
            effects.send(Response(reply_to, request, outcome.result, outcome.failure))
    row.updates = left


def refuse_updates(effects: Effects, row: InstanceRow, instance_id: str) -> None:
    """The instance has ended before these updates."""
    if row.updates:
        error = InstanceEnded(
            f"instance {instance_id!r} ended ({row.status}) before the update's handler did"
        )
        failure = FailureDetails.of(error)
        for _, request, reply_to in row.updates:
            effects.send(Response(reply_to, request, failure=failure))
        row.updates = []


def announce(effects: Effects, row: InstanceRow) -> None:
    """Tell the outcome to everyone who watches; they are told once."""
    for request, reply_to in row.watchers:
        effects.send(Response(reply_to, request, row.output, row.failure))
    row.watchers = []


def lacks_code(app: App, row: InstanceRow, instance_id: str) -> bool:
    """Tell whether this host's app does not have the instance's code; it is logged.

    What comes for such an instance waits in its mailbox: during a deployment hosts differ, and a host with
    less
    must not fail what one with more can run. It can still be watched and terminated.
    """
    try:
        app.code_of(row.name, row.version, pinned=row.pinned)
    except NotRegistered as error:
        log.error("instance %s waits for a host that has its code: %s", instance_id, error)
        return True
    return False
