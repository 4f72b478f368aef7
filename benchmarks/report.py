"""The machine and the figures, for people and as JSON."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis
from rich.console import Console
from rich.table import Table

from .common import Outcome, Spread
from .setting import Setting

_MEMORY_DISKS = ("tmpfs", "ramfs")


def describe_machine(setting: Setting) -> dict[str, Any]:
    """Return what the figures depend on."""
    filesystem, device = _disk(setting.folder)
    with redis.Redis.from_url(setting.url) as server:
        info: Any = server.info("server")
        policy: Any = server.config_get("append*")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "ray": importlib.metadata.version("ray"),
        "store": f"{info.get('server_name', 'redis')} {info.get('valkey_version', info['redis_version'])}",
        "appendonly": policy["appendonly"],
        "appendfsync": policy["appendfsync"],
        "filesystem": filesystem,
        "device": device,
        "is_memory_disk": filesystem in _MEMORY_DISKS,
        "fsync_p50_ms": setting.fsync_ms,
        "load_before": setting.load_before,
    }


def print_machine(
    console: Console, machine: dict[str, Any], *, hosts: int, workers: int, rounds: int
) -> None:
    """Print what the figures depend on."""
    console.print(
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}; Python {machine['python']}, "
        f"Ray {machine['ray']}; load {machine['load_before']:.1f} before"
    )
    console.print(
        f"Store: embedded {machine['store']}, appendonly {machine['appendonly']}, "
        f"appendfsync {machine['appendfsync']}; "
        f"data on {machine['filesystem']} ({machine['device']}), one fsync {machine['fsync_p50_ms']:.2f} ms"
    )
    console.print(
        f"Client, {hosts} host(s), {workers} worker(s) and the store share this machine. "
        f"Median of {rounds} interleaved rounds (min–max)."
    )
    if machine["is_memory_disk"]:
        console.print("[bold red]The data is on a memory disk: these are not figures for durable storage.[/]")


def print_outcome(console: Console, outcome: Outcome) -> None:
    """Print one question's table."""
    table = Table(title=f"{outcome.key}  {outcome.question}", title_justify="left", title_style="bold")
    table.add_column("", no_wrap=True)
    table.add_column("durability", no_wrap=True)
    if any(figures.rate for figures in outcome.figures):
        table.add_column(outcome.unit, justify="right")
    timed = any(figures.p50_ms for figures in outcome.figures)
    if timed:
        table.add_column("p50 ms", justify="right")
        table.add_column("p99 ms", justify="right")
    table.add_column("× plain Ray", justify="right")
    table.add_column("× by hand", justify="right")
    for figures in outcome.figures:
        cells = [figures.name, figures.durability]
        if figures.rate is not None:
            cells.append(_spread(figures.rate, ",.0f"))
        if timed:
            cells += [_spread(figures.p50_ms, ".2f"), _median(figures.p99_ms, ".1f")]
        plain, by_hand = figures.times_plain, figures.times_by_hand
        table.add_row(*cells, _spread(plain, _ratio_form(plain)), _median(by_hand, _ratio_form(by_hand)))
    console.print(table)


def as_json(machine: dict[str, Any], options: dict[str, Any], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return everything as plain data."""
    return {
        "version": 1,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine,
        "options": options,
        "outcomes": [dataclasses.asdict(outcome) for outcome in outcomes],
    }


def _spread(spread: Spread | None, form: str) -> str:
    if spread is None:
        return ""
    return f"{spread.median:{form}} [dim]({spread.least:{form}}–{spread.most:{form}})[/]"


def _median(spread: Spread | None, form: str) -> str:
    return "" if spread is None else f"{spread.median:{form}}"


def _ratio_form(ratio: Spread) -> str:
    return ",.0f" if ratio.median >= 20 else ".1f" if ratio.median >= 2 else ".2f"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _disk(folder: Path) -> tuple[str, str]:
    """Return file system and device that hold a folder, where the system tells."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown file system", "unknown device"
    holding = [row for row in mounts if folder.is_relative_to(row[1])]
    device, _, filesystem, *_ = max(holding, key=lambda row: len(row[1]))
    return filesystem, device
