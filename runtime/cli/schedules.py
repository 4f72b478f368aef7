"""``lungfish schedules …``: what starts orchestrations at times."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
from typing import Any

import click

from lungfish.runtime.client.client import Client
from lungfish.runtime.client.schedules import ScheduleDescription
from lungfish.runtime.declared.calendar import cron, every
from lungfish.runtime.errors import UsageError

from .group import Commands
from .hub import argument_options, arguments_of, at_hub, hub_options
from .instances import each
from .output import Form, output_option, show_json, show_rows
from .select import confirm, when, yes_option
from .where import Where


@click.group(cls=Commands)
def schedules() -> None:
    """Schedules: list them, pause them, have a run now."""


@schedules.command("list")
@output_option
@hub_options
def list_(*, where: Where, form: Form) -> None:
    """List the schedules of the hub."""

    async def work(client: Client) -> None:
        rows = [_row(found) async for found in client.schedules.list()]
        show_rows(form, rows, empty=f"hub {client.hub} has no schedules")

    at_hub(where, work)


def _row(found: ScheduleDescription) -> dict[str, Any]:
    return {
        "schedule": found.id,
        "paused": found.paused,
        "next": found.next_times[0] if found.next_times else None,
        "running": len(found.running),
        "skipped": found.skipped,
        "missed": found.missed,
    }


@schedules.command()
@click.argument("id")
@hub_options
def show(*, where: Where, id: str) -> None:
    """Print schedule ID: next times, runs, what was skipped or missed."""

    async def work(client: Client) -> None:
        found = await client.schedules.get(id).describe()
        show_json({field.name: getattr(found, field.name) for field in dataclasses.fields(found)})

    at_hub(where, work)


@schedules.command()
@click.argument("id")
@click.argument("orchestration")
@argument_options
@click.option("--cron", "expression", help="When, as '0 9 * * MON-FRI'.")
@click.option("--tz", default="UTC", show_default=True, help="The cron expression's time zone.")
@click.option(
    "--every", "interval", type=click.FloatRange(1), metavar="S", help="When: every so many seconds."
)
@click.option("--paused", is_flag=True)
@hub_options
def create(
    *,
    where: Where,
    id: str,
    orchestration: str,
    args: tuple[str, ...],
    named: tuple[str, ...],
    expression: str | None,
    tz: str,
    interval: float | None,
    paused: bool,
) -> None:
    """Make schedule ID, which starts ORCHESTRATION with the given arguments."""
    if (expression is None) == (interval is None):
        raise UsageError("say when: --cron EXPRESSION, or --every SECONDS")
    if named:
        raise UsageError("a schedule takes arguments by position only")
    spec: Any = cron(expression, tz=tz) if expression else every(dt.timedelta(seconds=interval or 0))

    async def work(client: Client) -> None:
        positional, _ = arguments_of(args, ())
        await client.schedules.create(id, spec, orchestration, positional, paused=paused)
        click.echo(id)

    at_hub(where, work)


@schedules.command()
@click.argument("id")
@click.option("--note", default="")
@hub_options
def pause(*, where: Where, id: str, note: str) -> None:
    """Start nothing of schedule ID from now on; runs go on."""
    at_hub(where, lambda client: client.schedules.get(id).pause(note))


@schedules.command()
@click.argument("id")
@click.option("--note", default="")
@hub_options
def resume(*, where: Where, id: str, note: str) -> None:
    """Undo a pause, for times from now on."""
    at_hub(where, lambda client: client.schedules.get(id).resume(note))


@schedules.command()
@click.argument("id")
@hub_options
def trigger(*, where: Where, id: str) -> None:
    """Have a run of schedule ID now, paused or not, and print the instance's id."""

    async def work(client: Client) -> None:
        click.echo(await client.schedules.get(id).trigger() or "skipped: an earlier run has not ended")

    at_hub(where, work)


@schedules.command()
@click.argument("id")
@click.argument("start")
@click.argument("end")
@hub_options
def backfill(*, where: Where, id: str, start: str, end: str) -> None:
    """Have the runs of the times from START to END (2h ago: 2h; or ISO times)."""

    async def work(client: Client) -> None:
        now_ms = (await client.hub_status()).now_ms
        await client.schedules.get(id).backfill(when(start, now_ms), when(end, now_ms))

    at_hub(where, work)


@schedules.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@yes_option
@hub_options
def delete(*, where: Where, ids: tuple[str, ...], yes: bool) -> None:
    """Delete schedules; runs that have begun go on."""

    async def work(client: Client) -> int:
        await asyncio.to_thread(confirm, "delete", "schedule", ids, yes=yes)
        return await each("delete", ids, lambda one: client.schedules.get(one).delete())

    raise SystemExit(at_hub(where, work))
