"""Batches for code without an event loop; see ``client.batches``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Unpack

from lungfish.runtime.client.batch_steps import BatchStep, BatchVerb
from lungfish.runtime.client.batches import BATCH_LIMIT
from lungfish.runtime.client.queries import InstanceFilters

from .queries import BlockingQueries


class BlockingBatches(BlockingQueries):
    """The part of ``BlockingClient`` that acts on all instances of a filter."""

    def batch(
        self,
        verb: BatchVerb,
        *,
        reason: str = "",
        event: str | None = None,
        payload: Any = None,
        recursive: bool = True,
        count_only: bool = False,
        limit: int = BATCH_LIMIT,
        continuation: str | None = None,
        **filters: Unpack[InstanceFilters],
    ) -> BatchStep:
        """Do one thing to the instances that fit a filter, up to ``limit`` of them; see ``Client.batch``."""
        return self._open.run(
            self._client.batch(
                verb,
                reason=reason,
                event=event,
                payload=payload,
                recursive=recursive,
                count_only=count_only,
                limit=limit,
                continuation=continuation,
                **filters,
            )
        )

    def batch_all(
        self,
        verb: BatchVerb,
        *,
        reason: str = "",
        event: str | None = None,
        payload: Any = None,
        recursive: bool = True,
        **filters: Unpack[InstanceFilters],
    ) -> Iterator[BatchStep]:
        """Do one thing to all instances that fit a filter, step by step; see ``Client.batch_all``."""
        steps = self._client.batch_all(
            verb, reason=reason, event=event, payload=payload, recursive=recursive, **filters
        )
        return self._each(steps)
