"""Stored instances as the client shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from lungfish.runtime import codec
from lungfish.runtime.errors import InstanceRunning, PayloadTooLarge, UsageError
from lungfish.runtime.ids import ORCHESTRATION, ActorId
from lungfish.runtime.messages import tags
from lungfish.runtime.messages.messages import Start
from lungfish.runtime.messages.status import OrchestrationStatus, RuntimeStatus, from_ms

from . import events
from .forking import check_position, started_of
from .row import InstanceRow
from .shown import arguments

#: Whoever sends the start puts its target there.
_NOBODY: Final = ActorId(ORCHESTRATION, "", "")


def read_name(packed: bytes) -> str:
    """Return whose instance a metadata row tells of; raises ``MalformedBytes``."""
    return InstanceRow.unpack(packed).name


def read_status(instance_id: str, packed: bytes) -> OrchestrationStatus:
    """Return the status that a metadata row tells; raises ``MalformedBytes``."""
    row = InstanceRow.unpack(packed)
    return OrchestrationStatus(
        instance_id=instance_id,
        name=row.name,
        runtime_status=RuntimeStatus(row.status.value),
        created_at=from_ms(row.created_ms),
        updated_at=from_ms(row.updated_ms),
        output=_decoded(row.output),
        failure=row.failure,
        custom_status=_decoded(row.custom_status),
        execution_id=row.execution,
        parent_id=row.parent.key if row.parent is not None else None,
        tags=row.tags,
        history_events=row.length,
        history_bytes=row.size,
        warning=row.warning,
        input=arguments(row.input),
        start_at=from_ms(row.due_ms) if row.due_ms else None,
        version=row.version,
    )


def read_history(batches: Sequence[bytes]) -> list[Any]:
    """Return the events of a history, oldest first; raises ``MalformedBytes``."""
    return list(events.unpack_all(batches))


def restart_of(row: bytes, batches: Sequence[bytes]) -> Start:
    """Return the start of an instance with the same input; its target is still open.

    Raises:
        InstanceRunning: it runs.
        MalformedBytes: not a row, or not a history.
    """
    found = InstanceRow.unpack(row)
    if not found.terminal:
        raise InstanceRunning(f"the instance has not ended ({found.status}): restart is for those that have")
    given = found.input or started_of(events.unpack_all(batches)).input
    return Start(_NOBODY, found.name, given, tags=tags.check_tags(found.tags))


def fork_of(instance_id: str, row: bytes, batches: Sequence[bytes], at: int) -> Start:
    """Return the start of an instance with the first ``at`` events of a history; its target is still open.

    Raises:
        UsageError: not a position between two steps.
        PayloadTooLarge: the history does not fit into a message.
        MalformedBytes: not a row, or not a history.
    """
    if isinstance(at, bool) or not isinstance(at, int):
        raise UsageError(f"at is an index of history(), not {at!r}")
    found = InstanceRow.unpack(row)
    history = events.unpack_all(batches)
    check_position(history, at)
    packed = events.pack(history[:at])
    if len(packed) > codec.PAYLOAD_BYTES_MAX:
        raise PayloadTooLarge(
            f"{at} events take {len(packed):,} bytes; a fork can begin with {codec.PAYLOAD_BYTES_MAX:,}"
        )
    wire, version = tags.check_tags(found.tags), found.version if found.pinned else ""
    return Start(_NOBODY, found.name, b"", history=packed, source=instance_id, tags=wire, version=version)


def _decoded(data: bytes | None) -> Any:
    return None if data is None else codec.decode(data, "stored value")
