"""Traces through OpenTelemetry: docs/tracing.md; needs the extra ``lungfish[otel]``.

::

    lungfish.tracing.install(app)
"""

from lungfish.runtime.telemetry.install_tracing import install

__all__ = ["install"]
