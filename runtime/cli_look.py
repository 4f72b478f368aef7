"""Commands that look at a hub: ``status``, ``entity show``, ``instances list``, ``instances show``.

They read the store and need no running host.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import functools
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import click
from rich.console import Console
from rich.table import Table

from .cli_where import Where, where_options
from .client import Client
from .errors import InstanceNotFound, UsageError
from .open_store import open_store
from .ownership import HostRecord
from .redis_store import RedisStore
from .redis_view import RedisView
from .settings import HostSettings
from .status import OrchestrationStatus, RuntimeStatus
from .store import HostBeat, PartitionLoad
from .topology import RunningActor

T = TypeVar("T")

#: Longest text of an event's field in ``instances show``.
_SHOWN_MAX: Final = 60


class EntityNotFound(UsageError):
    """Nobody wrote to that entity yet."""


@click.command()
@click.argument("target", metavar="[MODULE:APP]", required=False)
@where_options
def status(where: Where) -> None:
    """Show hosts, partitions and what waits; works without a running host, too."""
    _at_hub(where, _show_status)


@click.group()
def entity() -> None:
    """Look at entities."""


@entity.command("show")
@click.argument("name")
@click.argument("key")
@where_options
def entity_show(where: Where, name: str, key: str) -> None:
    """Print the last committed state of entity NAME with key KEY; activates nothing."""
    _at_hub(where, functools.partial(_show_entity, name=name, key=key))


@click.group()
def instances() -> None:
    """Look at orchestration instances."""


@instances.command("list")
@click.option("--status", type=click.Choice([each.value for each in RuntimeStatus], case_sensitive=False))
@click.option("--name", help="Only those of this orchestration.")
@click.option("--limit", default=50, show_default=True, help="Print at most so many.")
@where_options
def instances_list(where: Where, status: str | None, name: str | None, limit: int) -> None:
    """List orchestration instances, in no particular order."""
    _at_hub(where, functools.partial(_list_instances, status=status, name=name, limit=limit))


@instances.command("show")
@click.argument("instance")
@where_options
def instances_show(where: Where, instance: str) -> None:
    """Print status and history of orchestration INSTANCE."""
    _at_hub(where, functools.partial(_show_instance, instance=instance))


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
        meta = await store.open()
        beats = (await store.heartbeat("", b"", lease_ms=1, lead=False)).hosts
        workers, owners, loads = await store.workers(), await store.owners(), await store.loads()
    finally:
        await store.close()
    _line(console, f"[bold]{hub}[/bold]  {url}  {meta.partitions} partitions, durability {store.durability}")
    live = {beat.host for beat in beats if beat.age_ms <= HostSettings().lease_ms}
    owned = [owner.host if owner.host in live else "" for owner in owners]
    if beats:
        _print_hosts(console, beats, owned)
    else:
        _line(console, "no host runs; what is sent is kept until one does (lungfish dev, lungfish up)")
    if nobody := [number for number, host in enumerate(owned) if not host]:
        _line(console, f"partitions without a host: {_ranges(nobody)}")
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
    return f"node {actor.node[:8]} host {actor.number} {incarnation[:6]}" if actor is not None else host


async def _show_entity(
    console: Console, _view: RedisView, url: str, hub: str, *, name: str, key: str
) -> None:
    async with Client(lambda: open_store(url, hub)) as client:
        ref = client.entity(name, key)
        state = await ref.state()
        if state is None:
            raise EntityNotFound(
                f"hub {hub!r} has no entity {name}/{key}: nobody has written to it, or it was deleted. "
                "Names and keys are case-sensitive"
            )
        _line(console, f"[bold]{name}/{key}[/bold]  hub {hub}, partition {ref.partition}")
        _print_json(console, state)


async def _list_instances(
    console: Console,
    _view: RedisView,
    url: str,
    hub: str,
    *,
    status: str | None,
    name: str | None,
    limit: int,
) -> None:
    table, more = _table("instance", "orchestration", "status", "created", "updated"), False
    async with Client(lambda: open_store(url, hub)) as client:
        async for each in client.instances(status=status, name=name):
            more = table.row_count >= limit
            if more:
                break
            created, updated = _time(each.created_at), _time(each.updated_at)
            table.add_row(each.instance_id, each.name, each.runtime_status.value, created, updated)
    if table.row_count:
        console.print(table)
    else:
        _line(console, f"no such instances in hub {hub}")
    if more:
        _line(console, f"and more: --limit {limit * 10}")


async def _show_instance(console: Console, _view: RedisView, url: str, hub: str, *, instance: str) -> None:
    async with Client(lambda: open_store(url, hub)) as client:
        handle = client.orchestration(instance)
        try:
            found, history = await handle.status(), await handle.history()
        except InstanceNotFound:
            raise InstanceNotFound(f"hub {hub!r} has no orchestration instance {instance!r}") from None
    _print_status(console, found)
    _line(console, f"history: {len(history)} events")
    for number, event in enumerate(history, 1):
        _line(console, f"{number:>5}  {_event(event)}", markup=False)


def _print_status(console: Console, found: OrchestrationStatus) -> None:
    _line(console, f"[bold]{found.instance_id}[/bold]  {found.name}  {found.runtime_status.value}")
    _line(console, f"created {_time(found.created_at)}, updated {_time(found.updated_at)}")
    if found.parent_id:
        _line(console, f"started by {found.parent_id}", markup=False)
    if found.failure is not None:
        _line(console, f"failed: {found.failure}", markup=False)
    for what, value in (("custom status", found.custom_status), ("output", found.output)):
        if value is not None:
            _line(console, f"{what}:")
            _print_json(console, value)


def _event(event: Any) -> str:
    """Return an event on one line: its class and those fields that say something."""
    parts = []
    for field in dataclasses.fields(event):
        value = getattr(event, field.name)
        if value not in (None, "", b"", 0, ()):
            text = f"{len(value)} bytes" if isinstance(value, bytes) else str(value)
            parts.append(f"{field.name}={text[:_SHOWN_MAX]}{'…' if len(text) > _SHOWN_MAX else ''}")
    return f"{type(event).__name__}  {'  '.join(parts)}"


def _print_json(console: Console, value: Any) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    console.print(text, markup=False, soft_wrap=True)


def _line(console: Console, text: str, *, markup: bool = True) -> None:
    console.print(text, markup=markup, highlight=False, soft_wrap=True)


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right" if name in _NUMBERS else "left", overflow="fold")
    return table


_NUMBERS: Final = frozenset({"pid", "partitions", "activations", "commits", "last beat"})


def _time(when: dt.datetime) -> str:
    return when.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _ranges(numbers: Sequence[int]) -> str:
    """Return sorted numbers as ``0-3, 7``."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in found)
