"""``lungfish status``: a hub at a glance. It reads the store and needs no running host."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import click
from rich.console import Console
from rich.table import Table

from lungfish.runtime.on_ray.topology import RunningActor
from lungfish.runtime.on_redis.store import RedisStore
from lungfish.runtime.on_redis.view import RedisView
from lungfish.runtime.settings import HostSettings
from lungfish.runtime.store.host_record import HostRecord
from lungfish.runtime.store.layout import Layout, serves
from lungfish.runtime.store.store import HostBeat, PartitionLoad
from lungfish.runtime.telemetry.overview import pool_notes

from .output import counted
from .where import Where, where_options

T = TypeVar("T")


@click.command()
@click.argument("target", metavar="[MODULE:APP]", required=False)
@where_options
def status(where: Where) -> None:
    """Show hosts, partitions and what waits; works without a running host, too."""
    _at_hub(where, _show_status)


# --- what they do ------------------------------------------------------------------------


def _at_hub(where: Where, look: Callable[[Console, RedisView, str, str], Awaitable[None]]) -> None:
    """Find store and hub, and look."""

    async def looking(url: str) -> None:
        async with RedisView(url) as view:
            await look(Console(), view, url, await where.existing_hub(view))

    with where.existing_store() as url:
        asyncio.run(looking(url))


async def _show_status(console: Console, _view: RedisView, url: str, hub: str) -> None:
    store = RedisStore(url, hub)
    try:
        layout = Layout(await store.open(create=False))
        beats = (await store.heartbeat("", b"", lease_ms=1, lead=False)).hosts
        workers, owners, loads = await store.workers(), await store.owners(), await store.loads()
    finally:
        await store.close()
    _line(console, f"[bold]{hub}[/bold]  {url}  {layout.total} partitions, durability {store.durability}")
    live = {beat.host for beat in beats if beat.age_ms <= HostSettings().lease_ms}
    owned = [owner.host if owner.host in live else "" for owner in owners]
    if beats:
        _print_hosts(console, beats, owned)
    else:
        _line(console, "no host runs; what is sent is kept until one does (lungfish dev, lungfish up)")
    if nobody := [number for number, host in enumerate(owned) if not host]:
        _line(console, f"partitions without a host: {_ranges(nobody)}")
    notes = pool_notes(beat for beat in beats if beat.host in live)
    for pool, numbers in list(layout.by_pool().items())[1:]:
        found = sum(
            beat.host in live and serves(HostRecord.decode(beat.record).pools, pool) for beat in beats
        )
        what = counted(found, "host") if found else "no host: what is sent there is kept until one runs"
        note = f"; {notes[pool]}" if pool in notes else ""
        _line(console, f"pool {pool}: partitions {_ranges(numbers)}, {what}{note}", markup=False)
    _line(console, f"workers: {len(workers) or 'none'}")
    total = functools.reduce(PartitionLoad.__add__, loads, PartitionLoad())
    waiting = "  ".join(f"{name} {getattr(total, name):,}" for name in PartitionLoad.__slots__)
    _line(console, f"waiting: {waiting}")
    busiest = max(range(len(loads)), key=lambda number: loads[number].inbox)
    if loads[busiest].inbox:
        _line(console, f"longest inbox: partition {busiest} with {loads[busiest].inbox:,} batches")


def _print_hosts(console: Console, beats: Sequence[HostBeat], owned: Sequence[str]) -> None:
    table = _table("host", "pid", "partitions", "activations", "commits", "last beat")
    for beat in beats:
        record = HostRecord.decode(beat.record)
        state = " (draining)" if record.draining else ""
        table.add_row(
            f"{_host_name(beat.host)}{state}",
            str(record.pid or ""),
            str(owned.count(beat.host)),
            f"{record.activations:,}",
            f"{record.commits:,}",
            f"{beat.age_ms / 1_000:.1f} s ago",
        )
    console.print(table)


def _host_name(host: str) -> str:
    """Return a name that fits on a line: Ray's node ids are long, and a few characters tell nodes apart."""
    slot, _, incarnation = host.partition("#")
    actor = RunningActor.parse(slot)
    if actor is None:
        return host
    of = f" of {actor.pool}" if actor.pool else ""
    return f"node {actor.node[:8]} host {actor.number}{of} {incarnation[:6]}"


def _line(console: Console, text: str, *, markup: bool = True) -> None:
    console.print(text, markup=markup, highlight=False, soft_wrap=True)


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right" if name in _NUMBERS else "left", overflow="fold")
    return table


_NUMBERS: Final = frozenset({"pid", "partitions", "activations", "commits", "last beat"})


def _ranges(numbers: Sequence[int]) -> str:
    """Return sorted numbers as ``0-3, 7``."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in found)
