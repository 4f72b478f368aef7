"""The statistics of the benchmarks: a figure that is worked out wrongly is worse than none."""

from __future__ import annotations

from itertools import cycle

import pytest

from benchmarks.common import (
    FSYNC,
    NONE,
    Benchmark,
    Contender,
    Metric,
    Outcome,
    Pass,
    Role,
    Spread,
    WrongResult,
    expect,
    measure,
    quantile,
)


class Machine:
    """Runs contenders whose times are given, and notes in which order they came."""

    def __init__(self) -> None:
        self.order: list[str] = []

    def contender(self, role: Role, name: str, *times_s: float) -> Contender:
        """Return a contender; the first time is that of the warm-up."""
        times = cycle(times_s)

        def run() -> Pass:
            self.order.append(name)
            took_s = next(times)
            return Pass(100, took_s, [took_s / 100] * 100)

        return Contender(role, name, FSYNC if role is Role.OURS else NONE, run)


def measured(machine: Machine, metric: Metric, rounds: int = 3) -> Outcome:
    contenders = [
        machine.contender(Role.OURS, "ours", 9.0, 1.0, 2.0, 4.0),
        machine.contender(Role.PLAIN, "plain", 9.0, 2.0, 8.0, 8.0),
        machine.contender(Role.BY_HAND, "by hand", 9.0, 4.0, 4.0, 4.0),
    ]
    return measure(Benchmark("x", "How fast?", "units/s", metric, contenders), rounds)


@pytest.mark.parametrize(
    ("share", "wanted"), [(0.0, 1), (0.01, 1), (0.5, 50), (0.99, 99), (0.991, 100), (1.0, 100)]
)
def test_quantile_is_the_nearest_rank(share: float, wanted: int) -> None:
    assert quantile([float(n) for n in range(100, 0, -1)], share) == wanted


def test_quantile_of_one() -> None:
    assert quantile([7.0], 0.5) == quantile([7.0], 0.99) == 7.0


def test_rounds_are_interleaved_and_the_warm_up_does_not_count() -> None:
    machine = Machine()
    outcome = measured(machine, Metric.RATE)
    there = ["ours", "plain", "by hand"]
    assert machine.order == [*reversed(there), *there, *reversed(there), *there]
    ours, plain, _ = outcome.figures
    assert ours.rate == Spread(50.0, 25.0, 100.0)
    assert plain.rate == Spread(12.5, 12.5, 50.0)


def test_ratios_are_made_within_a_round() -> None:
    ours, plain, by_hand = measured(Machine(), Metric.RATE).figures
    assert ours.times_plain == Spread(2.0, 2.0, 4.0)
    assert ours.times_by_hand == Spread(2.0, 1.0, 4.0)
    assert plain.times_plain == by_hand.times_by_hand == Spread(1.0, 1.0, 1.0)


def test_less_time_is_a_better_latency() -> None:
    ours, plain, _ = measured(Machine(), Metric.LATENCY).figures
    assert ours.rate is None
    assert ours.p50_ms == Spread(20.0, 10.0, 40.0)
    assert ours.times_plain == Spread(2.0, 2.0, 4.0)
    assert plain.p99_ms == Spread(80.0, 20.0, 80.0)


def test_without_latencies_there_are_none() -> None:
    contenders = [Contender(role, role.value, NONE, lambda: Pass(10, 1.0)) for role in Role]
    outcome = measure(Benchmark("x", "How fast?", "units/s", Metric.RATE, contenders), 1)
    assert all(figures.p50_ms is None and figures.p99_ms is None for figures in outcome.figures)


def test_a_wrong_result_fails_the_run() -> None:
    expect([1, 2], [1, 2], "results")
    with pytest.raises(WrongResult, match="results"):
        expect([1, 3], [1, 2], "results")

    def lose_one() -> Pass:
        expect(99, 100, "signals applied")
        return Pass(99, 1.0)

    contenders = [Contender(role, role.value, NONE, lose_one) for role in Role]
    with pytest.raises(WrongResult, match="signals applied: 99, not 100"):
        measure(Benchmark("x", "How fast?", "units/s", Metric.RATE, contenders), 1)
