"""A data set of Ray Data as the source of a sink: each row is one signal, exactly once.

Rules:

* Ray Data runs a write task again, cuts blocks elsewhere in another run, and may have two copies of a task
  at once. So nothing is named by a task or a block: only by the rows' own shard and position.
* A task writes what may be written (see ``sink_runs``) and waits for what lies before the rest, which other
  tasks have. If that does not come, it says what is missing, and nothing was lost or passed over.
* A task takes the next block when the one before was accepted: so hosts that do not keep up slow the whole
  data set down, by Ray Data's own back-pressure.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from ray.data import DataContext, Datasink
from ray.data.block import BlockAccessor

from lungfish.runtime.blocking.client import BlockingClient
from lungfish.runtime.client.sink_runs import Run, runs_of
from lungfish.runtime.client.sinks import SinkResult
from lungfish.runtime.declared.app import App
from lungfish.runtime.errors import Overloaded, UsageError
from lungfish.runtime.ids import check_id

from .connect import connect_sync

logger = logging.getLogger(__name__)

#: How long a task waits for rows before its own that another task has (s).
PATIENCE_S: Final = 300.0
_LOOK_S: Final = 0.2


class SignalSink(Datasink[tuple[int, int]]):
    """Writes a data set as signals: ``ds.write_datasink(SignalSink(app, "flights", ...))``.

    Every row is applied exactly once under the sink's name, whatever died, was run again by Ray, or is
    started again as a whole, as long as the same rows have the same positions. See docs/ray.md.

    Attributes:
        result: what the last job did, once it has ended: rows accepted, rows that were there already.
    """

    def __init__(
        self,
        app: App,
        name: str,
        entity: Any,
        operation: Callable[..., Any] | str,
        *,
        key: Callable[[dict[str, Any]], str],
        args: Callable[[dict[str, Any]], Sequence[Any]],
        position: str,
        shard: str | None = None,
        url: str | None = None,
        timeout: float | None = None,
        patience: float = PATIENCE_S,
    ) -> None:
        """Describe a write; nothing is connected before a task runs.

        Args:
            app: of the entities.
            name: of the sink: what it has accepted is kept under it, in the hub (``Sink.forget`` ends that).
            entity, operation: as in ``Sink.write``.
            key, args: of a row, which is a dict.
            position: name of the column that has a row's position: integers without a gap, from 0, in each
                shard or in the whole data set. Rows of one block must be in order of it.
            shard: name of a column that says which source a row is of (a path); None: positions are those of
                the whole data set.
            url: the store; default: as ``lungfish.connect``, where a task runs.
            timeout: how long the hub may accept nothing at all (s); None: for ever.
            patience: how long a task waits for rows before its own (s).

        Raises:
            InvalidId: a name that no sink can have.
        """
        self._app = app
        self._name = check_id("sink name", name)
        self._entity, self._operation = entity, operation
        self._key, self._args = key, args
        self._position, self._shard = position, shard
        self._url = url
        self._timeout_s, self._patience_s = timeout, patience
        self.result: tuple[int, int] | None = None

    def on_write_start(self, schema: Any = None) -> None:
        """Check that there are positions, and that tasks begin in their order."""
        wanted = {self._position} | ({self._shard} if self._shard else set())
        if schema is not None and (missing := wanted.difference(schema.names)):
            raise UsageError(
                f"the data set has no column {', '.join(sorted(missing))}: rows that cannot be told apart "
                "cannot be written exactly once. Number them where they come from, or write "
                "'ds.iter_rows()' of a data set that is stored from one process (docs/ray.md)"
            )
        if not DataContext.get_current().execution_options.preserve_order:
            logger.warning(
                "set DataContext.get_current().execution_options.preserve_order = True: otherwise tasks may "
                "wait for rows whose task waits for them to end"
            )

    def write(self, blocks: Iterable[Any], ctx: Any) -> tuple[int, int]:  # noqa: ARG002 - of Datasink
        """Write the blocks of one task; called by Ray Data."""
        accepted = repeated = 0
        waiting: list[Run] = []
        with connect_sync(self._app, url=self._url) as client:
            for block in blocks:
                for run in self._runs(block):
                    done = self._write(client, run)
                    if done is None:
                        waiting.append(run)
                    else:
                        accepted, repeated = accepted + done.accepted, repeated + done.repeated
            until_s = time.monotonic() + self._patience_s
            while waiting:
                left: list[Run] = []
                for run in waiting:
                    done = self._write(client, run)
                    if done is None:
                        left.append(run)
                    else:
                        accepted, repeated = accepted + done.accepted, repeated + done.repeated
                        until_s = time.monotonic() + self._patience_s
                if left and time.monotonic() > until_s:
                    raise Overloaded(self._missing(left[0]))
                waiting = left
                if waiting:
                    time.sleep(_LOOK_S)
        return accepted, repeated

    def _missing(self, run: Run) -> str:
        return (
            f"sink {self._name!r}: rows before position {run.start:,} of shard {run.shard!r} were not "
            f"written by any task within {self._patience_s:g} s. Positions must have no gap, and "
            "execution_options.preserve_order should be set; then write again: nothing is lost or doubled"
        )

    def _runs(self, block: Any) -> list[Run]:
        rows: Iterable[Any] = BlockAccessor.for_block(block).iter_rows(public_row_format=True)
        position, shard = self._position, self._shard
        return runs_of(
            rows, lambda row: row[position], None if shard is None else lambda row: _text(row[shard])
        )

    def _write(self, client: BlockingClient, run: Run) -> SinkResult | None:
        """Write a run; None: rows before it are not there."""
        sink = client.sink(self._name, run.shard)
        if run.start > run.first and sink.position(self._entity) < run.start:
            return None
        return sink.write(
            self._entity,
            self._operation,
            run.rows,
            key=self._key,
            args=self._args,
            position=lambda row: int(row[self._position]),
            first=run.start,
            timeout=self._timeout_s,
        )

    def on_write_complete(self, write_result: Any) -> None:
        """Sum up what the tasks have done."""
        done = [each for each in write_result.write_returns if each is not None]
        self.result = sum(each[0] for each in done), sum(each[1] for each in done)

    def get_name(self) -> str:
        """Return the name of the write tasks."""
        return "Signals"


def _text(value: Any) -> Any:
    return value if isinstance(value, str) else str(value)
