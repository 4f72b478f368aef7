"""The demo's table of flights, and how it is added up."""

from __future__ import annotations

import importlib.metadata
from itertools import islice
from typing import Any

import pytest

from lungfish.demo.app import Carrier, Flown, Plane, Route
from lungfish.demo.flights import (
    FLIGHTS_MAX,
    Figures,
    Flight,
    FlightsNotFound,
    Subject,
    find_file,
    read_airlines,
    read_flights,
    tally,
)
from lungfish.demo.sending import batches, signals_of
from lungfish.demo.watching import differences

LATE = Flight("UA", "EWR-IAH", "N1", 30, 200, 1400)
EARLY = Flight("UA", "EWR-IAH", "N1", -5, 100, 1400)
CANCELLED = Flight("UA", "JFK-LAX", "", None, 0, 2475)


def test_rows_are_read_as_they_are() -> None:
    first = next(read_flights())
    assert first == Flight("UA", "EWR-IAH", "N14228", 2, 227, 1400)
    cancelled = next(flight for flight in read_flights(0, 1_000) if flight.delay is None)
    assert cancelled == Flight("EV", "EWR-RDU", "N18120", None, 0, 416)


@pytest.mark.parametrize(("first", "last"), [(0, 10), (7, 30), (995, 1_010), (5, 5)])
def test_parts_are_parts_of_the_whole(first: int, last: int) -> None:
    assert list(read_flights(first, last)) == list(islice(read_flights(), first, last))


def test_the_whole_table_is_there() -> None:
    tallied = tally(read_flights())
    sorts = [name for name, _ in tallied]
    assert [sorts.count(name) for name in ("Carrier", "Route", "Plane")] == [16, 224, 4_043]
    assert sum(figures.flights for figures in tallied.values()) == 1_007_816
    carriers = [figures for (name, _), figures in tallied.items() if name == "Carrier"]
    assert sum(figures.flights for figures in carriers) == FLIGHTS_MAX
    assert sum(figures.cancelled for figures in carriers) == 8_255
    assert tallied["Carrier", "HA"].worst_delay == 1_301


def test_every_carrier_has_a_name() -> None:
    names = read_airlines()
    assert len(names) == 16
    assert names["UA"] == "United Air Lines Inc."


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    with pytest.raises(FlightsNotFound, match=r"pip install 'lungfish\[demo\]'"):
        find_file("flights.csv.zip")


def test_a_file_that_is_not_in_the_package_is_not_found() -> None:
    with pytest.raises(FlightsNotFound, match=r"nothing\.csv"):
        find_file("nothing.csv")


def test_who_hears_of_a_flight() -> None:
    assert list(LATE.subjects()) == [("Carrier", "UA"), ("Route", "EWR-IAH"), ("Plane", "N1")]
    assert list(CANCELLED.subjects()) == [("Carrier", "UA"), ("Route", "JFK-LAX")]


def test_tally() -> None:
    assert tally([LATE, EARLY, CANCELLED]) == {
        ("Carrier", "UA"): Figures(3, 1, 1, 25, 30, 300, 2800),
        ("Route", "EWR-IAH"): Figures(2, 0, 1, 25, 30, 300, 2800),
        ("Plane", "N1"): Figures(2, 0, 1, 25, 30, 300, 2800),
        ("Route", "JFK-LAX"): Figures(1, 1),
    }


def test_mean_delay_is_over_the_flights_that_left() -> None:
    assert Figures(flights=3, cancelled=1, delay=25).mean_delay == 12.5
    assert Figures(flights=1, cancelled=1).mean_delay == 0


def test_signals_are_grouped_by_entity() -> None:
    assert signals_of([LATE, EARLY, CANCELLED]) == {
        ("Carrier", "UA", "depart"): [(30, 200, 1400), (-5, 100, 1400)],
        ("Route", "EWR-IAH", "depart"): [(30, 200, 1400), (-5, 100, 1400)],
        ("Plane", "N1", "depart"): [(30, 200, 1400), (-5, 100, 1400)],
        ("Carrier", "UA", "cancel"): [()],
        ("Route", "JFK-LAX", "cancel"): [()],
    }


def test_batches_lose_nothing() -> None:
    flights = [LATE._replace(delay=n) for n in range(9_000)]
    cut = list(batches(iter(flights)))
    assert [len(batch) for batch in cut] == [4_000, 4_000, 1_000]
    assert [flight for batch in cut for flight in batch] == flights


def applied(flights: list[Flight]) -> dict[Subject, Flown | None]:
    """Apply the signals of some flights to entities, without a runtime."""
    states: dict[Subject, Flown | None] = {}
    for (name, key, operation), calls in signals_of(flights).items():
        classes = {"Carrier": Carrier, "Route": Route, "Plane": Plane}
        state = states.setdefault((name, key), classes[name]()) or Flown()
        for call in calls:
            getattr(state, operation)(*call)
    return states


def test_entities_come_to_the_same_as_the_tally() -> None:
    flights = list(read_flights(0, 5_000))
    assert differences(tally(flights), applied(flights)) == []


def test_differences_are_named() -> None:
    flights = [LATE, EARLY]
    states = applied(flights)
    carrier = states["Carrier", "UA"]
    assert carrier is not None
    carrier.delay += 1
    states["Plane", "N1"] = None
    found = differences(tally(flights), states)
    assert [text.partition(":")[0] for text in found] == ["Carrier/UA", "Plane/N1"]
    assert "delay=25" in found[0]
    assert "delay=26" in found[0]
