"""Numbers that users give: refused where they are given, by name and value, if they make no sense. Pure."""

from __future__ import annotations

import math
from typing import Any

from .errors import UsageError


def check_whole(what: str, value: Any, least: int = 0, most: int | None = None) -> None:
    """Raise ``UsageError`` unless ``value`` is an int from ``least`` to ``most`` (None: no limit)."""
    if type(value) is not int or value < least or (most is not None and value > most):
        bounds = f"of {least:,} or more" if most is None else f"from {least:,} to {most:,}"
        raise UsageError(f"{what} is a whole number {bounds}, not {value!r}")


def check_amount(what: str, value: Any, least: float = 0, most: float = math.inf) -> None:
    """Raise ``UsageError`` unless ``value`` is a number from ``least`` to ``most``; NaN is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        bounds = f"of {least:g} or more" if most == math.inf else f"from {least:g} to {most:g}"
        raise UsageError(f"{what} is a number {bounds}, not {value!r}")


def check_flag(what: str, value: Any) -> None:
    """Raise ``UsageError`` unless ``value`` is True or False."""
    if type(value) is not bool:
        raise UsageError(f"{what} is True or False, not {value!r}")
