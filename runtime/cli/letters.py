"""``lungfish dead-letters …``: messages that were set aside."""

from __future__ import annotations

import asyncio

import click

from lungfish.runtime.client.client import Client
from lungfish.runtime.errors import UsageError
from lungfish.runtime.session.dead_letters import DeadLetter

from .group import Commands
from .hub import at_hub, hub_options
from .instances import each
from .output import Form, output_option, show_rows
from .select import confirm, yes_option
from .where import Where


@click.group("dead-letters", cls=Commands)
def dead_letters() -> None:
    """Messages that nobody could apply: look at them, send them again, delete them."""


def _target(command: click.decorators.FC) -> click.decorators.FC:
    text = "Those for this entity (Type/key), all entities of a type, or this instance."
    return click.option("--target", "letters_for", help=text)(command)


@dead_letters.command("list")
@_target
@output_option
@hub_options
def list_(*, where: Where, letters_for: str | None, form: Form) -> None:
    """List the messages that were set aside, with the reason."""

    async def work(client: Client) -> None:
        rows = [
            {
                "letter": each.id,
                "target": each.target,
                "what": each.what,
                "at": each.at,
                "reason": each.reason,
            }
            async for each in client.dead_letters(letters_for)
        ]
        show_rows(form, rows, empty=f"nothing was set aside in hub {client.hub}")

    at_hub(where, work)


@dead_letters.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@_target
@hub_options
def replay(*, where: Where, ids: tuple[str, ...], letters_for: str | None) -> None:
    """Send messages again: those with these IDs, or all for a --target. Each is applied exactly once."""

    async def work(client: Client) -> int:
        letters = await _selected(client, ids, letters_for)
        return await each("replay", list(letters), lambda one: letters[one].replay())

    raise SystemExit(at_hub(where, work))


@dead_letters.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@_target
@yes_option
@hub_options
def delete(*, where: Where, ids: tuple[str, ...], letters_for: str | None, yes: bool) -> None:
    """Delete messages for good: those with these IDs, or all for a --target."""

    async def work(client: Client) -> int:
        letters = await _selected(client, ids, letters_for)
        await asyncio.to_thread(confirm, "delete", "message", list(letters), yes=yes)
        return await each("delete", list(letters), lambda one: letters[one].delete())

    raise SystemExit(at_hub(where, work))


async def _selected(client: Client, ids: tuple[str, ...], letters_for: str | None) -> dict[str, DeadLetter]:
    if not (ids or letters_for):
        raise UsageError("say which: ids (lungfish dead-letters list), or --target")
    found = {each.id: each async for each in client.dead_letters(letters_for)}
    missing = [id for id in ids if id not in found]
    if missing:
        raise UsageError(
            f"no such message was set aside: {', '.join(missing)}; see lungfish dead-letters list"
        )
    return {id: found[id] for id in ids} if ids else found
