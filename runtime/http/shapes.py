"""The JSON of the HTTP API, in the shapes of Durable Functions' management API. Pure.

Times are UTC to the second with a ``Z``, as there. A value that JSON lacks is written as pydantic would:
a datetime in ISO form, bytes in base64, a set as a list.
"""

from __future__ import annotations

import datetime as dt
import json
from typing import Any, Final
from urllib.parse import quote

from pydantic_core import PydanticSerializationError, to_jsonable_python

from lungfish.runtime.messages.status import OrchestrationStatus, RuntimeStatus

#: Where Durable Functions' clients look for the API.
PREFIX: Final = "/runtime/webhooks/durabletask"

#: Those that a poller still waits for.
UNDER_WAY: Final = frozenset({RuntimeStatus.PENDING, RuntimeStatus.RUNNING, RuntimeStatus.SUSPENDED})


def plain(value: Any) -> Any:
    """Return a decoded value as what JSON knows."""
    try:
        return to_jsonable_python(value, bytes_mode="base64", inf_nan_mode="strings", fallback=repr)
    except (PydanticSerializationError, ValueError):
        return repr(value)


def to_json(value: Any) -> bytes:
    """Return JSON of what ``plain`` made."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


def shown_time(at: dt.datetime) -> str:
    """Return a time in UTC, to the second, as ``2026-11-22T08:00:00Z``."""
    return at.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def failure_text(status: OrchestrationStatus) -> Any:
    """Return the output of an instance: of a failed one what went wrong, as Durable Functions does."""
    if status.failure is None:
        return plain(status.output)
    return str(status.failure) if status.runtime_status is RuntimeStatus.FAILED else status.failure.message


def status_body(
    status: OrchestrationStatus, *, show_input: bool = True, history: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Return the status of an instance."""
    body: dict[str, Any] = {
        "name": status.name,
        "instanceId": status.instance_id,
        "runtimeStatus": status.runtime_status.value,
        "input": plain(status.input) if show_input else None,
        "customStatus": plain(status.custom_status),
        "output": failure_text(status),
        "createdTime": shown_time(status.created_at),
        "lastUpdatedTime": shown_time(status.updated_at),
    }
    if history is not None:
        body["historyEvents"] = history
    return body


def management_urls(base: str, instance_id: str, query: str) -> dict[str, str]:
    """Return the id and the URLs of everything that can be done with an instance.

    Args:
        base: the API's own address, without a slash at the end.
        query: what every URL carries (``taskHub=…``), without a question mark.
    """
    instance = f"{base}/instances/{quote(instance_id, safe='')}"
    return {
        "id": instance_id,
        "statusQueryGetUri": f"{instance}?{query}",
        "sendEventPostUri": f"{instance}/raiseEvent/{{eventName}}?{query}",
        "terminatePostUri": f"{instance}/terminate?reason={{text}}&{query}",
        "purgeHistoryDeleteUri": f"{instance}?{query}",
        "restartPostUri": f"{instance}/restart?{query}",
        "suspendPostUri": f"{instance}/suspend?reason={{text}}&{query}",
        "resumePostUri": f"{instance}/resume?reason={{text}}&{query}",
        "rewindPostUri": f"{instance}/rewind?reason={{text}}&{query}",
    }
