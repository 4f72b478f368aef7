"""Log records as JSON lines, with the ids of what they are about as fields. Standard library only.

Ids come from two places: fields that a logger adds (``ctx.logger`` of an orchestration), and the attempt of
an activity that the line is written in. A field of the record wins.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
from typing import Any, Final

from lungfish.runtime.declared.activity_info import current_activity
from lungfish.runtime.messages.headers import headers
from lungfish.runtime.messages.tracing import TRACEPARENT, read

#: What every record has; anything else was given by whoever logged.
_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Formats a record as a line of JSON: ``time``, ``level``, ``logger``, ``message``, then ids and extras.

    Ids are ``hub``; ``instance_id``, ``orchestration``, ``execution_id`` in lines of ``ctx.logger``, which
    says nothing in replay; ``instance_id``, ``activity``, ``attempt``, ``queue``, ``idempotency_key`` in any
    line that is written within an activity; ``trace_id`` and ``span_id`` wherever the headers of what is
    handled name them (``traceparent``). What was given as ``extra`` is there under its name, and as text
    where JSON has no form for it. An exception is ``error`` (its type) and ``traceback``.

    It never raises for a record that the standard formatter would take.
    """

    def __init__(self, *, hub: str = "", **fields: str) -> None:
        """Make a formatter.

        Args:
            hub: name of the hub, for every line; left out if empty.
            fields: further fields for every line, such as ``node="a"``.
        """
        super().__init__()
        self._fields = {**({"hub": hub} if hub else {}), **fields}

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        told: dict[str, Any] = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **self._fields,
            **_attempt(),
            **_trace(),
        }
        told.update((name, value) for name, value in vars(record).items() if name not in _OWN)
        if record.exc_info and record.exc_info[0] is not None:
            told["error"] = record.exc_info[0].__qualname__
            told["traceback"] = record.exc_text or self.formatException(record.exc_info)
        if record.stack_info:
            told["stack"] = record.stack_info
        return _line(told)


def _attempt() -> dict[str, Any]:
    info = current_activity.get(None)
    if info is None:
        return {}
    return {
        "instance_id": info.instance_id,
        "activity": info.name,
        "attempt": info.attempt,
        "queue": info.queue,
        "idempotency_key": info.idempotency_key,
    }


def _trace() -> dict[str, str]:
    """Return the span that is around, as a message that is sent here would name it."""
    found = headers()
    context = read(found[TRACEPARENT]) if TRACEPARENT in found else None
    return {} if context is None else {"trace_id": context.trace_id, "span_id": context.span_id}


def _line(told: dict[str, Any]) -> str:
    try:
        return json.dumps(told, ensure_ascii=False, allow_nan=False, default=str)
    except Exception:  # a key that is no text, a cycle, a number that is none, a __str__ that fails
        return json.dumps({name: _text(value) for name, value in told.items()}, ensure_ascii=False)


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception as error:  # the line is worth more than the value
        return f"<{type(value).__qualname__}: str() raised {type(error).__qualname__}>"
