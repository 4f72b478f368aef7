"""Ended instances as JSON: what is kept of one when it has been purged.

Rules:

* A record is self-contained: the row as stored, so that its status reads as it did, and the history as
  ``exporting`` writes it, so that ``Replayer`` takes it.
* The other fields are for people and their tools; nothing reads them back.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any, Final

from lungfish.runtime.errors import SerializationError
from lungfish.runtime.messages.status import ArchivedInstance
from lungfish.runtime.messages.wire import MalformedBytes

from . import events
from .exporting import ExportedHistory
from .reading import read_status

#: Version of the record, in every record.
FORMAT: Final = 1


def write_record(hub: str, instance_id: str, row: bytes, history: Sequence[bytes]) -> str:
    """Return an instance as JSON; raises ``MalformedBytes`` for rows that no release wrote."""
    status = read_status(instance_id, row)
    exported = ExportedHistory(instance_id, events.unpack_all(history)).to_json()
    record: dict[str, Any] = {
        "lungfish_archive": FORMAT,
        "hub": hub,
        "instance_id": instance_id,
        "name": status.name,
        "status": status.runtime_status.value,
        "created_at": status.created_at.isoformat(),
        "ended_at": status.updated_at.isoformat(),
        "tags": dict(status.tags),
        "row": base64.b64encode(row).decode(),
        "history": json.loads(exported),
    }
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


def read_record(text: str) -> ArchivedInstance:
    """Read what ``write_record`` wrote; raises ``SerializationError`` for anything else."""
    try:
        record = json.loads(text)
        if record["lungfish_archive"] != FORMAT:
            raise ValueError(f"format {record['lungfish_archive']!r}; this release reads {FORMAT}")
        exported = ExportedHistory.from_json(json.dumps(record["history"]))
        row = base64.b64decode(record["row"], validate=True)
        status = read_status(str(record["instance_id"]), row)
    except (ValueError, KeyError, TypeError, AttributeError, MalformedBytes, binascii.Error) as error:
        raise SerializationError(f"not an archived instance: {error!r}") from error
    return ArchivedInstance(status, tuple(exported.events), exported.to_json())
