"""Runs many seeds, or one to look at.

::

    python -m tests.simulation --seeds 10000 --jobs 2
    python -m tests.simulation --sweep 20
    python -m tests.simulation --trace 253
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field

from tests.simulation.run import Report, simulate
from tests.simulation.sweep import broken, pairs, singles

#: Seeds that a job runs before it reports.
CHUNK = 50


@dataclass(slots=True)
class Total:
    """What came of many runs."""

    runs: int = 0
    weak: int = 0
    commits: int = 0
    timers: int = 0
    takeovers: int = 0
    virtual_s: float = 0.0
    fired: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    work: Counter[str] = field(default_factory=Counter)
    broken: dict[int, list[str]] = field(default_factory=dict)

    def add(self, report: Report) -> None:
        """Count a run."""
        self.runs += 1
        self.weak += report.weak
        self.commits += report.commits
        self.timers += report.timers
        self.takeovers += report.takeovers
        self.virtual_s += report.rest_s
        self.fired += report.fired
        self.outcomes += report.outcomes
        self.refused += report.refused
        self.work += report.work
        if report.violations:
            self.broken[report.seed] = report.violations[:10]

    def join(self, other: Total) -> None:
        """Count the runs of another job."""
        for name in ("runs", "weak", "commits", "timers", "takeovers", "virtual_s"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("fired", "outcomes", "refused", "work"):
            getattr(self, name).update(getattr(other, name))
        self.broken.update(other.broken)


def run_chunk(start: int, count: int) -> Total:
    """Run consecutive seeds."""
    gc.collect()
    gc.freeze()  # modules and classes need not be looked at after every few runs
    total = Total()
    for seed in range(start, start + count):
        total.add(simulate(seed))
    return total


def run_all(start: int, count: int, jobs: int) -> Total:
    """Run seeds in parallel, and say how it goes."""
    total, began_s = Total(), time.monotonic()
    with ProcessPoolExecutor(jobs) as pool:
        chunks = [
            pool.submit(run_chunk, at, min(CHUNK, start + count - at))
            for at in range(start, start + count, CHUNK)
        ]
        for done in as_completed(chunks):
            found = done.result()
            total.join(found)
            for seed, violations in sorted(found.broken.items()):
                say(f"seed {seed}: {violations[0][:300]}")
            if total.runs % (CHUNK * 20) == 0:
                rate = total.runs / (time.monotonic() - began_s)
                say(f"{total.runs} runs, {len(total.broken)} broken, {rate:.1f}/s")
    describe(total, time.monotonic() - began_s)
    return total


def describe(total: Total, took_s: float) -> None:
    """Print the accounts."""
    operations = sum(total.outcomes.values())
    say(
        f"{total.runs} runs in {took_s:.0f} s ({total.runs / took_s:.1f}/s), "
        f"{total.virtual_s / 3_600:.1f} virtual hours; {len(total.broken)} broken, {total.weak} weak"
    )
    say(f"operations: {operations} {dict(total.outcomes)}")
    say(f"commits: {total.commits}, refused {dict(total.refused)}; takeovers {total.takeovers}")
    say(f"timers: {total.timers}")
    say(f"faults: {sum(total.fired.values())} {dict(sorted(total.fired.items()))}")
    say(f"work: {dict(sorted(total.work.items()))}")
    for seed, violations in sorted(total.broken.items()):
        say(f"BROKEN seed {seed}:")
        for violation in violations:
            say(f"    {violation[:500]}")


def show(seed: int) -> bool:
    """Run one seed and print all that happened; True if all was well."""
    report = simulate(seed)
    for line in report.trace:
        say(line)
    say(f"hash {report.hash}; {len(report.violations)} violations")
    for violation in report.violations:
        say(violation)
    return not report.violations


def sweep(start: int, seeds: int) -> bool:
    """Put every fault at every call of small runs, and many pairs of faults; True if all was well."""
    well = True
    for seed in range(start, start + seeds):
        for name, runs in (("single faults", singles(seed)), ("pairs", pairs(seed, 500))):
            count, found = broken(runs)
            say(f"seed {seed}: {count} runs with {name}, {len(found)} broken")
            for script, violations in found.items():
                say(f"    {script}: {violations}"[:500])
            well = well and not found
    return well


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--seeds", type=int, default=1_000, help="how many runs")
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument(
        "--sweep", type=int, metavar="SEEDS", help="every fault at every call of so many runs"
    )
    parser.add_argument("--trace", type=int, metavar="SEED", help="run one seed and print what happens")
    options = parser.parse_args()
    if options.trace is not None:
        return 0 if show(options.trace) else 1
    if options.sweep is not None:
        return 0 if sweep(options.start, options.sweep) else 1
    return 1 if run_all(options.start, options.seeds, options.jobs).broken else 0


if __name__ == "__main__":
    sys.exit(main())
