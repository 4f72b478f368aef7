"""``lungfish start``, ``raise-event``, ``query``, ``update``, ``why``: talking to the hub as code would."""

from __future__ import annotations

import asyncio
import datetime as dt
from dataclasses import replace
from typing import Any, Final

import click

from lungfish.runtime.client.batch_steps import APPLIES
from lungfish.runtime.client.client import Client
from lungfish.runtime.errors import InstanceNotFound, NotRegistered, OrchestrationFailed, UsageError
from lungfish.runtime.why.reasons import Why

from .batches import for_all
from .chosen import Chosen, ask_each, chosen, tell
from .group import did_you_mean
from .hub import (
    argument_options,
    arguments_of,
    at_hub,
    existing,
    hub_options,
    named_option,
    not_there,
    value_of,
)
from .output import Form, output_option, show_json
from .select import Query, confirm, dry_run_option, one_of, query_options, tag_of, yes_option
from .where import Where

#: Those that can take an update.
_UNDER_WAY: Final = tuple(each.value for each in APPLIES["raise_event"])


@click.command()
@click.argument("orchestration")
@argument_options
@click.option("--id", "instance", help="The instance id; default: a new one.")
@click.option("--tag", metavar="NAME=VALUE", multiple=True, help="A tag; may be repeated.")
@click.option("--version", default="", help="Of the code that shall run it.")
@click.option("--in", "delay", type=click.FloatRange(0), metavar="S", help="Begin in so many seconds.")
@click.option(
    "--if-exists",
    type=click.Choice(["return", "raise", "restart_if_ended", "terminate_and_start"]),
    default="return",
    show_default=True,
)
@click.option("--wait", is_flag=True, help="Wait for the end, and print the result.")
@hub_options
def start(
    *,
    where: Where,
    orchestration: str,
    args: tuple[str, ...],
    named: tuple[str, ...],
    instance: str | None,
    tag: tuple[str, ...],
    version: str,
    delay: float | None,
    if_exists: Any,
    wait: bool,
) -> None:
    """Start ORCHESTRATION with the given arguments (JSON, or plain words), and print the instance's id."""

    async def work(client: Client) -> int:
        positional, kwargs = arguments_of(args, named)
        _check_known(client, orchestration)
        handle = await client.start(
            orchestration,
            *positional,
            id=instance,
            tags=dict(map(tag_of, tag)),
            version=version,
            at=None if delay is None else dt.timedelta(seconds=delay),
            if_exists=if_exists,
            **kwargs,
        )
        click.echo(handle.id)
        if not wait:
            return 0
        try:
            show_json(await handle.result())
        except OrchestrationFailed as error:
            click.echo(str(error), err=True)
            return 1
        return 0

    raise SystemExit(at_hub(where, work))


def _check_known(client: Client, orchestration: str) -> None:
    known = sorted(client.app.orchestrations) if client.app is not None else []
    if known and orchestration not in known:
        near = did_you_mean(orchestration, known)
        raise NotRegistered(f"no orchestration named {orchestration!r}{near}; there are: {', '.join(known)}")


@click.command("raise-event")
@click.argument("words", nargs=-1, metavar="[INSTANCE] EVENT [PAYLOAD]")
@query_options
@dry_run_option
@yes_option
@hub_options
def raise_event(*, where: Where, words: tuple[str, ...], query: Query, dry_run: bool, yes: bool) -> None:
    """Send the external EVENT, with a PAYLOAD (JSON, or a plain word), to INSTANCE.

    With a query in the place of INSTANCE (--status, --name ...) it goes to all that the query finds.
    """

    async def work(client: Client) -> int:
        at = 0 if query else 1
        ids, said = words[:at], words[at:]
        if not 1 <= len(said) <= 2:
            raise UsageError("raise-event takes INSTANCE EVENT [PAYLOAD], or a query and EVENT [PAYLOAD]")
        one_of(ids, query, dry_run=dry_run)
        event, payload = said[0], value_of(said[1]) if len(said) == 2 else None
        if query:
            given: dict[str, Any] = {"event": event, "payload": payload, "dry_run": dry_run, "yes": yes}
            return await for_all(client, "raise_event", query, **given)
        await (await existing(client, ids[0])).raise_event(event, payload)
        return 0

    raise SystemExit(at_hub(where, work))


@click.command()
@click.argument("words", nargs=-1, metavar="[INSTANCE] QUERY [ARG]...")
@query_options
@named_option
@hub_options
def query(*, where: Where, words: tuple[str, ...], query: Query, named: tuple[str, ...]) -> None:
    """Ask INSTANCE's code the QUERY, and print the answer; changes nothing.

    With a query in the place of INSTANCE (--status, --name ...) all that are found are asked: a line each.
    """

    async def work(client: Client) -> int:
        instance, asked, args = _split("query", words, query)
        positional, kwargs = arguments_of(args, named)
        which = await chosen(client, instance, query)

        async def answer(id: str) -> Any:
            return await client.orchestration(id).query(asked, *positional, **kwargs)

        if which.many:
            return await ask_each(which, answer, "answer")
        show_json(await answer(which.ids[0]))
        return 0

    raise SystemExit(at_hub(where, work))


def _split(verb: str, words: tuple[str, ...], query: Query) -> tuple[str | None, str, tuple[str, ...]]:
    """Return the instance, unless a query stands for it; what is asked of it; and the arguments."""
    at = 0 if query else 1
    if len(words) <= at:
        what = verb.upper()
        raise UsageError(f"{verb} takes INSTANCE {what} [ARG]..., or a query and {what} [ARG]...")
    return (words[0] if at else None), words[at], words[at + 1 :]


@click.command()
@click.argument("words", nargs=-1, metavar="[INSTANCE] UPDATE [ARG]...")
@query_options
@named_option
@click.option("--id", "update_id", help="Of this update: with the same id it is done once.")
@dry_run_option
@yes_option
@hub_options
def update(
    *,
    where: Where,
    words: tuple[str, ...],
    query: Query,
    named: tuple[str, ...],
    update_id: str | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Ask INSTANCE's code for the UPDATE, and print what came of it.

    With a query in the place of INSTANCE (--status, --name ...) it goes to all that are found and have not
    ended: an answer per line.
    """

    async def work(client: Client) -> int:
        instance, asked, args = _split("update", words, query)
        one_of(() if instance is None else (instance,), query, dry_run=dry_run)
        positional, kwargs = arguments_of(args, named)
        open_only = query if query.status or not query else replace(query, status=_UNDER_WAY)
        which = await chosen(client, instance, open_only)
        if dry_run:
            click.echo(f"update: {len(which.ids)} to be done; nothing was")
            return 0

        async def answer(id: str) -> Any:
            return await client.orchestration(id).update(asked, *positional, id=update_id, **kwargs)

        if which.many:
            await asyncio.to_thread(confirm, "update", "instance", which.ids, yes=yes)
            return await ask_each(which, answer, "answer")
        show_json(await answer(which.ids[0]))
        return 0

    raise SystemExit(at_hub(where, work))


@click.command()
@click.argument("whom", metavar="[TARGET]", required=False)
@query_options
@output_option
@hub_options
def why(*, where: Where, whom: str | None, query: Query, form: Form) -> None:
    """Say why TARGET waits: an instance id, an entity (Type/key), or a queue (q:name).

    Since when, until when, and who can unblock it; through whatever it waits for. With a query in the place
    of TARGET, each instance that it finds.
    """

    async def look(client: Client, id: str) -> Why:
        try:
            return await client.why(id)
        except InstanceNotFound:
            raise InstanceNotFound(await not_there(client, id)) from None

    async def work(client: Client) -> int:
        one_of(() if whom is None else (whom,), query, dry_run=False)
        which = await chosen(client, None, query) if whom is None else Chosen((whom,), many=False)
        return await tell(
            which,
            form,
            lambda one: look(client, one),
            lambda found: {"text": found.text, "chain": found.chain},
            lambda found: _show_why(found, form),
        )

    raise SystemExit(at_hub(where, work))


def _show_why(found: Why, form: Form) -> None:
    if form == "ids":
        for subject in dict.fromkeys(reason.subject for reason in found.chain):
            click.echo(subject)
        return
    click.echo(found.text)
    if len(found.chain) > 1 or any(reason.who for reason in found.chain):
        click.echo()
        for line in found.lines():
            click.echo(f"  {line}")
