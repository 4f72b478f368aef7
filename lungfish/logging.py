"""Logs as JSON lines with ids as fields: docs/telemetry.md.

::

    handler = logging.StreamHandler()
    handler.setFormatter(lungfish.logging.JsonFormatter(hub="shop"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
"""

from lungfish.runtime.telemetry.json_logs import JsonFormatter

__all__ = ["JsonFormatter"]
