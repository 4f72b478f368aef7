"""What can be set about an entity class, where the class is declared."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from typing import Final

from lungfish.runtime import codec
from lungfish.runtime.declared.definitions import as_duration
from lungfish.runtime.errors import UsageError

_MS: Final = dt.timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class EntityOptions:
    """Options of an entity class: ``class Cart(lungfish.Entity, ttl=timedelta(days=30))``; inherited.

    Attributes:
        ttl_ms: an entity that had no message for so long is deleted; 0: never.
        state_bytes_max: largest snapshot; an operation that would make a larger one fails (bytes).
        reentrant: all its ``@shared`` operations that are not async are ``@reentrant``.
    """

    ttl_ms: int = 0
    state_bytes_max: int = codec.PAYLOAD_BYTES_MAX
    reentrant: bool = False

    def changed(
        self,
        what: str,
        ttl: dt.timedelta | float | None,
        state_bytes_max: int | None,
        reentrant: bool | None,
    ) -> EntityOptions:
        """Return the options with what a class statement gives; None: as inherited.

        Raises:
            UsageError: a value that cannot be one.
        """
        ttl_ms = self.ttl_ms if ttl is None else _ttl_ms(what, ttl)
        limit = self.state_bytes_max if state_bytes_max is None else state_bytes_max
        if type(limit) is not int or not 0 < limit <= codec.PAYLOAD_BYTES_MAX:
            raise UsageError(
                f"entity {what}: state_bytes_max is 1 to {codec.PAYLOAD_BYTES_MAX:,} bytes, not {limit!r}"
            )
        is_reentrant = self.reentrant if reentrant is None else reentrant
        if type(is_reentrant) is not bool:
            raise UsageError(f"entity {what}: reentrant is True or False, not {reentrant!r}")
        return replace(self, ttl_ms=ttl_ms, state_bytes_max=limit, reentrant=is_reentrant)


def _ttl_ms(what: str, ttl: dt.timedelta | float) -> int:
    ttl_ms = as_duration(ttl) // _MS
    if ttl_ms < 1:
        raise UsageError(f"entity {what}: ttl must be positive, not {ttl!r}")
    return ttl_ms
