"""Figures of a process: what one is, how it is kept, and its text form. Pure.

Rules:

* A metric is declared once, in ``figures``; a sample is one value of it at one instant.
* Counting costs the one who counts an addition. There is no lock: each figure is written from one event loop,
  and whoever reads it sees it at most a step behind.
* Labels are names that code declares (types, outcomes, queues), never a user's key: their number is bounded.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What may be done with a figure."""

    #: Only grows, while its process lives.
    COUNTER = "counter"
    #: As it is now.
    GAUGE = "gauge"
    #: How many values there were up to each of some bounds.
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure that is told.

    Attributes:
        name: as Prometheus names figures: with the unit, ``_total`` for counters.
        help: one sentence.
        labels: names of the labels, beside ``hub`` and those of the process.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()

    def __call__(self, value: float | Distribution, *labels: str) -> Sample:
        """Return a value of it."""
        return Sample(self, value, labels)

    @property
    def series(self) -> tuple[str, ...]:
        """The names under which it stands in the text form."""
        if self.kind is not Kind.HISTOGRAM:
            return (self.name,)
        return (f"{self.name}_bucket", f"{self.name}_sum", f"{self.name}_count")


#: From a tenth of a millisecond to ten seconds.
LATENCY_S: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0
)  # fmt: skip
#: From a millisecond to a day.
RUN_S: Final = (0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1_800.0, 3_600.0, 21_600.0, 86_400.0)


class Distribution:
    """How values are spread: how many there were up to each bound, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = LATENCY_S) -> None:
        self.bounds = bounds
        #: Per bound those above the one before; the last has no bound.
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Take a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    def cumulative(self) -> Iterator[tuple[str, int]]:
        """Yield each bound, as text, and how many values there were up to it."""
        reached = 0
        for bound, count in zip((*map(_number, self.bounds), "+Inf"), self.counts, strict=True):
            reached += count
            yield bound, reached


#: Over how long ``Lately`` tells (ms); up to twice that, at most.
LATELY_MS: Final = 10_000


class Lately:
    """Quantiles of what a distribution took in the last seconds; zero where that was nothing."""

    __slots__ = ("_at_ms", "_before", "_of", "_since")

    def __init__(self, of: Distribution) -> None:
        self._of = of
        self._at_ms = 0
        #: What there was two marks ago, and at the last one.
        self._before = self._since = tuple(of.counts)

    def told(self, now_ms: int, *parts: float) -> tuple[float, ...]:
        """Return for each part (0 to 1) the bound below which that part of the values is."""
        if now_ms - self._at_ms >= LATELY_MS:
            self._before, self._since, self._at_ms = self._since, tuple(self._of.counts), now_ms
        new = [count - before for count, before in zip(self._of.counts, self._before, strict=True)]
        return tuple(self._below(new, part * sum(new)) for part in parts)

    def _below(self, counts: Sequence[int], rank: float) -> float:
        reached = 0
        for bound, count in zip(self._of.bounds, counts, strict=False):
            reached += count
            if reached >= rank:
                return bound if rank else 0.0
        return self._of.bounds[-1]


@dataclass(frozen=True, slots=True)
class Sample:
    """A value of a metric."""

    metric: Metric
    value: float | Distribution
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Point:
    """A number as it is exported: name, labels, value. A distribution is many."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


def points(sample: Sample, common: Sequence[tuple[str, str]] = ()) -> Iterator[Point]:
    """Yield the numbers of a sample, with the labels that all of a process have."""
    own = (*common, *zip(sample.metric.labels, sample.labels, strict=True))
    value, name = sample.value, sample.metric.name
    if not isinstance(value, Distribution):
        yield Point(name, own, value)
        return
    for bound, count in value.cumulative():
        yield Point(f"{name}_bucket", (*own, ("le", bound)), count)
    yield Point(f"{name}_sum", own, value.total)
    yield Point(f"{name}_count", own, value.count)


def render(*processes: tuple[Sequence[tuple[str, str]], Iterable[Sample]]) -> str:
    """Return samples in the text form of Prometheus (version 0.0.4), those of one metric together.

    Args:
        processes: for each the labels that all its samples have, and its samples.
    """
    told: dict[Metric, list[str]] = {}
    for common, samples in processes:
        for sample in samples:
            told.setdefault(sample.metric, []).extend(map(_line, points(sample, common)))
    parts = []
    for metric, lines in told.items():
        parts.append(f"# HELP {metric.name} {_escaped(metric.help, quotes=False)}")
        parts.append(f"# TYPE {metric.name} {metric.kind}")
        parts += lines
    return "\n".join(parts) + "\n" if parts else ""


def _line(point: Point) -> str:
    labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in point.labels)
    return (
        f"{point.name}{{{labels}}} {_number(point.value)}"
        if labels
        else f"{point.name} {_number(point.value)}"
    )


def _escaped(text: str, *, quotes: bool = True) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quotes else text


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
