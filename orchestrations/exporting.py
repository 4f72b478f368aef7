"""Histories as JSON: to keep beside the code, and to replay against tomorrow's.

Rules:

* A file is self-contained: instance id and events. Event and field names are those of ``events``; what JSON
  lacks is tagged: ``{"base64": …}``, ``{"failure": …}``, ``{"actor": …}``,
  ``{"all": [...]}``.
* As with stored histories, fields of a later release are passed over, fields of an earlier one get defaults.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, get_args

from lungfish.runtime.client.instance_handle import OrchestrationHandle
from lungfish.runtime.errors import FailureDetails, SerializationError
from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages.wire import MalformedBytes

from . import events

#: Version of the file, in every file.
FORMAT: Final = 1

_CLASSES: Final[dict[str, type[Any]]] = {cls.__name__: cls for cls in get_args(events.Event)}


@dataclass(frozen=True, slots=True)
class ExportedHistory:
    """The events of one execution, oldest first, and whose they are."""

    instance_id: str
    events: Sequence[events.Event]

    def to_json(self) -> str:
        """Return the history as JSON, an event a line."""
        rows = ",\n    ".join(json.dumps(_plain_event(event)) for event in self.events)
        return (
            f'{{\n  "lungfish_history": {FORMAT},\n  "instance_id": {json.dumps(self.instance_id)},\n'
            f'  "events": [\n    {rows}\n  ]\n}}\n'
        )

    @classmethod
    def from_json(cls, text: str) -> ExportedHistory:
        """Read what ``to_json`` wrote; raises ``SerializationError`` for anything else."""
        try:
            found = json.loads(text)
            version = found["lungfish_history"]
            if version != FORMAT:
                raise ValueError(f"format {version!r}; this release reads {FORMAT}")
            read = [_event(row) for row in found["events"]]
            events.unpack(events.pack(read))  # checks the types of all fields
            return cls(str(found["instance_id"]), read)
        except (ValueError, KeyError, TypeError, AttributeError, MalformedBytes, binascii.Error) as error:
            raise SerializationError(f"not an exported history: {error!r}") from error


async def export_history(instance: OrchestrationHandle[Any]) -> str:
    """Return the history of an instance's current execution as JSON, for ``Replayer``.

    Raises:
        InstanceNotFound: there is no such instance.
    """
    return ExportedHistory(instance.id, await instance.history()).to_json()


def _plain_event(event: events.Event) -> dict[str, Any]:
    row = {item.name: _plain(getattr(event, item.name)) for item in fields(event)}
    return {"event": type(event).__name__, **row}


def _plain(value: Any) -> Any:
    match value:
        case bytes():
            return {"base64": base64.b64encode(value).decode()}
        case FailureDetails():
            return {"failure": value.to_wire()}
        case ActorId():
            return {"actor": list(value)}
        case tuple():
            return {"all": [_plain(item) for item in value]}
        case _:
            return value


def _event(row: dict[str, Any]) -> events.Event:
    cls = _CLASSES[row["event"]]
    known = {item.name for item in fields(cls)}
    event: events.Event = cls(**{name: _value(value) for name, value in row.items() if name in known})
    return event


def _value(value: Any) -> Any:
    match value:
        case {"base64": str(text)}:
            return base64.b64decode(text, validate=True)
        case {"failure": list(wire)}:
            return FailureDetails.from_wire(wire)
        case {"actor": [str(kind), str(name), str(key)]}:
            return ActorId(kind, name, key)
        case {"all": list(items)}:
            return tuple(_value(item) for item in items)
        case _:
            return value
