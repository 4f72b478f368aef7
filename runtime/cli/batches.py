"""What a command does to all instances that a query finds: count, ask, then step by step."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from lungfish.runtime.client.batch_steps import APPLIES, BatchVerb
from lungfish.runtime.client.client import Client

from .select import SHOWN, Query, confirm


async def for_all(
    client: Client,
    verb: BatchVerb,
    query: Query,
    *,
    reason: str = "",
    event: str | None = None,
    payload: Any = None,
    recursive: bool = True,
    dry_run: bool = False,
    yes: bool = False,
) -> int:
    """Do something to all that a query finds, print how it went, and return the exit code.

    Raises:
        UsageError: the query makes no sense for the verb; or nobody confirmed.
    """
    filters = await query.filters(client)
    said: dict[str, Any] = {} if event is None else {"event": event, "payload": payload}
    count = (await client.batch(verb, count_only=True, **said, **filters)).matched
    if dry_run:
        click.echo(f"{verb}: {count} to be done; nothing was")
        return 0
    filters.setdefault("status", APPLIES[verb])
    first = (await client.instances_page(page_size=SHOWN, **filters)).items
    names = [found.instance_id for found in first]
    await asyncio.to_thread(confirm, verb, "instance", names, yes=yes, count=count)
    done = failed = 0
    async for step in client.batch_all(verb, reason=reason, recursive=recursive, **said, **filters):
        done += len(step.done)
        for name in step.done:
            click.echo(name)
        for left in (*step.refused, *step.unknown):
            failed += 1
            click.echo(f"{left.instance_id}: {left.detail}", err=True)
        if step.continuation is not None and step.unknown:
            click.echo("hosts do not answer: the others were left as they are", err=True)
    click.echo(f"{verb}: {done} done" + (f", {failed} failed" if failed else ""), err=True)
    return 1 if failed else 0
