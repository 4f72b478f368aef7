"""``lungfish entities …``: look at entities, call and signal them, watch them."""

from __future__ import annotations

import asyncio
import getpass
from typing import Any

import click

from lungfish.runtime.client.client import Client
from lungfish.runtime.errors import UsageError

from .group import Commands, EntityCommand
from .hub import argument_options, arguments_of, at_hub, hub_options, value_of
from .instances import each
from .output import Form, output_option, show_json, show_rows
from .select import confirm, dry_run_option, yes_option
from .where import Where


class EntityNotFound(UsageError):
    """Nobody wrote to that entity yet."""


@click.group(cls=Commands)
def entities() -> None:
    """Entities: look at them, call and signal them, watch them change."""


@entities.command("list")
@click.argument("name", required=False)
@click.option("--prefix", default="", help="Those whose key begins with this.")
@click.option("--states", is_flag=True, help="With their states.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Print at most so many.")
@output_option
@hub_options
def list_(*, where: Where, name: str | None, prefix: str, states: bool, limit: int, form: Form) -> None:
    """List the entities of type NAME that have a state; without NAME, the types of the app, with counts."""

    async def work(client: Client) -> None:
        if name is None:
            await list_types(client, form, prefix)
        else:
            await list_keys(client, name)

    async def list_keys(client: Client, name: str) -> None:
        rows: list[dict[str, Any]] = []
        more = False
        async for found in client.entities(name, prefix=prefix, states=states):
            more = len(rows) >= limit
            if more:
                break
            rows.append({"key": found.key, **({"state": found.state} if states else {})})
        show_rows(form, rows, empty=f"hub {client.hub} has no entities {name} with such keys")
        if more:
            click.echo(f"and more: --limit {limit * 10}", err=form != "table")

    at_hub(where, work)


async def list_types(client: Client, form: Form, prefix: str) -> None:
    """Print how many entities there are of each type that the app declares."""
    if client.app is None:
        raise UsageError("name a type of entities; with --app module:app its types are listed")
    rows = [
        {"type": name, "entities": await client.count_entities(name, prefix=prefix)}
        for name in sorted(client.app.entities)
    ]
    show_rows(form, rows, empty=f"app {client.hub} declares no entities")


@entities.command(cls=EntityCommand)
@click.argument("name")
@click.argument("key")
@hub_options
def show(*, where: Where, name: str, key: str) -> None:
    """Print the last committed state of entity NAME with key KEY; activates nothing."""

    async def work(client: Client) -> None:
        ref = client.entity(name, key)
        state = await ref.state()
        if state is None:
            raise EntityNotFound(
                f"hub {client.hub!r} has no entity {name}/{key}: nobody wrote to it, or it was deleted. "
                "Names and keys are case-sensitive"
            )
        click.echo(f"{name}/{key}  hub {client.hub}, partition {ref.partition}", err=True)
        show_json(state)

    at_hub(where, work)


@entities.command(cls=EntityCommand)
@click.argument("name")
@click.argument("key")
@click.argument("operation")
@argument_options
@click.option("--timeout", type=click.FloatRange(0), default=30.0, show_default=True, metavar="S")
@hub_options
def call(
    *,
    where: Where,
    name: str,
    key: str,
    operation: str,
    args: tuple[str, ...],
    named: tuple[str, ...],
    timeout: float,
) -> None:
    """Run OPERATION with the given arguments (JSON, or plain words), and print its result."""

    async def work(client: Client) -> None:
        positional, kwargs = arguments_of(args, named)
        ref = client.entity(name, key).options(timeout=timeout)
        show_json(await ref.call(operation, *positional, **kwargs))

    at_hub(where, work)


@entities.command(cls=EntityCommand)
@click.argument("name")
@click.argument("key")
@click.argument("operation")
@argument_options
@hub_options
def signal(
    *, where: Where, name: str, key: str, operation: str, args: tuple[str, ...], named: tuple[str, ...]
) -> None:
    """Send OPERATION one way; durable, and applied exactly once, when this returns."""

    async def work(client: Client) -> None:
        positional, kwargs = arguments_of(args, named)
        await client.entity(name, key).signal(operation, *positional, **kwargs)

    at_hub(where, work)


@entities.command(cls=EntityCommand)
@click.argument("name")
@click.argument("key")
@click.option("--count", type=click.IntRange(1), help="End after so many states.")
@hub_options
def watch(*, where: Where, name: str, key: str, count: int | None) -> None:
    """Print the committed states as they change, from the present one on, one line of JSON each."""

    async def work(client: Client) -> None:
        left = count
        async with client.entity(name, key).watch() as states:
            async for state in states:
                show_json(state, indent=None)
                left = None if left is None else left - 1
                if left == 0:
                    return

    at_hub(where, work)


@entities.command(cls=EntityCommand)
@click.argument("name")
@click.argument("key")
@click.argument("state")
@click.option("--reason", required=True, help="Why; kept on record.")
@click.option("--by", default=getpass.getuser, help="Who; default: this user.")
@yes_option
@hub_options
def edit(*, where: Where, name: str, key: str, state: str, reason: str, by: str, yes: bool) -> None:
    """Replace the state with STATE: its fields, as a JSON object. Others take their defaults."""

    async def work(client: Client) -> None:
        await asyncio.to_thread(confirm, "edit", "entity", [f"{name}/{key}"], yes=yes)
        await client.entity(name, key).edit(value_of(state), reason=reason, by=by)

    at_hub(where, work)


@entities.command(cls=EntityCommand)
@click.argument("name")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("--prefix", default="", help="All whose key begins with this and that have a state.")
@click.option("--reason", required=True, help="Why; logged by the owner.")
@click.option("--by", default=getpass.getuser, help="Who; default: this user.")
@dry_run_option
@yes_option
@hub_options
def purge(
    *,
    where: Where,
    name: str,
    keys: tuple[str, ...],
    prefix: str,
    reason: str,
    by: str,
    dry_run: bool,
    yes: bool,
) -> None:
    """Delete state, reminders and records of entities: those with the KEYs, or with a prefix."""
    if bool(keys) == bool(prefix):
        raise UsageError(f"say which entities {name}: keys, or --prefix")
    if keys and dry_run:
        raise UsageError("--dry-run counts what a prefix finds; it takes no keys")

    async def work(client: Client) -> int:
        found = keys or [one.key async for one in client.entities(name, prefix=prefix, states=False)]
        if dry_run:
            click.echo(f"purge: {len(found)} to be done; nothing was")
            return 0
        targets = [f"{name}/{key}" for key in found]
        await asyncio.to_thread(confirm, "purge", "entity", targets, yes=yes)
        return await each("purge", found, lambda key: client.entity(name, key).purge(reason=reason, by=by))

    raise SystemExit(at_hub(where, work))
