"""How long ended instances are kept: what an app says about it."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from lungfish.runtime.errors import UsageError
from lungfish.runtime.messages.status import RuntimeStatus

from .definitions import as_duration

#: A folder, or an address that fsspec knows.
Place: TypeAlias = str | os.PathLike[str]

_ENDS: Final = tuple(status for status in RuntimeStatus if status.is_terminal)


@dataclass(frozen=True, slots=True)
class Retention:
    """How long instances are kept after their end, and where they go then.

    Attributes:
        keep: by status; what is not named is kept for ever.
        archive: where records are written before the purge; None: nowhere.
    """

    keep: Mapping[RuntimeStatus, dt.timedelta] = field(default_factory=dict)
    archive: str | None = None

    @classmethod
    def of(
        cls,
        archive: Place | None,
        default: dt.timedelta | float | None,
        **by_status: dt.timedelta | float | None,
    ) -> Retention:
        """Check what ``App.retention`` was given; raises ``UsageError``."""
        keep: dict[RuntimeStatus, dt.timedelta] = {}
        for status in _ENDS:
            given = by_status[status.value.lower()]
            time = as_duration(default if given is None else given, "how long instances are kept")
            if time is None:
                continue
            if time < dt.timedelta(0):
                raise UsageError(f"instances cannot be kept for less than no time: {time}")
            keep[status] = time
        if not keep:
            raise UsageError(
                "a retention needs a time: default=, completed=, failed=, terminated=, canceled="
            )
        if archive is not None and not isinstance(archive, str | os.PathLike):
            raise UsageError(f"archive is a folder, or an address such as s3://bucket/path, not {archive!r}")
        return cls(keep, None if archive is None else os.fspath(archive))
