"""What the demo prints: live bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from .app import Rank

#: Where there are no bars, a line this often (s).
_LINE_S: Final = 2.0


class Screen:
    """Says what happens."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = console.is_terminal
        self._began_s = time.monotonic()
        self._last_s = 0.0
        self._total = 0
        self._progress = Progress(
            TextColumn("  {task.description:<12}"),
            BarColumn(),
            TextColumn("{task.completed:>9,.0f} of {task.total:,.0f}"),
            TextColumn("{task.fields[rate]:>9,.0f}/s"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._bars: list[TaskID] = []

    def say(self, what: str, text: str) -> None:
        """Print a line: what it is about, and what there is to say."""
        self._console.print(f"  [bold]{what:<9}[/bold] {text}", highlight=False, soft_wrap=True)

    def title(self, text: str) -> None:
        """Print a headline."""
        self._console.print(f"\n[bold]{text}[/bold]\n", highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def bars(self, total: int) -> Iterator[None]:
        """Show progress while the block lasts."""
        self._total, self._began_s = total, time.monotonic()
        if not self._live:
            yield
            return
        self._bars = [
            self._progress.add_task(name, total=total, rate=0) for name in ("acknowledged", "applied")
        ]
        with self._progress:
            yield

    def show(self, acknowledged: int, applied: int) -> None:
        """Show how many signals are durable and how many are applied."""
        elapsed_s = time.monotonic() - self._began_s
        if self._live:
            for bar, count in zip(self._bars, (acknowledged, applied), strict=True):
                self._progress.update(bar, completed=count, rate=count / max(elapsed_s, 0.1))
        elif elapsed_s - self._last_s >= _LINE_S:
            self._last_s = elapsed_s
            self.say(
                f"{elapsed_s:5.1f} s",
                f"acknowledged {acknowledged:>9,} ({acknowledged / self._total:4.0%})   "
                f"applied {applied:>9,} ({applied / self._total:4.0%})",
            )

    def ranking(self, ranks: Sequence[Rank]) -> None:
        """Print the report of the orchestration; delays are in minutes."""
        table = Table(box=None, padding=(0, 1, 0, 1), pad_edge=False)
        table.add_column("", justify="right", no_wrap=True, min_width=2)
        table.add_column("carrier", no_wrap=True)
        for name in ("flights", "cancelled", "late", "mean", "worst"):
            table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
        for place, rank in enumerate(ranks, 1):
            figures = rank.figures
            table.add_row(
                str(place),
                f"{rank.code} {rank.name}",
                f"{figures.flights:,}",
                f"{figures.cancelled:,}",
                f"{figures.delayed / max(1, figures.flights):.0%}",
                f"{figures.mean_delay:.1f}",
                f"{figures.worst_delay:,}",
            )
        self._console.print()
        self._console.print(table)
        self._console.print()

    def invite(self, hub: str, folder: Path) -> None:
        """Print how to look at all this; that works with and without a running host."""
        self.say("look", f"lungfish entity show Carrier HA --hub {hub} --data {folder}")
        self.say("", f"lungfish instances show report --hub {hub} --data {folder}")
