"""The demo, from an empty folder to the exit code."""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rich.console import Console

from .flights import FLIGHTS_MAX, Figures, Subject, find_file, read_flights, tally
from .screen import Screen
from .stage import interruptible, ray_cluster, run_interruptibly, runtime_on, store_in
from .tour import Tour

#: The demo's own folder: the store of whatever project is in the working directory is left alone.
FOLDER: Final = Path(".lungfish") / "demo"


def run(
    *,
    flights: int | None = None,
    kill: bool = True,
    keep: bool = False,
    seed: int = 2013,
    folder: Path | None = None,
    console: Console | None = None,
) -> int:
    """Run the demo; return 0 if every figure of every entity is exact, else 1.

    Args:
        flights: only the first so many; None: all.
        kill: kill a host half-way.
        keep: leave everything up at the end, until Ctrl-C.
        seed: chooses the host that is killed.
        folder: where the store's data is; None: the demo's own, emptied first.
        console: where to print.

    Raises:
        FlightsNotFound: the table of flights is not installed.
        KeyboardInterrupt: Ctrl-C or SIGTERM; what was started is stopped.
    """
    find_file("flights.csv.zip")
    count = min(flights or FLIGHTS_MAX, FLIGHTS_MAX)
    screen = Screen(console or Console())
    screen.title("Every flight out of New York in 2013, and a crash half-way")
    with contextlib.ExitStack() as stack:
        stack.enter_context(interruptible())
        expected = tally(read_flights(0, count))
        _say_flights(screen, expected)
        server = stack.enter_context(store_in(folder or FOLDER, fresh=folder is None))
        screen.say("store", f"Valkey at {server.url}; a write counts when it is on disk")
        stack.enter_context(ray_cluster())
        runtime, hub = stack.enter_context(runtime_on(server.url))
        tour = Tour(screen, runtime, hub, expected, flights=count)
        exact = run_interruptibly(tour.run(random.Random(seed) if kill else None))  # noqa: S311 - no secret
        screen.invite(hub, folder or FOLDER)
        if keep:
            screen.say("up", "everything is still up; Ctrl-C stops it")
            _wait_for_interrupt()
    return 0 if exact else 1


def _say_flights(screen: Screen, expected: Mapping[Subject, Figures]) -> None:
    sorts = Counter(name for name, _ in expected)
    signals = sum(figures.flights for figures in expected.values())
    screen.say(
        "flights",
        f"{sum(f.flights for (name, _), f in expected.items() if name == 'Carrier'):,} flights are "
        f"{signals:,} signals to {len(expected):,} entities: {sorts['Carrier']} carriers, "
        f"{sorts['Route']} routes, {sorts['Plane']:,} planes",
    )


def _wait_for_interrupt() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
