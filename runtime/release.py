"""Which release of Lungfish runs here."""

from __future__ import annotations

import functools
from importlib import metadata


@functools.cache
def release() -> str:
    """Return the installed version of Lungfish; empty where it runs from its sources, not installed."""
    try:
        return metadata.version("lungfish")
    except metadata.PackageNotFoundError:
        return ""
