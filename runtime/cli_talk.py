"""``lungfish start``, ``raise-event``, ``query``, ``update``, ``why``: talking to the hub as code would."""

from __future__ import annotations

import datetime as dt
from typing import Any

import click

from .cli_batches import for_all
from .cli_group import did_you_mean
from .cli_hub import argument_options, arguments_of, at_hub, existing, hub_options, not_there, value_of
from .cli_output import Form, output_option, show_json
from .cli_select import Query, dry_run_option, one_of, query_options, tag_of, yes_option
from .cli_where import Where
from .client import Client
from .errors import InstanceNotFound, NotRegistered, OrchestrationFailed, UsageError


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
@click.argument("instance")
@click.argument("query")
@argument_options
@hub_options
def query(*, where: Where, instance: str, query: str, args: tuple[str, ...], named: tuple[str, ...]) -> None:
    """Ask INSTANCE's code the QUERY, and print the answer; changes nothing."""

    async def work(client: Client) -> None:
        positional, kwargs = arguments_of(args, named)
        show_json(await (await existing(client, instance)).query(query, *positional, **kwargs))

    at_hub(where, work)


@click.command()
@click.argument("instance")
@click.argument("update")
@argument_options
@click.option("--id", "update_id", help="Of this update: with the same id it is done once.")
@hub_options
def update(
    *,
    where: Where,
    instance: str,
    update: str,
    args: tuple[str, ...],
    named: tuple[str, ...],
    update_id: str | None,
) -> None:
    """Ask INSTANCE's code for the UPDATE, and print what came of it."""

    async def work(client: Client) -> None:
        positional, kwargs = arguments_of(args, named)
        handle = await existing(client, instance)
        show_json(await handle.update(update, *positional, id=update_id, **kwargs))

    at_hub(where, work)


@click.command()
@click.argument("whom", metavar="TARGET")
@output_option
@hub_options
def why(*, where: Where, whom: str, form: Form) -> None:
    """Say why TARGET waits: an instance id, an entity (Type/key), or a queue (q:name).

    Since when, until when, and who can unblock it; through whatever it waits for.
    """

    async def work(client: Client) -> None:
        try:
            found = await client.why(whom)
        except InstanceNotFound:
            raise InstanceNotFound(await not_there(client, whom)) from None
        if form == "json":
            show_json({"text": found.text, "chain": found.chain})
        elif form == "ids":
            for subject in dict.fromkeys(reason.subject for reason in found.chain):
                click.echo(subject)
        else:
            click.echo(found.text)
            if len(found.chain) > 1 or any(reason.who for reason in found.chain):
                click.echo()
                for line in found.lines():
                    click.echo(f"  {line}")

    at_hub(where, work)
