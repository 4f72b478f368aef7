"""What all benchmarks share: contenders, rounds, and the statistics of them.

Rules:

* Contenders of one question run in interleaved rounds (A B C, C B A, A B C ...), so that a machine that
  gets slower or noisier meanwhile does so for all of them.
* A ratio is made within a round and then the median taken over rounds: what hits a whole round cancels out.
* A contender checks its own results and raises ``WrongResult``: a fast wrong answer is no figure.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

#: Durability of contenders, as it stands in the table.
FSYNC = "fsync"
FSYNC_EACH = "fsync per write"
NONE = "none"


class WrongResult(Exception):
    """A contender did not do what it was asked for; the run has failed."""


def expect(actual: object, wanted: object, what: str) -> None:
    """Raise ``WrongResult`` unless both are equal."""
    if actual != wanted:
        raise WrongResult(f"{what}: {actual!r:.200}, not {wanted!r:.200}")


class Role(Enum):
    """What a contender is there for."""

    #: The one that is measured.
    OURS = "ours"
    #: Plain Ray without durability: the first base of ratios.
    PLAIN = "plain"
    #: Ray with durability written by hand: the second.
    BY_HAND = "by hand"
    #: For comparison, no base.
    OTHER = "other"


class Metric(Enum):
    """What a question is about."""

    #: Units per second, higher is better.
    RATE = "rate"
    #: Median time of one unit, lower is better.
    LATENCY = "latency"


@dataclass(frozen=True, slots=True)
class Pass:
    """One timed pass of a contender: how much it did in what time, and how long each unit took if known."""

    count: int
    took_s: float
    latencies_s: Sequence[float] = ()

    @property
    def rate(self) -> float:
        """Units per second."""
        return self.count / self.took_s

    def latency_ms(self, share: float) -> float:
        """Return a quantile of the latencies."""
        return quantile(self.latencies_s, share) * 1_000

    def score(self, metric: Metric) -> float:
        """Return one number of which more is better."""
        return self.rate if metric is Metric.RATE else 1_000 / self.latency_ms(0.5)


@dataclass(frozen=True, slots=True)
class Contender:
    """One way of doing what the question asks.

    Attributes:
        durability: what survives a crash, see ``FSYNC`` and its neighbours.
        run: does one pass and checks it.
    """

    role: Role
    name: str
    durability: str
    run: Callable[[], Pass]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A question and those who answer it; there is one of each base."""

    key: str
    question: str
    unit: str
    metric: Metric
    contenders: Sequence[Contender]


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over the rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarize the values of the rounds."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Figures:
    """What came out for one contender.

    Attributes:
        rate: units per second; None where the question is about latency alone.
        times_plain, times_by_hand: how many times better than each base, round by round.
    """

    name: str
    durability: str
    rate: Spread | None
    p50_ms: Spread | None
    p99_ms: Spread | None
    times_plain: Spread
    times_by_hand: Spread


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer to a question."""

    key: str
    question: str
    unit: str
    figures: Sequence[Figures]


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that is not less than ``share`` of all (nearest rank)."""
    ordered = sorted(values)
    rank = -int(-share * len(ordered) // 1)  # rounded up
    return ordered[max(0, min(len(ordered), rank) - 1)]


def measure(benchmark: Benchmark, rounds: int, progress: Callable[[str], None] = lambda _: None) -> Outcome:
    """Run all contenders, one warm-up pass and ``rounds`` timed ones each, and summarize."""
    passes: dict[str, list[Pass]] = {contender.name: [] for contender in benchmark.contenders}
    for number in range(-1, rounds):
        order = benchmark.contenders if number % 2 == 0 else benchmark.contenders[::-1]
        for contender in order:
            progress(
                f"{benchmark.key}: {contender.name}, {f'round {number + 1}' if number >= 0 else 'warm-up'}"
            )
            gc.collect()
            done = contender.run()
            if number >= 0:
                passes[contender.name].append(done)
    return summarize(benchmark, passes)


def summarize(benchmark: Benchmark, passes: dict[str, list[Pass]]) -> Outcome:
    """Turn the passes of all contenders, in the order of the rounds, into figures."""
    metric = benchmark.metric
    (plain,) = [passes[contender.name] for contender in benchmark.contenders if contender.role is Role.PLAIN]
    (by_hand,) = [
        passes[contender.name] for contender in benchmark.contenders if contender.role is Role.BY_HAND
    ]
    figures = []
    for contender in benchmark.contenders:
        done = passes[contender.name]
        figures.append(
            Figures(
                name=contender.name,
                durability=contender.durability,
                rate=Spread.of([one.rate for one in done]) if metric is Metric.RATE else None,
                p50_ms=_latency(done, 0.5),
                p99_ms=_latency(done, 0.99),
                times_plain=_times(metric, done, plain),
                times_by_hand=_times(metric, done, by_hand),
            )
        )
    return Outcome(benchmark.key, benchmark.question, benchmark.unit, figures)


def _times(metric: Metric, done: Sequence[Pass], base: Sequence[Pass]) -> Spread:
    rounds = zip(done, base, strict=True)
    return Spread.of([one.score(metric) / other.score(metric) for one, other in rounds])


def _latency(passes: Sequence[Pass], share: float) -> Spread | None:
    if not all(done.latencies_s for done in passes):
        return None
    return Spread.of([done.latency_ms(share) for done in passes])
