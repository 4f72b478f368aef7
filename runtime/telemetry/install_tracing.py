"""Switching traces on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lungfish.runtime.declared.app import App
from lungfish.runtime.errors import UsageError

if TYPE_CHECKING:
    from .otel import Provider


def install(app: App, tracer_provider: Provider = None) -> None:
    """Trace what clients, hosts and workers of an app do, through OpenTelemetry.

    One trace goes from a client through entities, orchestrations and activities, whatever dies on the way.
    Replay tells nothing, and nothing is told of what was not committed: each span of a host is told once
    or, where the host dies between the commit and the export, not at all. Sampling is the provider's: it is
    asked where a trace begins, and its answer travels. Who does not call this pays nothing.

    Call it in the module that the app is in, so that every process does. Called again, the last one counts.

    Args:
        app: its clients (``lungfish.connect(app)``), hosts and workers are traced.
        tracer_provider: default is OpenTelemetry's global one, once it is set. A function is called once in
            each process; a provider itself does not travel to the processes of a Ray cluster.

    Raises:
        UsageError: OpenTelemetry is not installed, or ``tracer_provider`` is neither.
    """
    try:
        from .otel import OpenTelemetry, check_provider
    except ImportError as error:
        if (error.name or "").split(".")[0] != "opentelemetry":
            raise
        raise UsageError("traces need the package opentelemetry-api: pip install lungfish[otel]") from None
    check_provider(tracer_provider)
    app.tracing = OpenTelemetry(tracer_provider)
