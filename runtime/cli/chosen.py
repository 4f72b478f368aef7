"""What is told of one instance that was named, or of each that a query finds: what comes out, and how.

Rules:

* The form follows what was asked, not what was found: an id gives one document, a query an array of
  documents (or one per line), each with its ``instance``; also where it finds one, or none.
* What fails of one is said of that one, and the others come all the same; the exit code is 1 then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click

from lungfish.runtime.client.client import Client
from lungfish.runtime.errors import LungfishError

from .hub import existing
from .output import Form, show_json
from .select import Query, one_of

T = TypeVar("T")

#: Instances that are asked, or waited for, at the same time.
_AT_ONCE: Final = 50

#: The place of an id that a query may stand in for.
instance_argument: Final = click.argument("instance", required=False, metavar="[INSTANCE]")


@dataclass(frozen=True, slots=True)
class Chosen:
    """The instances that a command is about."""

    ids: tuple[str, ...]
    #: Whether a query found them.
    many: bool


async def chosen(client: Client, instance: str | None, query: Query) -> Chosen:
    """Return the instance that was named, or those that a query finds now, the newest first.

    Raises:
        UsageError: neither an id nor a query, or both.
        InstanceNotFound: the one that was named is not there.
    """
    one_of(() if instance is None else (instance,), query, dry_run=False)
    if instance is not None:
        return Chosen(((await existing(client, instance)).id,), many=False)
    filters = await query.filters(client)
    ids = [found.instance_id async for found in client.instances(order="newest", **filters)]
    if not ids:
        click.echo(f"no such instances in hub {client.hub}", err=True)
    return Chosen(tuple(ids), many=True)


async def tell(
    which: Chosen,
    form: Form,
    look: Callable[[str], Awaitable[T]],
    document: Callable[[T], Any],
    show: Callable[[T], None],
    *,
    under: str = "",
) -> int:
    """Look at one after the other, print what is found, and return the exit code.

    Args:
        document: what JSON has of it.
        show: prints it in the other forms.
        under: the name of the document beside the id, if it is no object.
    """
    if not which.many:
        found = await look(which.ids[0])
        if form == "json":
            show_json(document(found))
        else:
            show(found)
        return 0
    documents: list[dict[str, Any]] = []
    for id in which.ids:
        try:
            found = await look(id)
        except LungfishError as error:
            click.echo(f"{id}: {error}", err=True)
            continue
        told = document(found)
        documents.append({"instance": id, **({under: told} if under else told)})
        if form != "json":
            heading(id, form, first=len(documents) == 1)
            show(found)
    if form == "json":
        show_json(documents)
    return 0 if len(documents) == len(which.ids) else 1


def heading(id: str, form: Form, *, first: bool) -> None:
    """Print what stands above that which is told of one of several; pipes get none."""
    if form == "table":
        click.echo(f"{'' if first else chr(10)}== {id}")


async def ask_each(which: Chosen, ask: Callable[[str], Awaitable[Any]], what: str) -> int:
    """Ask those of a query at the same time, print an answer per line as it comes; return the exit code.

    Args:
        what: the name of the answer beside the id.
    """
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one(id: str) -> bool:
        async with turns:
            try:
                answer = await ask(id)
            except LungfishError as error:
                click.echo(f"{id}: {error}", err=True)
                return False
        show_json({"instance": id, what: answer}, indent=None)
        return True

    return 0 if all(await asyncio.gather(*map(one, which.ids))) else 1
