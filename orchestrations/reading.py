"""Stored instances as the client shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lungfish.runtime import codec
from lungfish.runtime.status import OrchestrationStatus, RuntimeStatus, from_ms

from . import events
from .row import InstanceRow
from .shown import arguments


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


def _decoded(data: bytes | None) -> Any:
    return None if data is None else codec.decode(data, "stored value")
