"""Instances that begin like another one: with its input, or with the beginning of its history.

Rules:

* The other one is read as last committed, row and history in one; it is not touched.
* What is read means something to the kind only, which makes the start of it.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

from lungfish.runtime.declared import plugged_in
from lungfish.runtime.errors import InstanceNotFound, OrchestrationFailed
from lungfish.runtime.ids import ORCHESTRATION, ActorId, check_id
from lungfish.runtime.messages.messages import Start
from lungfish.runtime.session.connection import TIMEOUT_S, Connection, raise_usage_error
from lungfish.runtime.store.store import StoredInstance
from lungfish.runtime.store.whole import with_values


async def restart_of(connection: Connection, actor: ActorId) -> Start:
    """Return the start of an instance with the same input; raises as ``OrchestrationHandle.restart``."""
    stored = await _stored(connection, actor)
    start: Start = _orchestrations().restart_of(stored.row, stored.history)
    return start


async def fork_of(connection: Connection, actor: ActorId, at: int) -> Start:
    """Return the start of one with the first ``at`` events; raises as ``OrchestrationHandle.fork``."""
    stored = await _stored(connection, actor)
    start: Start = _orchestrations().fork_of(actor.key, stored.row, stored.history, at)
    return start


async def start_like(connection: Connection, start: Start, id: str | None) -> str:
    """Send a start under an id, or a new one; return the id.

    Raises:
        InstanceExists: the id is taken.
        UsageError: it was refused, and nothing was created.
        DeadlineExceeded, StoreUnavailable: the outcome is unknown.
    """
    instance = check_id("instance id", id) if id is not None else uuid.uuid4().hex
    actor = ActorId(ORCHESTRATION, "", instance)

    given = await connection.written_ahead(actor, start.input)

    def make(request: str) -> Start:
        return replace(start, input=given, target=actor, request=request, reply_to=connection.me)

    what = f"start of {start.name}"
    response = await connection.request(actor, make, timeout_s=TIMEOUT_S, what=what)
    if response.failure is not None:
        raise_usage_error(response.failure)
        raise OrchestrationFailed(f"{what}: {response.failure}", response.failure)
    return instance


async def _stored(connection: Connection, actor: ActorId) -> StoredInstance:
    (stored,) = await connection.store.instances([(connection.partition(actor), actor.key)], history=True)
    if stored.row is None:
        raise InstanceNotFound(f"no orchestration instance {actor.key!r}")
    return await with_values(connection.store, stored)


def _orchestrations() -> Any:
    return plugged_in.kind_class(ORCHESTRATION)
