"""``python -m benchmarks``: all of them, in one run on this machine."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click
from rich.console import Console

from . import bench_bank, bench_counters, bench_fan_out, bench_hot_entity, bench_latency, bench_sequence
from .common import Outcome, measure
from .report import as_json, describe_machine, print_machine, print_outcome
from .setting import prepared

MODULES = {
    "a": bench_hot_entity,
    "b": bench_counters,
    "c": bench_sequence,
    "d": bench_fan_out,
    "e": bench_latency,
    "bank": bench_bank,
}


@click.command(help="Measure Lungfish next to plain Ray, and next to Ray actors that write to Redis by hand.")
@click.option("--only", default=",".join(MODULES), show_default=True, help="Questions to ask.")
@click.option("--quick", is_flag=True, help="Less of everything: under a minute, and noisier.")
@click.option("--rounds", type=click.IntRange(min=1), help="Timed rounds; default 5, with --quick 3.")
@click.option("--hosts", default=1, show_default=True, type=click.IntRange(min=1), help="Host processes.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(min=1), help="Worker processes.")
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), help="Also write the figures to this file."
)
def main(
    only: str, quick: bool, rounds: int | None, hosts: int, workers: int, json_path: Path | None
) -> None:
    """Run the chosen benchmarks."""
    keys = only.split(",")
    unknown = [key for key in keys if key not in MODULES]
    if unknown:
        raise click.BadParameter(f"{', '.join(unknown)}: there are {', '.join(MODULES)}", param_hint="--only")
    rounds = rounds or (3 if quick else 5)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=140)  # a file or a pipe has no width to fit into
    began = time.monotonic()
    outcomes: list[Outcome] = []
    with prepared(hosts=hosts, workers=workers, quick=quick) as setting:
        machine = describe_machine(setting)
        print_machine(console, machine, hosts=hosts, workers=workers, rounds=rounds)
        for key in keys:
            for benchmark in MODULES[key].benchmarks(setting):
                with console.status("") as status:
                    outcomes.append(measure(benchmark, rounds, status.update))
                print_outcome(console, outcomes[-1])
    console.print(f"All results were right. Took {time.monotonic() - began:.0f} s.")
    if json_path is not None:
        options = {"quick": quick, "rounds": rounds, "hosts": hosts, "workers": workers}
        json_path.write_text(json.dumps(as_json(machine, options, outcomes), indent=2) + "\n")


if __name__ == "__main__":
    main()
