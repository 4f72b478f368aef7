"""What an attempt of an activity reserves on Ray: refused at the decorator if Ray would refuse it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lungfish.runtime.amounts import check_amount
from lungfish.runtime.errors import UsageError

#: Resources of Ray that have an option of their own.
OPTIONS: Final = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
#: More than any cluster has; refuses what is infinite, too.
_AMOUNT_MAX: Final = 1e15


def check_resources(options: Mapping[str, Any]) -> None:
    """Raise ``UsageError`` for options of a Ray task (``num_cpus``, …, ``resources``) that make no sense."""
    for name, value in options.items():
        if name == "resources":
            _check_custom(value)
        else:
            check_amount(name, value, most=_AMOUNT_MAX)


def _check_custom(resources: Any) -> None:
    if not isinstance(resources, Mapping):
        raise UsageError(f"resources is a dict of amounts, as in {{'fpga': 1}}, not {resources!r}")
    for name, amount in resources.items():
        if not isinstance(name, str) or not name:
            raise UsageError(f"resources: a resource has a name, a str, not {name!r}")
        if name in OPTIONS:
            raise UsageError(f"resources: {name!r} has an option of its own: {OPTIONS[name]}={amount!r}")
        check_amount(f"resources: {name!r}", amount, most=_AMOUNT_MAX)
