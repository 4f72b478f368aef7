"""Sinks for code without an event loop; see ``sinks``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from itertools import islice
from typing import Any, Final, TypeAlias, TypeVar

from lungfish.runtime.client.sinks import BATCH_ROWS, Sink, SinkResult

Row = TypeVar("Row")
#: Runs a coroutine in the client's loop and waits for it here.
Run: TypeAlias = Callable[[Coroutine[Any, Any, Any]], Any]
#: Rows that are taken from the source at a time: few, because they wait in memory.
_AT_ONCE: Final = 200


class BlockingSink:
    """``Sink`` without ``await``: see there."""

    def __init__(self, run: Run, sink: Sink) -> None:
        self._run = run
        self._sink = sink

    def position(self, entity: type[Any] | str | None = None) -> int:
        """Return where a source may be read from; see ``Sink.position``."""
        found: int = self._run(self._sink.position(entity))
        return found

    def forget(self) -> None:
        """Forget how far this sink is; see ``Sink.forget``."""
        self._run(self._sink.forget())

    def write(
        self,
        entity: type[Any] | str,
        operation: Callable[..., Any] | str,
        rows: Iterable[Row],
        *,
        key: Callable[[Row], str],
        args: Callable[[Row], Sequence[Any]] = lambda row: (row,),
        position: Callable[[Row], int] | None = None,
        first: int = 0,
        batch_rows: int = BATCH_ROWS,
        timeout: float | None = 60.0,
    ) -> SinkResult:
        """Signal an entity for each row; see ``Sink.write``. The source is read in a thread of its own."""
        result: SinkResult = self._run(
            self._sink.write(
                entity,
                operation,
                _threaded(rows),
                key=key,
                args=args,
                position=position,
                first=first,
                batch_rows=batch_rows,
                timeout=timeout,
            )
        )
        return result


async def _threaded(rows: Iterable[Row]) -> AsyncIterator[Row]:
    # Not in the client's loop: a source that waits would hold up what other threads do with this client.
    source = iter(rows)
    while part := await asyncio.to_thread(lambda: list(islice(source, _AT_ONCE))):
        for row in part:
            yield row
