"""``lungfish top``, ``hosts``, ``workers``: a hub at a glance, once or live."""

from __future__ import annotations

import asyncio
from typing import Any

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from lungfish.runtime.client.client import Client
from lungfish.runtime.store.store import PartitionLoad
from lungfish.runtime.telemetry.hot import HotEntity
from lungfish.runtime.telemetry.overview import HostStatus, HubStatus, WorkerStatus

from .hub import at_hub, hub_options
from .output import Form, console, counted, output_option, show_rows, table_of
from .where import Where

#: Hot entities and partitions that are shown.
_ROWS_MAX = 8


@click.command()
@output_option
@hub_options
def hosts(*, where: Where, form: Form) -> None:
    """List the hosts of a hub, as their last heartbeats tell."""

    async def work(client: Client) -> None:
        rows = list(map(host_row, (await client.hub_status()).hosts))
        show_rows(
            form, rows, empty="no host runs; what is sent is kept until one does (lungfish dev, lungfish up)"
        )

    at_hub(where, work)


@click.command()
@output_option
@hub_options
def workers(*, where: Where, form: Form) -> None:
    """List the workers of a hub, as their last heartbeats tell."""

    async def work(client: Client) -> None:
        rows = list(map(worker_row, (await client.hub_status()).workers))
        show_rows(form, rows, empty="no worker runs; activities wait until one does")

    at_hub(where, work)


@click.command()
@click.option("--interval", type=click.FloatRange(0.1), default=1.0, show_default=True, metavar="S")
@click.option("--once", is_flag=True, help="Print one picture and end.")
@hub_options
def top(*, where: Where, interval: float, once: bool) -> None:
    """Show hosts, workers, what waits and the busiest entities, live, until Ctrl-C."""

    async def work(client: Client) -> None:
        before = await client.hub_status()
        picture = await _picture(client, before, before)
        if once:
            console().print(picture)
            return
        with Live(picture, screen=True, auto_refresh=False) as live:
            while True:
                await asyncio.sleep(interval)
                now = await client.hub_status()
                live.update(await _picture(client, now, before), refresh=True)
                before = now

    try:
        at_hub(where, work)
    except KeyboardInterrupt:
        return


async def _picture(client: Client, now: HubStatus, before: HubStatus) -> Group:
    return picture(now, before, await client.hot_entities())


def picture(now: HubStatus, before: HubStatus, hot: list[HotEntity]) -> Group:
    """Return what ``top`` shows; rates are of the time between two looks."""
    seconds = (now.now_ms - before.now_ms) / 1_000
    commits = sum(each.commits for each in now.partitions) - sum(each.commits for each in before.partitions)
    rate = f", {commits / seconds:,.0f} commits/s" if seconds > 0 else ""
    waiting = "  ".join(f"{name} {getattr(now.load, name):,}" for name in PartitionLoad.__slots__)
    partitions = f"{counted(len(now.partitions), 'partition')}, {len(now.unowned)} without a host"
    header = f"hub {now.hub}: {partitions}{rate}"
    parts: list[Any] = [
        Text(header, "bold", no_wrap=True, overflow="ellipsis"),
        Text(f"waiting: {waiting}", no_wrap=True, overflow="ellipsis"),
    ]
    busy = sorted((each for each in now.partitions if each.load.inbox), key=lambda each: -each.load.inbox)
    for rows in (
        list(map(host_row, now.hosts)),
        list(map(worker_row, now.workers)),
        [{"partition": each.number, "inbox": each.load.inbox, "outbox": each.load.outbox} for each in busy],
        [
            {"busiest": f"{each.entity}/{each.key}", "share": f"{each.share:.0%}", "host": each.host}
            for each in hot
        ],
    ):
        if rows:
            parts += ["", table_of(rows[:_ROWS_MAX])]
    return Group(*parts)


def host_row(host: HostStatus) -> dict[str, Any]:
    """Return what a list tells of a host."""
    return {
        "host": host.id,
        "state": "draining" if host.draining else "alive" if host.alive else "dead",
        "pid": host.pid,
        "pools": ", ".join(pool or "default" for pool in host.pools),
        "partitions": host.partitions,
        "activations": host.activations,
        "commits": host.commits,
        "last beat": f"{host.age_ms / 1_000:.1f} s ago",
    }


def worker_row(worker: WorkerStatus) -> dict[str, Any]:
    """Return what a list tells of a worker."""
    return {
        "worker": worker.id,
        "state": "alive" if worker.alive else "dead",
        "queues": ", ".join(worker.queues),
        "running": worker.running,
        "concurrency": worker.concurrency,
        "last beat": f"{worker.age_ms / 1_000:.1f} s ago",
    }
